//! Metrics about all nodes together, as this one sees them. Part of [`super::metrics::Metrics`].

use prometheus::{IntCounterVec, IntGauge};

use super::register::Registrar;

/// All nodes together.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Nodes with a lease, this one included.
    pub nodes: IntGauge,
    /// Their connections.
    pub connections: IntGauge,
    /// Leases of this node that ended without its doing, by `reason`.
    pub leases_lost: IntCounterVec,
    /// Dead nodes this one cleaned up behind, by `outcome`.
    pub takeovers: IntCounterVec,
    /// Orders that this node gave to all, by `outcome`.
    pub orders_given: IntCounterVec,
    /// Orders that this node was given, by `outcome`.
    pub orders_taken: IntCounterVec,
}

impl ClusterMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            nodes: r.gauge("cluster_nodes", "Nodes that live, as of this node's last beat."),
            connections: r.gauge("cluster_connections", "Their WebSockets, as of their own last beats."),
            leases_lost: r.counters_of(
                "leases_lost_total",
                "Times all of this node's members had to enter anew: their lease ran out or was deleted, or the data may be old.",
                ("reason", &["expired", "dataset"]),
            ),
            takeovers: r.counters_of(
                "takeovers_total",
                "Dead nodes whose members this node removed, by how it ended; what failed is done again by some node.",
                ("outcome", &["done", "failed"]),
            ),
            orders_given: r.counters_of(
                "orders_given_total",
                "Orders to all nodes (remove a member, disconnect a user) given through this one: `answered` all living \
                 nodes carried it out, `unanswered` some did not within 2 s, `failed` the broker did not take it.",
                ("outcome", &["answered", "unanswered", "failed"]),
            ),
            orders_taken: r.counters_of(
                "orders_taken_total",
                "Orders that came to this node: `done` carried out, `unknown` of a later version, `overloaded` too many at \
                 once, `failed` not carried out or not answered in time.",
                ("outcome", &["done", "unknown", "overloaded", "failed"]),
            ),
        }
    }
}
