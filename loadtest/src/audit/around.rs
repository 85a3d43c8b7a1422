//! What a room's book needs to know of the run around it: shares of memory, who publishes. Made by the audit.

use super::Layout;
use super::ledger::Ledger;

/// What a book needs to know of the world around it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) layout: Layout,
    pub(super) room: u32,
}

impl Around<'_> {
    /// Slots of a room's window: 4 million over all rooms.
    pub(super) fn most_slots(&self) -> usize {
        (4_194_304 / self.layout.rooms.max(1) as usize).clamp(256, 65_536)
    }

    pub(super) fn most_blocks(&self) -> usize {
        (32_768 / self.layout.rooms.max(1) as usize).clamp(4, 16)
    }

    /// A publisher's place among its room's; none if it publishes elsewhere.
    pub(super) fn writer(&self, publisher: u32) -> Option<usize> {
        let member = publisher.checked_sub(self.room.checked_mul(self.layout.members)?)?;
        (member < self.layout.publishers).then_some(member as usize)
    }
}
