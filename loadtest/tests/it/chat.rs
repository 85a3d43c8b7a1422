//! Chat over three nodes: the cluster keeps its promises, and the report shows who was where.

use roomcast_loadtest::record::{Count, Latency};

use crate::support::{Gateway, Loadtest, Redis, cluster};

#[tokio::test]
async fn durable_rooms_over_three_nodes_lose_and_repeat_nothing() {
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 3).await;
    let scrape = format!("http://{}/metrics", nodes[0].admin);
    let args = ["--rooms", "8", "--members", "6", "--rate", "10", "--duration", "4s", "--scrape", &scrape];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(0);
    outcome.is_clean();
    let report = outcome.report();
    assert_eq!((report.run.clients, report.run.mode.as_str(), report.run.targets.len()), (48, "durable", 3));
    assert_eq!(outcome.count(Count::Connected), 48);
    assert_eq!(outcome.count(Count::Due), outcome.count(Count::Acked), "everything due was sent and stored");
    assert!(!outcome.latency(Latency::DeliverySame).is_empty());
    assert!(!outcome.latency(Latency::DeliveryCross).is_empty());
    assert_eq!(outcome.latency(Latency::Ack).len(), outcome.count(Count::Acked));
    assert_eq!(outcome.latency(Latency::Connect).len(), 48);
    assert!(report.servers.iter().any(|server| !server.samples.is_empty()), "the node was scraped");
    assert!(report.series.rows.len() >= 4, "{} rows", report.series.rows.len());
}

#[tokio::test]
async fn ephemeral_rooms_over_two_nodes_repeat_nothing() {
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 2).await;
    let args = ["--mode", "ephemeral", "--prefix", "eph", "--rooms", "4", "--members", "6", "--rate", "10"];
    let outcome = Loadtest::against(&nodes, "chat", &args).with(&["--duration", "3s"]).run().await.exits(0);
    outcome.is_clean();
    assert_eq!(outcome.report().run.mode, "ephemeral");
    assert!(!outcome.latency(Latency::DeliveryCross).is_empty());
}

#[tokio::test]
async fn a_room_of_another_mode_than_expected_is_told() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--mode", "ephemeral", "--rooms", "1", "--members", "2", "--duration", "1s"];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(3);
    let words = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(words.contains("is not ephemeral") && words.contains("--prefix"), "{words}");
}
