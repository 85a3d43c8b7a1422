//! Members leave their rooms and join them again.

use super::Scenario;

pub const SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "Members leave and join all the time: what coming and going costs",
    teaches: &[
        "By default 100 rooms x 20 members; 1 member of each room publishes 1 message/s for 30 s, and of the \
         others 50 each second leave their room, stay away for 1 s and join again.",
        "  loadtest churn --target ws://node-1:8080 --leaves 200 --away 500ms",
        "Look at the join latency, and at delivery beside a run of `chat`: presence must not slow messages down. \
         What passes while a member is away is not owed to it; from its next join on, everything is.",
    ],
    defaults: &[
        ("rooms", "100"),
        ("members", "20"),
        ("publishers", "1"),
        ("rate", "1"),
        ("duration", "30s"),
        ("leaves", "50"),
        ("away", "1s"),
    ],
};
