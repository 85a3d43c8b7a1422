//! The hot path's metrics, counted in plain cells of one worker and added to the registry by `flush`. Made by each
//! worker, shared on its thread through an `Rc`; must not leave it.

use std::cell::Cell;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Counter, IntCounterVec, IntGauge};
use roomcast_protocol::Mode;

use super::metrics::Metrics;

/// One worker's counts since the last flush. The worker flushes every 250 ms and when it ends; dropping it flushes, too.
#[derive(Debug)]
pub struct WorkerMetrics {
    deliveries: LocalIntCounter,
    bytes_sent: LocalIntCounter,
    bytes_received: LocalIntCounter,
    writes: LocalIntCounter,
    frames_per_write: LocalHistogram,
    outbound_queue: LocalGauge,
    received: [LocalIntCounter; ReceivedKind::ALL.len()],
    publishes: [[LocalIntCounter; PublishOutcome::ALL.len()]; MODES.len()],
    publish_seconds: [LocalHistogram; MODES.len()],
    delivered_locally: LocalHistogram,
    delivered_remotely: LocalHistogram,
    handovers: LocalIntCounter,
    duplicates: [LocalIntCounter; DuplicateKind::ALL.len()],
    busy: Counter,
    busy_before: Cell<Duration>,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as a label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

label!(
    /// What a client's frame asked for.
    ReceivedKind {
        /// `join`.
        Join = "join",
        /// `leave`.
        Leave = "leave",
        /// `publish`.
        Publish = "publish",
        /// `rename`.
        Rename = "rename",
        /// `history`.
        History = "history",
        /// `members`.
        Members = "members",
        /// `refresh`.
        Refresh = "refresh",
        /// `ping`.
        Ping = "ping",
        /// Could not be read.
        Invalid = "invalid",
    }
);
label!(
    /// How a publish ended.
    PublishOutcome {
        /// Stored, or sent on.
        Accepted = "accepted",
        /// Its id was stored before.
        Duplicate = "duplicate",
        /// Nobody knows any more whether its number was stored.
        Stale = "stale",
        /// The client was too fast, or not allowed.
        Refused = "refused",
        /// Nothing was sent.
        Unavailable = "unavailable",
        /// Sent, no answer.
        Undecided = "undecided",
        /// The broker's memory is full.
        StorageFull = "storage_full",
        /// Too much in flight.
        Overloaded = "overloaded",
        /// A fault of ours.
        Failed = "failed",
    }
);
label!(
    /// Why a message was not delivered or stored again.
    DuplicateKind {
        /// Own, and back from the broker.
        Echo = "echo",
        /// Its seq was delivered before.
        Seq = "seq",
        /// Its id was stored before.
        Id = "id",
    }
);

const MODES: [&str; 2] = ["durable", "ephemeral"];

fn index(mode: Mode) -> usize {
    match mode {
        Mode::Durable => 0,
        Mode::Ephemeral => 1,
    }
}

/// A gauge's change since the last flush.
#[derive(Debug)]
struct LocalGauge {
    gauge: IntGauge,
    change: Cell<i64>,
}

impl LocalGauge {
    fn flush(&self) {
        let change = self.change.take();
        if change != 0 {
            self.gauge.add(change);
        }
    }
}

fn counters<const N: usize>(counters: &IntCounterVec, label: impl Fn(usize) -> &'static str) -> [LocalIntCounter; N] {
    std::array::from_fn(|at| counters.with_label_values(&[label(at)]).local())
}

impl WorkerMetrics {
    pub(super) fn new(metrics: &Metrics, worker: usize) -> Self {
        let Metrics { sockets, hub, node, .. } = metrics;
        let delivery = |origin| hub.delivery_seconds.with_label_values(&[origin]).local();
        Self {
            deliveries: hub.deliveries.local(),
            bytes_sent: sockets.bytes_sent.local(),
            bytes_received: sockets.bytes_received.local(),
            writes: sockets.writes.local(),
            frames_per_write: sockets.frames_per_write.local(),
            outbound_queue: LocalGauge { gauge: sockets.outbound_queue_bytes.clone(), change: Cell::new(0) },
            received: counters(&sockets.messages_received, |at| ReceivedKind::ALL[at].as_str()),
            publishes: MODES.map(|mode| {
                std::array::from_fn(|at| {
                    hub.publishes.with_label_values(&[mode, PublishOutcome::ALL[at].as_str()]).local()
                })
            }),
            publish_seconds: MODES.map(|mode| hub.publish_seconds.with_label_values(&[mode]).local()),
            delivered_locally: delivery("local"),
            delivered_remotely: delivery("remote"),
            handovers: hub.shard_handovers.local(),
            duplicates: counters(&hub.deduplicated, |at| DuplicateKind::ALL[at].as_str()),
            busy: node.worker_busy_seconds.with_label_values(&[&worker.to_string()]),
            busy_before: Cell::new(Duration::ZERO),
        }
    }

    /// `messages` went to a member each, or one message to that many.
    pub fn delivered(&self, messages: u64) {
        self.deliveries.inc_by(messages);
    }

    /// One write call took `frames` frames (begun ones count) and `bytes` bytes.
    pub fn wrote(&self, frames: u32, bytes: usize) {
        self.writes.inc();
        self.bytes_sent.inc_by(bytes as u64);
        self.frames_per_write.observe(f64::from(frames));
    }

    /// `bytes` were read from a socket.
    pub fn read(&self, bytes: usize) {
        self.bytes_received.inc_by(bytes as u64);
    }

    /// A client's frame was read.
    pub fn received(&self, kind: ReceivedKind) {
        self.received[kind as usize].inc();
    }

    /// The bytes waiting in some client's queue changed by `bytes`.
    pub fn queued(&self, bytes: i64) {
        self.outbound_queue.change.set(self.outbound_queue.change.get() + bytes);
    }

    /// `messages` publishes ended.
    pub fn published(&self, mode: Mode, outcome: PublishOutcome, messages: u64) {
        self.publishes[index(mode)][outcome as usize].inc_by(messages);
    }

    /// A publish was acknowledged by the broker `took` after it was accepted.
    pub fn publish_took(&self, mode: Mode, took: Duration) {
        self.publish_seconds[index(mode)].observe(took.as_secs_f64());
    }

    /// A message accepted on this node was written to its last member here.
    pub fn local_delivery_took(&self, took: Duration) {
        self.delivered_locally.observe(took.as_secs_f64());
    }

    /// A message accepted on another node was written to its last member here.
    pub fn remote_delivery_took(&self, took: Duration) {
        self.delivered_remotely.observe(took.as_secs_f64());
    }

    /// A batch was handed to another worker.
    pub fn handed_over(&self) {
        self.handovers.inc();
    }

    /// `messages` were recognised as seen before.
    pub fn deduplicated(&self, kind: DuplicateKind, messages: u64) {
        self.duplicates[kind as usize].inc_by(messages);
    }

    /// The worker has been busy for `total` since it began
    /// (`Handle::current().metrics().worker_total_busy_duration(0)`).
    pub fn busy(&self, total: Duration) {
        let before = self.busy_before.replace(total);
        self.busy.inc_by(total.saturating_sub(before).as_secs_f64());
    }

    /// Adds everything counted to the registry, where a scrape sees it.
    pub fn flush(&self) {
        for counter in [&self.deliveries, &self.bytes_sent, &self.bytes_received, &self.writes, &self.handovers] {
            counter.flush();
        }
        self.received
            .iter()
            .chain(&self.duplicates)
            .chain(self.publishes.iter().flatten())
            .for_each(LocalIntCounter::flush);
        self.publish_seconds.iter().for_each(LocalHistogram::flush);
        for histogram in [&self.frames_per_write, &self.delivered_locally, &self.delivered_remotely] {
            histogram.flush();
        }
        self.outbound_queue.flush();
    }
}

impl Metrics {
    /// Seconds that worker number `worker` has been busy since it began, as it said within the last 250 ms.
    pub fn busy_seconds(&self, worker: usize) -> f64 {
        self.node.worker_busy_seconds.with_label_values(&[&worker.to_string()]).get()
    }
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        self.flush();
    }
}
