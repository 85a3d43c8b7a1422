//! Many rooms in which everybody talks.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "chat",
    about: "Many rooms in which everybody talks: the everyday load",
    teaches: &[
        "By default 100 rooms x 20 members; in each room 1 message/s, from all its members in turn, for 30 s: 100 \
         publishes/s and 2,000 deliveries/s. With several --target a room's members are on different nodes, so \
         messages cross nodes.",
        "  loadtest chat --target ws://node-1:8080 --target ws://node-2:8080 --rooms 200 --rate 5",
        "Look at lost, duplicated and reordered (all must be 0), then at the p99 of ack and of delivery across \
         nodes. --assert 'delivery.p99<50ms' makes it a test.",
    ],
    defaults: &[("rooms", "100"), ("members", "20"), ("publishers", "all"), ("rate", "1"), ("duration", "30s")],
};
