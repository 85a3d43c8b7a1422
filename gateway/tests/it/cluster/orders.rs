//! What all nodes are told to do over the bus: by each other, by later versions, and by strangers.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::nodes;
use crate::support::{Client, Redis, eventually, room};

const CHANNEL: &str = "rc:{!}:orders";

/// Some orders' ids.
const IDS: [&str; 3] =
    ["00000000000000000000000000000001", "00000000000000000000000000000002", "00000000000000000000000000000003"];

async fn say(redis: &Redis, text: &[u8]) {
    let told = redis.call(&[b"PUBLISH", CHANNEL.as_bytes(), text]).await;
    assert!(told.starts_with(':'), "{told}");
}

async fn order(redis: &Redis, mut order: Value, id: &str) {
    for (key, value) in [("v", json!(1)), ("id", json!(id)), ("from", json!("a-test"))] {
        let known = order.as_object_mut().expect("an object");
        known.entry(key).or_insert(value);
    }
    say(redis, order.to_string().as_bytes()).await;
}

/// What `node` answered.
async fn answer(redis: &Redis, id: &str, node: &str) -> String {
    let key = format!("rc:{{!}}:answers:{id}");
    eventually("an answer", || async {
        let reply = redis.call(&[b"HGET", key.as_bytes(), node.as_bytes()]).await;
        reply
            .starts_with('$')
            .then(|| reply.split("\r\n").nth(1).unwrap_or_default().to_owned())
            .filter(|a| !a.is_empty())
    })
    .await
}

#[tokio::test]
async fn words_of_an_operator_reach_the_client() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &["--workers", "2"]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&nodes[0], &name).await;
    let (mut bob, _) = Client::enter(&nodes[1], &name).await;
    let (mut eve, _) = Client::enter(&nodes[1], &name).await;
    // As long as a close frame can hold, and then its own words.
    let words = "\u{e9}".repeat(61) + "!";
    let disconnect = json!({"do": "disconnect", "client": eve.id(), "mayReturn": false, "words": words});
    order(&redis, disconnect, IDS[0]).await;
    assert_eq!((eve.close_code().await, eve.close_words()), (4409, &*words));
    assert_eq!(answer(&redis, IDS[0], "n-1").await, "done 0");
    assert_eq!(answer(&redis, IDS[0], "n-2").await, "done 1");
    let again =
        json!({"do": "disconnect", "client": bob.id(), "mayReturn": true, "words": "not for those who may return"});
    order(&redis, again, IDS[1]).await;
    let reconnect = bob.expect("reconnect").await;
    assert!(reconnect["reason"] == "requested" && reconnect["afterMs"].as_u64() <= Some(1000), "{}", reconnect.text);
    assert_eq!((bob.close_code().await, bob.close_words()), (1012, "an operator asks for a new connection"));
    order(&redis, json!({"do": "disconnect", "client": ann.id(), "mayReturn": false}), IDS[2]).await;
    assert_eq!((ann.close_code().await, ann.close_words()), (4409, "removed by an operator"));
    for (node, reason) in [(&nodes[1], "removed"), (&nodes[1], "requested"), (&nodes[0], "removed")] {
        let label = format!("reason=\"{reason}\"");
        assert!((node.reaches("roomcast_closes_total", &[&label], 1.0).await - 1.0).abs() < 0.5, "{reason}");
    }
}

#[tokio::test]
async fn what_is_no_order_is_counted_and_what_is_unknown_is_answered() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 1, &[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&nodes[0], &name).await;
    let huge = "x".repeat(1 << 20);
    let strange: [&[u8]; 8] = [
        b"",
        b"RC1 D a b c 1 2 3",
        b"{\"v\":1}",
        b"\xff\xfe\x00",
        huge.as_bytes(),
        br#"{"v":1,"id":"../../x","from":"n","do":"disconnect","client":"x","mayReturn":true}"#,
        br#"{"v":1,"id":"00000000000000000000000000000009","from":"a\r\nb","do":"disconnect"}"#,
        br#"{"v":1,"id":"00000000000000000000000000000009","from":"n","do":"remove","room":"a{b}","user":"*"}"#,
    ];
    for text in strange {
        say(&redis, text).await;
    }
    order(&redis, json!({"do": "sing"}), IDS[0]).await;
    order(&redis, json!({"v": 2, "do": "disconnect", "client": ann.id(), "mayReturn": false}), IDS[1]).await;
    for id in &IDS[..2] {
        assert_eq!(answer(&redis, id, "n-1").await, "unknown");
    }
    assert!((nodes[0].reaches("roomcast_broker_ignored_total", &["reason=\"order\""], 8.0).await - 8.0).abs() < 0.5);
    assert!((nodes[0].reaches("roomcast_orders_taken_total", &["outcome=\"unknown\""], 2.0).await - 2.0).abs() < 0.5);
    ann.publish(&name, json!("still here")).await;
}

/// The channel is subscribed to again after an outage, and a node that ends answers for its clients until the last is gone.
#[tokio::test]
async fn orders_are_heard_after_an_outage_and_during_a_drain() {
    let redis = Redis::start().await;
    let mut nodes = nodes(&redis, 1, &["--drain-delay", "0s", "--drain-window", "10s", "--workers", "1"]).await;
    let name = room();
    let mut clients = Vec::new();
    // So many that the drain takes its window, at 20 a second and worker at least.
    for _ in 0..200 {
        clients.push(Client::enter(&nodes[0], &name).await.0);
    }
    let killed = redis.command("CLIENT KILL TYPE pubsub").await.expect("it runs");
    assert!(killed.starts_with(':') && !killed.starts_with(":0"), "{killed}");
    eventually("the subscription to be made again", || async {
        let again = nodes[0].metric("roomcast_broker_reconnects_total", &["subscribe"]).await;
        (again > 0.5).then_some(())
    })
    .await;
    eventually("the channel to have its listener", || async {
        let count = redis.call(&[b"PUBSUB", b"NUMSUB", CHANNEL.as_bytes()]).await;
        count.ends_with(":1\r\n").then_some(())
    })
    .await;
    let target = clients.pop().expect("many");
    order(&redis, json!({"do": "remove", "room": name, "client": target.id(), "words": "bye"}), IDS[0]).await;
    let mut target = target;
    assert_eq!(target.expect("left").await["message"], "bye");
    assert_eq!(answer(&redis, IDS[0], "n-1").await, "done 1");

    nodes[0].signal(Signal::TERM);
    nodes[0].wait_ready(false).await;
    for client in &clients[..30] {
        let disconnect = json!({"do": "disconnect", "client": client.id(), "mayReturn": false});
        order(&redis, disconnect, IDS[1]).await;
    }
    order(&redis, json!({"do": "disconnect", "client": target.id(), "mayReturn": false}), IDS[2]).await;
    let mut removed = 0;
    for client in &mut clients {
        let code = client.close_code().await;
        assert!(code == 4409 || code == 1012, "{code}");
        removed += usize::from(code == 4409);
    }
    assert!(removed > 0, "the drain had just begun, and it sent all of them away");
    assert_eq!(nodes[0].ended().await.code(), Some(0));
}
