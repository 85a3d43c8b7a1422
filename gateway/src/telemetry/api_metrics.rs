//! Metrics of the HTTP API. Named here, used by the server. Neither rooms nor keys are labels: who may call could else
//! make as many series as they like.

use prometheus::IntCounterVec;

use super::register::Registrar;

/// Requests of the HTTP API.
#[derive(Debug)]
pub struct ApiMetrics {
    /// By `route`, the endpoint's name, and `status`.
    pub requests: IntCounterVec,
}

impl ApiMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        let help = "Requests of the HTTP API, by endpoint and status; `none` and `options` are no endpoint's.";
        Self { requests: r.counters("api_requests_total", help, &["route", "status"]) }
    }
}
