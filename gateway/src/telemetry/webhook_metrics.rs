//! The metrics of webhooks. A webhook is a label: there are at most 16, named by the operator. Made by `metrics`; used by
//! the senders.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::ages::Ages;
use super::metrics::SECONDS;
use super::register::Registrar;

/// All webhooks.
#[derive(Debug)]
pub struct WebhookMetrics {
    sent: IntCounterVec,
    dropped: IntCounterVec,
    calls: IntCounterVec,
    waiting: IntGaugeVec,
    ages: Ages,
    seconds: HistogramVec,
    /// The call that authorises a connection.
    pub authorize: AuthorizeMetrics,
}

/// The call that authorises a connection.
#[derive(Debug, Clone)]
pub struct AuthorizeMetrics {
    decisions: IntCounterVec,
    cached: IntCounter,
    seconds: Histogram,
}

/// One webhook's handles.
#[derive(Debug, Clone)]
pub struct WebhookMeter {
    name: String,
    sent: IntCounter,
    dropped: IntCounterVec,
    calls: IntCounterVec,
    waiting: IntGauge,
    seconds: Histogram,
}

impl WebhookMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            sent: r.counters("webhook_events_sent_total", "Events that a receiver took.", &["webhook"]),
            dropped: r.counters(
                "webhook_events_dropped_total",
                "Events that no receiver took: the queue was `full`, they were `refused` with a 4xx or a redirect, `given_up` after failing for too long, or left at `shutdown`.",
                &["webhook", "reason"],
            ),
            calls: r.counters(
                "webhook_calls_total",
                "Calls of receivers: `taken`, to be tried `later` (408, 429, 5xx), `refused`, or `unreachable`.",
                &["webhook", "outcome"],
            ),
            waiting: r.gauges("webhook_queue_events", "Events that wait for a receiver.", &["webhook"]),
            ages: r.ages(
                "webhook_oldest_event_age_seconds",
                "For how long the oldest event that no receiver took yet has waited, those of the call under way included; 0 when nothing waits.",
                &["webhook"],
            ),
            seconds: r.histograms(
                "webhook_call_seconds",
                "Time a call of a receiver took, failed ones included.",
                &["webhook"],
                SECONDS,
            ),
            authorize: AuthorizeMetrics::new(r),
        }
    }

    /// From now on each scrape asks `age` for how long the oldest event has waited that the webhook's receiver took not.
    pub fn watch(&self, name: &str, age: impl Fn() -> Duration + Send + Sync + 'static) {
        self.ages.watch(&[name], age);
    }

    /// The handles of one webhook, everything at zero.
    pub fn of(&self, name: &str) -> WebhookMeter {
        for reason in ["full", "refused", "given_up", "shutdown"] {
            self.dropped.with_label_values(&[name, reason]);
        }
        for outcome in ["taken", "later", "refused", "unreachable"] {
            self.calls.with_label_values(&[name, outcome]);
        }
        WebhookMeter {
            name: name.to_owned(),
            sent: self.sent.with_label_values(&[name]),
            dropped: self.dropped.clone(),
            calls: self.calls.clone(),
            waiting: self.waiting.with_label_values(&[name]),
            seconds: self.seconds.with_label_values(&[name]),
        }
    }
}

impl AuthorizeMetrics {
    fn new(r: &mut Registrar) -> Self {
        Self {
            decisions: r.counters_of(
                "authorize_decisions_total",
                "Handshakes that `authorize-url` was to decide: `allowed`, `denied`, `failed` without an answer, or `busy` since too many asked.",
                ("outcome", &["allowed", "denied", "failed", "busy"]),
            ),
            cached: r.counter("authorize_cached_total", "Decisions that an earlier answer had made."),
            seconds: r.histogram("authorize_call_seconds", "Time a call of `authorize-url` took.", SECONDS),
        }
    }

    /// One handshake was decided; `outcome` is one of four.
    pub fn decided(&self, outcome: &'static str) {
        self.decisions.with_label_values(&[outcome]).inc();
    }

    /// An earlier answer was used.
    pub fn cached(&self) {
        self.cached.inc();
    }

    /// One call ended.
    pub fn called(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }
}

impl WebhookMeter {
    /// A receiver took events.
    pub fn sent(&self, events: u64) {
        self.sent.inc_by(events);
    }

    /// Nobody will take them; `reason` is one of four.
    pub fn dropped(&self, reason: &'static str, events: u64) {
        self.dropped.with_label_values(&[&*self.name, reason]).inc_by(events);
    }

    /// One call ended; `outcome` is one of four.
    pub fn called(&self, outcome: &'static str, took: Duration) {
        self.calls.with_label_values(&[&*self.name, outcome]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// So many events wait.
    pub fn waiting(&self, events: usize) {
        self.waiting.set(i64::try_from(events).unwrap_or(i64::MAX));
    }
}
