//! Publishes whose answer is lost on its way from Redis: a retry, through whichever node, stores nothing again.

use serde_json::{Value, json};

use crate::support::{Client, Frame, Network, Node, Proxy, Redis, room};

fn publish(id: &str, data: &str) -> Value {
    json!({"type": "publish", "id": id, "data": data, "ref": id})
}

/// The data and seqs of all that the room has.
async fn stored(client: &mut Client, room: &str) -> Vec<(String, u64)> {
    client.send(json!({"type": "history", "room": room, "after": 0, "limit": 200, "ref": "all"})).await;
    let history = client.answer(&json!("all")).await;
    history
        .list("messages")
        .iter()
        .map(|m| (m["data"].as_str().unwrap().to_owned(), m["seq"].as_u64().unwrap()))
        .collect()
}

fn expect_duplicate(ack: &Frame, first: &Frame) {
    assert_eq!((ack.kind(), &ack["duplicate"]), ("ack", &json!(true)), "{}", ack.text);
    assert_eq!((ack.seq(), ack.str("term")), (first.seq(), first.str("term")));
}

/// `before` and `after` are others of the same sender.
async fn a_lost_answer(before: &str, lost: &str, after: &str) {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let far = Node::start(&["--redis", &proxy.url(), "--node-id", "far"]).await;
    let near = Node::join(&redis, "near", &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&far, &name).await;
    let (mut bo, _) = Client::enter(&near, &name).await;
    ana.send(publish(before, "before")).await;
    assert_eq!(ana.answer(&json!(before)).await.seq(), 1);

    proxy.make(Network::Mute);
    ana.send(publish(lost, "lost")).await;
    let undecided = ana.answer(&json!(lost)).await;
    assert_eq!(
        (&undecided["code"], &undecided["retryable"]),
        (&json!("undecided"), &json!(true)),
        "{}",
        undecided.text
    );
    // It was stored, and others have it.
    let heard = bo.messages(&name, 2).await;
    assert_eq!((heard[1].str("id"), heard[1].seq()), (lost, 2));

    // The same client comes back elsewhere and does not know.
    let (mut again, _) = Client::enter(&near, &name).await;
    again.send(publish(lost, "lost")).await;
    expect_duplicate(&again.answer(&json!(lost)).await, &heard[1]);
    again.send(publish(after, "after")).await;
    assert_eq!(again.answer(&json!(after)).await.seq(), 3);

    proxy.make(Network::Good);
    far.wait_ready(true).await;
    let (mut back, _) = Client::enter(&far, &name).await;
    back.send(publish(lost, "lost")).await;
    expect_duplicate(&back.answer(&json!(lost)).await, &heard[1]);
    let all = [("before".to_owned(), 1), ("lost".to_owned(), 2), ("after".to_owned(), 3)];
    assert_eq!(stored(&mut back, &name).await, all);
    // Who was there all the time got each of them once.
    for (client, count) in [(&mut ana, 3), (&mut bo, 1)] {
        client.messages(&name, count).await;
        let strays: Vec<Frame> = client.settle().await.into_iter().filter(|f| f.kind() == "message").collect();
        assert!(strays.is_empty(), "{strays:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_under_an_id_of_its_own() {
    a_lost_answer("order-16", "order-17", "order-18").await;
}

#[tokio::test]
async fn a_lost_answer_under_a_number() {
    a_lost_answer("ana.phone#16", "ana.phone#17", "ana.phone#18").await;
}
