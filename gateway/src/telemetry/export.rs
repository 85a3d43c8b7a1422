//! The thread that sends finished spans to the collector. Started by `trace`; its runtime is its own, so that a slow
//! collector never takes a worker's time.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::trace::{TraceError, TraceOptions};

/// Spans in one export.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Time for one export.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is sent.
#[derive(Debug)]
pub(super) enum Message {
    /// A finished span.
    Span(Box<SpanData>),
    /// Export what is left, answer, end.
    Stop(oneshot::Sender<()>),
}

pub(super) fn start(
    options: &TraceOptions,
    spans: mpsc::Receiver<Message>,
    dropped: IntCounter,
) -> Result<(), TraceError> {
    let options = options.clone();
    let (report, started) = std::sync::mpsc::sync_channel(1);
    // Everything is made on the thread itself: the caller may be inside a runtime, where another cannot be dropped.
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
        let made = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TraceError::from);
        let made = made.and_then(|runtime| {
            let exporter = runtime.block_on(async { exporter(&options) })?;
            Ok((runtime, exporter))
        });
        match made {
            Ok((runtime, exporter)) => {
                let _ = report.send(Ok(()));
                runtime.block_on(Exports { exporter, batch: Vec::new(), dropped, is_failing: false }.run(spans));
            }
            Err(error) => drop(report.send(Err(error))),
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended").into()))
}

fn exporter(options: &TraceOptions) -> Result<SpanExporter, TraceError> {
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&options.endpoint)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| TraceError::Endpoint { endpoint: options.endpoint.clone(), problem: error.to_string() })?;
    let resource = Resource::builder_empty()
        .with_service_name("roomcast-gateway")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", options.node_id.clone()))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

struct Exports {
    exporter: SpanExporter,
    batch: Vec<SpanData>,
    dropped: IntCounter,
    is_failing: bool,
}

impl Exports {
    async fn run(mut self, mut spans: mpsc::Receiver<Message>) {
        let mut due = Instant::now();
        loop {
            let message = tokio::select! {
                message = spans.recv() => message,
                () = tokio::time::sleep_until(due), if !self.batch.is_empty() => {
                    self.export().await;
                    continue;
                }
            };
            match message {
                Some(Message::Span(span)) => {
                    if self.batch.is_empty() {
                        due = Instant::now() + DELAY;
                    }
                    self.batch.push(*span);
                    if self.batch.len() >= BATCH {
                        self.export().await;
                    }
                }
                Some(Message::Stop(done)) => {
                    self.export().await;
                    let _ = done.send(());
                    return;
                }
                None => return self.export().await,
            }
        }
    }

    async fn export(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len();
        if count == 0 {
            return;
        }
        let result = tokio::time::timeout(TIMEOUT, self.exporter.export(batch)).await;
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match error {
            None if self.is_failing => tracing::info!("traces: the collector takes spans again"),
            None => {}
            Some(error) => {
                self.dropped.inc_by(count as u64);
                // Once per outage: an absent collector is no reason to fill the log.
                if !self.is_failing {
                    tracing::warn!(%error, "traces: the collector takes no spans");
                }
                self.is_failing = true;
                return;
            }
        }
        self.is_failing = false;
    }
}
