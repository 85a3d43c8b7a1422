//! Looks for what no later message would show: a room's last message that the bus lost, or a term that has changed.
//!
//! Run by the worker. Every so often it asks the broker where all open durable rooms stand, many at a time; a room that
//! does not stand where its members do, and where nothing moves, is read from its stream. What repair makes of that is
//! repair's business.

use std::rc::Rc;

use rand::RngExt as _;
use roomcast_protocol::{RoomName, Term};

use super::home::{Home, Phase, State};
use super::relay::HELD_BACK;
use super::shard::Shard;
use crate::broker::{MAX_TOPS, Top};

/// A room and where its members stood when the broker was asked.
struct Asked {
    home: Rc<Home>,
    term: Option<Term>,
    last: u64,
}

impl Asked {
    fn of(home: &Rc<Home>) -> Option<Self> {
        let state = home.state.borrow();
        let quiet = state.phase == Phase::Open && !state.repairing;
        quiet.then(|| Self {
            home: Rc::clone(home),
            term: state.sequencer.term().cloned(),
            last: state.sequencer.last(),
        })
    }

    /// Whether nothing has moved since.
    fn stands_still(&self, state: &State) -> bool {
        state.phase == Phase::Open
            && !state.repairing
            && state.sequencer.last() == self.last
            && state.sequencer.term() == self.term.as_ref()
    }

    /// What is suspicious about `top`, in a word.
    fn suspicion(&self, top: &Top) -> Option<&'static str> {
        // Without a term there is nothing to be had: an empty room, or one whose history expired.
        let term = top.term.as_ref()?;
        let state = self.home.state.borrow();
        // Read once and still so: another read would bring no more.
        if !self.stands_still(&state) || state.swept.as_ref() == Some(top) {
            return None;
        }
        match top.seq.cmp(&self.last) {
            _ if self.term.as_ref().is_some_and(|own| own != term) => Some("term"),
            std::cmp::Ordering::Greater => Some("behind"),
            std::cmp::Ordering::Less => Some("ahead"),
            std::cmp::Ordering::Equal => None,
        }
    }
}

/// Whether members have everything up to `top`, and nothing is being read that might have been begun too early.
fn is_current(state: &State, top: &Top) -> bool {
    let order = &state.sequencer;
    !state.repairing && !order.has_gap() && order.term() == top.term.as_ref() && order.last() == top.seq
}

impl Shard {
    /// Sweeps for ever.
    pub async fn run_sweep(self: Rc<Self>) {
        let interval = self.parts.settings.sweep_interval;
        loop {
            // Workers and nodes must not ask in step.
            tokio::time::sleep(interval.mul_f64(rand::rng().random_range(0.8..=1.2))).await;
            self.sweep().await;
        }
    }

    async fn sweep(self: &Rc<Self>) {
        let homes: Vec<Rc<Home>> = self.homes.borrow().values().filter(|home| home.is_durable()).cloned().collect();
        for homes in homes.chunks(MAX_TOPS) {
            let asked: Vec<Asked> = homes.iter().filter_map(Asked::of).collect();
            let names: Vec<RoomName> = asked.iter().map(|asked| asked.home.name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            match self.parts.broker.tops(&names).await {
                Ok(tops) => self.look_closer(asked, tops),
                Err(error) => {
                    // When the broker is back all rooms are caught up, and the next sweep is not far.
                    tracing::debug!(%error, "the sweep was not answered");
                    return;
                }
            }
        }
    }

    /// Those of `homes` that do not stand where their members do, or are not known to. So a subscription that was away for a
    /// moment costs a node of many quiet rooms no read of each stream.
    pub(super) async fn out_of_date(&self, homes: Vec<Rc<Home>>) -> Vec<Rc<Home>> {
        let mut found = Vec::new();
        let mut chunks = homes.chunks(MAX_TOPS);
        for homes in chunks.by_ref() {
            let names: Vec<RoomName> = homes.iter().map(|home| home.name.clone()).collect();
            let Ok(tops) = self.parts.broker.tops(&names).await else {
                found.extend_from_slice(homes);
                break;
            };
            let is_so =
                |home: &Home, top: &Option<Top>| top.as_ref().is_some_and(|top| is_current(&home.state.borrow(), top));
            let moved = homes.iter().zip(&tops).filter(|(home, top)| !is_so(home, top));
            found.extend(moved.map(|(home, _)| Rc::clone(home)));
        }
        found.extend(chunks.flatten().cloned());
        found
    }

    /// Reads the suspects that have not moved in a moment: an answer and an echo may cross.
    fn look_closer(self: &Rc<Self>, asked: Vec<Asked>, tops: Vec<Option<Top>>) {
        let suspects: Vec<(Asked, Top, &'static str)> = asked
            .into_iter()
            .zip(tops)
            .filter_map(|(asked, top)| {
                // Of a room whose server is silent nothing is known. It is caught up when that is back.
                let top = top?;
                asked.suspicion(&top).map(|reason| (asked, top, reason))
            })
            .collect();
        if suspects.is_empty() {
            return;
        }
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(HELD_BACK).await;
            let mut found = Vec::new();
            for (asked, top, reason) in suspects {
                let mut state = asked.home.state.borrow_mut();
                if asked.stands_still(&state) {
                    tracing::info!(room = %asked.home.name, reason, last = asked.last, top = top.seq, "found by the sweep");
                    shard.parts.totals.hub.sweep_finds.with_label_values(&[reason]).inc();
                    state.swept = Some(top);
                    drop(state);
                    found.push(asked.home);
                }
            }
            shard.repair_all(found).await;
        });
    }
}
