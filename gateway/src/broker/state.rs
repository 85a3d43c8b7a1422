//! Where rooms stand at the broker, and what is wrong with the broker itself. Made by every broker; read by the hub's
//! sweep and by the worker's watch.

use roomcast_protocol::Term;

/// Most rooms of one [`super::Broker::tops`] call.
pub const MAX_TOPS: usize = 256;

/// Where a durable room stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// Its present term; none before its first message and after its history expired.
    pub term: Option<Term>,
    /// The last seq given out, 0 without a term.
    pub seq: u64,
}
