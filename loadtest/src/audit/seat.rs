//! One client's membership in one room, over all its connections.

use roomcast_protocol::{Recovery, Term};

use super::{Audit, Place};
use crate::payload::Stamp;

/// What one client saw of one room. Owned by the client's thread; checks without locks as long as all is well.
pub struct Seat {
    client: u32,
    room: u32,
}

impl Seat {
    pub fn new(client: u32, room: u32) -> Self {
        Self { client, room }
    }

    /// What to resume from. None: join without `since`.
    pub fn since(&self) -> Option<Place> {
        let _ = (self.client, self.room);
        None
    }

    /// `joined` came. Its messages follow by [`Seat::replayed`].
    pub fn joined(&mut self, audit: &Audit, recovery: Recovery, term: Option<&Term>, seq: Option<u64>) {
        let _ = (audit, recovery, term, seq);
    }

    /// A message within `joined`. Verifies it too: no [`Audit::verify`] is needed.
    pub fn replayed(&mut self, audit: &Audit, stamp: &Stamp, place: Option<&Place>) {
        let _ = (audit, stamp, place);
    }

    /// A `message` frame, after [`Audit::verify`].
    pub fn received(&mut self, audit: &Audit, stamp: &Stamp, place: Option<&Place>) {
        let _ = (audit, stamp, place);
    }

    /// A message came that is not ours or is damaged: its place is taken all the same. Live or within `joined`.
    pub fn foreign(&mut self, audit: &Audit, place: Option<&Place>) {
        let _ = (audit, place);
    }

    /// The `ack` of a message of this client's.
    pub fn acked(&mut self, audit: &Audit, number: u32, place: Option<&Place>, duplicate: bool) {
        let _ = (audit, number, place, duplicate);
    }

    /// A `reset` frame.
    pub fn reset(&mut self, audit: &Audit, reason: Recovery, term: &Term, seq: u64) {
        let _ = (audit, reason, term, seq);
    }

    /// The connection is lost or was dropped. Also between `joined` and the end of its replay.
    pub fn away(&mut self, audit: &Audit) {
        let _ = audit;
    }

    /// Left on purpose: what passes until the next `joined` is not owed.
    pub fn left(&mut self, audit: &Audit) {
        let _ = audit;
    }

    /// Whether nothing that is known to be stored or accepted in its room is still owed to it. True while not in it.
    pub fn is_caught_up(&self, audit: &Audit) -> bool {
        let _ = audit;
        true
    }

    /// End of the run: what is still owed is lost. Nothing may follow.
    pub fn conclude(&mut self, audit: &Audit) {
        let _ = audit;
    }
}
