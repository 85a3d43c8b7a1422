//! Members of nodes that die, sleep, or whose Redis forgets them.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::nodes;
use crate::support::{Client, Links, Network, Node, Proxy, Redis, eventually, room, within};

/// Leases that a test can wait for and that a busy machine can keep.
const SHORT: [&str; 4] = ["--lease-beat", "500ms", "--lease-expiry", "3s"];
const EXPIRY: Duration = Duration::from_secs(3);
/// Leases that stand while a busy machine starts another process.
const LONGER: [&str; 4] = ["--lease-beat", "500ms", "--lease-expiry", "8s"];

/// Who is in a room, as a client's node lists them, and how many it says they are.
async fn members(client: &mut Client, room: &str) -> (BTreeSet<String>, u64) {
    client.send(json!({"type": "members", "room": room, "limit": 200, "ref": "who"})).await;
    let page = client.answer(&json!("who")).await;
    let ids = page.list("members").iter().map(|member| member["id"].as_str().unwrap().to_owned()).collect();
    (ids, page["online"].as_u64().unwrap())
}

async fn until_members_are(client: &mut Client, room: &str, expected: &BTreeSet<String>) {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        loop {
            pause.tick().await;
            let found = members(client, room).await;
            if found == (expected.clone(), expected.len() as u64) {
                return;
            }
        }
    };
    within("the members", wait).await;
}

fn ids<'a>(clients: impl IntoIterator<Item = &'a Client>) -> BTreeSet<String> {
    clients.into_iter().map(|client| client.id().to_owned()).collect()
}

#[tokio::test]
async fn members_of_a_killed_node_are_gone_in_time() {
    let redis = Redis::start().await;
    let mut nodes = nodes(&redis, 3, &["--workers", "2"]).await;
    let (name, crowded) = (room(), room());
    let mut ghosts = Vec::new();
    for _ in 0..5 {
        ghosts.push(Client::enter(&nodes[0], &name).await.0);
    }
    for _ in 0..60 {
        ghosts.push(Client::enter(&nodes[0], &crowded).await.0);
    }
    let (mut one, _) = Client::enter(&nodes[1], &name).await;
    let (mut two, joined) = Client::enter(&nodes[2], &name).await;
    assert_eq!(joined["online"], 7);
    let (mut far, _) = Client::enter(&nodes[2], &crowded).await;
    let (here, gone) = (ids([&one, &two]), ids(&ghosts[..5]));

    nodes[0].signal(Signal::KILL);
    nodes[0].ended().await;
    for client in [&mut one, &mut two] {
        let mut left = BTreeSet::new();
        let mut online = 0;
        while left.len() < 5 {
            let told = client.presence("leave").await;
            online = told["online"].as_u64().unwrap();
            assert!(left.insert(told["member"]["id"].as_str().unwrap().to_owned()), "twice: {}", told.text);
        }
        assert_eq!((left, online), (gone.clone(), 2));
        assert_eq!(members(client, &name).await, (here.clone(), 2));
    }
    // What is many is told as one count.
    far.find("a count of one", |f| f.kind() == "presence" && f["online"] == 1).await;
    for client in [&mut one, &mut two] {
        let late: Vec<_> = client.settle().await.into_iter().filter(|f| f["event"] == "leave").collect();
        assert!(late.is_empty(), "nobody leaves twice: {late:?}");
    }
    eventually("one of them to have taken over", || async {
        let takeovers = nodes[1].metric("roomcast_takeovers_total", &[]).await
            + nodes[2].metric("roomcast_takeovers_total", &[]).await;
        assert!(takeovers < 1.5, "both took over");
        (takeovers > 0.5).then_some(())
    })
    .await;
    eventually("the dead node not to be counted", || async {
        (nodes[1].metric("roomcast_cluster_nodes", &[]).await < 2.5).then_some(())
    })
    .await;
    assert_eq!(redis.command("KEYS rc:{!}:rooms:n-1*").await.expect("it runs"), "*0\r\n");
}

/// The same node id is another life: its members are not those of the one before.
#[tokio::test]
async fn ghosts_of_all_nodes_go_when_one_is_back() {
    let redis = Redis::start().await;
    let mut killed = nodes(&redis, 2, &LONGER).await;
    let name = room();
    let mut ghosts = Vec::new();
    for node in &killed {
        ghosts.push(Client::enter(node, &name).await.0);
        ghosts.push(Client::enter(node, &name).await.0);
    }
    for node in &mut killed {
        node.signal(Signal::KILL);
        node.ended().await;
    }
    let node = Node::join(&redis, "n-1", &LONGER).await;
    let (mut client, joined) = Client::enter(&node, &name).await;
    assert_eq!(joined["online"], 5, "nobody has looked after them yet");
    let mut left = BTreeSet::new();
    while left.len() < 4 {
        left.insert(client.presence("leave").await["member"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(left, ids(&ghosts));
    assert_eq!(members(&mut client, &name).await, (ids([&client]), 1));
}

#[tokio::test]
async fn a_node_that_slept_enters_its_members_again() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &[&SHORT[..], &["--workers", "2"]].concat()).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    let (mut bo, _) = Client::enter(&nodes[0], &name).await;
    let (mut cleo, _) = Client::enter(&nodes[1], &name).await;
    let (all, sleeping) = (ids([&ana, &bo, &cleo]), ids([&ana, &bo]));

    nodes[0].signal(Signal::STOP);
    for event in ["leave", "join"] {
        let mut told = BTreeSet::new();
        while told.len() < 2 {
            told.insert(cleo.presence(event).await["member"]["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(told, sleeping, "{event}");
        if event == "leave" {
            assert_eq!(members(&mut cleo, &name).await, (ids([&cleo]), 1));
            nodes[0].signal(Signal::CONT);
        }
    }
    for client in [&mut ana, &mut bo, &mut cleo] {
        until_members_are(client, &name, &all).await;
    }
    // And they are members for all purposes, and stay.
    let said = ana.publish(&name, json!("awake")).await;
    assert_eq!(said.kind(), "ack", "{}", said.text);
    cleo.find("what ana said", |f| f["data"] == "awake").await;
    nodes[0].reaches("roomcast_leases_lost_total", &["reason=\"expired\""], 1.0).await;
    bo.leave().await;
    cleo.find("bo's leave", |f| f["event"] == "leave" && f["online"] == 2).await;
    ana.leave().await;
    cleo.find("ana's leave", |f| f["event"] == "leave" && f["online"] == 1).await;
}

/// A ghost keeps its name until it goes. Who slept meanwhile and lost his name to another is sent away.
#[tokio::test]
async fn a_name_is_free_when_its_ghost_goes() {
    let redis = Redis::start().await;
    let url = redis.url();
    let unique = "[[rooms]]\npattern = \"*\"\nunique_names = true\n";
    let one = Node::start_with(&[&["--redis", &url, "--node-id", "n-1"], &SHORT[..]].concat(), unique).await;
    let two = Node::start_with(&[&["--redis", &url, "--node-id", "n-2"], &SHORT[..]].concat(), unique).await;
    let name = room();
    let path = format!("/ws/{name}?name=Ana");
    let mut ana = Client::connect(&one, &path).await;
    ana.expect("joined").await;
    one.signal(Signal::STOP);
    let mut back = Client::connect(&two, &path).await;
    assert_eq!(back.expect("error").await["code"], "name_taken");
    let mut tries = 0;
    let insist = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tries += 1;
            back.send(json!({"type": "join", "room": name, "ref": tries})).await;
            if back.answer(&json!(tries)).await.kind() == "joined" {
                return;
            }
        }
    };
    within("the name", insist).await;
    one.signal(Signal::CONT);
    assert_eq!(ana.close_code().await, 4409);
    let only = ids([&back]);
    until_members_are(&mut back, &name, &only).await;
}

#[tokio::test]
async fn members_are_back_when_redis_forgot_them() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &[&SHORT[..], &["--workers", "2"]].concat()).await;
    let rooms = [room(), room(), room(), room()];
    let mut clients = Vec::new();
    for name in &rooms {
        for number in 0..4 {
            clients.push(Client::enter(&nodes[number % 2], name).await.0);
        }
    }
    assert!(redis.command("FLUSHALL").await.expect("it runs").starts_with("+OK"));
    for (name, inside) in rooms.iter().zip(clients.chunks_mut(4)) {
        let expected = ids(&*inside);
        for client in inside {
            until_members_are(client, name, &expected).await;
        }
    }
    // What was entered again is looked after again: killed, it goes.
    nodes[0].signal(Signal::KILL);
    let staying: Vec<_> = clients[0..4].iter_mut().skip(1).step_by(2).collect();
    let expected = ids(staying.iter().map(|client| &**client));
    for client in staying {
        until_members_are(client, &rooms[0], &expected).await;
    }
}

/// Behind an outage every lease has run out. Nobody died.
#[tokio::test]
async fn an_outage_of_redis_removes_nobody() {
    let mut redis = Redis::start_durable().await;
    let nodes = nodes(&redis, 2, &SHORT).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    let (mut bo, _) = Client::enter(&nodes[1], &name).await;
    let all = ids([&ana, &bo]);
    ana.presence("join").await;
    for _ in 0..2 {
        redis.stop().await;
        let stopped = Instant::now();
        for node in &nodes {
            node.wait_ready(false).await;
        }
        // No lease was given later.
        sleep_until(stopped + EXPIRY).await;
        redis.resume().await;
        for node in &nodes {
            node.wait_ready(true).await;
            let beats = || node.metric("roomcast_broker_commands_total", &["command=\"beat\"", "outcome=\"ok\""]);
            let began = beats().await;
            eventually("some beats", || async { (beats().await >= began + 4.0).then_some(()) }).await;
        }
        for client in [&mut ana, &mut bo] {
            until_members_are(client, &name, &all).await;
            let told: Vec<_> = client.settle().await.into_iter().filter(|f| f.kind() == "presence").collect();
            assert!(told.is_empty(), "nobody came or went: {told:?}");
        }
    }
}

/// How long the leases still run, in ms, the shortest first; gone by if below zero.
async fn leases_left(redis: &Redis) -> Vec<i64> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let listed = redis.command("ZRANGE rc:{!}:leases 0 -1 WITHSCORES").await.expect("it runs");
    listed.lines().skip(4).step_by(4).map(|score| score.trim().parse::<i64>().expect("a time") - now).collect()
}

/// With its data, so that it knows the leases, and nobody knows yet who lives.
#[tokio::test]
async fn who_is_back_later_than_redis_is_removed_by_nobody() {
    let mut redis = Redis::start_durable().await;
    let proxy = Proxy::to(&redis).await;
    let near = Node::join(&redis, "near", &LONGER).await;
    let far = Node::start(&[&["--redis", &proxy.url(), "--node-id", "far"], &LONGER[..]].concat()).await;
    let name = room();
    let (mut ana, _) = Client::enter(&near, &name).await;
    let (mut bo, _) = Client::enter(&far, &name).await;
    let all = ids([&ana, &bo]);
    ana.presence("join").await;

    proxy.make(Network::Silent(Links::All));
    eventually("its lease to run out soon", || async { (leases_left(&redis).await[0] < 1000).then_some(()) }).await;
    redis.stop().await;
    near.wait_ready(false).await;
    redis.resume().await;
    near.wait_ready(true).await;
    eventually("it to have run out for a while, and nobody to have taken it", || async {
        assert!(leases_left(&redis).await.len() > 1, "the dead one's is gone");
        (leases_left(&redis).await[0] < -1000).then_some(())
    })
    .await;
    proxy.make(Network::Good);
    far.wait_ready(true).await;
    far.reaches("roomcast_leases_lost_total", &["reason=\"dataset\""], 1.0).await;
    for client in [&mut ana, &mut bo] {
        until_members_are(client, &name, &all).await;
    }
    let left: Vec<_> = ana.settle().await.into_iter().filter(|frame| frame["event"] == "leave").collect();
    assert!(left.is_empty(), "nobody died: {left:?}");
}

#[tokio::test]
async fn a_node_that_drained_leaves_no_lease() {
    let redis = Redis::start().await;
    let mut nodes = nodes(&redis, 2, &[]).await;
    let (_client, _) = Client::enter(&nodes[0], &room()).await;
    nodes[0].terminate();
    assert_eq!(nodes[0].ended().await.code(), Some(0));
    for key in ["leases", "nodes"] {
        let held = redis.command(&format!("OBJECT ENCODING rc:{{!}}:{key}")).await.expect("it runs");
        assert!(held.starts_with('$'), "the other node's is there: {held}");
    }
    assert_eq!(redis.command("ZCARD rc:{!}:leases").await.expect("it runs"), ":1\r\n");
    assert_eq!(redis.command("HLEN rc:{!}:nodes").await.expect("it runs"), ":1\r\n");
    assert_eq!(redis.command("KEYS rc:{!}:rooms:*").await.expect("it runs"), "*0\r\n");
}

/// All commands Redis has carried out, but for pings and our own questions.
async fn commands(redis: &Redis) -> u64 {
    let stats = redis.info("commandstats").await;
    let calls = |line: &str| -> Option<u64> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        if ["ping", "info", "publish", "subscribe"].contains(&name) {
            return None;
        }
        rest.split(',').next()?.parse().ok()
    };
    stats.lines().filter_map(calls).sum()
}

/// Commands of some beats while nothing else happens.
async fn commands_of_beats(redis: &Redis, node: &Node) -> u64 {
    let beats = || node.metric("roomcast_broker_commands_total", &["command=\"beat\"", "outcome=\"ok\""]);
    let (before, began) = (commands(redis).await, beats().await);
    eventually("ten beats", || async { (beats().await >= began + 10.0).then_some(()) }).await;
    commands(redis).await - before
}

#[tokio::test]
async fn beats_cost_the_same_whatever_the_node_holds() {
    let redis = Redis::start().await;
    // A sweep asks once for each room, and is another matter.
    let node = Node::join(&redis, "n-1", &[&SHORT[..], &["--sweep-interval", "1h"]].concat()).await;
    let mut idle = Vec::new();
    let mut costs = Vec::new();
    for connections in [10, 500] {
        while idle.len() < connections {
            idle.push(Client::enter(&node, &format!("idle-{}", idle.len() % 50)).await.0);
        }
        costs.push(commands_of_beats(&redis, &node).await);
    }
    // One beat more or less may have been counted; a command per connection would be 490 more for each.
    assert!(costs[1] <= costs[0] + costs[0] / 2, "commands of ten beats with 10 and with 500 connections: {costs:?}");
}
