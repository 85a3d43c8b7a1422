//! What the brokers count: the metrics' handles, looked up once. Used by every broker; knows no room and no message.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

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
}

const COMMANDS: [&str; 6] = ["publish", "broadcast", "subscribe", "history", "presence", "members"];

/// One of the two connections of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Commands go out on it.
    Publish,
    /// Events come in on it.
    Subscribe,
}

/// Where brokers count. Cheap to clone; one serves all workers of a node.
#[derive(Debug, Clone)]
pub struct BrokerStats {
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Counters {
    commands: [CommandMetrics; COMMANDS.len()],
    ignored: [IntCounter; DecodeError::ALL.len()],
    reconnects: [IntCounter; 2],
    overruns: IntCounter,
    own_echoes: IntCounter,
    subscriptions: IntGauge,
}

impl BrokerStats {
    /// The handles in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let broker = &metrics.broker;
        let counters = Counters {
            commands: COMMANDS.map(|command| broker.command(command)),
            ignored: DecodeError::ALL.map(|error| broker.ignored.with_label_values(&[error.label()])),
            reconnects: ["publish", "subscribe"].map(|path| broker.reconnects.with_label_values(&[path])),
            overruns: broker.overruns.clone(),
            own_echoes: metrics.hub.deduplicated.with_label_values(&["echo"]),
            subscriptions: broker.subscriptions.clone(),
        };
        Self { counters: Arc::new(counters) }
    }

    pub(super) fn count_command<T>(&self, command: Command, took: Duration, result: &Result<T, BrokerError>) {
        let metrics = &self.counters.commands[command as usize];
        match result {
            Ok(_) => metrics.ok(took),
            Err(error) => metrics.failed(error.label(), took),
        }
    }

    pub(super) fn count_ignored(&self, error: DecodeError) {
        self.counters.ignored[error as usize].inc();
    }

    pub(super) fn count_reconnect(&self, path: Path) {
        self.counters.reconnects[path as usize].inc();
    }

    pub(super) fn count_overrun(&self) {
        self.counters.overruns.inc();
    }

    pub(super) fn count_own_echo(&self, messages: usize) {
        self.counters.own_echoes.inc_by(messages as u64);
    }

    pub(super) fn add_subscriptions(&self, rooms: i64) {
        self.counters.subscriptions.add(rooms);
    }
}
