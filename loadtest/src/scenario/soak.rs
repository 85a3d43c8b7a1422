//! Hours of everything.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "soak",
    about: "Hours of everything: what shows only with time",
    teaches: &[
        "By default 1 h of 50 rooms x 20 members; 5 members of each room publish, together 1 message/s; every 10 \
         min 10 % of the connections break and come back; 5 members a second leave and join again after 1 s. The \
         load tester's own memory stays bounded, however long it takes.",
        "  loadtest soak --target ws://node-1:8080 --scrape node-1:8081 --duration 8h --html soak.html",
        "Look at the node's memory over time (it must level off), at the latency of the last hour beside the \
         first, and at the audit. Restart nodes meanwhile: in durable rooms lost must stay 0.",
    ],
    defaults: &[
        ("rooms", "50"),
        ("members", "20"),
        ("publishers", "5"),
        ("rate", "1"),
        ("duration", "1h"),
        ("dropped", "10%"),
        ("first", "10m"),
        ("every", "10m"),
        ("leaves", "5"),
        ("away", "1s"),
    ],
};
