//! Each fact is told by exactly one node.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{args, assert_unique};
use crate::support::{Client, Links, Network, Node, Proxy, Receiver, Redis, room, within};

/// Leases that a test can wait for and that a busy machine can keep.
const SHORT: [&str; 4] = ["--lease-beat", "500ms", "--lease-expiry", "3s"];
const EXPIRY: Duration = Duration::from_secs(3);

async fn join(url: &str, id: &str, receiver: &Receiver, more: &[&str]) -> Node {
    let args = args(receiver);
    let all: Vec<&str> = args.iter().map(String::as_str).chain(SHORT).chain(more.iter().copied()).collect();
    Node::join_at(url, id, &all).await
}

/// How often each fact was told: type and whose it is.
fn counted(events: &[Value], name: &str) -> BTreeMap<(String, String), usize> {
    let own: Vec<Value> = events.iter().filter(|event| event["room"] == *name).cloned().collect();
    super::facts(&own).into_iter().fold(BTreeMap::new(), |mut counts, fact| {
        *counts.entry(fact).or_default() += 1;
        counts
    })
}

fn count(events: &[Value], name: &str, kind: &str) -> usize {
    events.iter().filter(|event| event["room"] == *name && event["type"] == kind).count()
}

/// A word that is told last: whatever was told before it has come, in the order of one node.
async fn settled(receiver: &Receiver, nodes: &[&Node]) -> Vec<Value> {
    let mut marks = Vec::new();
    for node in nodes {
        let mark = room();
        let (client, _) = Client::enter(node, &mark).await;
        client.leave().await;
        marks.push(mark);
    }
    receiver.until("the marks", |events| marks.iter().all(|mark| count(events, mark, "room_vacated") == 1)).await
}

#[tokio::test]
async fn each_fact_is_told_once_over_two_nodes() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let one = join(&redis.url(), "n-1", &receiver, &["--workers", "2"]).await;
    let two = join(&redis.url(), "n-2", &receiver, &["--workers", "2"]).await;
    let rooms = [room(), room(), room()];
    let mut clients = Vec::new();
    for name in &rooms {
        for number in 0..6 {
            let node = if number % 2 == 0 { &one } else { &two };
            clients.push((name, Client::enter(node, name).await.0));
        }
    }
    for (number, (name, client)) in clients.iter_mut().enumerate() {
        for message in 0..5 {
            let id = format!("{number}-{message}");
            let frame = json!({"type": "publish", "room": name, "id": id, "data": message, "ref": id});
            client.send(frame.clone()).await;
            client.answer(&json!(id)).await;
            // And once more, as one does whose ack was lost.
            client.send(frame).await;
            assert_eq!(client.answer(&json!(id)).await["duplicate"], true);
        }
    }
    let ids: Vec<(&String, String)> = clients.iter().map(|(name, client)| (*name, client.id().to_owned())).collect();
    for (_, client) in clients {
        client.leave().await;
    }
    receiver.until_count(rooms.len() * (1 + 6 + 30 + 6 + 1)).await;
    let events = settled(&receiver, &[&one, &two]).await;
    assert_unique(&events);
    for name in &rooms {
        let facts = counted(&events, name);
        assert!(facts.values().all(|&times| times == 1), "{facts:?}");
        assert_eq!(facts.len(), 1 + 6 + 30 + 6 + 1);
        for (_, id) in ids.iter().filter(|(room, _)| *room == name) {
            assert!(["member_joined", "member_left"].iter().all(|kind| facts.contains_key(&super::fact(kind, id))));
        }
    }
    let tellers: std::collections::BTreeSet<String> =
        receiver.calls().iter().map(|call| call.body["node"].to_string()).collect();
    assert_eq!(tellers.len(), 2);
}

#[tokio::test]
async fn a_killed_nodes_leaves_come_from_one_survivor() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let mut dead = join(&redis.url(), "n-dead", &receiver, &["--workers", "2"]).await;
    let one = join(&redis.url(), "n-1", &receiver, &[]).await;
    let two = join(&redis.url(), "n-2", &receiver, &[]).await;
    let (shared, lonely) = (room(), room());
    let mut ghosts = Vec::new();
    for name in [&shared, &shared, &shared, &lonely, &lonely] {
        ghosts.push(Client::enter(&dead, name).await.0);
    }
    let (_ana, _) = Client::enter(&one, &shared).await;
    let (_bo, _) = Client::enter(&two, &shared).await;
    receiver.until_count(2 + 7).await;
    dead.signal(Signal::KILL);
    dead.ended().await;
    receiver
        .until("the leaves", |events| {
            count(events, &shared, "member_left") + count(events, &lonely, "member_left") >= 5
                && count(events, &lonely, "room_vacated") >= 1
        })
        .await;
    let events = settled(&receiver, &[&one, &two]).await;
    for (name, members) in [(&shared, &ghosts[..3]), (&lonely, &ghosts[3..])] {
        let facts = counted(&events, name);
        assert!(facts.values().all(|&times| times == 1), "{facts:?}");
        for ghost in members {
            assert!(facts.contains_key(&super::fact("member_left", ghost.id())));
        }
    }
    assert_eq!((count(&events, &shared, "room_vacated"), count(&events, &lonely, "room_vacated")), (0, 1));
    let lost: Vec<&Value> = events.iter().filter(|event| event["reason"] == "node_lost").collect();
    assert_eq!(lost.len(), 5);
}

/// A node that slept was taken for dead: who is in its rooms left, and is back.
#[tokio::test]
async fn a_node_that_slept_tells_of_its_members_again() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let one = join(&redis.url(), "n-1", &receiver, &["--workers", "2"]).await;
    let two = join(&redis.url(), "n-2", &receiver, &[]).await;
    let name = room();
    let (ana, _) = Client::enter(&one, &name).await;
    receiver.until_count(2).await;
    one.signal(Signal::STOP);
    receiver.until("the leave", |events| count(events, &name, "room_vacated") == 1).await;
    one.signal(Signal::CONT);
    receiver.until("the return", |events| count(events, &name, "member_joined") == 2).await;
    let events = settled(&receiver, &[&one, &two]).await;
    let own: Vec<Value> = events.into_iter().filter(|event| event["room"] == *name).collect();
    let kinds = ["room_occupied", "member_joined", "member_left", "room_vacated", "room_occupied", "member_joined"];
    let expected = kinds.map(|kind| super::fact(kind, if kind.starts_with("room") { "" } else { ana.id() }));
    assert_eq!(super::facts(&own), expected);
    assert_eq!(own[5]["reason"], "restored");
}

/// Behind an outage every lease has run out. Nobody came or went.
#[tokio::test]
async fn an_outage_of_redis_is_no_news() {
    let (mut redis, receiver) = (Redis::start_durable().await, Receiver::start().await);
    let one = join(&redis.url(), "n-1", &receiver, &[]).await;
    let two = join(&redis.url(), "n-2", &receiver, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&one, &name).await;
    let (_bo, _) = Client::enter(&two, &name).await;
    receiver.until_count(3).await;
    redis.stop().await;
    let stopped = Instant::now();
    for node in [&one, &two] {
        node.wait_ready(false).await;
    }
    // No lease was given later.
    sleep_until(stopped + EXPIRY).await;
    ana.send(json!({"type": "rename", "name": "Anna"})).await;
    redis.resume().await;
    for node in [&one, &two] {
        node.wait_ready(true).await;
    }
    ana.presence("rename").await;
    let events = settled(&receiver, &[&one, &two]).await;
    assert_eq!(counted(&events, &name).values().sum::<usize>(), 3, "{events:?}");
}

/// Stored, and nobody here was told: the echo proves it.
#[tokio::test]
async fn a_publish_that_was_not_answered_is_told_once() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let proxy = Proxy::to(&redis).await;
    let near = join(&redis.url(), "near", &receiver, &[]).await;
    let far = join(&proxy.url(), "far", &receiver, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&far, &name).await;
    let (mut bo, _) = Client::enter(&near, &name).await;
    ana.publish(&name, json!("before")).await;
    receiver.until_count(4).await;
    proxy.make(Network::Mute);
    ana.send(json!({"type": "publish", "room": name, "id": "m-7", "data": "in doubt", "ref": 7})).await;
    assert_eq!(ana.answer(&json!(7)).await["code"], "undecided");
    bo.find("the message", |frame| frame["data"] == "in doubt").await;
    proxy.make(Network::Good);
    far.wait_ready(true).await;
    within("the retry to be answered", async {
        loop {
            ana.send(json!({"type": "publish", "room": name, "id": "m-7", "data": "in doubt", "ref": 8})).await;
            if ana.answer(&json!(8)).await["duplicate"] == true {
                return;
            }
        }
    })
    .await;
    let events = settled(&receiver, &[&near, &far]).await;
    let told: Vec<&Value> = events.iter().filter(|event| event["message"]["id"] == "m-7").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["message"]["data"], "in doubt");
}

/// Its echo came while the answer was still awaited, and nobody asks again.
#[tokio::test]
async fn a_publish_that_shows_before_its_answer_is_given_up_is_told_once() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let proxy = Proxy::to(&redis).await;
    let node = join(&proxy.url(), "far", &receiver, &["--redis-timeout", "500ms"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    ana.publish(&name, json!("before")).await;
    receiver.until_count(3).await;
    proxy.make(Network::Mute);
    ana.send(json!({"type": "publish", "room": name, "data": "shown", "ref": 7})).await;
    let shown = ana.find("its echo", |frame| frame["data"] == "shown").await;
    assert_eq!(ana.answer(&json!(7)).await["code"], "undecided");
    let is_told = |events: &[Value]| events.iter().any(|event| event["message"]["data"] == "shown");
    receiver.until("the message", is_told).await;
    proxy.make(Network::Good);
    node.wait_ready(true).await;
    let events = settled(&receiver, &[&node]).await;
    let told: Vec<&Value> = events.iter().filter(|event| event["message"]["data"] == "shown").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["message"]["seq"], shown["seq"]);
}

/// The same for who came and went: what is told to the broker again shows what the first call did.
#[tokio::test]
async fn comings_and_goings_that_were_not_answered_are_told_once() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let proxy = Proxy::to(&redis).await;
    let near = join(&redis.url(), "near", &receiver, &[]).await;
    let far = join(&proxy.url(), "far", &receiver, &[]).await;
    let (name, lonely) = (room(), room());
    let (mut bo, _) = Client::enter(&near, &name).await;
    let (mut ana, _) = Client::enter(&far, &name).await;
    ana.send(json!({"type": "join", "room": lonely, "ref": 1})).await;
    ana.answer(&json!(1)).await;
    let id = ana.id().to_owned();
    receiver.until_count(5).await;
    proxy.make(Network::Mute);
    // Both rooms lose her, and her node does not hear so.
    ana.leave().await;
    bo.presence("leave").await;
    // And one who comes, and is refused.
    let mut cleo = Client::connect(&far, "/connect").await;
    cleo.send(json!({"type": "join", "room": name, "ref": 2})).await;
    let refused = cleo.answer(&json!(2)).await;
    assert_eq!(refused["code"], "broker_unavailable", "{}", refused.text);
    proxy.make(Network::Good);
    far.wait_ready(true).await;
    let gone = |events: &[Value], name| counted(events, name).contains_key(&super::fact("member_left", &id));
    let empty = |events: &[Value]| count(events, &lonely, "room_vacated") > 0;
    receiver.until("her leaves", |events| gone(events, &name) && gone(events, &lonely) && empty(events)).await;
    let events = settled(&receiver, &[&near, &far]).await;
    for room in [&name, &lonely] {
        let facts = counted(&events, room);
        assert!(facts.values().all(|&times| times == 1), "{facts:?}");
        assert!(facts.contains_key(&super::fact("member_left", &id)), "{facts:?}");
        let came = facts.keys().filter(|(kind, _)| kind == "member_joined").count();
        let went = facts.keys().filter(|(kind, _)| kind == "member_left").count();
        let still_there = usize::from(room == &name);
        assert_eq!(came, went + still_there, "{facts:?}");
    }
}

/// While a node hears nothing for a while nothing is told that did not happen.
#[tokio::test]
async fn a_node_that_was_deaf_tells_nothing_twice() {
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let proxy = Proxy::to(&redis).await;
    let near = join(&redis.url(), "near", &receiver, &[]).await;
    let far = join(&proxy.url(), "far", &receiver, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&far, &name).await;
    let (mut bo, _) = Client::enter(&near, &name).await;
    proxy.make(Network::Silent(Links::Subscribing));
    for number in 0..5 {
        bo.publish(&name, json!(number)).await;
        ana.publish(&name, json!(number)).await;
    }
    far.wait_ready(false).await;
    proxy.make(Network::Good);
    far.wait_ready(true).await;
    ana.messages(&name, 10).await;
    let events = settled(&receiver, &[&near, &far]).await;
    let facts = counted(&events, &name);
    assert!(facts.values().all(|&times| times == 1) && facts.len() == 3 + 10, "{facts:?}");
}
