//! Connections that only stay.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "idle",
    about: "Hold connections without traffic: what one connection costs",
    teaches: &[
        "Shows whether connections that say nothing stay, and what they cost. By default 10,000 connections in \
         rooms of 10, held for 60 s; nothing is published.",
        "  loadtest idle --target ws://node-1:8080 --scrape http://node-1:8081/metrics --connections 20000",
        "Look at the connections over time (they must not fall), at the connect latency, and at the node's memory \
         with and without the connections. More than about 28,000 per target address need several --source \
         addresses.",
    ],
    defaults: &[("connections", "10000"), ("members", "10"), ("duration", "60s")],
};
