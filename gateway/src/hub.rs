//! This node's rooms: who is in them on which worker, in what order their messages go out, and to whom.
//!
//! Sessions call [`Shard`]; the hub knows them only as [`Peer`]s, outboxes with a name. The broker's events arrive
//! through a channel. Nothing here knows HTTP, JSON requests or close codes.

mod allowance;
mod arrivals;
mod batch;
mod bounds;
mod directory;
mod dismissals;
mod home;
mod identity;
mod joining;
mod lease;
mod mail;
mod muster;
mod naming;
mod news;
mod orders;
mod peer;
mod posting;
mod publish;
mod questions;
mod recent;
mod refresh;
mod relay;
mod resume;
mod roll;
mod room;
mod sabotage;
mod sequencer;
mod shard;
mod storm;
mod sweep;
mod tend;
#[cfg(test)]
mod tests;
mod turn;
mod users;

pub use allowance::{Allowance, Spending};
pub use identity::Identity;
pub use mail::{Inbox, Post, Question, Sight};
pub use orders::Carried;
pub use peer::{Peer, Stop};
pub use posting::{Placed, Posting, Refused};
pub use publish::now_us;
pub use questions::{LONGEST_PAGE, PAGE, history_page};
pub use shard::{Parts, Shard};
pub use users::Seat;

/// Bytes of batches another worker may have waiting before rooms with members there make their publishers wait.
const MOST_HANDED_OVER_BYTES: usize = 4 * 1024 * 1024;
/// Broker calls that joins of one worker may have under way at once; a quarter of what a broker takes.
const MOST_CALLS_FOR_JOINS: usize = 256;
/// Reads of streams one worker may have under way at once.
const MOST_READS: usize = 16;
/// Bytes that may wait for a room's members before what comes over the bus waits, too.
const MOST_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// Bytes a room may collect before it goes on although its members lag: what comes from other nodes cannot wait.
const MOST_COLLECTED_BYTES: usize = 1024 * 1024;
