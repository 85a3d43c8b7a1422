//! A master is replaced by its replica while people talk, seen by those who talk.

use rustix::process::Signal;

use roomcast_loadtest::record::Latency;

use crate::support::{Gateway, Loadtest, Outcome, Running, Watched, eventually};

const ROOMS: u64 = 4;
const MEMBERS: u64 = 20;
const LOAD: [&str; 6] = ["--rooms", "4", "--members", "5", "--duration", "10m"];

async fn on(group: &Watched) -> Vec<Gateway> {
    let (url, mut nodes) = (group.url(), Vec::new());
    for id in ["n-1", "n-2", "n-3"] {
        nodes.push(Gateway::join_at(&url, id, &[]).await);
    }
    nodes
}

/// Waits until the node has taken so many publishes more.
async fn publishes(node: &Gateway, more: u32) {
    let so_far = node.metric("roomcast_publishes_total").await as u32;
    node.has_published(so_far + more).await;
}

/// The run is told that it was long enough.
async fn ends(run: Running) -> Outcome {
    run.signal(Signal::TERM);
    run.ended().await.exits(0)
}

/// Fails unless what was acked and what Redis has differ by what the audit says was lost: nothing is hidden.
async fn the_loss_is_told(outcome: &Outcome, group: &Watched) -> u64 {
    outcome.is_clean();
    let audit = &outcome.report().audit;
    assert_eq!((audit.undecided, audit.absent_members), (0, 0), "{audit:#?}");
    assert_eq!(audit.lost_acked, audit.acked - group.stored().await, "{audit:#?}");
    audit.lost_acked
}

#[tokio::test]
async fn what_a_replica_lagged_behind_is_told_to_all_and_counted() {
    let mut group = Watched::start().await;
    let nodes = on(&group).await;
    let run = Loadtest::against(&nodes, "chat", &LOAD).with(&["--rate", "10"]).start();
    nodes[0].has_published(20).await;
    group.cut_off_replica().await;
    publishes(&nodes[0], 15).await;
    group.servers[0].stop().await;
    eventually("the replica to lead", || async { (group.master().await == 1).then_some(()) }).await;
    publishes(&nodes[0], 5).await;
    // With all it had, and a master in its own eyes until it is told.
    group.servers[0].resume().await;
    publishes(&nodes[0], 15).await;
    nodes[2].signal(Signal::KILL);
    group.is_whole().await;
    let outcome = ends(run).await;
    let lost = the_loss_is_told(&outcome, &group).await;
    // Each room lost some of it, and so did each member.
    assert!(lost >= ROOMS, "{lost}");
    let audit = &outcome.report().audit;
    let told = |what| audit.recoveries.get(what).copied().unwrap_or(0) + audit.resets.get(what).copied().unwrap_or(0);
    // Of a term that only the old master has, where that took some more before it was told.
    assert!(told("diverged") + told("unknown_term") >= MEMBERS, "{audit:#?}");
    assert!(outcome.stdout.contains("acked, lost"), "{}", outcome.stdout);
    eprintln!("{lost} of {} acked messages lost with the master; {} told", audit.acked, told("diverged"));
}

/// A failover that the sentinels are asked for, with `before` said to the master first.
async fn planned(before: Option<&str>) -> u64 {
    let group = Watched::start().await;
    let nodes = on(&group).await;
    let run = Loadtest::against(&nodes, "chat", &LOAD).with(&["--rate", "50"]).start();
    nodes[0].has_published(50).await;
    if let Some(line) = before {
        assert!(group.servers[0].command(line).await.starts_with("+OK"));
    }
    group.fail_over().await;
    publishes(&nodes[0], 50).await;
    group.is_whole().await;
    let outcome = ends(run).await;
    let lost = the_loss_is_told(&outcome, &group).await;
    let longest = outcome.latency(Latency::Ack).max();
    eprintln!("{lost} of {} acked messages lost; the longest ack took {longest} us", outcome.report().audit.acked);
    lost
}

/// What nodes write to the old master after the new one was promoted is lost, and counted.
#[tokio::test]
async fn a_planned_failover_loses_nothing_that_is_not_told() {
    planned(None).await;
}

/// What is published meanwhile waits until nodes have found the new master, and is stored there.
#[tokio::test]
async fn a_planned_failover_while_writes_are_paused_loses_nothing() {
    assert_eq!(planned(Some("CLIENT PAUSE 20000 WRITE")).await, 0);
}

/// What these tests wait for must not depend on who led when the wait began.
#[tokio::test]
async fn a_group_whose_servers_change_roles_is_whole_in_the_end() {
    let group = Watched::start().await;
    group.cut_off_replica().await;
    // Waits for the replica, which is never to follow this master again.
    tokio::join!(group.is_whole(), group.fail_over());
    assert_eq!(group.master().await, 1);
}
