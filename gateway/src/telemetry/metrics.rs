//! Every metric of the node, named once, in one registry. Made by app, used by every floor; the admin listener renders
//! it. No room, client or user is ever a label. It must not know what its users do.
//!
//! Looking a label up costs a hash and a lock: keep the handles, or, on a worker's hot path, use [`WorkerMetrics`].

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

pub use super::access_metrics::AccessMetrics;
use super::api_metrics::ApiMetrics;
use super::cluster_metrics::ClusterMetrics;
use super::limit_metrics::LimitMetrics;
use super::process::Process;
use super::register::Registrar;
pub use super::webhook_metrics::{AuthorizeMetrics, WebhookMeter, WebhookMetrics};
pub use super::worker_metrics::{DuplicateKind, PublishOutcome, ReceivedKind, WorkerMetrics};

/// Bounds of latency histograms, seconds: from one turn of a loop to a stalled broker.
pub(super) const SECONDS: &[f64] =
    &[0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of `frames_per_write`.
const FRAMES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All metrics of a node, by floor.
#[derive(Debug)]
pub struct Metrics {
    /// The process as a whole.
    pub node: NodeMetrics,
    /// Sockets and what their sessions do.
    pub sockets: SocketMetrics,
    /// Rooms, members and fan-out.
    pub hub: HubMetrics,
    /// All nodes together.
    pub cluster: ClusterMetrics,
    /// The way to the other nodes.
    pub broker: BrokerMetrics,
    /// Calls of the operator's services.
    pub webhooks: WebhookMetrics,
    /// The HTTP API.
    pub api: ApiMetrics,
    /// What is limited.
    pub limits: LimitMetrics,
    /// Tokens and keys.
    pub access: AccessMetrics,
    registry: Registry,
    rows: Vec<Row>,
}

/// One metric as docs/metrics.md shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its full name.
    pub name: String,
    /// counter, gauge or histogram.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// The process as a whole.
#[derive(Debug)]
pub struct NodeMetrics {
    /// 1 from the first signal on. Set by the admin listener at each scrape.
    pub draining: IntGauge,
    /// Clients still to be sent away. Set by the admin listener at each scrape.
    pub drain_sessions_left: IntGauge,
    /// 1 while `/readyz` answers 200. Set by the admin listener at each scrape.
    pub ready: IntGauge,
    /// Spans lost on the way to the collector.
    pub spans_dropped: IntCounter,
    /// Busy seconds by `worker`.
    pub(super) worker_busy_seconds: CounterVec,
}

/// Sockets and what their sessions do.
#[derive(Debug)]
pub struct SocketMetrics {
    /// Sockets open now.
    pub connections: IntGauge,
    /// Sockets that may be open. Set once, by app.
    pub connections_limit: IntGauge,
    /// Sockets that are taken a second, 0 for no limit. Set once, by app.
    pub connect_rate_limit: IntGauge,
    /// Sockets opened.
    pub connections_total: IntCounter,
    /// By `outcome`.
    pub handshakes: IntCounterVec,
    /// By `reason`.
    pub closes: IntCounterVec,
    /// By `kind`.
    pub messages_received: IntCounterVec,
    /// From clients, after the handshake.
    pub bytes_received: IntCounter,
    /// To clients, after the handshake.
    pub bytes_sent: IntCounter,
    /// Frames handed to the kernel at once.
    pub frames_per_write: Histogram,
    /// Write calls.
    pub writes: IntCounter,
    /// Bytes waiting, all clients together.
    pub outbound_queue_bytes: IntGauge,
    /// Closed with 4408.
    pub slow_consumers: IntCounter,
    /// By `code` of the `error` frame.
    pub protocol_errors: IntCounterVec,
}

/// Rooms, members and fan-out.
#[derive(Debug)]
pub struct HubMetrics {
    /// Rooms with members on this node.
    pub rooms: IntGauge,
    /// Memberships on this node.
    pub members: IntGauge,
    /// By `mode` and `outcome`.
    pub publishes: IntCounterVec,
    /// Messages written or queued, one per member.
    pub deliveries: IntCounter,
    /// By `mode`: accepted until acknowledged by the broker.
    pub publish_seconds: HistogramVec,
    /// By `origin`: accepted until written to the last local member.
    pub delivery_seconds: HistogramVec,
    /// Batches handed from one worker to another.
    pub shard_handovers: IntCounter,
    /// Hand-overs that found the other worker's queue full.
    pub shard_handover_stalls: IntCounter,
    /// By `kind`: `echo`, `seq`, `id`.
    pub deduplicated: IntCounterVec,
    /// By `outcome`.
    pub gap_repairs: IntCounterVec,
    /// By `reason`: `behind`, `ahead`, `term`.
    pub sweep_finds: IntCounterVec,
    /// By `reason`.
    pub resets: IntCounterVec,
    /// By `recovery`.
    pub joins: IntCounterVec,
}

/// The way to the other nodes.
#[derive(Debug)]
pub struct BrokerMetrics {
    /// 1 while every worker's broker is up. Set by the admin listener at each scrape.
    pub up: IntGauge,
    /// By `command` and `outcome`; see [`BrokerMetrics::command`].
    pub commands: IntCounterVec,
    /// By `command`.
    pub command_seconds: HistogramVec,
    /// From this node to itself through the broker.
    pub canary_seconds: Histogram,
    /// Connections made again, by `path`: `publish`, `subscribe`.
    pub reconnects: IntCounterVec,
    /// Payloads dropped, by `reason`.
    pub ignored: IntCounterVec,
    /// Times the hub was too slow to take what came.
    pub overruns: IntCounter,
    /// Rooms subscribed to.
    pub subscriptions: IntGauge,
}

/// The handles of one broker command.
#[derive(Debug, Clone)]
pub struct CommandMetrics {
    command: &'static str,
    commands: IntCounterVec,
    ok: IntCounter,
    seconds: Histogram,
}

impl Metrics {
    /// A registry with everything in it, at zero.
    ///
    /// # Panics
    ///
    /// When two metrics have one name or a name is malformed: a test makes one, so no build does.
    pub fn new() -> Arc<Self> {
        let mut registrar = Registrar::default();
        let node = NodeMetrics::new(&mut registrar);
        let sockets = SocketMetrics::new(&mut registrar);
        let hub = HubMetrics::new(&mut registrar);
        let cluster = ClusterMetrics::new(&mut registrar);
        let broker = BrokerMetrics::new(&mut registrar);
        let api = ApiMetrics::new(&mut registrar);
        let limits = LimitMetrics::new(&mut registrar);
        let access = AccessMetrics::new(&mut registrar);
        let webhooks = WebhookMetrics::new(&mut registrar);
        registrar.add(Process::new(), "gauge");
        let (registry, rows) = registrar.finish();
        Arc::new(Self { node, sockets, hub, cluster, broker, webhooks, api, limits, access, registry, rows })
    }

    /// The handles of worker number `worker` (0-based): plain cells that cost no atomics, seen by nobody until flushed.
    pub fn local(&self, worker: usize) -> WorkerMetrics {
        WorkerMetrics::new(self, worker)
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Vec::with_capacity(16 << 10);
        // Writing to memory cannot fail, and a family that cannot be encoded must not hide the others.
        for family in self.registry.gather() {
            let _ = TextEncoder::new().encode(&[family], &mut text);
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// Every metric, in the order in which they are made.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The metrics as the Markdown table of docs/metrics.md.
    pub fn reference_table(&self) -> String {
        let head = "| Name | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
        self.rows.iter().fold(head, |mut table, Row { name, kind, labels, help }| {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
            table
        })
    }
}

impl NodeMetrics {
    fn new(registrar: &mut Registrar) -> Self {
        let info = registrar.gauges("build_info", "Always 1; says which version runs.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            draining: registrar.gauge("draining", "1 while the node is shutting down, from the first signal on."),
            drain_sessions_left: registrar.gauge(
                "drain_sessions_left",
                "WebSockets that are still to be sent away while the node is shutting down; else 0.",
            ),
            ready: registrar.gauge("ready", "1 while `/readyz` answers 200."),
            spans_dropped: registrar.counter(
                "spans_dropped_total",
                "Spans lost: the exporter's queue was full, or the collector did not take them.",
            ),
            worker_busy_seconds: registrar.seconds_by(
                "worker_busy_seconds_total",
                "Time a worker thread spent working rather than waiting. A rate near 1 is a full core.",
                &["worker"],
            ),
        }
    }
}

impl SocketMetrics {
    fn new(r: &mut Registrar) -> Self {
        Self {
            connections: r.gauge("connections", "WebSockets open now."),
            connections_limit: r.gauge("connections_limit", "WebSockets that may be open: `max-connections`."),
            connect_rate_limit: r
                .gauge("connect_rate_limit", "WebSockets that are taken a second: `connect-rate`. 0: no limit."),
            connections_total: r.counter("connections_total", "WebSockets opened."),
            handshakes: r.counters("handshakes_total", "Handshakes, by how they ended.", &["outcome"]),
            closes: r.counters("closes_total", "Sessions ended, by the reason in the table of ends.", &["reason"]),
            messages_received: r.counters(
                "messages_received_total",
                "Frames of clients, by `type`; `invalid` could not be read.",
                &["kind"],
            ),
            bytes_received: r.counter("bytes_received_total", "Bytes read from WebSockets, framing included."),
            bytes_sent: r.counter("bytes_sent_total", "Bytes written to WebSockets, framing included."),
            frames_per_write: r.histogram(
                "frames_per_write",
                "WebSocket frames handed to the kernel in one write call. The higher, the cheaper a delivery.",
                FRAMES,
            ),
            writes: r.counter("writes_total", "Write calls on WebSockets."),
            outbound_queue_bytes: r.gauge("outbound_queue_bytes", "Bytes waiting for clients, all queues together."),
            slow_consumers: r.counter("slow_consumers_total", "Clients closed with 4408: their queue was full."),
            protocol_errors: r.counters("protocol_errors_total", "`error` frames sent, by code.", &["code"]),
        }
    }
}

impl HubMetrics {
    fn new(r: &mut Registrar) -> Self {
        Self {
            rooms: r.gauge("rooms", "Rooms with members on this node."),
            members: r.gauge("members", "Memberships on this node: a client in two rooms counts twice."),
            publishes: r.counters("publishes_total", "Publishes, by mode and how they ended.", &["mode", "outcome"]),
            deliveries: r.counter("deliveries_total", "Messages delivered, one for each member that gets one."),
            publish_seconds: r.histograms(
                "publish_seconds",
                "From a publish's acceptance to the broker's acknowledgement.",
                &["mode"],
                SECONDS,
            ),
            delivery_seconds: r.histograms(
                "delivery_seconds",
                "From a publish's acceptance, on this node (`local`) or another (`remote`), to the write to the last \
                 member here. `remote` compares two nodes' clocks.",
                &["origin"],
                SECONDS,
            ),
            shard_handovers: r.counter("shard_handovers_total", "Batches handed from one worker to another."),
            shard_handover_stalls: r.counter(
                "shard_handover_stalls_total",
                "Hand-overs that found the other worker's queue full and had to wait.",
            ),
            deduplicated: r.counters(
                "deduplicated_total",
                "Messages not delivered or stored again: `echo` own and back from the broker, `seq` seen before, `id` \
                 retried by the client.",
                &["kind"],
            ),
            gap_repairs: r.counters_of(
                "gap_repairs_total",
                "Reads of history to fill a jump in seq, by whether all of it was there.",
                ("outcome", &["filled", "lost", "failed"]),
            ),
            sweep_finds: r.counters_of(
                "sweep_finds_total",
                "Rooms read again because the sweep found them elsewhere than their members: `behind` the stream (a last \
                 message was lost), `ahead` of it, or in another `term`.",
                ("reason", &["behind", "ahead", "term"]),
            ),
            resets: r.counters_of(
                "resets_total",
                "`reset` frames: members were told of a break.",
                ("reason", &["gap", "diverged", "unknown_term"]),
            ),
            joins: r.counters_of(
                "joins_total",
                "Joins, by what the client was told: `fresh` it asked for no more, `resumed` it missed nothing, the \
                 others are breaks. In ephemeral rooms all are `fresh`.",
                ("recovery", &["fresh", "resumed", "gap", "diverged", "unknown_term"]),
            ),
        }
    }
}

impl BrokerMetrics {
    fn new(r: &mut Registrar) -> Self {
        Self {
            up: r.gauge("broker_up", "1 while every worker can publish and hears what others publish."),
            commands: r.counters("broker_commands_total", "Calls to the broker.", &["command", "outcome"]),
            command_seconds: r.histograms(
                "broker_command_seconds",
                "Time a call to the broker took, failed ones included.",
                &["command"],
                SECONDS,
            ),
            canary_seconds: r.histogram(
                "broker_canary_seconds",
                "Time a message that a worker sends to itself took through the broker and back.",
                SECONDS,
            ),
            reconnects: r.counters("broker_reconnects_total", "Connections to the broker made again.", &["path"]),
            ignored: r.counters(
                "broker_ignored_total",
                "Payloads on the bus that were not ours to read, by what was wrong with them.",
                &["reason"],
            ),
            overruns: r.counter(
                "broker_overruns_total",
                "Times messages from the broker came faster than the hub took them and had to be read again.",
            ),
            subscriptions: r.gauge("broker_subscriptions", "Rooms this node is subscribed to."),
        }
    }

    /// The handles of `command`, to be kept. `ok` is the outcome of success.
    pub fn command(&self, command: &'static str) -> CommandMetrics {
        CommandMetrics {
            command,
            commands: self.commands.clone(),
            ok: self.commands.with_label_values(&[command, "ok"]),
            seconds: self.command_seconds.with_label_values(&[command]),
        }
    }
}

impl CommandMetrics {
    /// The call was answered.
    pub fn ok(&self, took: Duration) {
        self.ok.inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The call failed; `outcome` is a word from a fixed set.
    pub fn failed(&self, outcome: &'static str, took: Duration) {
        self.commands.with_label_values(&[self.command, outcome]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
