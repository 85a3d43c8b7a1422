//! Spans of handshakes, publishes, broker hops and deliveries, exported over OTLP. Used by the floors that carry
//! messages; it must not know rooms or clients.
//!
//! The data path is no tree of futures, so nothing here is ambient: a span is a value, its context is 25 bytes that
//! travel with the message. Off, every call is one branch. On, spans that are not sampled cost one random number, and
//! spans that are go to a thread of their own through a bounded queue; when it is full they are dropped and counted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::export::{self, Message};

/// Finished spans that may wait for the exporter.
const QUEUE: usize = 4096;
/// Time for the last spans when the node stops.
const FLUSH: Duration = Duration::from_secs(2);

/// A span's place in a trace, as it travels in an envelope: 16 bytes trace id, 8 bytes span id, 1 byte flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent(pub [u8; Self::LEN]);

impl TraceParent {
    /// Its length in bytes.
    pub const LEN: usize = 25;

    /// Reads what came from another node, or from anyone: none unless both ids are valid. Unknown flags are dropped.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes: [u8; Self::LEN] = bytes.try_into().ok()?;
        let is_zero = |id: &[u8]| id.iter().all(|&byte| byte == 0);
        if is_zero(&bytes[..16]) || is_zero(&bytes[16..24]) {
            return None;
        }
        bytes[24] &= TraceFlags::SAMPLED.to_u8();
        Some(Self(bytes))
    }

    /// Its bytes, for [`TraceParent::decode`].
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether the spans of this trace are recorded.
    pub const fn is_sampled(&self) -> bool {
        self.0[24] & 1 == 1
    }

    fn trace_id(&self) -> TraceId {
        TraceId::from_bytes(std::array::from_fn(|at| self.0[at]))
    }

    fn span_id(&self) -> SpanId {
        SpanId::from_bytes(std::array::from_fn(|at| self.0[16 + at]))
    }
}

/// What traces need to know.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// OTLP collector, `http://host:port`.
    pub endpoint: String,
    /// Share of root spans that are recorded, 0 to 1.
    pub sample_ratio: f64,
    /// This node, as `service.instance.id`.
    pub node_id: String,
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint cannot be used.
    #[error("--otlp-endpoint (ROOMCAST_OTLP_ENDPOINT) is {endpoint:?}: {problem}")]
    Endpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The exporter's thread could not be started.
    #[error("the trace exporter does not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Begins spans. Clones are cheap and may go to any thread.
#[derive(Debug, Clone)]
pub struct Tracing(Option<Arc<Exporter>>);

#[derive(Debug)]
struct Exporter {
    queue: mpsc::Sender<Message>,
    /// A root is recorded if a random number is below.
    threshold: u64,
    scope: InstrumentationScope,
    dropped: IntCounter,
}

/// Work under way. It ends, and is exported, when it is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    exporter: Arc<Exporter>,
    context: TraceParent,
    /// The parent's span id, and whether the parent is another node's.
    parent: Option<(SpanId, bool)>,
    name: &'static str,
    kind: SpanKind,
    start: SystemTime,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Tracing {
    /// No traces, at the cost of a branch.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Starts the exporter on its own thread. The collector need not be there: spans that it does not take are lost.
    /// `dropped` counts those that found the queue full or were refused.
    ///
    /// # Errors
    ///
    /// An endpoint that is no URL, or a thread that does not start.
    pub fn start(options: &TraceOptions, dropped: IntCounter) -> Result<Self, TraceError> {
        let (queue, spans) = mpsc::channel(QUEUE);
        export::start(options, spans, dropped.clone())?;
        let scope = InstrumentationScope::builder("roomcast").with_version(env!("CARGO_PKG_VERSION")).build();
        // At 1.0 the product saturates at the largest number, which would leave one root in 2^64 out.
        let threshold = (options.sample_ratio * u64::MAX as f64) as u64;
        Ok(Self(Some(Arc::new(Exporter { queue, threshold, scope, dropped }))))
    }

    /// Whether anything is ever recorded.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A handshake: a root, if it is sampled.
    pub fn handshake(&self) -> Option<Span> {
        self.root("handshake")
    }

    /// A publish: a root, if it is sampled. Put its context into the message.
    pub fn publish(&self) -> Option<Span> {
        self.root("publish")
    }

    /// A call to the broker for a publish of this node.
    pub fn broker(&self, parent: Option<TraceParent>) -> Option<Span> {
        self.child("broker publish", SpanKind::Producer, parent, false)
    }

    /// The delivery of a message to this node's members; `is_remote` if another node published it.
    pub fn deliver(&self, parent: Option<TraceParent>, is_remote: bool) -> Option<Span> {
        self.child("deliver", SpanKind::Consumer, parent, is_remote)
    }

    fn root(&self, name: &'static str) -> Option<Span> {
        let exporter = self.0.as_ref()?;
        (rand::random::<u64>() < exporter.threshold).then(|| {
            let trace: [u8; 16] = random_id();
            Span::new(exporter, name, SpanKind::Server, trace, None)
        })
    }

    fn child(&self, name: &'static str, kind: SpanKind, parent: Option<TraceParent>, remote: bool) -> Option<Span> {
        let exporter = self.0.as_ref()?;
        let parent = parent.filter(TraceParent::is_sampled)?;
        let trace = parent.trace_id().to_bytes();
        Some(Span::new(exporter, name, kind, trace, Some((parent.span_id(), remote))))
    }

    /// Exports what is left, and waits for it, at most 2 s. Spans that end later are lost.
    pub async fn shutdown(&self) {
        let Some(exporter) = &self.0 else { return };
        let (done, flushed) = tokio::sync::oneshot::channel();
        let flush = async {
            if exporter.queue.send(Message::Stop(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if tokio::time::timeout(FLUSH, flush).await.is_err() {
            tracing::warn!("traces: the collector did not take the last spans in time");
        }
    }
}

/// Random bytes that are not all zero, which would be no id.
fn random_id<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    rand::fill(&mut id[..]);
    if id.iter().all(|&byte| byte == 0) {
        id[N - 1] = 1;
    }
    id
}

impl Span {
    fn new(
        exporter: &Arc<Exporter>,
        name: &'static str,
        kind: SpanKind,
        trace: [u8; 16],
        parent: Option<(SpanId, bool)>,
    ) -> Self {
        let mut context = [0; TraceParent::LEN];
        context[..16].copy_from_slice(&trace);
        context[16..24].copy_from_slice(&random_id::<8>());
        context[24] = TraceFlags::SAMPLED.to_u8();
        Self {
            exporter: Arc::clone(exporter),
            context: TraceParent(context),
            parent,
            name,
            kind,
            start: SystemTime::now(),
            attributes: Vec::new(),
            status: Status::Unset,
        }
    }

    /// What its children need to know.
    pub const fn context(&self) -> TraceParent {
        self.context
    }

    /// Lets it begin earlier than it was made, for work whose sampling is decided at its end.
    pub fn since(mut self, start: SystemTime) -> Self {
        self.start = start;
        self
    }

    /// Notes a fact; keys are dotted words such as `roomcast.members`. Values of strangers are theirs to choose, so
    /// give only what is bounded.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    /// Marks the work as failed; `what` is a word from a fixed set.
    pub fn fail(&mut self, what: &'static str) {
        self.status = Status::error(what);
    }

    /// Ends it now; dropping does the same.
    pub fn end(self) {}
}

impl Drop for Span {
    fn drop(&mut self) {
        let (parent_span_id, parent_span_is_remote) = self.parent.unwrap_or((SpanId::INVALID, false));
        let span = SpanData {
            span_context: SpanContext::new(
                self.context.trace_id(),
                self.context.span_id(),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id,
            parent_span_is_remote,
            span_kind: self.kind.clone(),
            name: self.name.into(),
            start_time: self.start,
            end_time: SystemTime::now(),
            attributes: std::mem::take(&mut self.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: std::mem::replace(&mut self.status, Status::Unset),
            instrumentation_scope: self.exporter.scope.clone(),
        };
        if self.exporter.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.exporter.dropped.inc();
        }
    }
}
