//! What the brokers count. Used by every broker; knows no room and no message.

use std::sync::Arc;
use std::time::Duration;

use super::BrokerError;
use super::envelope::DecodeError;
use crate::telemetry::metrics::{CommandMetrics, Metrics};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
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
    /// Renewing a lease.
    Beat,
    /// Noting rooms with members here.
    Hold,
    /// Noting rooms without.
    Release,
    /// Rooms of a dead node.
    Held,
    /// Removing its members.
    Evict,
    /// Ending a lease.
    Bury,
    /// Where rooms stand.
    Tops,
    /// One member of a room.
    Member,
    /// A page of the rooms.
    Rooms,
    /// The nodes that live.
    Nodes,
    /// Asking for the orders.
    Listen,
    /// Giving an order.
    Order,
    /// Answering one.
    Answer,
    /// Reading the answers.
    Answers,
    /// Taking from a rate.
    Take,
    /// Counting connections of a user.
    Claim,
    /// Telling how many connections users have here.
    SetUsers,
}

const COMMANDS: [&str; 23] = [
    "publish",
    "broadcast",
    "subscribe",
    "history",
    "presence",
    "members",
    "beat",
    "hold",
    "release",
    "held",
    "evict",
    "bury",
    "tops",
    "member",
    "rooms",
    "nodes",
    "listen",
    "order",
    "answer",
    "answers",
    "take",
    "claim",
    "set_users",
];

/// One of the two connections of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Commands go out on it.
    Publish,
    /// Events come in on it.
    Subscribe,
}

const PATHS: [&str; 2] = ["publish", "subscribe"];

/// Where brokers count. Cheap to clone; one serves all workers of a node.
#[derive(Debug, Clone)]
pub struct BrokerStats {
    metrics: Arc<Metrics>,
    /// Only what every call needs is kept; the rest is rare enough to be looked up.
    commands: Arc<[CommandMetrics; COMMANDS.len()]>,
}

impl BrokerStats {
    /// Counts in `metrics`, where every series stands from now on, at zero.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let stats = Self {
            metrics: Arc::clone(metrics),
            commands: Arc::new(COMMANDS.map(|command| metrics.broker.command(command))),
        };
        for error in DecodeError::ALL {
            metrics.broker.ignored.with_label_values(&[error.label()]);
        }
        for path in PATHS {
            metrics.broker.reconnects.with_label_values(&[path]);
        }
        stats
    }

    pub(super) fn count_command<T>(&self, command: Command, took: Duration, result: &Result<T, BrokerError>) {
        let metrics = &self.commands[command as usize];
        match result {
            Ok(_) => metrics.ok(took),
            Err(error) => metrics.failed(error.label(), took),
        }
    }

    pub(super) fn count_ignored(&self, error: DecodeError) {
        self.metrics.broker.ignored.with_label_values(&[error.label()]).inc();
    }

    pub(super) fn count_reconnect(&self, path: Path) {
        self.metrics.broker.reconnects.with_label_values(&[PATHS[path as usize]]).inc();
    }

    pub(super) fn canary_took(&self, took: Duration) {
        self.metrics.broker.canary_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn count_overrun(&self) {
        self.metrics.broker.overruns.inc();
    }

    pub(super) fn count_own_echo(&self, messages: usize) {
        self.metrics.hub.deduplicated.with_label_values(&["echo"]).inc_by(messages as u64);
    }

    pub(super) fn begin_subscriptions(&self, rooms: usize) {
        self.metrics.broker.subscriptions.add(signed(rooms));
    }

    pub(super) fn end_subscriptions(&self, rooms: usize) {
        self.metrics.broker.subscriptions.sub(signed(rooms));
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
