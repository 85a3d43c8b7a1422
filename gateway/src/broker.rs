//! What carries messages between nodes and keeps each durable room's history and presence, behind one trait.
//!
//! The hub calls it and reads its [`Event`]s from a bounded channel. It knows neither members' sockets nor frames: a
//! message's data is raw JSON that passes through. One contract suite (`contract`) holds every implementation to the
//! words below.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use roomcast_protocol::{ClientId, NodeId, RoomName, Term};

use crate::config::RoomPolicy;
use crate::telemetry::trace::TraceParent;

mod checks;
#[cfg(test)]
mod contract;
pub mod directory;
pub mod envelope;
pub mod examine;
pub mod ids;
pub mod lease;
pub mod memory;
pub mod orders;
pub mod presence;
pub mod quota;
pub mod redis;
pub mod signs;
pub mod state;
pub mod stats;

use checks::{check_ops, check_records, check_rooms};
pub use directory::{Directory, NodeNote, NodeReport, RoomsPage, RoomsQuestion};
pub use ids::Subject;
pub use lease::{Beat, Evicted, Farewell, Incarnation, Pulse};
pub use memory::{Memory, MemoryBroker};
pub use orders::{Answer, MAX_WORDS_BYTES, Order, OrderId, Orders, Target, Task, check_words};
pub use presence::{Member, MembersPage, Moved, PresenceCall, PresenceEvent, PresenceOp, PresenceReply};
pub use quota::{Bucket, Claim, Meters, Quotas, Taken};
pub use redis::{RedisBroker, RedisOptions};
pub use signs::Signs;
pub use state::{MAX_TOPS, Top, Trouble};
pub use stats::BrokerStats;

/// A message's id within its room: the sender's idempotency key or a generated UUID. 1 to 128 bytes.
pub type MessageId = Arc<str>;

/// Most records one publish or broadcast may hold, and most operations one presence call.
pub const MAX_BATCH: usize = 1024;
/// Most messages one history call returns, whatever its limit says.
pub const MAX_HISTORY: usize = 1024;
/// Most members one call returns, whatever its limit says.
pub const MAX_MEMBERS: usize = 1000;
/// Most rooms one call takes or returns.
pub const MAX_PAGE: usize = 512;
/// Most members one eviction looks at: about a millisecond of a Redis that others wait for.
pub const MAX_EVICTION: usize = 128;

/// Rooms that span nodes. One value per worker; futures stay on that worker's thread.
///
/// Every call ends within the broker's timeout (2 s by default). Calls may be dropped at any point: what was sent may
/// then still take effect.
#[async_trait(?Send)]
pub trait Broker: Directory + Orders + Quotas {
    /// Stores a turn's messages of one durable room under the next seqs and tells the other nodes, all in one step.
    ///
    /// Outcomes come in the order of `records`. New messages of one call get contiguous seqs. At most [`MAX_BATCH`]
    /// records; none is an error of the caller ([`BrokerError::Rejected`]).
    ///
    /// A message whose `idempotent` id was stored for its `subject` before is not stored again. A plain id is remembered for
    /// the policy's window. An id `<producer>#<number>` is remembered until the window has passed since that producer's
    /// last new message: exactly, in whatever order the numbers come and however many are left out, as long as they make
    /// no more than 32 ranges, and with the results of the last 256. What lies below the 32 highest ranges may be
    /// [`Outcome::Stale`].
    async fn publish(&self, room: &RoomName, policy: &RoomPolicy, records: &[Record])
    -> Result<Published, BrokerError>;

    /// Tells the other nodes of messages that are kept nowhere. At most [`MAX_BATCH`] records.
    async fn broadcast(&self, room: &RoomName, records: &[Record]) -> Result<(), BrokerError>;

    /// Asks for the events of a room; resolves once the broker acknowledged it. Idempotent.
    ///
    /// The room stays asked for until [`Broker::unsubscribe`], over reconnects and also when this call fails or is
    /// dropped: the subscription is then made as soon as the broker can. A caller that gives up must unsubscribe.
    async fn subscribe(&self, room: &RoomName) -> Result<(), BrokerError>;

    /// Ends [`Broker::subscribe`]. Events already on their way may still arrive.
    fn unsubscribe(&self, room: &RoomName);

    /// Stored messages of a durable room, oldest first, with the room's terms and top seq.
    ///
    /// A term names one unbroken run of seqs. A new one begins with the first publish after the broker's data went back
    /// in time, came from elsewhere, or lost the room's metadata: seq then continues from what is left, and
    /// [`History::boundaries`] says how far each earlier term still holds.
    async fn history(&self, room: &RoomName, range: Range) -> Result<History, BrokerError>;

    /// Where durable rooms stand, in the order of `rooms`; not all at one moment. At most [`MAX_TOPS`]. None for a room
    /// whose server does not say, an error if no server does.
    async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError>;

    /// Applies the operations in order, in one step, and tells the other nodes of those that changed something.
    ///
    /// Returns the state after, with an outcome for each operation and up to `want_members` (at most [`MAX_MEMBERS`])
    /// members in the order of their ids. Without operations it only reads. A room must have been named to
    /// [`Broker::hold`] before its first member enters.
    async fn presence(&self, room: &RoomName, call: PresenceCall<'_>) -> Result<PresenceReply, BrokerError>;

    /// One page of the members, ordered by id. `cursor` is the `next` of the page before; a bad one is
    /// [`BrokerError::Rejected`]. Members that stay are listed exactly once, whoever else comes and goes.
    async fn members(&self, room: &RoomName, cursor: Option<&str>, limit: usize) -> Result<MembersPage, BrokerError>;

    /// Renews a lease, and takes over some of those that ran out. Whoever finds its own run out takes over nobody in that
    /// call: if all were cut off, all get the time to come back.
    async fn beat(&self, beat: &Beat<'_>) -> Result<Pulse, BrokerError>;

    /// Notes that an incarnation may have members in these rooms. At most [`MAX_PAGE`] rooms.
    async fn hold(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError>;

    /// Notes that it has none there any more. Calls of one broker take effect in the order in which they are made.
    async fn release(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError>;

    /// Some of the rooms that were named to [`Broker::hold`] and not released, at most `limit`; none if there are none.
    async fn held(&self, incarnation: &Incarnation, limit: usize) -> Result<Vec<RoomName>, BrokerError>;

    /// Removes members that an incarnation left in a room, and tells all nodes, this one included, in an event whose node
    /// is [`Incarnation::as_node`]. Looks at up to [`MAX_EVICTION`] members behind `behind`; `next` of the answer goes on.
    async fn evict(
        &self,
        room: &RoomName,
        incarnation: &Incarnation,
        behind: Option<ClientId>,
    ) -> Result<Evicted, BrokerError>;

    /// Ends a lease.
    async fn bury(&self, incarnation: &Incarnation, farewell: Farewell) -> Result<(), BrokerError>;

    /// What is wrong; nothing while this worker can publish and heard itself within the last 5 s.
    fn trouble(&self) -> Option<Trouble>;

    /// What is worth a look, as it happens.
    fn signs(&self) -> &Signs;

    /// True while nothing is wrong.
    fn is_up(&self) -> bool {
        self.trouble().is_none()
    }
}

/// Which part of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest `limit`.
    Latest {
        /// At most so many.
        limit: usize,
    },
    /// The oldest `limit` with a seq above `seq`.
    After {
        /// The last seq the caller has.
        seq: u64,
        /// At most so many.
        limit: usize,
    },
    /// The newest `limit` with a seq below `seq`.
    Before {
        /// The first seq the caller has.
        seq: u64,
        /// At most so many.
        limit: usize,
    },
}

impl Range {
    /// The seqs meant, both ends included, in a room whose last seq is `top`; none if nothing can match.
    pub(crate) fn bounds(self, top: u64) -> Option<(u64, u64)> {
        let clamp = |limit: usize| limit.min(MAX_HISTORY) as u64;
        let (low, high) = match self {
            Self::Latest { limit } => (top.saturating_sub(clamp(limit)).saturating_add(1), top),
            Self::After { seq, limit } => (seq.saturating_add(1), seq.saturating_add(clamp(limit)).min(top)),
            Self::Before { seq, limit } => {
                let high = seq.saturating_sub(1).min(top);
                (high.saturating_sub(clamp(limit)).saturating_add(1), high)
            }
        };
        (low <= high && high > 0).then_some((low, high))
    }
}

/// A part of a room's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The room's present term; none before its first message and after its history expired.
    pub term: Option<Term>,
    /// The seq the present term began with, or a later one if the metadata was lost meanwhile.
    pub start: u64,
    /// The terms before the present one as far as they are known (at most 16), oldest first. The present one is not
    /// among them: it ends at `top`, for now.
    pub boundaries: Vec<Boundary>,
    /// First retained seq, 0 if none is.
    pub first: u64,
    /// The last seq given out, 0 if none was.
    pub top: u64,
    /// Oldest first.
    pub messages: Vec<Sequenced>,
}

/// A term that ended: what the room's order keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Which.
    pub term: Term,
    /// Its first seq, or a later one if the metadata was lost during the term.
    pub start: u64,
    /// Its last seq that is still part of the room's order. Who saw a later one of this term saw what was lost.
    pub end: u64,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequenced {
    /// The term it was stored in.
    pub term: Term,
    /// Its place in the room's order.
    pub seq: u64,
    /// When the broker stored it, ms since the Unix epoch.
    pub ts: u64,
    /// The message.
    pub record: Record,
}

/// One message before it has a seq. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Unique within the room.
    pub id: MessageId,
    /// The client chose the id, so a retry may come.
    pub idempotent: bool,
    /// Whose id it is. Not stored and not sent on: nobody's in all that is read.
    pub subject: Subject,
    /// Who sent it.
    pub from: ClientId,
    /// The sender's display name at that moment. At most 64 bytes.
    pub name: Arc<str>,
    /// The sender's user, if it has one. 1 to 128 bytes, no control characters.
    pub user: Option<Arc<str>>,
    /// Whether the sender is to receive it too.
    pub echo: bool,
    /// When the publishing node accepted it, µs since the Unix epoch by that node's clock.
    pub accepted_at_us: u64,
    /// The trace it belongs to, if sampled.
    pub trace: Option<TraceParent>,
    /// Raw JSON.
    pub data: Bytes,
}

#[cfg(test)]
impl Record {
    /// One for tests that care for little of it: of a client without a token, under a generated id.
    pub fn sample(id: &str, data: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            idempotent: false,
            subject: Subject::NOBODY,
            from: ClientId::random(),
            name: "n".into(),
            user: None,
            echo: true,
            accepted_at_us: 0,
            trace: None,
            data: data.into(),
        }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The term of the messages stored now. If none was: the room's, that of a duplicate, or if it has none any.
    pub term: Term,
    /// The broker's clock, ms since the Unix epoch.
    pub ts: u64,
    /// One per record, in order.
    pub outcomes: Vec<Outcome>,
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now.
    Stored {
        /// Its seq in [`Published::term`].
        seq: u64,
    },
    /// Stored before, under this term and seq. Nothing was sent to anyone.
    Duplicate {
        /// Term of the first time.
        term: Term,
        /// Seq of the first time.
        seq: u64,
    },
    /// Stored before, too long ago to say where.
    Known,
    /// A number so far behind its producer's that nobody knows whether it was stored. It was not now.
    Stale,
}

/// What comes from the other nodes and, for durable rooms and presence, possibly as this node's own echo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Messages of one room.
    Messages(Envelope),
    /// Members came, went or changed.
    Presence(PresenceEvent),
    /// All nodes are to do something, this one included.
    Order(Order),
    /// Events may have been lost; the subscriptions stand again: every room must be caught up from its history.
    Resubscribed,
}

/// Messages of one room, published in one turn by one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who published them. Suppresses echoes; nothing correct may rest on it.
    pub node: NodeId,
    /// Where.
    pub room: RoomName,
    /// Stored or not.
    pub kind: Kind,
    /// In order, never empty.
    pub records: Vec<Record>,
}

/// Of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Stored; record `i` has seq `first_seq + i`.
    Durable {
        /// The room's term.
        term: Term,
        /// Seq of the first record.
        first_seq: u64,
        /// The broker's clock, ms since the Unix epoch.
        ts: u64,
    },
    /// Kept nowhere.
    Ephemeral {
        /// The publishing node's clock, ms since the Unix epoch.
        ts: u64,
    },
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Nothing took effect; the same call may succeed later.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// Sent, but no answer came: it may have taken effect. Retrying under the same message ids is safe.
    #[error("no answer from the broker: {0}")]
    Undecided(String),
    /// The store is out of memory; nothing took effect.
    #[error("the broker's storage is full")]
    StorageFull,
    /// The server takes no writes at present: it cannot save to its disk, or has too few replicas. Nothing took effect.
    #[error("the broker takes no writes: {0}")]
    NoWrites(String),
    /// The call breaks a bound, or the server is not what it should be. Retrying is useless.
    #[error("rejected by the broker: {0}")]
    Rejected(String),
    /// Too many calls in flight; this one was not sent.
    #[error("too many calls to the broker in flight")]
    Overloaded,
    /// The settings cannot work (URL, prefix, CA file). Only from a constructor.
    #[error("broker settings: {0}")]
    Misconfigured(String),
}

impl BrokerError {
    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Undecided(_) => "undecided",
            Self::StorageFull => "storage_full",
            Self::NoWrites(_) => "no_writes",
            Self::Rejected(_) => "rejected",
            Self::Overloaded => "overloaded",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}
