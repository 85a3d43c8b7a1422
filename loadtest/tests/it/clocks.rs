//! Nodes whose clocks differ by minutes.

use rustix::process::Signal;

use crate::support::{Gateway, Loadtest, Redis, eventually};

async fn nodes_of(node: &Gateway) -> u64 {
    node.metric("roomcast_cluster_nodes").await as u64
}

/// Order, presence and leases stand on Redis' clock and on those that only ever go on.
#[tokio::test]
async fn clocks_that_are_minutes_off_change_nothing() {
    let redis = Redis::start().await;
    let args = ["--lease-beat", "1s", "--lease-expiry", "10s"];
    let mut nodes = vec![Gateway::join(&redis, "n-1", &args).await];
    for (id, off, seconds) in [("n-2", "+5m", 300), ("n-3", "-5m", -300)] {
        let node = Gateway::join_off(&redis, id, off, &args).await;
        assert!((node.clock_off() - seconds).abs() < 100, "{id} is {} s off", node.clock_off());
        nodes.push(node);
    }
    let args =
        ["--rooms", "6", "--members", "6", "--rate", "5", "--leaves", "5", "--away", "500ms", "--duration", "8s"];
    let run = Loadtest::against(&nodes, "churn", &args).start();
    for node in &nodes {
        eventually("each to count all three", || async { (nodes_of(node).await == 3).then_some(()) }).await;
    }
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    assert_eq!(outcome.report().audit.absent_members, 0);
    for node in &nodes {
        for metric in ["roomcast_leases_lost_total", "roomcast_takeovers_total"] {
            assert_eq!(node.metric(metric).await as u64, 0, "{metric} at {}", node.addr);
        }
    }
    // And whose lease does run out is found dead by those who are ten minutes apart.
    nodes[0].signal(Signal::KILL);
    for node in &nodes[1..] {
        eventually("the dead one to be counted no more", || async { (nodes_of(node).await == 2).then_some(()) }).await;
    }
}
