//! Whether anything happened on the node, out of the counts there are. Asked by app now and then.

use prometheus::core::Collector;

use super::metrics::Metrics;

impl Metrics {
    /// Connections and messages there ever were, of whatever outcome. Workers add theirs four times a second.
    pub fn activity(&self) -> u64 {
        let families = self.hub.publishes.collect();
        let publishes = families.iter().flat_map(|family| family.get_metric());
        let messages: f64 = publishes.map(|publish| publish.get_counter().get_value()).sum();
        self.sockets.connections_total.get() + messages as u64
    }
}
