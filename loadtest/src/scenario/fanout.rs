//! One publisher, many members.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "fanout",
    about: "One publisher, many members: how fast one message reaches everyone",
    teaches: &[
        "By default 1 room of 1,000 members, of whom 1 publishes 10 messages/s for 30 s: 10,000 deliveries/s.",
        "  loadtest fanout --target ws://node-1:8080 --target ws://node-2:8080 --members 5000",
        "Look at the p99 of delivery, within a node and across nodes, and at the deliveries per second. Raise \
         --members or --rate until the p99 bends: that is what the cluster carries.",
    ],
    defaults: &[("rooms", "1"), ("members", "1000"), ("publishers", "1"), ("rate", "10"), ("duration", "30s")],
};
