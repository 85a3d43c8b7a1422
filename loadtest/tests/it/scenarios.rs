//! The other scenarios, each at a size that a test can have.

use roomcast_loadtest::{
    record::{Count, Latency},
    report::HappeningKind,
};

use crate::support::{Gateway, Loadtest, Redis, cluster};

#[tokio::test]
async fn all_of_a_storm_resume() {
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 2).await;
    let args = ["--rooms", "4", "--members", "10", "--rate", "10", "--duration", "8s", "--first", "2s"];
    let outcome = Loadtest::against(&nodes, "storm", &args).run().await.exits(0);
    outcome.is_clean();
    let recoveries = &outcome.report().audit.recoveries;
    let dropped = outcome.count(Count::Dropped);
    assert!(dropped > 0, "no storm");
    assert_eq!(recoveries.get("resumed"), Some(&dropped), "{recoveries:?}");
    assert_eq!(outcome.latency(Latency::Resume).len(), dropped);
    assert!(outcome.happened(HappeningKind::Storm) > 0, "{:#?}", outcome.report().events);
}

#[tokio::test]
async fn coming_and_going_loses_nothing() {
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 2).await;
    let args = ["--rooms", "3", "--members", "8", "--rate", "10", "--duration", "6s", "--leaves", "6"];
    let outcome = Loadtest::against(&nodes, "churn", &args).run().await.exits(0);
    outcome.is_clean();
    assert!(outcome.count(Count::Left) > 0 && outcome.count(Count::Joined) > 24, "nobody came or went");
}

#[tokio::test]
async fn connections_are_held() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--connections", "50", "--members", "10", "--duration", "2s"];
    let outcome = Loadtest::against(&nodes, "idle", &args).run().await.exits(0);
    assert_eq!((outcome.count(Count::Connected), outcome.count(Count::Disconnected)), (50, 0));
    let generator = &outcome.report().generators[0];
    assert_eq!(generator.connections, 50);
    assert!(generator.resident_connected_bytes > 0 && generator.resident_before_bytes > 0);
}

#[tokio::test]
async fn a_node_that_cannot_be_scraped_is_an_event_and_no_failure() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--rooms", "1", "--members", "2", "--duration", "3s", "--scrape", "http://127.0.0.1:1/metrics"];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(0);
    assert!(outcome.happened(HappeningKind::Scrape) > 0, "{:#?}", outcome.report().events);
}

#[tokio::test]
async fn a_fan_out_needs_nothing_but_itself() {
    let args = ["fanout", "--self", "--members", "20", "--rate", "20", "--duration", "2s", "--json", "report.json"];
    let outcome = Loadtest::plain(&args).with(&["--html", "report.html", "--max-lag", "1m"]).run().await.exits(0);
    outcome.is_clean();
    assert_eq!(outcome.report().run.scenario, "fanout");
    let page = std::fs::read_to_string(outcome.file("report.html")).expect("a page");
    assert!(page.contains("<html") && !page.contains("src=\"http"), "one page that needs no other");
}
