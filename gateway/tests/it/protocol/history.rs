//! `history`, and the messages that `joined` brings.

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, Node, assert_error, room, seqs};

on_both_brokers!(history_is_walked_forward, history_is_walked_backward, a_newcomer_gets_recent_messages, limits_hold);

/// A room in which `count` numbered messages were said, and a member of it.
async fn said(node: &Node, count: u64) -> (Client, String) {
    let name = room();
    let (mut client, _) = Client::enter(node, &name).await;
    for number in 1..=count {
        client.send(json!({"type": "publish", "data": number, "echo": false, "ref": number})).await;
    }
    for number in 1..=count {
        let ack = client.answer(&json!(number)).await;
        assert_eq!((ack.kind(), ack.seq()), ("ack", number), "{}", ack.text);
    }
    (client, name)
}

/// Asks for pages, handing `next` back under `key`, until there is no more.
async fn walk(client: &mut Client, room: &str, key: &str, start: Option<u64>, limit: u64) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut from = start.map_or(Value::Null, Value::from);
    loop {
        let mut ask = json!({"type": "history", "room": room, "limit": limit, "ref": pages.len()});
        if !from.is_null() {
            ask[key] = from;
        }
        client.send(ask).await;
        let page = client.answer(&json!(pages.len())).await;
        assert_eq!((page.kind(), &page["room"]), ("history", &json!(room)), "{}", page.text);
        assert!(page.list("messages").len() as u64 <= limit, "more than asked for: {}", page.text);
        pages.push(page.list("messages").to_vec());
        assert!(pages.len() < 100, "the walk does not end");
        from = page["next"].clone();
        if from.is_null() {
            return pages;
        }
    }
}

async fn history_is_walked_forward(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let (mut client, name) = said(&node, 300).await;
    for limit in [37, 100, 300] {
        let pages = walk(&mut client, &name, "after", Some(0), limit).await;
        let whole: Vec<Value> = pages.concat();
        assert_eq!(seqs(&whole), (1..=300).collect::<Vec<_>>(), "pages of {limit}");
        for message in &whole {
            assert_eq!(message["data"], message["seq"], "each is its own: {message}");
            assert_eq!(message["from"]["id"], client.id());
            assert!(message["id"].is_string() && message["ts"].is_u64() && message["term"].is_string(), "{message}");
        }
    }
    let rest = walk(&mut client, &name, "after", Some(290), 100).await.concat();
    assert_eq!(seqs(&rest), (291..=300).collect::<Vec<_>>());
    assert!(walk(&mut client, &name, "after", Some(300), 100).await.concat().is_empty());
    assert!(walk(&mut client, &name, "after", Some(9_007_199_254_740_991), 10).await.concat().is_empty());
}

async fn history_is_walked_backward(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let (mut client, name) = said(&node, 300).await;
    for (start, top) in [(None, 300), (Some(301), 300), (Some(151), 150)] {
        let mut pages = walk(&mut client, &name, "before", start, 37).await;
        pages.reverse(); // the newest page comes first, each page oldest first
        assert_eq!(seqs(&pages.concat()), (1..=top).collect::<Vec<_>>(), "from {start:?}");
    }
    assert!(walk(&mut client, &name, "before", Some(1), 10).await.concat().is_empty());
    client.send(json!({"type": "history", "room": name, "before": 10, "limit": 3, "ref": "x"})).await;
    assert_eq!(seqs(client.answer(&json!("x")).await.list("messages")), [7, 8, 9]);
}

async fn a_newcomer_gets_recent_messages(site: Site) {
    let node = site.node(&["--publish-rate", "0", "--join-history", "20"]).await;
    let (mut client, name) = said(&node, 60).await;
    let (mut late, joined) = Client::enter(&node, &name).await;
    assert_eq!((joined.seq(), &joined["recovery"]), (60, &json!("fresh")));
    assert_eq!(seqs(joined.list("messages")), (41..=60).collect::<Vec<_>>(), "the last twenty, oldest first");
    let last = joined.list("messages").last().unwrap();
    assert_eq!((&last["room"], &last["data"], &last["term"]), (&json!(name), &json!(60), &joined["term"]));
    client.publish(&name, json!("next")).await;
    assert_eq!(late.expect("message").await.seq(), 61, "and goes on from there");

    let (_, joined) = Client::enter(&node, &room()).await;
    assert!(joined.list("messages").is_empty());
}

async fn limits_hold(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let (mut client, name) = said(&node, 20).await;
    // Without a limit, or with an absurd one, an answer comes that is bounded all the same.
    for (reference, ask) in [json!({}), json!({"limit": 1_000_000_000}), json!({"limit": 0})].into_iter().enumerate() {
        let mut ask = ask;
        ask["type"] = json!("history");
        ask["room"] = json!(name);
        ask["ref"] = json!(reference);
        client.send(ask.clone()).await;
        let answer = client.answer(&json!(reference)).await;
        match answer.kind() {
            "history" => assert!(answer.list("messages").len() <= 20, "{ask}"),
            _ => assert_error(&answer, "bad_frame", &json!(reference)),
        }
    }
}
