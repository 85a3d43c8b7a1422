//! Gateways that break their promises: the audit finds each fault, and calls it by its name.

use roomcast_loadtest::{
    record::{Count, Latency},
    report::Finding,
};

use crate::support::{Gateway, Loadtest, Outcome, Redis};

const MEMBERS: u64 = 4;

/// A chat in durable rooms on one node with `faults`.
async fn chat(faults: &str) -> Outcome {
    let nodes = [Gateway::start(&["--sabotage", faults]).await];
    let args = ["--rooms", "3", "--members", &MEMBERS.to_string(), "--rate", "20", "--duration", "3s"];
    Loadtest::against(&nodes, "chat", &args).run().await.exits(1)
}

/// Fails unless `what` was found, nothing else was, and its threshold failed.
fn only(outcome: &Outcome, what: Finding) {
    let report = outcome.report();
    assert_eq!(outcome.findings(), [what.name()], "{:#?}", report.audit.examples);
    let failed: Vec<&str> = report.thresholds.iter().filter(|one| !one.passed).map(|one| one.text.as_str()).collect();
    assert_eq!(failed, [format!("{}==0", what.name())]);
    assert!(report.audit.examples.iter().any(|example| example.finding == what), "{:#?}", report.audit.examples);
    assert!(outcome.stdout.contains(what.name()), "{}", outcome.stdout);
}

#[tokio::test]
async fn a_dropped_message_is_lost() {
    let outcome = chat("drop=7").await;
    only(&outcome, Finding::Lost);
    assert_eq!(outcome.found(Finding::Lost) % MEMBERS, 0, "every member lacks the same");
}

#[tokio::test]
async fn a_repeated_message_is_duplicated() {
    let outcome = chat("repeat=7").await;
    only(&outcome, Finding::Duplicated);
    assert_eq!(outcome.found(Finding::Duplicated) % MEMBERS, 0, "every member got the same");
}

#[tokio::test]
async fn swapped_messages_are_reordered() {
    only(&chat("swap=7").await, Finding::Reordered);
}

#[tokio::test]
async fn a_changed_character_is_corrupted() {
    let outcome = chat("corrupt=7").await;
    only(&outcome, Finding::Corrupted);
    let cross = outcome.latency(Latency::DeliveryCross).len();
    assert_eq!(cross, 0, "there is one node, and when a damaged message was sent nobody knows");
}

#[tokio::test]
async fn a_message_of_another_room_is_in_the_wrong_room() {
    only(&chat("misroute=7").await, Finding::WrongRoom);
}

#[tokio::test]
async fn an_echo_over_redis_is_duplicated_in_ephemeral_rooms() {
    let redis = Redis::start().await;
    let nodes =
        [Gateway::join(&redis, "n-1", &["--sabotage", "keep-echo"]).await, Gateway::join(&redis, "n-2", &[]).await];
    let args = ["--mode", "ephemeral", "--prefix", "eph", "--rooms", "3", "--members", "4", "--rate", "10"];
    let outcome = Loadtest::against(&nodes, "chat", &args).with(&["--duration", "3s"]).run().await.exits(1);
    only(&outcome, Finding::Duplicated);
}

#[tokio::test]
async fn an_echo_over_redis_is_duplicated_in_durable_rooms() {
    let redis = Redis::start().await;
    let nodes = [Gateway::join(&redis, "n-1", &["--sabotage", "no-dedupe"]).await];
    let args = ["--rooms", "3", "--members", "4", "--rate", "10", "--duration", "3s"];
    only(&Loadtest::against(&nodes, "chat", &args).run().await.exits(1), Finding::Duplicated);
}

#[tokio::test]
async fn a_threshold_of_ones_own_replaces_the_audits() {
    let nodes = [Gateway::start(&["--sabotage", "drop=7"]).await];
    let args = ["--rooms", "2", "--members", "3", "--rate", "20", "--duration", "2s", "--assert", "lost<1000000"];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(0);
    assert!(outcome.found(Finding::Lost) > 0 && outcome.count(Count::Acked) > 0);
    assert!(outcome.report().thresholds.iter().any(|one| one.text == "lost<1000000" && one.passed));
}
