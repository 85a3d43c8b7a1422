//! Many connections break at once and come back.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "storm",
    about: "Drop a share of all connections at once: what a reconnect wave costs",
    teaches: &[
        "By default 50 rooms x 20 members, 1 message/s in each room for 30 s; 10 s into it half of all \
         connections break at once, then come back and resume. With --every they break again and again.",
        "  loadtest storm --target ws://node-1:8080 --dropped 80% --every 15s --duration 60s",
        "Look at the resume latency, at what followed each reconnect (`resumed` is good; `gap` and the like mean \
         that the history was too short), and at the delivery p99 of those who stayed. In durable rooms lost must \
         be 0.",
    ],
    defaults: &[
        ("rooms", "50"),
        ("members", "20"),
        ("publishers", "all"),
        ("rate", "1"),
        ("duration", "30s"),
        ("dropped", "50%"),
        ("first", "10s"),
    ],
};
