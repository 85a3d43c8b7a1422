//! Tells in the log how the node goes: that it leaves, how far it is, what came of it. Started by the parent, once; all it
//! knows is the node's life and its metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::lifecycle::{Lifecycle, Stage};
use crate::telemetry::metrics::Metrics;

/// Between two lines on how far it is.
const EVERY: Duration = Duration::from_secs(3);

/// Waits for the end and tells of it; returns once the node has stopped.
pub(super) async fn tell(settings: Arc<Settings>, metrics: Arc<Metrics>, lifecycle: Lifecycle) {
    let sockets = &metrics.sockets;
    let sent_away = sockets.closes.with_label_values(&["draining"]);
    let text = |time: Duration| humantime::format_duration(time).to_string();

    lifecycle.reached(Stage::Leaving).await;
    if lifecycle.stage() == Stage::Leaving && !settings.drain_delay.is_zero() {
        tracing::info!(sessions = sockets.connections.get(), delay = %text(settings.drain_delay), "leaving: not ready");
    }
    lifecycle.reached(Stage::Draining).await;
    let window = if lifecycle.is_hurried() { Duration::ZERO } else { settings.drain_window };
    tracing::info!(sessions = sockets.connections.get(), window = %text(window), "draining");
    let began = Instant::now();
    while tokio::time::timeout(EVERY, lifecycle.reached(Stage::Stopped)).await.is_err() {
        tracing::info!(sessions = sockets.connections.get(), sent_away = sent_away.get(), "still draining");
    }
    let took = text(Duration::from_millis(began.elapsed().as_millis() as u64));
    tracing::info!(sessions = sockets.connections.get(), sent_away = sent_away.get(), %took, "drained");
}
