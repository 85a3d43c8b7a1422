//! What of a client's rights the floors below the session act on: until when it may stay, and where it may know who is
//! there. Set by the session, which knows where that comes from.

use std::cell::{Cell, RefCell};

use roomcast_protocol::RoomName;

/// Whether something holds in a room.
type InRoom = Box<dyn Fn(&RoomName) -> bool>;

/// The bounds of one connection.
#[derive(Default)]
pub struct Bounds {
    /// When its token expires, milliseconds since the Unix epoch; 0 for never.
    pub expires_at_ms: Cell<u64>,
    sees: RefCell<Option<InRoom>>,
}

impl Bounds {
    /// Whom it may see, by room; none for everyone.
    pub fn limit_sight(&self, sees: Option<InRoom>) {
        *self.sees.borrow_mut() = sees;
    }

    /// Whether it may know who is in `room`.
    pub(super) fn sees(&self, room: &RoomName) -> bool {
        self.sees.borrow().as_ref().is_none_or(|sees| sees(room))
    }
}
