//! What the brokers count. The telemetry floor reads it when it is scraped; the brokers know no metrics library.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::BrokerError;
use super::envelope::DecodeError;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Command {
    /// Durable publish.
    Publish,
    /// Ephemeral publish.
    Broadcast,
    /// Subscription to a room.
    Subscribe,
    /// Reading history.
    History,
    /// Presence operations.
    Presence,
    /// A page of members.
    Members,
}

const COMMANDS: [&str; 6] = ["publish", "broadcast", "subscribe", "history", "presence", "members"];
const OUTCOMES: [&str; 7] =
    ["ok", "unavailable", "undecided", "storage_full", "rejected", "overloaded", "misconfigured"];

/// One of the two connections of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Path {
    /// Commands go out on it.
    Publish,
    /// Events come in on it.
    Subscription,
}

const PATHS: [&str; 2] = ["publish", "subscription"];

/// Counters of one broker; may be shared by several. Written by its worker, read by anyone.
#[derive(Debug, Default)]
pub struct BrokerStats {
    commands: [[AtomicU64; OUTCOMES.len()]; COMMANDS.len()],
    ignored: [AtomicU64; DecodeError::ALL.len()],
    reconnects: [AtomicU64; PATHS.len()],
    up: [AtomicBool; PATHS.len()],
    overruns: AtomicU64,
    own_echoes: AtomicU64,
}

impl BrokerStats {
    /// Calls by (command, outcome).
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.commands.iter().zip(COMMANDS).flat_map(|(outcomes, command)| {
            outcomes.iter().zip(OUTCOMES).map(move |(count, outcome)| (command, outcome, count.load(Relaxed)))
        })
    }

    /// Payloads from the bus or the streams that were ignored, by what was wrong with them.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.ignored.iter().zip(DecodeError::ALL).map(|(count, error)| (error.label(), count.load(Relaxed)))
    }

    /// Connections made again after a loss, by path.
    pub fn reconnects(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.reconnects.iter().zip(PATHS).map(|(count, path)| (path, count.load(Relaxed)))
    }

    /// Whether each path answered recently.
    pub fn up(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.up.iter().zip(PATHS).map(|(up, path)| (path, up.load(Relaxed)))
    }

    /// How often the hub's event channel was full and the subscription had to be made again.
    pub fn overruns(&self) -> u64 {
        self.overruns.load(Relaxed)
    }

    /// This node's own ephemeral envelopes that came back and were dropped by node id.
    pub fn own_echoes(&self) -> u64 {
        self.own_echoes.load(Relaxed)
    }

    /// True if both paths are up.
    pub fn is_up(&self) -> bool {
        self.up.iter().all(|up| up.load(Relaxed))
    }

    pub(crate) fn count_command<T>(&self, command: Command, result: &Result<T, BrokerError>) {
        let outcome = match result {
            Ok(_) => 0,
            Err(BrokerError::Unavailable(_)) => 1,
            Err(BrokerError::Undecided(_)) => 2,
            Err(BrokerError::StorageFull) => 3,
            Err(BrokerError::Rejected(_)) => 4,
            Err(BrokerError::Overloaded) => 5,
            Err(BrokerError::Misconfigured(_)) => 6,
        };
        self.commands[command as usize][outcome].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_ignored(&self, error: DecodeError) {
        self.ignored[error as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_reconnect(&self, path: Path) {
        self.reconnects[path as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_overrun(&self) {
        self.overruns.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_own_echo(&self) {
        self.own_echoes.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_up(&self, path: Path, up: bool) {
        self.up[path as usize].store(up, Relaxed);
    }
}
