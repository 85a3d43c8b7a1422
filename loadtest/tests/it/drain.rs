//! Nodes that are restarted one after the other while people talk, and a node that takes its time with who comes back.

use roomcast_loadtest::{
    record::{Count, Latency},
    report::HappeningKind,
};
use rustix::process::Signal;

use crate::support::{Gateway, Loadtest, Outcome, Redis};

/// As a rolling restart does it: the next node goes when the one before is back and ready.
#[tokio::test]
async fn a_rolling_restart_loses_and_repeats_nothing() {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["n-1", "n-2", "n-3"] {
        nodes.push(Gateway::join(&redis, id, &["--drain-window", "2s", "--shutdown-timeout", "30s"]).await);
    }
    let args = ["--rooms", "10", "--members", "12", "--rate", "10", "--duration", "30s"];
    let run = Loadtest::against(&nodes, "chat", &args).start();
    for node in &mut nodes {
        node.has_published(20).await;
        node.signal(Signal::TERM);
        assert_eq!(node.ended().await, Some(0), "{}", node.addr);
        node.again().await;
    }
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    let audit = &outcome.report().audit;
    assert!(outcome.count(Count::Disconnected) >= 120, "{} disconnected", outcome.count(Count::Disconnected));
    only_resumed(&outcome, 120);
    assert_eq!((audit.told_missing, audit.absent_members), (0, 0));
    assert!(outcome.happened(HappeningKind::Drain) >= 3, "{:#?}", outcome.report().events);
    assert!(outcome.latency(Latency::Resume).len() >= 120);
}

/// Fails unless each of `clients` came once as a stranger, and all who came again went on where they were.
fn only_resumed(outcome: &Outcome, clients: u64) {
    let recoveries = &outcome.report().audit.recoveries;
    let count = |what| recoveries.get(what).copied().unwrap_or(0);
    assert_eq!((count("fresh"), recoveries.len()), (clients, 2), "{recoveries:?}");
    assert!(count("resumed") >= clients, "{recoveries:?}");
}

/// All of 1000 clients break off at once, and the node lets 200 a second in: the others ask again until they are in.
#[tokio::test]
async fn a_storm_is_let_in_at_the_rate_it_may_have() {
    let nodes = [Gateway::start(&["--connect-rate", "200"]).await];
    let args = ["--rooms", "50", "--members", "20", "--rate", "1", "--duration", "25s", "--dropped", "100%"];
    let run = Loadtest::against(&nodes, "storm", &args)
        .with(&["--first", "3s", "--connect-rate", "150", "--backoff-max", "3s"])
        .start();
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    assert!(outcome.count(Count::ConnectFailed) > 0, "the storm was within the rate");
    assert_eq!(outcome.count(Count::Dropped), 1000);
    assert_eq!(outcome.report().audit.absent_members, 0, "all are back");
    only_resumed(&outcome, 1000);
}
