//! Coming back with `since`: within the present term.

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, Frame, Node, room, seqs};

on_both_brokers!(
    what_was_missed_is_brought,
    a_long_absence_is_brought_too,
    a_replay_meets_live_messages_without_a_seam,
    nothing_missed_nothing_brought,
    the_query_can_carry_since,
    a_seq_from_the_future_diverged,
    a_strange_term_is_unknown,
    what_is_no_longer_kept_is_a_gap,
);

/// Joins `room` with `since` on a fresh connection.
async fn come_back(node: &Node, room: &str, term: &Value, seq: u64) -> (Client, Frame) {
    let mut client = Client::connect(node, "/connect").await;
    client.send(json!({"type": "join", "room": room, "since": {"term": term, "seq": seq}, "ref": "back"})).await;
    let joined = client.answer(&json!("back")).await;
    assert_eq!(joined.kind(), "joined", "{}", joined.text);
    (client, joined)
}

/// A room with `count` messages and one member who stays; returns the last ack.
async fn talked(node: &Node, count: u64) -> (Client, String, Frame) {
    let name = room();
    let (mut client, _) = Client::enter(node, &name).await;
    let mut ack = client.publish(&name, json!(1)).await;
    for number in 2..=count {
        ack = client.publish(&name, json!(number)).await;
    }
    assert_eq!(ack.seq(), count);
    (client, name, ack)
}

async fn what_was_missed_is_brought(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let (mut stayed, name, ack) = talked(&node, 100).await;
    let (mut back, joined) = come_back(&node, &name, &ack["term"], 10).await;
    assert_eq!(joined["recovery"], "resumed");
    stayed.publish(&name, json!("live")).await;
    // In `messages` or after it, but each once and in order.
    let mut seen = seqs(joined.list("messages"));
    while seen.last() != Some(&101) {
        seen.push(back.expect("message").await.seq());
    }
    assert_eq!(seen, (11..=101).collect::<Vec<_>>());
}

/// `gap` means "older than what is kept", and a thousand messages are: what does not fit `joined` follows.
async fn a_long_absence_is_brought_too(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let name = room();
    let (mut stayed, _) = Client::enter(&node, &name).await;
    let load = "x".repeat(1500);
    let mut term = Value::Null;
    for number in 1..=200 {
        stayed.send(json!({"type": "publish", "data": load, "echo": false, "ref": number})).await;
        term = stayed.answer(&json!(number)).await["term"].clone();
    }
    let (mut back, joined) = come_back(&node, &name, &term, 1).await;
    assert_eq!(joined["recovery"], "resumed", "199 messages of 1.5 KB, of 1000 that are kept");
    let mut seen = seqs(joined.list("messages"));
    while seen.last() != Some(&200) {
        seen.push(back.expect("message").await.seq());
    }
    assert_eq!(seen, (2..=200).collect::<Vec<_>>());
}

async fn nothing_missed_nothing_brought(site: Site) {
    let node = site.node(&[]).await;
    let (mut stayed, name, ack) = talked(&node, 5).await;
    let (mut back, joined) = come_back(&node, &name, &ack["term"], 5).await;
    assert_eq!((&joined["recovery"], joined.seq()), (&json!("resumed"), 5));
    assert!(joined.list("messages").is_empty(), "{}", joined.text);
    stayed.publish(&name, json!("live")).await;
    assert_eq!(back.expect("message").await.seq(), 6);
}

async fn the_query_can_carry_since(site: Site) {
    let node = site.node(&[]).await;
    let (_stayed, name, ack) = talked(&node, 5).await;
    let mut back = Client::connect(&node, &format!("/ws/{name}?since={}:3", ack.str("term"))).await;
    let joined = back.expect("joined").await;
    assert_eq!(
        (&joined["recovery"], seqs(joined.list("messages"))),
        (&json!("resumed"), vec![4, 5]),
        "{}",
        joined.text
    );
}

async fn a_seq_from_the_future_diverged(site: Site) {
    let node = site.node(&[]).await;
    let (_stayed, name, ack) = talked(&node, 5).await;
    let (_, joined) = come_back(&node, &name, &ack["term"], 900).await;
    assert_eq!((&joined["recovery"], joined.seq()), (&json!("diverged"), 5), "{}", joined.text);
}

async fn a_strange_term_is_unknown(site: Site) {
    let node = site.node(&[]).await;
    let (_stayed, name, _) = talked(&node, 5).await;
    let (_, joined) = come_back(&node, &name, &json!("zzzz0000"), 3).await;
    assert_eq!((&joined["recovery"], joined.seq()), (&json!("unknown_term"), 5), "{}", joined.text);
}

async fn what_is_no_longer_kept_is_a_gap(site: Site) {
    let toml = "[[rooms]]\npattern = \"*\"\nmode = \"durable\"\nhistory_size = 10\n";
    let node = site.node_with(&["--publish-rate", "0"], toml).await;
    let (_stayed, name, ack) = talked(&node, 400).await;
    let (_, joined) = come_back(&node, &name, &ack["term"], 1).await;
    assert_eq!((&joined["recovery"], joined.seq()), (&json!("gap"), 400), "{}", joined.text);
    // What is kept is there, without holes up to the top.
    let kept = seqs(joined.list("messages"));
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
    assert!(kept.is_empty() || kept.last() == Some(&400), "{kept:?}");
    let (_, joined) = come_back(&node, &name, &ack["term"], 395).await;
    assert_eq!(
        (&joined["recovery"], seqs(joined.list("messages"))),
        (&json!("resumed"), (396..=400).collect()),
        "ten are kept"
    );
}

/// The replay takes many steps, others go on publishing meanwhile, and still every seq comes once and in order.
async fn a_replay_meets_live_messages_without_a_seam(site: Site) {
    let node = site.node(&["--publish-rate", "0", "--workers", "2"]).await;
    let name = room();
    let (mut stayed, _) = Client::enter(&node, &name).await;
    let load = "x".repeat(8000);
    let mut term = Value::Null;
    for number in 1..=120 {
        stayed.send(json!({"type": "publish", "data": load, "echo": false, "ref": number})).await;
        term = stayed.answer(&json!(number)).await["term"].clone();
    }
    let talking = async {
        for number in 121..=300 {
            stayed.send(json!({"type": "publish", "data": load, "echo": false, "ref": number})).await;
            stayed.answer(&json!(number)).await;
        }
    };
    let returning = async {
        let (mut back, joined) = come_back(&node, &name, &term, 1).await;
        assert_eq!(joined["recovery"], "resumed");
        let mut seen = seqs(joined.list("messages"));
        while seen.last() != Some(&300) {
            seen.push(back.expect("message").await.seq());
        }
        assert_eq!(seen, (2..=300).collect::<Vec<_>>());
    };
    tokio::join!(talking, returning);
}
