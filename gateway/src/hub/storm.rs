//! Many clients of a room that come back at once: what they missed is read for all of them, and kept for a while.
//!
//! Called by resumes, and by the clock when the storm is over. Knows no client.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::home::{Home, State};
use super::joining::message_json;
use super::shard::Shard;
use crate::broker::{BrokerError, History, Range};

/// How long a room keeps more messages than usual after somebody came back: others of a storm will, too.
const STORM: Duration = Duration::from_secs(30);
impl Shard {
    /// Reads what the room can keep of older messages: once, however many wait for it.
    pub(super) async fn deepen(self: &Rc<Self>, home: &Rc<Home>) -> Result<(), BrokerError> {
        let under_way = {
            let mut state = home.state.borrow_mut();
            std::mem::replace(&mut state.deepening, true).then(|| {
                let (tell, told) = oneshot::channel();
                state.deepened.push(tell);
                told
            })
        };
        if let Some(told) = under_way {
            return told.await.unwrap_or_else(|_| Err(BrokerError::Unavailable("the room was closed".into())));
        }
        let (before, limit) = {
            let state = home.state.borrow();
            let next = state.recent.first().unwrap_or(state.sequencer.last() + 1);
            (next, state.recent.capacity())
        };
        let read = self.read(&home.name, Range::Before { seq: before, limit }).await;
        self.seal(home);
        let mut state = home.state.borrow_mut();
        state.deepening = false;
        let outcome = read.map(|history| {
            if is_of(&history, &state) {
                let older = history.messages.iter();
                let older = older.map(|message| (message.seq, message_json(&home.name, message).into()));
                let top = state.sequencer.last();
                state.recent.deepen(top, older);
                state.oldest = history.first;
            }
        });
        for waiting in state.deepened.drain(..) {
            // Who is gone does not care.
            _ = waiting.send(outcome.clone());
        }
        outcome
    }

    /// Keeps as few messages as usual again, some time after the last client came back.
    pub(super) fn settle_recent(&self, home: &Home) {
        let mut state = home.state.borrow_mut();
        let is_over = |at: u32| super::tend::BEAT * (self.tick.get() - at) > STORM;
        if state.resuming == 0 && state.resumed_at.take_if(|at| is_over(*at)).is_some() {
            state.recent.settle();
        }
    }
}

/// Whether what was read is of the same terms as what was delivered; or nothing at all, which needs no care.
pub(super) fn is_of(history: &History, state: &State) -> bool {
    history.term.is_none() || history.term.as_ref() == state.sequencer.term()
}
