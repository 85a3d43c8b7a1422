//! A gateway that stands still under a steady rate: everyone who had to wait is in the figures, not one unlucky request.

use std::time::{Duration, Instant};

use roomcast_loadtest::record::{Count, Latency};
use rustix::process::Signal;

use crate::support::{Gateway, Loadtest};

#[tokio::test]
async fn a_stall_shows_in_the_percentiles_by_its_full_length() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--rooms", "2", "--members", "3", "--rate", "50", "--duration", "10s"];
    let run = Loadtest::against(&nodes, "chat", &args).start();
    nodes[0].has_published(100).await;
    // Not a wait for something: the stall is what is measured.
    let began = Instant::now();
    nodes[0].signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stalled = began.elapsed();
    nodes[0].signal(Signal::CONT);
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    assert_eq!(outcome.count(Count::Due), 2 * 50 * 10, "publishers keep to their times");
    for what in [Latency::DeliverySame, Latency::Ack] {
        let latency = outcome.latency(what);
        let us = |part: f64| (stalled.as_micros() as f64 * part) as u64;
        // What was due as the stall began waited for all of it; one message in three was due during the stall.
        assert!(latency.max() >= us(0.99), "{what:?}: {} of {}", latency.max(), us(1.0));
        assert!(latency.value_at_quantile(0.99) >= us(0.9), "{what:?}: p99 {}", latency.value_at_quantile(0.99));
        assert!(latency.value_at_quantile(0.9) >= us(0.5), "{what:?}: p90 {}", latency.value_at_quantile(0.9));
    }
}

#[tokio::test]
async fn what_waits_for_a_full_socket_keeps_its_order() {
    let nodes = [Gateway::start(&["--publish-rate", "0"]).await];
    let args = ["--rooms", "1", "--members", "2", "--rate", "100", "--size", "60k", "--duration", "8s"];
    let run = Loadtest::against(&nodes, "chat", &args).start();
    nodes[0].has_published(100).await;
    nodes[0].signal(Signal::STOP);
    // Long enough for more than sockets and the load tester itself take in.
    tokio::time::sleep(Duration::from_secs(4)).await;
    nodes[0].signal(Signal::CONT);
    run.ended().await.exits(0).is_clean();
}
