//! A node that breaks its promises on purpose: the faults reach clients as they are described, and nobody else has them.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Client, Node, Redis, binary, room, seqs, until_logged, within};

#[tokio::test]
async fn every_third_message_is_missing_and_resuming_does_not_bring_it() {
    let node = Node::start(&["--sabotage", "drop=3"]).await;
    until_logged(&node, "SABOTAGE is on: drop=3").await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    for number in 1..=7 {
        assert_eq!(ana.publish(&name, json!(number)).await.seq(), number, "publishers are told that all is well");
    }
    let seen: Vec<u64> = ana.messages(&name, 5).await.iter().map(|message| message["data"].as_u64().unwrap()).collect();
    assert_eq!(seen, [1, 2, 4, 5, 7]);
    let (_, joined) = Client::enter(&node, &name).await;
    assert_eq!((seqs(joined.list("messages")), joined.seq()), (vec![1, 2, 4, 5, 7], 7));
}

#[tokio::test]
async fn messages_come_twice_late_and_changed() {
    let node = Node::start(&["--sabotage", "repeat=4,swap=6,corrupt=5"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    for number in 1..=8 {
        ana.publish(&name, json!(format!("{number}-abc"))).await;
    }
    let seen: Vec<Value> = ana.messages(&name, 10).await.iter().map(|message| message["data"].clone()).collect();
    let told: Vec<&str> = seen.iter().map(|data| data.as_str().unwrap()).collect();
    assert_eq!(
        (&told[..5], &told[6..]),
        (&["1-abc", "2-abc", "3-abc", "4-abc", "4-abc"][..], &["7-abc", "6-abc", "8-abc", "8-abc"][..])
    );
    assert_ne!(told[5], "5-abc");
}

#[tokio::test]
async fn an_ephemeral_message_comes_again_over_redis_to_the_node_that_sent_it() {
    let redis = Redis::start().await;
    let file = "[[rooms]]\npattern = \"*\"\nmode = \"ephemeral\"\n";
    let url = redis.url();
    let args = |id| ["--redis", url.as_str(), "--node-id", id];
    let broken = Node::start_with(&[&args("n-1")[..], &["--sabotage", "keep-echo"]].concat(), file).await;
    let sound = Node::start_with(&args("n-2"), file).await;
    let name = room();
    let (mut ana, _) = Client::enter(&broken, &name).await;
    let (mut bo, _) = Client::enter(&sound, &name).await;
    ana.publish(&name, json!("from the broken node")).await;
    ana.messages(&name, 2).await;
    bo.messages(&name, 1).await;
    bo.publish(&name, json!("from the sound node")).await;
    ana.messages(&name, 1).await;
    bo.messages(&name, 1).await;
    ana.publish(&name, json!("the end")).await;
    let end = bo.expect("message").await;
    assert_eq!(end["data"], "the end", "nothing came twice to the sound node");
}

#[tokio::test]
async fn a_durable_message_comes_again_over_redis_and_under_the_same_id() {
    let redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &["--sabotage", "no-dedupe"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    for number in 1..=2 {
        let publish = json!({"type": "publish", "room": name, "data": "m", "id": "same", "ref": number});
        ana.send(publish).await;
        let ack = ana.expect("ack").await;
        assert_eq!((ack.seq(), ack["duplicate"] == true), (number, false), "{}", ack.text);
        let echoed: Vec<u64> = ana.messages(&name, 2).await.iter().map(crate::support::Frame::seq).collect();
        assert_eq!(echoed, [number, number]);
    }
}

#[tokio::test]
async fn help_does_not_tell_of_it() {
    let output =
        within("the gateway to exit", Command::new(binary()).arg("--help").env_clear().output()).await.unwrap();
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("sabotage"), "{output:?}");
    let node = Node::start(&[]).await;
    assert!(!node.log().contains("SABOTAGE"), "{}", node.log());
}
