//! What becomes of events when their node ends.

use std::time::Duration;

use serde_json::json;

use super::{assert_unique, facts, start};
use crate::support::{Client, Node, Receiver, Reply, room};

/// A node whose receiver went away with the first two events, and a client that published five messages since.
async fn left_alone(receiver: &mut Receiver, args: &[&str]) -> (Node, Client) {
    let node = start(receiver, &[&["--drain-window", "0s"], args].concat()).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    receiver.until_count(2).await;
    receiver.stop().await;
    for number in 0..5 {
        client.publish(&name, json!(number)).await;
    }
    (node, client)
}

#[tokio::test]
async fn a_drain_sends_everything_first() {
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::Late(Duration::from_millis(100), 200));
    let mut node = start(&receiver, &["--webhook-batch", "5", "--drain-window", "1s"]).await;
    let name = room();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::enter(&node, &name).await.0);
    }
    for number in 0..20 {
        clients[0].publish(&name, json!(number)).await;
    }
    node.terminate();
    for client in &mut clients {
        assert_eq!(client.close_code().await, 1012);
    }
    assert_eq!(node.ended().await.code(), Some(0));
    let events = receiver.events();
    assert_unique(&events);
    let count = |kind: &str| facts(&events).iter().filter(|(found, _)| found == kind).count();
    let counts = ["room_occupied", "member_joined", "message_published", "member_left", "room_vacated"].map(count);
    assert_eq!(counts, [1, 20, 20, 20, 1]);
    assert_eq!(events.last().unwrap()["type"], "room_vacated");
    assert!(!node.log().contains("were not taken"));
}

/// The time to exit is kept, and what was not taken is named.
#[tokio::test]
async fn a_receiver_that_is_away_does_not_keep_the_node() {
    let mut receiver = Receiver::start().await;
    let (mut node, _ana) = left_alone(&mut receiver, &["--shutdown-timeout", "3s"]).await;
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0));
    let log = node.log();
    let line = log.lines().find(|line| line.contains("were not taken")).expect("a line about it");
    assert!(line.contains("\"events\":7"), "five messages, a leave, an empty room: {line}");
}

/// Who comes back while the node waits for its end gets the rest.
#[tokio::test]
async fn a_receiver_that_comes_back_during_the_drain_gets_the_rest() {
    let mut receiver = Receiver::start().await;
    let (mut node, mut ana) = left_alone(&mut receiver, &[]).await;
    node.terminate();
    assert_eq!(ana.close_code().await, 1012);
    receiver.resume();
    assert_eq!(node.ended().await.code(), Some(0));
    assert_eq!(receiver.events().len(), 9);
}
