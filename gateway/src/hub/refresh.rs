//! Who is in a room, asked anew after the subscription was away: comings and goings are told once and kept nowhere.
//!
//! Called by the relay. Members learn the new count; who exactly came and went they can ask for with `members`.

use std::rc::Rc;
use std::time::Duration;

use super::home::{Home, State};
use super::relay::some_at_a_time;
use super::shard::Shard;
use crate::broker::PresenceReply;

/// Tries per room. A broker that goes away again will come back, and then all rooms are asked again.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Asks who is in these rooms, some at a time.
    pub(super) async fn refresh_all(self: &Rc<Self>, homes: Vec<Rc<Home>>) {
        let shard = Rc::clone(self);
        some_at_a_time(homes, async move |home| shard.refresh(&home).await).await;
    }

    async fn refresh(&self, home: &Rc<Home>) {
        for _ in 0..TRIES {
            match self.tell_broker(home, &[], 0).await {
                Ok((reply, _)) => return take_count(&mut home.state.borrow_mut(), &reply),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Members are told within a second if it is news.
fn take_count(state: &mut State, reply: &PresenceReply) {
    // Fewer than are here: the broker lost its data, and does not know yet who stayed.
    let is_known = reply.online >= u64::from(state.seated());
    let roll = &mut state.roll;
    if is_known && reply.version > roll.version {
        roll.count_due |= roll.online != reply.online;
        (roll.version, roll.online) = (reply.version, reply.online);
    }
}
