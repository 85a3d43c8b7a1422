//! What a shard does by the clock: metrics, counts that are due, rooms that nobody needs any more.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::home::{Home, Phase};
use super::shard::Shard;

/// Between two flushes of the metrics.
pub(super) const BEAT: Duration = Duration::from_millis(250);
/// Beats between two looks at the rooms.
const BEATS_PER_ROUND: u32 = 4;

/// Gauges of this worker as they were last told to the node's.
#[derive(Default)]
pub(super) struct Told {
    rooms: Cell<i64>,
    queued: Cell<i64>,
}

impl Shard {
    /// Beats for ever.
    pub async fn run_clock(self: Rc<Self>) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.tick.set(self.tick.get() + 1);
            if self.tick.get().is_multiple_of(BEATS_PER_ROUND) {
                self.tend_homes();
            }
            self.tell_gauges();
            self.parts.metrics.flush();
        }
    }

    fn tend_homes(self: &Rc<Self>) {
        let homes: Vec<Rc<Home>> = self.homes.borrow().values().cloned().collect();
        for home in homes {
            self.tend_home(&home);
            self.release_late(&home);
            self.settle_recent(&home);
            self.let_go(&home);
        }
        self.release_rooms();
    }

    /// Closes a room whose last member left a while ago; its history stays with the broker.
    fn let_go(&self, home: &Rc<Home>) {
        let delay = (self.parts.settings.unsubscribe_delay.as_millis() / BEAT.as_millis()) as u32;
        let mut state = home.state.borrow_mut();
        if !state.is_idle() {
            return;
        }
        // A room whose only join was refused never had a last member to leave.
        let since = *state.empty_since.get_or_insert(self.tick.get());
        if self.tick.get().saturating_sub(since) < delay {
            return;
        }
        if state.phase == Phase::Open {
            self.parts.broker.unsubscribe(&home.name);
        }
        state.phase = Phase::Closed;
        self.let_room_go(home);
        self.homes.borrow_mut().remove(&home.name);
        self.rooms.borrow_mut().remove(&home.name);
    }

    /// Whether everything this shard has to tell the broker and the other workers was told.
    pub fn is_settled(&self) -> bool {
        let quiet = !self.turn.has_mail() && self.postings.is_idle();
        quiet && self.homes.borrow().values().all(|home| home.state.borrow().is_idle())
    }

    /// Tells the other workers whether this one is done; true when all are. Until then it must go on: a seat asked for
    /// by a client that is gone comes back to its worker, and only the worker tells the home that nobody is there.
    pub fn agree(&self, done: bool) -> bool {
        self.parts.post.agree(self.parts.index, done)
    }

    fn tell_gauges(&self) {
        let rooms = self.rooms.borrow().values().filter(|room| room.len() > 0).count();
        let queued: usize = self.peers.borrow().iter().map(|(_, peer)| peer.backlog()).sum();
        let (rooms, queued) = (rooms.cast_signed() as i64, queued.cast_signed() as i64);
        self.parts.totals.hub.rooms.add(rooms - self.told.rooms.replace(rooms));
        self.parts.metrics.queued(queued - self.told.queued.replace(queued));
    }
}
