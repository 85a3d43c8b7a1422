//! What rooms and users may do in the whole cluster: several nodes, one Redis, and no clock but the one that rates go by.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Node, Redis, assert_error, room, within};

const LIMITED: &str = "[[rooms]]\npattern = \"slow-*\"\npublish_rate = 20\npublish_burst = 10\n\
                       [[rooms]]\npattern = \"fleeting-*\"\nmode = \"ephemeral\"\npublish_rate = 1\npublish_burst = 5\n";

async fn node(redis: &Redis, id: &str, args: &[&str]) -> Node {
    let url = redis.url();
    let mut all = vec!["--redis", &url, "--node-id", id, "--publish-rate", "0"];
    all.extend(args);
    Node::start_with(&all, LIMITED).await
}

/// Publishes again and again, each once the last was answered. Gives how many were acked; the others were refused.
async fn publish_for(client: &mut Client, room: &str, time: Duration) -> usize {
    let (began, mut acked, mut sent) = (Instant::now(), 0, 0);
    while began.elapsed() < time {
        client.send(json!({"type": "publish", "room": room, "data": sent, "ref": sent})).await;
        let answer = client.answer(&json!(sent)).await;
        if answer.kind() == "ack" {
            acked += 1;
        } else {
            assert_error(&answer, "rate_limited", &json!(sent));
            assert_eq!(answer["retryable"], true);
        }
        sent += 1;
    }
    assert!(sent > acked, "all of {sent} passed: nothing was limited");
    acked
}

/// The most that may pass in a time, and the least that does.
fn bounds(burst: usize, per_second: f64, took: Duration) -> std::ops::RangeInclusive<usize> {
    // Allowances that were taken before may be spent for 250 ms.
    let most = burst as f64 + per_second * (took.as_secs_f64() + 0.25) + 1.0;
    burst..=most as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_has_one_rate_on_all_nodes() {
    let redis = Redis::start().await;
    let (one, two) = (node(&redis, "n-one", &[]).await, node(&redis, "n-two", &[]).await);
    let (slow, free) = (format!("slow-{}", room()), room());
    let (mut ann, _) = Client::enter(&one, &slow).await;
    let (mut bob, _) = Client::enter(&two, &slow).await;
    let began = Instant::now();
    let time = Duration::from_millis(1500);
    let (a, b) = tokio::join!(publish_for(&mut ann, &slow, time), publish_for(&mut bob, &slow, time));
    let expected = bounds(10, 20.0, began.elapsed());
    assert!(expected.contains(&(a + b)), "{a} and {b}, expected {expected:?} together");

    // Refusals were many, and cost nobody a point of abuse: it may have been the others who filled the room.
    ann.send(json!({"type": "join", "room": free, "ref": "j"})).await;
    assert_eq!(ann.answer(&json!("j")).await.kind(), "joined");
    for number in 0..100 {
        ann.send(json!({"type": "publish", "room": free, "data": number, "ref": number})).await;
    }
    for number in 0..100 {
        assert_eq!(ann.answer(&json!(number)).await.kind(), "ack", "another room is not concerned");
    }
    for node in [&one, &two] {
        assert!(node.metric("roomcast_rate_limited_total", &["room"]).await > 0.0);
        assert!(node.metric("roomcast_publishes_total", &["refused"]).await > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_at_once_keeps_its_order() {
    let redis = Redis::start().await;
    let one = node(&redis, "n-one", &[]).await;
    let slow = format!("slow-{}", room());
    let (mut ann, _) = Client::enter(&one, &slow).await;
    for number in 0..60 {
        ann.send(json!({"type": "publish", "room": slow, "data": number, "ref": number})).await;
    }
    let (mut acked, mut refused) = (Vec::new(), 0);
    for number in 0..60 {
        match ann.answer(&json!(number)).await.kind() {
            "ack" => acked.push(number),
            _ => refused += 1,
        }
    }
    assert!(acked.len() >= 10 && refused > 0, "{acked:?}");
    assert_eq!(acked[..10], (0..10).collect::<Vec<_>>(), "the burst is for those who came first");
    let seen = ann.messages(&slow, acked.len()).await;
    let seen: Vec<u64> = seen.iter().map(|message| message["data"].as_u64().expect("a number")).collect();
    assert_eq!(seen, acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_node_holds_the_rate_alone() {
    let mut redis = Redis::start().await;
    let one = node(&redis, "n-one", &["--redis-timeout", "300ms"]).await;
    let fleeting = format!("fleeting-{}", room());
    let (mut ann, _) = Client::enter(&one, &fleeting).await;
    redis.stop().await;
    let began = Instant::now();
    let acked = publish_for(&mut ann, &fleeting, Duration::from_secs(1)).await;
    let expected = bounds(5, 1.0, began.elapsed());
    assert!(expected.contains(&acked), "{acked}, expected {expected:?}");
    assert!(one.metric("roomcast_limits_alone_total", &["room"]).await >= 1.0);
    redis.resume().await;
    one.wait_ready(true).await;
    let before = one.metric("roomcast_broker_commands_total", &["\"take\"", "\"ok\""]).await;
    let asked = async {
        while one.metric("roomcast_broker_commands_total", &["\"take\"", "\"ok\""]).await <= before {
            ann.send(json!({"type": "publish", "room": fleeting, "data": 0, "ref": "again"})).await;
            ann.answer(&json!("again")).await;
        }
    };
    within("Redis to be asked again", asked).await;
}
