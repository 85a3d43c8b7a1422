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

/// Why a broker is not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing can be sent, or nothing is answered.
    Publishing,
    /// The rooms are not subscribed to.
    Subscription,
    /// What this worker sends to itself does not come back.
    Canary,
    /// The server is set up to drop rooms when its memory is full.
    Eviction,
}

impl Trouble {
    /// For whoever asks why the node is not ready.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publishing => "no connection to publish on",
            Self::Subscription => "rooms are not subscribed to",
            Self::Canary => "the canary does not come back",
            Self::Eviction => "Redis may evict rooms: set maxmemory-policy to noeviction",
        }
    }
}
