//! Not yet.

use std::time::Duration;

/// What holds for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPolicy {
    /// Durable or ephemeral.
    pub mode: roomcast_protocol::Mode,
    /// Messages kept, at least; older ones go.
    pub history_size: u64,
    /// How long the history outlives the room's last message.
    pub history_ttl: Duration,
    /// How long a message id is remembered.
    pub idempotency_window: Duration,
}

impl Default for RoomPolicy {
    fn default() -> Self {
        Self {
            mode: roomcast_protocol::Mode::Durable,
            history_size: 1000,
            history_ttl: Duration::from_hours(24),
            idempotency_window: Duration::from_mins(5),
        }
    }
}
