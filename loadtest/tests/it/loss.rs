//! A bad network between all who take part, clients, nodes and Redis: it loses packets, or takes its time.

use std::time::Duration;

use roomcast_loadtest::record::Latency;

use crate::support::{
    Gateway, Loadtest, Network, Outcome, Proxy, Redis, cluster, in_a_lossy_network, sent_again, setting,
};

const LOAD: [&str; 8] = ["--rooms", "6", "--members", "6", "--rate", "5", "--settle", "30s"];

/// Fails unless nobody noticed more than the time it took.
fn nothing_is_missing(outcome: &Outcome) {
    outcome.is_clean();
    let audit = &outcome.report().audit;
    assert_eq!((audit.told_missing, audit.absent_members, audit.undecided), (0, 0, 0), "{audit:#?}");
}

#[tokio::test]
async fn one_packet_in_twenty_is_lost_and_no_message() {
    if !in_a_lossy_network("loss::one_packet_in_twenty_is_lost_and_no_message", "0.05").await {
        return;
    }
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 3).await;
    let before = sent_again();
    let duration = format!("{}s", setting("LOSS_SECONDS", 6));
    let outcome = Loadtest::against(&nodes, "chat", &LOAD).with(&["--duration", &duration]).run().await.exits(0);
    nothing_is_missing(&outcome);
    let again = sent_again() - before;
    assert!(again > 50, "the network was good: {again} segments were sent again");
    let p99 = outcome.latency(Latency::DeliveryCross).value_at_quantile(0.99);
    eprintln!("{} deliveries, p99 {p99} us; {again} segments sent again", outcome.report().audit.checked);
}

#[tokio::test]
async fn half_a_second_on_each_way_costs_time_and_no_message() {
    let redis = Redis::start().await;
    // Redis is half a second away, there and back: what needs more round trips than one must fit into its timeouts.
    let link = Proxy::to(&redis).await;
    let nodes = [Gateway::join_at(&link.url(), "n-1", &[]).await, Gateway::join_at(&link.url(), "n-2", &[]).await];
    let mut fronts = Vec::new();
    for node in &nodes {
        fronts.push(Proxy::to_port(node.addr.port()).await);
    }
    link.make(Network::Slow(Duration::from_millis(250)));
    for front in &fronts {
        front.make(Network::Slow(Duration::from_millis(500)));
    }
    let targets = fronts.iter().map(|front| format!("ws://127.0.0.1:{}", front.port()));
    let duration = format!("{}s", setting("LOSS_SECONDS", 6));
    let outcome = Loadtest::at(targets, "chat", &LOAD).with(&["--duration", &duration]).run().await.exits(0);
    nothing_is_missing(&outcome);
    let ack = outcome.latency(Latency::Ack);
    assert!(ack.min() >= 1_450_000, "an ack came after {} us", ack.min());
    eprintln!("{} deliveries, acks p50 {} us", outcome.report().audit.checked, ack.value_at_quantile(0.5));
}
