//! Redis is out of reach for a while, or there and of no use: publishes fail fast, clients stay, and all is caught up.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Client, DEADLINE, Frame, Links, Network, Node, Proxy, Redis, eventually, get, room, until_logged,
};

const LIVE: &str = "[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n";

/// Clients that are not read meanwhile answer no pings. And what was missed is caught up with by who comes back, not by a
/// sweep.
const PATIENT: [&str; 8] =
    ["--publish-rate", "0", "--ping-interval", "1h", "--ping-timeout", "2h", "--sweep-interval", "1h"];

/// How long Redis is away in these tests; `ABSENCE_SECONDS=120` makes it longer.
fn absence() -> Duration {
    let seconds = std::env::var("ABSENCE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    Duration::from_secs(seconds)
}

/// Publishes and returns the refusal, which must invite to try again.
async fn refused(client: &mut Client, number: usize) -> Frame {
    client.send(json!({"type": "publish", "data": "lost", "ref": number})).await;
    let answer = client.answer(&json!(number)).await;
    assert_eq!((answer.kind(), &answer["retryable"]), ("error", &json!(true)), "{}", answer.text);
    answer
}

#[tokio::test]
async fn a_redis_out_of_reach_is_missed_and_caught_up_with() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let url = proxy.url();
    let far = Node::start_with(&[&["--redis", &url, "--abuse-limit", "10000"], &PATIENT[..]].concat(), LIVE).await;
    let near = Node::join(&redis, "near", &PATIENT).await;
    let names: Vec<String> = (0..5).map(|_| room()).collect();
    let mut pairs = Vec::new();
    for name in &names {
        pairs.push((Client::enter(&far, name).await.0, Client::enter(&near, name).await.0));
    }
    let live = format!("live-{}", room());
    let (mut cleo, _) = Client::enter(&far, &live).await;
    let (mut dan, _) = Client::enter(&far, &live).await;

    proxy.make(Network::Silent(Links::All));
    let gone = Instant::now();
    let mut number = 0;
    let mut unready = None;
    while gone.elapsed() < absence() || unready.is_none() {
        assert!(gone.elapsed() < absence() + DEADLINE, "ready all the time");
        number += 1;
        let ((ana, _), rest) = pairs.split_first_mut().unwrap();
        let (one, other) = tokio::join!(refused(ana, number), refused(&mut rest[0].0, number));
        assert!(["undecided", "broker_unavailable"].contains(&one.str("code")), "{} {}", one.text, other.text);
        cleo.send(json!({"type": "publish", "data": number})).await;
        dan.find("what cleo said", |f| f["data"] == number).await;
        for (room, (_, bo)) in names.iter().zip(&mut pairs) {
            bo.publish(room, json!(number)).await;
        }
        if get(far.admin, "/readyz").await.status != 200 {
            unready.get_or_insert(gone.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(200)).await; // a person's pace, not a wait for anything
    }

    proxy.make(Network::Good);
    let healed = Instant::now();
    for (room, (ana, _)) in names.iter().zip(&mut pairs) {
        ana.find("the last", |f| f.kind() == "message" && f["data"] == number).await;
        let all: Vec<u64> = ana.messages(room, number - 1).await.iter().map(Frame::seq).collect();
        let resets = ana.settle().await.into_iter().filter(|frame| frame.kind() == "reset").count();
        // What was sent and not answered may have arrived after all: then there are more.
        assert!(all.is_sorted() && all[0] == 1 && resets == 0, "{all:?}, {resets} resets");
    }
    eprintln!("unready after {:?}, caught up {:?} after the heal", unready.unwrap(), healed.elapsed());
    far.wait_ready(true).await;
}

/// A node of many rooms, each of which missed its last message.
#[tokio::test]
async fn many_rooms_are_caught_up_at_once() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let url = proxy.url();
    let args = [&["--rooms-per-connection", "500", "--unsubscribe-delay", "1h"], &PATIENT[..]].concat();
    let far = Node::start(&[&["--redis", &url], &args[..]].concat()).await;
    let near = Node::join(&redis, "near", &args).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        let mut member = Client::connect(&far, "/connect").await;
        let mut speaker = Client::connect(&near, "/connect").await;
        let rooms: Vec<String> = (0..250).map(|_| room()).collect();
        for name in &rooms {
            for client in [&mut member, &mut speaker] {
                client.send(json!({"type": "join", "room": name, "ref": name})).await;
                assert_eq!(client.answer(&json!(name)).await.kind(), "joined");
            }
        }
        members.push((member, speaker, rooms));
    }
    proxy.make(Network::Silent(Links::All));
    far.wait_ready(false).await;
    for (_, speaker, rooms) in &mut members {
        for name in rooms {
            assert_eq!(speaker.publish(name, json!("meanwhile")).await.kind(), "ack");
        }
    }
    proxy.make(Network::Good);
    let healed = Instant::now();
    for (member, _, rooms) in &mut members {
        for name in rooms {
            member.find("what was said", |f| f.kind() == "message" && f["room"] == name.as_str()).await;
        }
    }
    eprintln!("1,000 rooms caught up {:?} after the heal", healed.elapsed());
}

#[tokio::test]
async fn a_redis_that_stands_still_is_missed() {
    let redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &["--abuse-limit", "1000"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    redis.signal(Signal::STOP);
    ana.send(json!({"type": "publish", "data": "lost", "ref": 1})).await;
    node.reaches("roomcast_messages_received_total", &["kind=\"publish\""], 1.0).await;
    // Behind it in the same room, while it waits for its answer: none may wait for its own two seconds after that.
    let undecided = refused(&mut ana, 2).await;
    assert_eq!(undecided["code"], "broker_unavailable", "{}", undecided.text);
    assert_eq!(ana.answer(&json!(1)).await["code"], "undecided");
    node.wait_ready(false).await;
    redis.signal(Signal::CONT);
    node.wait_ready(true).await;
    assert_eq!(ana.publish(&name, json!("after")).await.kind(), "ack");
}

#[tokio::test]
async fn a_paused_redis_delays_and_loses_nothing() {
    let redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &["--redis-timeout", "10s"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    redis.command("CLIENT PAUSE 1000").await.expect("it runs");
    assert_eq!(ana.publish(&name, json!("late")).await.seq(), 1);
    ana.messages(&name, 1).await;
    assert_eq!(get(node.admin, "/readyz").await.status, 200, "a second is no reason to go");
}

/// More publishes than may be in flight: the rest is refused, and memory does not grow with the delay.
#[tokio::test]
async fn too_much_in_flight_is_overload() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let url = proxy.url();
    // All get an answer of Redis, however long a busy machine takes.
    let args = ["--redis", &url, "--redis-timeout", "1m", "--workers", "1", "--rooms-per-connection", "300"];
    let more = ["--abuse-limit", "100000", "--unsubscribe-delay", "1h"];
    let node = Node::start(&[&args[..], &more, &PATIENT].concat()).await;
    let (mut clients, each) = (Vec::new(), 250);
    for _ in 0..6 {
        let mut client = Client::connect(&node, "/connect").await;
        let rooms: Vec<String> = (0..each).map(|_| room()).collect();
        for name in &rooms {
            client.send(json!({"type": "join", "room": name, "ref": name})).await;
            assert_eq!(client.answer(&json!(name)).await.kind(), "joined");
        }
        clients.push((client, rooms));
    }
    proxy.make(Network::Slow(Duration::from_millis(500)));
    let (mut acked, mut overloaded, mut before) = (0, 0, 0);
    for round in 0..4 {
        for (client, rooms) in &mut clients {
            for name in rooms.iter() {
                client.send(json!({"type": "publish", "room": name, "data": "x", "echo": false, "ref": name})).await;
            }
        }
        for (client, rooms) in &mut clients {
            for name in rooms.iter() {
                let answer = client.answer(&json!(name)).await;
                match answer["code"].as_str() {
                    None => acked += 1,
                    Some("overloaded") => overloaded += 1,
                    Some(_) => panic!("{}", answer.text),
                }
            }
        }
        if round == 0 {
            before = node.memory().0;
        }
    }
    assert!(acked >= 1024 && overloaded > 0, "{acked} acked, {overloaded} overloaded");
    let grown = node.memory().0.saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    eprintln!("{acked} acked, {overloaded} overloaded, {grown} bytes more");
}

/// A server that may drop rooms is no server for rooms.
#[tokio::test]
async fn a_redis_that_evicts_is_refused() {
    let redis = Redis::start().await;
    redis.command("CONFIG SET maxmemory-policy allkeys-lru").await.expect("it runs");
    let url = redis.url();
    let node = Node::launch(&["--redis", &url, "--workers", "2"], "").await;
    until_logged(&node, "noeviction").await;
    let told = get(node.admin, "/readyz").await;
    assert_eq!(told.status, 503);
    eventually("the reason", || async { get(node.admin, "/readyz").await.text().contains("evict").then_some(()) })
        .await;
    assert_eq!(node.log().matches("maxmemory-policy noeviction").count(), 1, "{}", node.log());
    redis.command("CONFIG SET maxmemory-policy noeviction").await.expect("it runs");
    // A new connection looks at once; otherwise it takes up to 30 s.
    redis.command("CLIENT KILL TYPE normal SKIPME yes").await.expect("it runs");
    node.wait_ready(true).await;
}

/// A Redis without memory refuses what is to be kept, and passes on what is not.
#[tokio::test]
async fn a_redis_without_memory_says_so() {
    let redis = Redis::start().await;
    let url = redis.url();
    let node = Node::start_with(&["--redis", &url], LIVE).await;
    let other = Node::start_with(&["--redis", &url], LIVE).await;
    let (name, live) = (room(), format!("live-{}", room()));
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (mut bo, _) = Client::enter(&node, &live).await;
    let (mut cleo, _) = Client::enter(&other, &live).await;
    redis.command("CONFIG SET maxmemory 1").await.expect("it runs");
    ana.send(json!({"type": "publish", "data": "x", "ref": 1})).await;
    let refused = ana.answer(&json!(1)).await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("storage_full"), &json!(true)), "{}", refused.text);
    bo.send(json!({"type": "publish", "data": "passed on"})).await;
    cleo.find("what bo said", |f| f["data"] == "passed on").await;
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    redis.command("CONFIG SET maxmemory 0").await.expect("it runs");
    assert_eq!(ana.publish(&name, json!("y")).await.seq(), 1, "nothing of the refused one was kept");
}

/// A Redis that cannot save takes no writes: clients are told so, and it passes.
#[tokio::test]
async fn a_redis_with_a_bad_disk_says_so() {
    let redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    // A directory where the dump should be: saving fails as it does on a full disk.
    redis.call(&[b"CONFIG", b"SET", b"save", b"3600 1"]).await;
    let dump = redis.dir().join("dump.rdb");
    std::fs::create_dir(&dump).unwrap();
    redis.command("BGSAVE").await.expect("it runs");
    eventually("saving to fail", || async {
        redis.command("INFO persistence").await.filter(|info| info.contains("rdb_last_bgsave_status:err"))
    })
    .await;
    ana.send(json!({"type": "publish", "data": "x", "ref": 1})).await;
    let refused = ana.answer(&json!(1)).await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("broker_unavailable"), &json!(true)));
    assert!(refused.str("message").contains("disk"), "{}", refused.text);
    std::fs::remove_dir(&dump).unwrap();
    redis.command("BGSAVE").await.expect("it runs");
    eventually("saving to work", || async {
        redis.command("INFO persistence").await.filter(|info| info.contains("rdb_last_bgsave_status:ok"))
    })
    .await;
    assert_eq!(ana.publish(&name, json!("y")).await.seq(), 1);
}
