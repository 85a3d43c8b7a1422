//! A node that goes: how its clients are sent away, what they still get, and what the others see of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Client, Node, Redis, eventually, get, room, upgrade};

const CLIENTS: usize = 200;

/// What one client of the node that goes has seen.
struct Seen {
    /// The seqs of the messages it got.
    seqs: Vec<u64>,
    reason: String,
    after_ms: u64,
    code: u16,
    /// What `/readyz` said when it was sent away.
    ready: u16,
}

async fn until_sent_away(mut client: Client, node: Arc<Node>) -> Seen {
    let mut seqs = Vec::new();
    let told = loop {
        let frame = client.next().await;
        match frame.kind() {
            "message" => seqs.push(frame.seq()),
            "reconnect" => break frame,
            _ => {}
        }
    };
    let ready = get(node.admin, "/readyz").await.status;
    let reason = told.str("reason").to_owned();
    let after_ms = told["afterMs"].as_u64().unwrap_or_else(|| panic!("{}", told.text));
    let code = client.close_code().await;
    assert_eq!(client.kept(), [""; 0], "nothing comes behind `reconnect` but the close");
    Seen { seqs, reason, after_ms, code, ready }
}

/// Lets `count` clients enter `room` and waits for what they see until they are sent away.
async fn audience(node: &Arc<Node>, room: &str, count: usize) -> JoinSet<Seen> {
    let mut seeing = JoinSet::new();
    for _ in 0..count {
        let (client, _) = Client::enter(node, room).await;
        seeing.spawn(until_sent_away(client, Arc::clone(node)));
    }
    seeing
}

/// Messages are the clock here: they go on all the time, so the last one a client got tells when it was sent away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_sent_away_one_after_the_other() {
    let redis = Redis::start().await;
    let going = ["--drain-window", "6s", "--shutdown-timeout", "1m"];
    let going = Arc::new(Node::join(&redis, "n-going", &going).await);
    let staying = Node::join(&redis, "n-staying", &["--publish-rate", "0"]).await;
    let name = room();
    let (mut speaker, _) = Client::enter(&staying, &name).await;
    let mut seeing = audience(&going, &name, CLIENTS).await;

    let over = Arc::new(AtomicBool::new(false));
    let speaking = tokio::spawn({
        let (over, name) = (Arc::clone(&over), name.clone());
        async move {
            let mut clock = tokio::time::interval(std::time::Duration::from_millis(10));
            while !over.load(Ordering::Relaxed) {
                clock.tick().await;
                speaker.publish(&name, json!("tick")).await;
            }
            speaker
        }
    });
    going.terminate();
    let mut seen = vec![seeing.join_next().await.expect("a client").expect("no panic")];
    // The node is still there for most, but not for new ones.
    let (response, _) = upgrade(going.addr, &format!("/ws/{name}"), &[]).await;
    let after = response.header("retry-after").parse::<u32>();
    assert!(response.status == 503 && after.is_ok_and(|seconds| (1..=5).contains(&seconds)), "{response:?}");
    going.reaches("roomcast_draining", &[], 1.0).await;
    going.reaches("roomcast_handshakes_total", &["draining"], 1.0).await;
    let left = going.metric("roomcast_drain_sessions_left", &[]).await;
    assert!(left > 0.0 && left < CLIENTS as f64, "{left} left: some have gone, and some are here");
    seen.extend(seeing.join_all().await);

    let log = {
        let mut node = Arc::into_inner(going).expect("nobody else has it");
        assert_eq!(node.ended().await.code(), Some(0));
        node.log()
    };
    over.store(true, Ordering::Relaxed);
    let mut speaker = speaking.await.unwrap();
    speaker.send(json!({"type": "members", "room": name, "limit": 1, "ref": "who"})).await;
    assert_eq!(speaker.answer(&json!("who")).await["online"], 1, "it told of every leave before it ended");

    assert_eq!(seen.len(), CLIENTS);
    for one in &seen {
        assert_eq!((one.code, one.reason.as_str()), (1012, "draining"));
        assert_eq!(one.ready, 503, "not ready before the first is sent away");
        assert!(one.after_ms <= 600, "{} ms for a window of 6 s", one.after_ms);
        let first = one.seqs.first().copied().unwrap_or(1);
        let whole: Vec<u64> = (first..).take(one.seqs.len()).collect();
        assert!(first == 1 && one.seqs == whole, "everything up to its end: {:?}", one.seqs);
    }
    let ends: BTreeSet<u64> = seen.iter().map(|one| one.seqs.last().copied().unwrap_or(0)).collect();
    assert!(ends.len() >= 10, "sent away at {} moments only: {ends:?}", ends.len());
    let together = ends.iter().map(|end| seen.iter().filter(|one| one.seqs.last() == Some(end)).count()).max();
    assert!(together.is_some_and(|most| most <= CLIENTS / 4), "{together:?} of them at once: a burst");
    for words in ["\"draining\"", "\"drained\"", "\"sessions\":200", "\"sent_away\":200"] {
        assert!(log.contains(words), "{words} in {log}");
    }
}

/// In the delay the node only says that it goes. A second signal does not wait for it, nor for the window.
#[tokio::test]
async fn a_node_that_leaves_serves_on_until_it_drains() {
    let args = ["--drain-delay", "5m", "--drain-window", "5m", "--shutdown-timeout", "15m"];
    let mut node = Node::start(&args).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    node.terminate();
    node.wait_ready(false).await;
    assert!(get(node.admin, "/readyz").await.text().contains("leaving"));
    let (mut bo, _) = Client::enter(&node, &name).await;
    ana.publish(&name, json!("as before")).await;
    assert_eq!(bo.expect("message").await["data"], "as before");
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(143), "the deadline of this wait is shorter than the delay");
    assert_eq!(ana.close_code().await, 1006, "cut off");
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let args = ["--drain-window", "5m", "--shutdown-timeout", "10m", "--workers", "1"];
    let mut node = Node::start(&args).await;
    let name = room();
    let mut clients = Vec::new();
    // At 20 a second and worker, the slowest there is, the last ones would go after more than a wait's deadline.
    for _ in 0..1500 {
        clients.push(upgrade(node.addr, &format!("/ws/{name}"), &[]).await.1);
    }
    node.terminate();
    node.reaches("roomcast_closes_total", &["draining"], 1.0).await;
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(143));
    assert!(node.log().contains("second signal"), "{}", node.log());
}

#[tokio::test]
async fn a_node_without_clients_does_not_wait_for_its_window() {
    let mut node = Node::start(&["--drain-window", "5m", "--shutdown-timeout", "10m"]).await;
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_few_clients_do_not_make_it_wait_either() {
    let node = Node::start(&["--drain-window", "5m", "--shutdown-timeout", "10m"]).await;
    let node = Arc::new(node);
    let seeing = audience(&node, &room(), 3).await;
    node.terminate();
    assert!(seeing.join_all().await.iter().all(|one| one.code == 1012));
    assert_eq!(Arc::into_inner(node).expect("nobody else has it").ended().await.code(), Some(0));
}

/// Who does not answer the close does not keep the node beyond its time, and that is no failure of the node's.
#[tokio::test]
async fn what_is_left_is_cut_off_in_time() {
    let mut node = Node::start(&["--drain-window", "0s", "--shutdown-timeout", "200ms"]).await;
    let (response, raw) = upgrade(node.addr, &format!("/ws/{}", room()), &[]).await;
    assert_eq!(response.status, 101);
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(node.log().contains("not everything was done in time"), "{}", node.log());
    drop(raw);
}

/// Nobody can be told of the leaves, and the node goes all the same.
#[tokio::test]
async fn a_redis_that_is_away_does_not_keep_a_node() {
    let mut redis = Redis::start().await;
    let args = ["--drain-window", "1s", "--shutdown-timeout", "10s"];
    let node = Arc::new(Node::join(&redis, "n-1", &args).await);
    let seeing = audience(&node, &room(), 10).await;
    redis.stop().await;
    node.wait_ready(false).await;
    node.terminate();
    assert!(seeing.join_all().await.iter().all(|one| one.code == 1012));
    let mut node = Arc::into_inner(node).expect("nobody else has it");
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(node.log().contains("not everything was done in time"), "{}", node.log());
}

/// 200 members of one room leave in a burst: the broker is told in a few calls, not in 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_travel_together() {
    let redis = Redis::start().await;
    let node = Arc::new(Node::join(&redis, "n-1", &["--drain-window", "0s"]).await);
    let name = room();
    let seeing = audience(&node, &name, CLIENTS).await;
    let before = scripts_run(&redis).await;
    node.terminate();
    let seen = seeing.join_all().await;
    assert_eq!(Arc::into_inner(node).expect("nobody else has it").ended().await.code(), Some(0));
    let calls = scripts_run(&redis).await - before;
    assert!(calls >= 1 && calls <= CLIENTS as u64 / 4, "{calls} calls");
    assert!(seen.iter().all(|one| one.after_ms <= 1000));
    assert!(seen.iter().any(|one| one.after_ms > 100), "without a window, only the delay spreads them");
    let other = Node::join(&redis, "n-2", &[]).await;
    let (_, joined) = Client::enter(&other, &name).await;
    assert_eq!(joined["online"], 1);
}

/// How many scripts Redis has run.
async fn scripts_run(redis: &Redis) -> u64 {
    let stats = redis.command("INFO commandstats").await.expect("it runs");
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| line.starts_with("cmdstat_evalsha:")).filter_map(calls).sum()
}

/// A node with far more clients than the other asks some to go there, and stops in time.
#[tokio::test]
async fn a_node_with_too_many_clients_sheds_some() {
    let redis = Redis::start().await;
    let args = ["--lease-beat", "200ms", "--lease-expiry", "10s", "--drain-window", "1s", "--rebalance-rate", "40"];
    let full = Arc::new(Node::join(&redis, "n-full", &args).await);
    let mut seeing = audience(&full, &room(), 80).await;
    let empty = Arc::new(Node::join(&redis, "n-empty", &args).await);
    let mut moved = JoinSet::new();
    // The mean is 40: 50 may stay, since ten more than the mean are not worth a word.
    for _ in 0..30 {
        let one = seeing.join_next().await.expect("a client").expect("no panic");
        assert_eq!((one.code, one.ready, one.reason.as_str()), (1012, 200, "rebalanced"));
        let empty = Arc::clone(&empty);
        moved.spawn(async move { Client::enter(&empty, &room()).await.0 });
    }
    let clients = moved.join_all().await;
    let node = &empty;
    let cluster = || async { (node.metric("roomcast_cluster_connections", &[]).await >= 70.0).then_some(()) };
    eventually("the beats to tell", cluster).await;
    let left = eventually("30 of 80 to have left", || async {
        Some(full.metric("roomcast_connections", &[]).await).filter(|left| *left <= 50.0)
    })
    .await;
    assert!(left >= 40.0, "{left} of 80 are left");
    assert!(empty.metric("roomcast_closes_total", &["rebalanced"]).await < 1.0);
    drop(clients);
}

#[tokio::test]
async fn more_connections_than_the_rate_wait_for_their_turn() {
    let node = Node::start(&["--connect-rate", "5"]).await;
    let mut inside = Vec::new();
    let refused = loop {
        let (response, raw) = upgrade(node.addr, "/connect", &[]).await;
        if response.status != 101 {
            break response;
        }
        inside.push(raw);
    };
    let seconds = refused.header("retry-after").parse::<u32>();
    assert!(refused.status == 503 && seconds.is_ok_and(|seconds| (1..=5).contains(&seconds)), "{refused:?}");
    assert!(inside.len() >= 5, "a second's worth may come at once");
    assert_eq!(get(node.addr, "/").await.status, 200, "the page is no connection");
    node.reaches("roomcast_handshakes_total", &["connect_rate"], 1.0).await;
    eventually("the next turn", || async { (upgrade(node.addr, "/connect", &[]).await.0.status == 101).then_some(()) })
        .await;
}
