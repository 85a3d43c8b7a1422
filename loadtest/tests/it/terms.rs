//! Redis crashes while people talk, and comes back with all it had, with an older state, or with nothing.

use roomcast_loadtest::{record::Count, report::Finding};
use rustix::process::Signal;

use crate::support::{Gateway, Loadtest, Outcome, Redis};

const LOAD: [&str; 8] = ["--rooms", "4", "--members", "5", "--rate", "10", "--duration", "20s"];

const MEMBERS: u64 = 20;

/// Three nodes with `args`, people who talk, and Redis crashes: with what it saved before some of it was said if `save`.
/// Then a node dies, and its clients come back on the others.
async fn through(redis: &mut Redis, save: bool, args: &[&str]) -> Outcome {
    let mut nodes = Vec::new();
    for id in ["n-1", "n-2", "n-3"] {
        nodes.push(Gateway::join(redis, id, args).await);
    }
    let run = Loadtest::against(&nodes, "chat", &LOAD).start();
    nodes[0].has_published(30).await;
    if save {
        assert!(redis.command("SAVE").await.starts_with("+OK"));
        let published = nodes[0].metric("roomcast_publishes_total").await;
        nodes[0].has_published(published as u32 + 30).await;
    }
    redis.crash().await;
    let so_far = nodes[0].metric("roomcast_publishes_total").await;
    nodes[0].has_published(so_far as u32 + 30).await;
    nodes[2].signal(Signal::KILL);
    run.ended().await
}

fn told(outcome: &Outcome, what: &str) -> u64 {
    let audit = &outcome.report().audit;
    audit.recoveries.get(what).copied().unwrap_or(0) + audit.resets.get(what).copied().unwrap_or(0)
}

/// Rooms with a term that ended.
async fn terms_ended(redis: &Redis) -> u64 {
    let script = "local n = 0; for _, k in ipairs(redis.call('KEYS', '*:m')) do \
                  if string.find(redis.call('HGET', k, 'b'), ' ') then n = n + 1 end end; return n";
    let answer = redis.command(&format!("EVAL \"{script}\" 0")).await;
    answer.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test]
async fn a_crash_that_loses_nothing_costs_nobody_a_message() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]).await;
    let outcome = through(&mut redis, false, &[]).await.exits(0);
    outcome.is_clean();
    let audit = &outcome.report().audit;
    // The identity is another, and so is the term; and still everybody goes on where they were.
    assert_eq!(terms_ended(&redis).await, 4);
    assert!(audit.recoveries.get("resumed").is_some_and(|count| *count > 0), "{:?}", audit.recoveries);
    for what in ["gap", "diverged", "unknown_term"] {
        assert_eq!(told(&outcome, what), 0, "{what}: {:?} {:?}", audit.recoveries, audit.resets);
    }
    assert_eq!((audit.told_missing, audit.absent_members), (0, 0));
    assert!(outcome.count(Count::Disconnected) > 0);
}

/// What was acked and is not in the older state is lost. Everybody who saw it is told, and nobody misses anything else.
#[tokio::test]
async fn an_older_state_is_told_to_all_who_saw_more() {
    let mut redis = Redis::start_with(&["--appendonly", "no", "--dbfilename", "dump.rdb"]).await;
    let outcome = through(&mut redis, true, &[]).await.exits(0);
    outcome.is_clean();
    assert!(told(&outcome, "diverged") >= MEMBERS, "{:#?}", outcome.report().audit);
    assert_eq!(terms_ended(&redis).await, 4);
}

#[tokio::test]
async fn an_empty_redis_is_told_to_all() {
    let mut redis = Redis::start().await;
    let outcome = through(&mut redis, false, &[]).await.exits(0);
    outcome.is_clean();
    assert!(told(&outcome, "unknown_term") >= MEMBERS, "{:#?}", outcome.report().audit);
}

/// The same on nodes that know nothing of terms, and repair what they miss as always: what has a seq that was seen
/// before is no news to them, so what Redis stores under it now reaches nobody.
#[tokio::test]
async fn an_older_state_under_the_same_term_is_found() {
    let mut redis = Redis::start_with(&["--appendonly", "no", "--dbfilename", "dump.rdb"]).await;
    let outcome = through(&mut redis, true, &["--sabotage", "no-terms"]).await.exits(1);
    assert!(outcome.found(Finding::Reordered) > 0, "{:?}", outcome.findings());
    assert_eq!(outcome.found(Finding::SilentBreak), 0, "to them it is all one term: {:?}", outcome.findings());
    assert_eq!(terms_ended(&redis).await, 0);
}

/// The same on nodes that believe every new term to go on where the old one was.
#[tokio::test]
async fn an_older_state_that_nobody_is_told_of_is_found() {
    let mut redis = Redis::start_with(&["--appendonly", "no", "--dbfilename", "dump.rdb"]).await;
    let outcome = through(&mut redis, true, &["--sabotage", "no-repair"]).await.exits(1);
    assert!(outcome.found(Finding::SilentBreak) > 0, "{:?}", outcome.findings());
}
