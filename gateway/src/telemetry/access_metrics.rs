//! Metrics of tokens and of the keys that they are checked with. Part of `metrics`; counted by `access`.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::register::Registrar;

/// Tokens and keys.
#[derive(Debug)]
pub struct AccessMetrics {
    /// By `outcome`.
    pub tokens: IntCounterVec,
    /// By `outcome`: `ok`, `failed`.
    pub jwks_fetches: IntCounterVec,
    /// By `issuer`, by its place among those configured.
    pub jwks_keys: IntGaugeVec,
}

impl AccessMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            tokens: r.counters(
                "tokens_total",
                "Tokens looked at, at handshakes and for `refresh`: `accepted`, or why not.",
                &["outcome"],
            ),
            jwks_fetches: r.counters("jwks_fetches_total", "Fetches of published key sets.", &["outcome"]),
            jwks_keys: r.gauges(
                "jwks_keys",
                "Usable keys of an issuer's published set, by its place among the issuers from 1; 0 before the first fetch.",
                &["issuer"],
            ),
        }
    }
}
