//! A node is killed while people talk: its clients come back on the others, and nothing is lost without a word.

use roomcast_loadtest::{
    record::{Count, Latency},
    report::HappeningKind,
};
use rustix::process::Signal;

use crate::support::{Loadtest, Redis, cluster};

#[tokio::test]
async fn clients_of_a_killed_node_resume_on_the_others() {
    let redis = Redis::start().await;
    let nodes = cluster(&redis, 3).await;
    let args = ["--rooms", "6", "--members", "6", "--rate", "10", "--duration", "8s"];
    let run = Loadtest::against(&nodes, "chat", &args).start();
    nodes[1].has_published(20).await;
    nodes[1].signal(Signal::KILL);
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    let audit = &outcome.report().audit;
    assert!(outcome.count(Count::Disconnected) >= 12, "{} disconnected", outcome.count(Count::Disconnected));
    assert!(audit.recoveries.get("resumed").is_some_and(|count| *count > 0), "{:?}", audit.recoveries);
    assert_eq!((audit.told_missing, audit.absent_members), (0, 0));
    assert!(outcome.happened(HappeningKind::NodeGone) > 0, "{:#?}", outcome.report().events);
    assert!(!outcome.latency(Latency::Resume).is_empty());
}
