//! What happened on a thread in a second that deserves a place on the timeline.

use crate::record::Tally;

/// Drained once a second. Counted by node id, or by reason.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Connections that ended against our will, by node.
    pub gone: Tally,
    /// `reconnect` frames, by node.
    pub drains: Tally,
    /// Rooms joined again, by node.
    pub back: Tally,
    /// Resets, and joins that could not resume, by reason.
    pub breaks: Tally,
}

impl Notes {
    pub fn absorb(&mut self, other: &Self) {
        self.gone.absorb(&other.gone);
        self.drains.absorb(&other.drains);
        self.back.absorb(&other.back);
        self.breaks.absorb(&other.breaks);
    }
}
