//! Metrics of tokens and of the keys that they are checked with. Part of `metrics`; counted by `access`.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::register::Registrar;

/// Tokens and keys.
#[derive(Debug)]
pub struct AccessMetrics {
    /// By `outcome`.
    pub tokens: IntCounterVec,
    /// By `outcome`: `ok`, `failed`.
    jwks_fetches: IntCounterVec,
    /// By `issuer`, by its place among those configured.
    jwks_keys: IntGaugeVec,
    /// The same.
    jwks_up: IntGaugeVec,
}

/// One issuer's published set.
#[derive(Debug)]
pub struct KeysMeter {
    fetches: IntCounterVec,
    keys: IntGauge,
    up: IntGauge,
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
            jwks_up: r.gauges(
                "jwks_up",
                "1 if the latest fetch of an issuer's published set went well; 0 before the first, too.",
                &["issuer"],
            ),
        }
    }

    /// The meter of an issuer's set, by its place from 1; everything at zero.
    pub fn keys_of(&self, issuer: usize) -> KeysMeter {
        for outcome in ["ok", "failed"] {
            self.jwks_fetches.with_label_values(&[outcome]);
        }
        let issuer = &*issuer.to_string();
        KeysMeter {
            fetches: self.jwks_fetches.clone(),
            keys: self.jwks_keys.with_label_values(&[issuer]),
            up: self.jwks_up.with_label_values(&[issuer]),
        }
    }
}

impl KeysMeter {
    /// A set came.
    pub fn fetched(&self, keys: usize) {
        self.fetches.with_label_values(&["ok"]).inc();
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.up.set(1);
    }

    /// None came; what is there goes on being used.
    pub fn failed(&self) {
        self.fetches.with_label_values(&["failed"]).inc();
        self.up.set(0);
    }
}
