//! Whole runs against a gateway within the test.

mod hostile;

use super::*;
use crate::embedded::Embedded;
use crate::record::Latency;
use crate::report::Verdict;

struct Nobody;

impl Watcher for Nobody {
    fn phase(&mut self, _: &str, _: Option<Duration>) {}
    fn update(&mut self, _: &Live) {}
    fn note(&mut self, _: &Happening) {}
}

async fn carry_out(mut plan: Plan) -> Report {
    let embedded = Embedded::start(&mut plan).expect("a gateway");
    let report = carry_out_there(plan).await;
    embedded.stop().await.expect("stopped");
    report
}

async fn carry_out_there(plan: Plan) -> Report {
    let (_interrupt, interrupts) = unbounded_channel();
    run(plan, &mut Nobody, interrupts).await.expect("a report")
}

fn count(report: &Report, what: Count) -> u64 {
    report.counts.get(&what).copied().unwrap_or(0)
}

#[tokio::test]
async fn every_message_reaches_every_member() {
    for mode in [Mode::Durable, Mode::Ephemeral] {
        let plan = Plan { mode, rate: 50.0, workers: 2, rooms: 3, ..Plan::sample() };
        let report = carry_out(plan).await;
        assert_eq!(report.problems, Vec::<String>::new());
        let due = count(&report, Count::Due);
        assert!((140..=160).contains(&due), "{due}");
        assert_eq!(count(&report, Count::Sent), due);
        assert_eq!(count(&report, Count::Acked), due);
        assert_eq!(count(&report, Count::Received), 4 * due);
        assert!(report.latencies.contains_key(&Latency::DeliverySame));
        assert!(!report.latencies.contains_key(&Latency::DeliveryCross));
        assert_eq!(report.audit.findings.values().sum::<u64>(), 0, "{:?}", report.audit.examples);
    }
}

#[tokio::test]
async fn who_is_broken_off_comes_back_and_resumes() {
    let storm =
        crate::plan::Storm { share: 0.5, first: Duration::from_millis(300), every: Some(Duration::from_millis(300)) };
    let report = carry_out(Plan { rate: 100.0, storm: Some(storm), members: 20, ..Plan::sample() }).await;
    assert_eq!(report.problems, Vec::<String>::new());
    let dropped = count(&report, Count::Dropped);
    assert!(dropped > 20, "{dropped}");
    assert_eq!(report.audit.recoveries.get("resumed").copied(), Some(dropped));
    assert_eq!(report.audit.findings.values().sum::<u64>(), 0, "{:?}", report.audit.examples);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_no_result() {
    // Held, and nobody listens there.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let nobody = socket.local_addr().expect("bound");
    let plan = Plan {
        targets: vec![crate::plan::Target::at(nobody)],
        connect_timeout: Duration::from_secs(2),
        ..Plan::sample()
    };
    let report = carry_out_there(plan).await;
    assert!(report.problems[0].contains("connection refused"), "{:?}", report.problems);
    assert_eq!(report.verdict, Verdict::Invalid);
}

/// The gateway's own defaults allow neither.
#[tokio::test]
async fn a_gateway_of_our_own_takes_large_messages_and_many_at_once() {
    let sizes = crate::plan::Sizes(vec![(200_000, 1)]);
    let plan = Plan { sizes, rooms: 1, members: 3, publishers: 1, rate: 10.0, ..Plan::sample() };
    let report = carry_out(plan).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(count(&report, Count::Received), 3 * count(&report, Count::Due));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_the_verdict_and_not_the_report() {
    let plan = Plan { log: Some("/dev/full".into()), rate: 50.0, ..Plan::sample() };
    let report = carry_out(plan).await;
    assert!(count(&report, Count::Received) > 0);
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(report.problems[0].contains("log"), "{:?}", report.problems);
}
