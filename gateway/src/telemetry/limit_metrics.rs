//! What was refused, and what was decided without the broker. Part of the node's metrics.

use prometheus::{IntCounter, IntCounterVec};

use super::register::Registrar;

/// Limits, by which one.
#[derive(Debug)]
pub struct LimitMetrics {
    /// Publishes and renames, by `limit`: `client`, `user`, `room`.
    rate_limited: IntCounterVec,
    /// Connections of users who had as many as there may be.
    pub seats_refused: IntCounter,
    /// Decisions for which the broker was not there, by `limit`: `user`, `room`, `connections`.
    pub alone: IntCounterVec,
}

impl LimitMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            rate_limited: r.counters_of(
                "rate_limited_total",
                "Publishes and renames refused by a rate: that of the `client`, of its `user` over all nodes, or of the \
                 `room` over all nodes.",
                ("limit", &["client", "user", "room"]),
            ),
            seats_refused: r.counter(
                "user_connections_refused_total",
                "WebSockets closed with 4429: their user had as many as there may be over all nodes.",
            ),
            alone: r.counters_of(
                "limits_alone_total",
                "Times a limit of the cluster held for this node alone, since the broker did not answer: the rate of a \
                 `user` or of a `room`, or the `connections` of a user.",
                ("limit", &["user", "room", "connections"]),
            ),
        }
    }

    /// So many publishes or renames were refused by a rate: that of the `client`, its `user` or the `room`.
    pub fn refused(&self, limit: &'static str, count: u64) {
        self.rate_limited.with_label_values(&[limit]).inc_by(count);
    }
}
