//! What rooms and users may do in the whole cluster: several nodes, one Redis, and no clock but the one that rates go by.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, DEADLINE, Node, Redis, assert_error, eventually, room, within};

const LIMITED: &str = "[[rooms]]\npattern = \"slow-*\"\npublish_rate = 20\npublish_burst = 10\n\
                       [[rooms]]\npattern = \"fleeting-*\"\nmode = \"ephemeral\"\npublish_rate = 1\npublish_burst = 5\n";

async fn node(redis: &Redis, id: &str, args: &[&str]) -> Node {
    let url = redis.url();
    let mut all = vec!["--redis", &url, "--node-id", id, "--publish-rate", "0"];
    all.extend(args);
    Node::start_with(&all, LIMITED).await
}

/// Publishes again and again, each once the last was answered, for a while and until one was refused. Gives how many were
/// acked.
async fn publish_for(client: &mut Client, room: &str, time: Duration) -> usize {
    let (began, mut acked, mut sent) = (Instant::now(), 0, 0);
    while began.elapsed() < time || acked == sent {
        assert!(began.elapsed() < DEADLINE, "all of {sent} passed: nothing was limited");
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
        node.reaches("roomcast_rate_limited_total", &["room"], 1.0).await;
        node.reaches("roomcast_publishes_total", &["refused"], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_at_once_keeps_its_order() {
    let redis = Redis::start().await;
    let one = node(&redis, "n-one", &[]).await;
    let slow = format!("slow-{}", room());
    let (mut ann, _) = Client::enter(&one, &slow).await;
    for number in 0..200 {
        ann.send(json!({"type": "publish", "room": slow, "data": number, "ref": number})).await;
    }
    let (mut acked, mut refused) = (Vec::new(), 0);
    for number in 0..200 {
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
    let one = node(&redis, "n-one", &[]).await;
    let fleeting = format!("fleeting-{}", room());
    let (mut ann, _) = Client::enter(&one, &fleeting).await;
    redis.stop().await;
    let began = Instant::now();
    let acked = publish_for(&mut ann, &fleeting, Duration::from_secs(1)).await;
    let expected = bounds(5, 1.0, began.elapsed());
    assert!(expected.contains(&acked), "{acked}, expected {expected:?}");
    one.reaches("roomcast_limits_alone_total", &["room"], 1.0).await;
    redis.resume().await;
    one.wait_ready(true).await;
    let before = one.metric("roomcast_broker_commands_total", &["\"take\"", "\"ok\""]).await;
    let once_more = async {
        while one.metric("roomcast_broker_commands_total", &["\"take\"", "\"ok\""]).await <= before {
            ann.send(json!({"type": "publish", "room": fleeting, "data": 0, "ref": "again"})).await;
            ann.answer(&json!("again")).await;
        }
    };
    within("Redis to be asked again", once_more).await;
}

const SECRET: &str = "a secret of 32 bytes, for tests..";

async fn node_with_users(redis: &Redis, id: &str, args: &[&str]) -> Node {
    let mut all = vec!["--jwt-secret", SECRET, "--jwt-audience", "quota", "--jwt-default-rooms", "*"];
    all.extend(args);
    node(redis, id, &all).await
}

/// A path on which `user` connects.
fn path_of(user: &str) -> String {
    format!("/connect?token={}", token_of(user, &json!(null)))
}

/// A token signed here and not by code of ours.
fn token_of(user: &str, info: &serde_json::Value) -> String {
    let claims = json!({"sub": user, "aud": "quota", "exp": 4_102_444_800_u64, "info": info});
    let signed =
        format!("{}.{}", base64url(br#"{"alg":"HS256","typ":"JWT"}"#), base64url(claims.to_string().as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", base64url(ring::hmac::sign(&key, signed.as_bytes()).as_ref()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().chain(&[0, 0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        (0..=chunk.len()).map(|at| char::from(DIGITS[bits >> (18 - 6 * at) & 63])).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

async fn enter_as(node: &Node, user: &str, room: &str) -> Client {
    let mut client = Client::connect(node, &path_of(user)).await;
    client.send(json!({"type": "join", "room": room, "ref": "join"})).await;
    assert_eq!(client.answer(&json!("join")).await.kind(), "joined");
    client
}

/// Waits until one more connection of `user` is let in.
async fn until_let_in(node: &Node, user: &str) -> Client {
    within("a place for one more connection", async {
        loop {
            match Client::try_connect(node, &path_of(user)).await {
                Ok(client) => return client,
                Err(code) => assert_eq!(code, 4429),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_users_connections_on_three_nodes_no_more_are_let_in_than_there_may_be() {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["n-one", "n-two", "n-three"] {
        nodes.push(node_with_users(&redis, id, &["--max-connections-per-user", "4"]).await);
    }
    for round in 0..3 {
        let path = path_of(&format!("ann-{round}"));
        let asked = (0..18).map(|number| Client::try_connect(&nodes[number % 3], &path));
        let answers = within("all to be answered", futures_util::future::join_all(asked)).await;
        let (inside, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(inside.len(), 4, "round {round}");
        assert!(refused.into_iter().all(|answer| answer.is_err_and(|code| code == 4429)));
        // Another user is not concerned, and a place that is given back is free on every node.
        Client::connect(&nodes[round], &path_of("bob")).await.leave().await;
        let mut inside: Vec<Client> = inside.into_iter().flatten().collect();
        inside.pop().expect("four").leave().await;
        inside.push(until_let_in(&nodes[round], &format!("ann-{round}")).await);
        assert_eq!(Client::try_connect(&nodes[(round + 1) % 3], &path).await.err(), Some(4429));
        for client in &mut inside {
            client.settle().await;
        }
    }
    eventually("all that were refused to be counted", || async {
        let mut refused = 0.0;
        for node in &nodes {
            refused += node.metric("roomcast_user_connections_refused_total", &[]).await;
        }
        (refused >= 3.0 * 15.0).then_some(())
    })
    .await;
}

/// Leases that a test can wait for and that a busy machine can keep.
const QUICK: [&str; 6] = ["--lease-beat", "500ms", "--lease-expiry", "3s", "--max-connections-per-user", "2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_is_free_once_its_lease_has_run_out() {
    let redis = Redis::start().await;
    let dies = node_with_users(&redis, "n-dies", &QUICK).await;
    let lives = node_with_users(&redis, "n-lives", &QUICK).await;
    let _held = [Client::connect(&dies, &path_of("ann")).await, Client::connect(&dies, &path_of("ann")).await];
    assert_eq!(Client::try_connect(&lives, &path_of("ann")).await.err(), Some(4429));
    dies.signal(Signal::KILL);
    let _back = [until_let_in(&lives, "ann").await, until_let_in(&lives, "ann").await];
    assert_eq!(Client::try_connect(&lives, &path_of("ann")).await.err(), Some(4429));
    within("the dead node's counts to be cleared", async {
        loop {
            let keys = redis.command("KEYS rc:{!}:users:*").await.unwrap();
            if !keys.contains("n-dies") && keys.contains("n-lives") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_lease_counts_its_users_anew() {
    let redis = Redis::start().await;
    let sleeps = node_with_users(&redis, "n-sleeps", &QUICK).await;
    let lives = node_with_users(&redis, "n-lives", &QUICK).await;
    let mut held = [Client::connect(&sleeps, &path_of("ann")).await, Client::connect(&sleeps, &path_of("ann")).await];
    sleeps.signal(Signal::STOP);
    let back = until_let_in(&lives, "ann").await;
    sleeps.signal(Signal::CONT);
    for client in &mut held {
        client.settle().await;
    }
    back.leave().await;
    // Its two are connected, and so they are counted again.
    within("the two to be counted again", async {
        while let Ok(client) = Client::try_connect(&lives, &path_of("ann")).await {
            client.leave().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for client in held {
        client.leave().await;
    }
    let _both = [until_let_in(&lives, "ann").await, until_let_in(&sleeps, "ann").await];
    assert_eq!(Client::try_connect(&lives, &path_of("ann")).await.err(), Some(4429));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_nodes_own_connections_count() {
    let mut redis = Redis::start().await;
    let one = node_with_users(&redis, "n-one", &["--max-connections-per-user", "2"]).await;
    let _first = Client::connect(&one, &path_of("ann")).await;
    redis.stop().await;
    one.wait_ready(false).await;
    let _second = Client::connect(&one, &path_of("ann")).await;
    assert_eq!(Client::try_connect(&one, &path_of("ann")).await.err(), Some(4429));
    Client::connect(&one, &path_of("bob")).await.settle().await;
    one.reaches("roomcast_limits_alone_total", &["connections"], 2.0).await;
}

/// Never closed for being refused, so that all of it is counted.
const PATIENT: [&str; 6] = ["--user-publish-rate", "20", "--user-publish-burst", "10", "--abuse-limit", "1000000"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_one_rate_on_all_connections_and_nodes() {
    let redis = Redis::start().await;
    let one = node_with_users(&redis, "n-one", &PATIENT).await;
    let two = node_with_users(&redis, "n-two", &PATIENT).await;
    let (name, other) = (room(), room());
    let mut ann = [
        enter_as(&one, "ann", &name).await,
        enter_as(&one, "ann", &other).await,
        enter_as(&two, "ann", &name).await,
        enter_as(&two, "ann", &other).await,
    ];
    let mut bob = enter_as(&two, "bob", &name).await;
    let began = Instant::now();
    let time = Duration::from_millis(1500);
    let [a, b, c, d] = &mut ann;
    let (a, b, c, d) = tokio::join!(
        publish_for(a, &name, time),
        publish_for(b, &other, time),
        publish_for(c, &name, time),
        publish_for(d, &other, time)
    );
    let (sum, expected) = (a + b + c + d, bounds(10, 20.0, began.elapsed()));
    assert!(expected.contains(&sum), "{a}, {b}, {c} and {d}, expected {expected:?} together");
    // Nobody else spent anything.
    for number in 0..10 {
        assert_eq!(bob.publish(&name, json!(number)).await.kind(), "ack");
    }
    for node in [&one, &two] {
        node.reaches("roomcast_rate_limited_total", &["user"], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_goes_on_above_the_rate_is_closed_and_order_is_kept_until_then() {
    let redis = Redis::start().await;
    let args = ["--user-publish-rate", "1", "--user-publish-burst", "10"];
    let one = node_with_users(&redis, "n-one", &args).await;
    let name = room();
    let mut ann = enter_as(&one, "ann", &name).await;
    let mut bob = enter_as(&one, "bob", &name).await;
    for number in 0..200 {
        ann.send(json!({"type": "publish", "room": name, "data": number, "ref": number})).await;
    }
    assert_eq!(ann.close_code().await, 1008);
    let seen = bob.messages(&name, 10).await;
    let seen: Vec<u64> = seen.iter().map(|message| message["data"].as_u64().expect("a number")).collect();
    assert_eq!(seen, (0..10).collect::<Vec<u64>>());
    // A rename is told to everybody, too.
    let mut again = enter_as(&one, "ann", &name).await;
    for number in 0..15 {
        again.send(json!({"type": "rename", "name": format!("Anna {number}"), "ref": number})).await;
    }
    let answers = again.settle().await;
    let refused = answers.iter().filter(|frame| frame["code"] == "rate_limited").count();
    assert!(refused > 0, "15 at once, of a burst of 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_tells_the_room_something_is_a_publish() {
    let redis = Redis::start().await;
    let one = node_with_users(&redis, "n-one", &["--user-publish-rate", "1", "--user-publish-burst", "10"]).await;
    let mut ann = enter_as(&one, "ann", &room()).await;
    for (what, news) in [("the same", false), ("another each time", true)] {
        for number in 0..25 {
            let info = if news { json!(number) } else { json!(null) };
            ann.send(json!({"type": "refresh", "token": token_of("ann", &info), "ref": number})).await;
        }
        let answers = ann.settle().await;
        let count = |key: &str, value: &str| answers.iter().filter(|frame| frame[key] == value).count();
        let (refreshed, refused) = (count("type", "refreshed"), count("code", "rate_limited"));
        assert_eq!(refreshed + refused, 25, "{what}");
        assert_eq!(refused > 0, news, "{what}: {refreshed} refreshed, {refused} refused");
        assert!(refreshed >= 10, "{what}: what the user may do at once");
    }
}
