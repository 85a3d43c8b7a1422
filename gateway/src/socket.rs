//! RFC 6455 on bytes: what a client's bytes mean, what our frames look like, and what waits to be written.
//!
//! The only user of fastwebsockets (beside the answer to the handshake, in `server`). Called by the session (reader) and
//! the hub (frames, outbox). Knows nothing of rooms, JSON, metrics or timers, and does no I/O but the outbox's
//! non-blocking writes.

pub mod frames;
pub mod reader;
pub mod writer;

pub use reader::{Event, Reader, Violation};
pub use writer::{Outbox, Overflow, SendError, Sent, TryWrite};
