//! A node that goes, and a Redis that goes and comes back.

use serde_json::json;

use super::nodes;
use crate::support::{Client, Frame, Node, Redis, eventually, room, seqs};

const LIVE: &str = "[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n";

#[tokio::test]
async fn a_terminated_node_sends_its_clients_elsewhere() {
    let redis = Redis::start().await;
    let mut nodes = nodes(&redis, 2, &[]).await;
    let name = room();
    let mut leaving = Vec::new();
    for _ in 0..20 {
        leaving.push(Client::enter(&nodes[0], &name).await.0);
    }
    let (mut staying, joined) = Client::enter(&nodes[1], &name).await;
    assert_eq!(joined["online"], 21);
    let last = leaving[0].publish(&name, json!("before")).await;

    nodes[0].terminate();
    for client in &mut leaving {
        let told = client.expect("reconnect").await;
        assert!(!told.str("reason").is_empty());
        assert!(told["afterMs"].is_u64(), "{}", told.text);
        assert_eq!(client.close_code().await, 1012);
    }
    let status = nodes[0].ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    staying.find("to be alone", |f| f.kind() == "presence" && f["online"] == 1).await;

    // They come back on the other node, and nothing is missing.
    staying.publish(&name, json!("meanwhile")).await;
    let mut back = Client::connect(&nodes[1], "/connect").await;
    let since = json!({"term": last["term"], "seq": last["seq"]});
    back.send(json!({"type": "join", "room": name, "since": since, "ref": 1})).await;
    let joined = back.answer(&json!(1)).await;
    assert_eq!((&joined["recovery"], &joined["online"]), (&json!("resumed"), &json!(2)), "{}", joined.text);
    assert_eq!(seqs(joined.list("messages")), [2]);
}

/// Whatever a terminated node stored it also acknowledged, before it sent its client away.
#[tokio::test]
async fn a_terminated_node_answers_before_it_closes() {
    let redis = Redis::start().await;
    let mut nodes = nodes(&redis, 2, &["--publish-rate", "0"]).await;
    let name = room();
    let (mut watching, _) = Client::enter(&nodes[1], &name).await;
    let (mut client, _) = Client::enter(&nodes[0], &name).await;
    for number in 0..200 {
        client.send(json!({"type": "publish", "data": number, "echo": false, "ref": number})).await;
    }
    client.answer(&json!(0)).await;
    nodes[0].terminate();
    let mut acked = 1;
    loop {
        let frame = client.next().await;
        match frame.kind() {
            "ack" => acked = frame.seq(),
            "reconnect" => break,
            _ => {}
        }
    }
    assert_eq!(nodes[0].ended().await.code(), Some(0));
    watching.send(json!({"type": "history", "room": name, "limit": 1, "ref": "top"})).await;
    let stored = seqs(watching.answer(&json!("top")).await.list("messages"));
    assert_eq!(stored, [acked]);
}

#[tokio::test]
async fn a_node_alone_ends_as_politely() {
    let mut node = Node::start(&[]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    node.terminate();
    client.expect("reconnect").await;
    assert_eq!(client.close_code().await, 1012);
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_node_ends_at_once() {
    let mut node = Node::start(&[]).await;
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0));
}

/// Publishes under one id until it is stored.
async fn insist(node: &Node, client: &mut Client, room: &str, id: &str) {
    let ask = json!({"type": "publish", "room": room, "id": id, "data": id, "ref": id});
    loop {
        client.send(ask.clone()).await;
        let answer = client.answer(&json!(id)).await;
        if answer.kind() == "ack" {
            return;
        }
        assert_eq!(answer["retryable"], true, "{}", answer.text);
        // Asking as fast as a machine can would rightly be abuse: ask again when the node has found its Redis.
        node.wait_ready(true).await;
    }
}

#[tokio::test]
async fn members_stay_through_a_restart_of_redis() {
    let mut redis = Redis::start_durable().await;
    let nodes = nodes(&redis, 2, &["--abuse-limit", "1000"]).await;
    let name = room();
    let mut members = Vec::new();
    for number in 0..4 {
        members.push(Client::enter(&nodes[number % 2], &name).await.0);
    }
    for number in 0..10 {
        members[number % 4].publish(&name, json!(number)).await;
    }

    redis.stop().await;
    for node in &nodes {
        node.wait_ready(false).await;
    }
    members[0].send(json!({"type": "publish", "data": "away", "ref": "away"})).await;
    let refused = members[0].answer(&json!("away")).await;
    assert_eq!((refused.kind(), &refused["retryable"]), ("error", &json!(true)), "{}", refused.text);

    redis.resume().await;
    // Through one node at first: the other must hear of it by its new subscription or find it in the stream.
    insist(&nodes[0], &mut members[0], &name, "after-1").await;
    insist(&nodes[1], &mut members[1], &name, "after-2").await;
    insist(&nodes[0], &mut members[0], &name, "after-3").await;
    for node in &nodes {
        node.wait_ready(true).await;
    }
    insist(&nodes[1], &mut members[1], &name, "after-4").await;

    let mut orders = Vec::new();
    for member in &mut members {
        let messages = member.messages(&name, 14).await;
        assert_eq!(messages.iter().map(Frame::seq).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
        orders.push(messages.iter().map(|message| message["id"].clone()).collect::<Vec<_>>());
        let strays: Vec<_> = member.settle().await.into_iter().filter(|frame| frame.kind() != "presence").collect();
        assert!(strays.is_empty(), "no reset, nothing twice: {strays:?}");
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order for all: {orders:?}");
    assert_eq!(orders[0][10..], ["after-1", "after-2", "after-3", "after-4"]);
    let (_, joined) = Client::enter(&nodes[1], &name).await;
    assert_eq!(joined["online"], 5);
}

/// The last message before silence is the hard one: no later seq shows that it is missing.
#[tokio::test]
async fn what_was_said_while_a_node_was_deaf_is_caught_up() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    let (mut bo, _) = Client::enter(&nodes[1], &name).await;
    for round in 1..=5 {
        let killed = redis.command("CLIENT KILL TYPE pubsub").await.expect("it runs");
        assert!(killed.starts_with(':') && !killed.starts_with(":0"), "nobody was subscribed: {killed}");
        assert_eq!(ana.publish(&name, json!(round)).await.seq(), round);
        let heard = bo.find("what was said meanwhile", |f| ["message", "reset"].contains(&f.kind())).await;
        assert_eq!((heard.kind(), &heard["data"]), ("message", &json!(round)), "{}", heard.text);
        // Both hear again before the next round cuts them off.
        eventually("both nodes to be subscribed", || async {
            let clients = redis.command("CLIENT LIST TYPE pubsub").await?;
            (clients.matches(" sub=").count() >= integer(&killed)).then_some(())
        })
        .await;
    }
}

/// Redis' integer answer.
fn integer(answer: &str) -> usize {
    answer.trim_start_matches(':').trim().parse().unwrap_or(1)
}

#[tokio::test]
async fn ephemeral_rooms_work_within_a_node_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    let node = Node::start_with(&["--redis", &url], LIVE).await;
    let name = format!("live-{}", room());
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (mut bo, _) = Client::enter(&node, &name).await;
    redis.stop().await;
    node.wait_ready(false).await;
    ana.send(json!({"type": "publish", "data": "near"})).await;
    assert_eq!(bo.expect("message").await["data"], "near");
    redis.resume().await;
    node.wait_ready(true).await;
    // And with the other nodes again afterwards.
    let other = Node::start_with(&["--redis", &url], LIVE).await;
    let (mut cleo, _) = Client::enter(&other, &name).await;
    cleo.send(json!({"type": "publish", "data": "from afar"})).await;
    bo.find("what cleo said", |frame| frame["data"] == "from afar").await;
    ana.send(json!({"type": "publish", "data": "to afar"})).await;
    cleo.find("what ana said", |frame| frame["data"] == "to afar").await;
}
