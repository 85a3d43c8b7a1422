//! Links to Redis that fail without a word: each is found, clients stay, and what was said meanwhile is caught up.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Frame, Links, Network, Node, Proxy, Redis, eventually, get, room, within};

/// A node behind a network of its own, one with a good one, and a client on each.
struct Scene {
    redis: Redis,
    proxy: Proxy,
    far: Node,
    near: Node,
}

impl Scene {
    async fn set() -> Self {
        let redis = Redis::start().await;
        let proxy = Proxy::to(&redis).await;
        let url = proxy.url();
        let far = Node::start(&["--redis", &url, "--node-id", "far", "--abuse-limit", "1000"]).await;
        let near = Node::join(&redis, "near", &[]).await;
        Self { redis, proxy, far, near }
    }
}

/// What `/readyz` says once it is not 200.
async fn not_ready(node: &Node) -> String {
    node.wait_ready(false).await;
    get(node.admin, "/readyz").await.text()
}

/// `count` messages with seqs from 1, and neither a reset nor a repeat among them.
async fn expect_all(client: &mut Client, room: &str, count: usize) {
    let seqs: Vec<u64> = client.messages(room, count).await.iter().map(Frame::seq).collect();
    assert_eq!(seqs, (1..=count as u64).collect::<Vec<_>>());
    let strays: Vec<_> = client.settle().await.into_iter().filter(|frame| frame.kind() != "presence").collect();
    assert!(strays.is_empty(), "no reset, nothing twice: {strays:?}");
}

async fn a_half_open_link(links: Links, reasons: &[&str]) {
    let scene = Scene::set().await;
    let name = room();
    let (mut ana, _) = Client::enter(&scene.far, &name).await;
    let (mut bo, _) = Client::enter(&scene.near, &name).await;
    bo.publish(&name, json!("before")).await;
    scene.proxy.make(Network::Silent(links));
    for number in 2..=5 {
        assert_eq!(bo.publish(&name, json!("meanwhile")).await.seq(), number);
    }
    let told = not_ready(&scene.far).await;
    assert!(reasons.iter().any(|reason| told.contains(reason)), "{told}");
    bo.publish(&name, json!("later")).await;
    scene.proxy.make(Network::Good);
    scene.far.wait_ready(true).await;
    expect_all(&mut ana, &name, 6).await;
    ana.publish(&name, json!("after")).await;
    expect_seq(&mut bo, &name, 7).await;
}

async fn expect_seq(client: &mut Client, room: &str, seq: u64) {
    client.find("a message", |f| f.kind() == "message" && f["room"] == room && f["seq"] == seq).await;
}

#[tokio::test]
async fn a_half_open_link_to_publish_on_is_found() {
    a_half_open_link(Links::Publishing, &["publish", "canary"]).await;
}

#[tokio::test]
async fn a_half_open_link_to_listen_on_is_found() {
    a_half_open_link(Links::Subscribing, &["subscribed", "canary"]).await;
}

#[tokio::test]
async fn two_half_open_links_are_found() {
    a_half_open_link(Links::All, &["publish", "subscribed", "canary"]).await;
}

/// Pings are answered on both connections, and still nothing published comes in: only the canary tells.
#[tokio::test]
async fn a_deaf_subscription_is_found_and_made_anew() {
    let scene = Scene::set().await;
    let name = room();
    let (mut ana, _) = Client::enter(&scene.far, &name).await;
    let (mut bo, _) = Client::enter(&scene.near, &name).await;
    let before = scene.far.metric("roomcast_broker_reconnects_total", &["path=\"subscribe\""]).await;
    scene.proxy.make(Network::Deaf);
    bo.publish(&name, json!("unheard")).await;
    let told = not_ready(&scene.far).await;
    assert!(told.contains("canary"), "{told}");
    // So is who came and went: without a later movement.
    let (_cleo, _) = Client::enter(&scene.near, &name).await;
    ana.find("the present count", |f| f.kind() == "presence" && f["online"] == 3).await;
    // Each new subscription catches up, even if it is as deaf as the one before.
    expect_all(&mut ana, &name, 1).await;
    scene.proxy.make(Network::Good);
    scene.far.wait_ready(true).await;
    scene.far.reaches("roomcast_broker_reconnects_total", &["path=\"subscribe\""], before + 1.0).await;
    bo.publish(&name, json!("heard")).await;
    expect_seq(&mut ana, &name, 2).await;
}

/// `CLIENT KILL TYPE pubsub` while others publish: nothing is lost, nothing comes twice.
#[tokio::test]
async fn killed_subscriptions_lose_nothing() {
    let scene = Scene::set().await;
    let name = room();
    let (mut ana, _) = Client::enter(&scene.far, &name).await;
    let (mut bo, _) = Client::enter(&scene.near, &name).await;
    for number in 1..=60 {
        if number % 20 == 10 {
            scene.redis.command("CLIENT KILL TYPE pubsub").await.expect("it runs");
        }
        assert_eq!(bo.publish(&name, json!(number)).await.seq(), number);
    }
    expect_all(&mut ana, &name, 60).await;
    expect_all(&mut bo, &name, 60).await;
    for node in [&scene.far, &scene.near] {
        node.wait_ready(true).await;
    }
}

/// The server is slow, not away: everything works, and the node stays in rotation.
#[tokio::test]
async fn a_slow_link_is_only_slow() {
    let scene = Scene::set().await;
    let name = room();
    let (mut ana, _) = Client::enter(&scene.far, &name).await;
    let (mut bo, _) = Client::enter(&scene.near, &name).await;
    scene.proxy.make(Network::Slow(Duration::from_millis(250)));
    for number in 1..=12 {
        let client = if number % 2 == 0 { &mut ana } else { &mut bo };
        assert_eq!(client.publish(&name, json!(number)).await.seq(), number);
        assert_eq!(get(scene.far.admin, "/readyz").await.status, 200);
    }
    expect_all(&mut ana, &name, 12).await;
    expect_all(&mut bo, &name, 12).await;
}

/// Redis was failed over: the old master, which connections still stand with, refuses writes, and the address leads to
/// the new one.
#[tokio::test]
async fn a_demoted_master_is_left_for_the_new_one() {
    let scene = Scene::set().await;
    let heir = Redis::start().await;
    let name = room();
    let (mut ana, _) = Client::enter(&scene.far, &name).await;
    ana.publish(&name, json!("before")).await;
    heir.command(&format!("REPLICAOF 127.0.0.1 {}", scene.redis.port())).await.expect("it runs");
    eventually("the heir to have it all", || async {
        heir.command("INFO replication").await.filter(|info| info.contains("master_link_status:up")).map(|_| ())
    })
    .await;
    heir.command("REPLICAOF NO ONE").await.expect("it runs");
    scene.proxy.lead_to(&heir);
    scene.redis.command("REPLICAOF 127.0.0.1 1").await.expect("it runs");

    let ask = json!({"type": "publish", "room": name, "id": "x", "data": "after", "ref": 1});
    ana.send(ask.clone()).await;
    let refused = ana.answer(&json!(1)).await;
    assert_eq!((refused.kind(), &refused["retryable"]), ("error", &json!(true)), "{}", refused.text);
    eventually("the new master to take it", || async { heir.command("INFO clients").await }).await;
    within("the new master to be found", async {
        loop {
            ana.send(ask.clone()).await;
            if ana.answer(&json!(1)).await.kind() == "ack" {
                return;
            }
            scene.far.wait_ready(true).await;
        }
    })
    .await;
    scene.far.wait_ready(true).await;
    let stored = heir.command(&format!("EXISTS rc:{{{name}}}:s")).await;
    assert_eq!(stored.as_deref(), Some(":1\r\n"));
}

/// Ids of the connections that Redis has, but for those that listen.
async fn connections(redis: &Redis) -> Vec<u64> {
    let list = redis.call(&[b"CLIENT", b"LIST"]).await;
    let id = |line: &str| line.split(' ').find_map(|word| word.strip_prefix("id=")?.parse().ok());
    list.lines().filter(|line| line.contains(" sub=0 ")).filter_map(id).collect()
}

/// A connection that was given up may still have calls on their way: one that enters a client must not come behind the one
/// by which it left.
#[tokio::test]
async fn what_a_dead_link_still_carries_is_not_done_late() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let args = ["--workers", "1", "--redis-timeout", "1s", "--lease-beat", "20s", "--lease-expiry", "10m"];
    let node = Node::start(&[&["--redis", &proxy.url()], &args[..]].concat()).await;
    let old = connections(&redis).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    let mut bo = Client::connect(&node, "/connect").await;
    proxy.make(Network::Stuck);
    bo.send(json!({"type": "join", "room": name, "ref": 1})).await;
    let refused = bo.answer(&json!(1)).await;
    assert_eq!((refused.kind(), refused.str("code")), ("error", "broker_unavailable"), "{}", refused.text);
    node.reaches("roomcast_broker_reconnects_total", &["path=\"publish\""], 1.0).await;
    // Calls of a room are made one after the other: when this one is in, the other one was told to be out.
    let mut cleo = Client::connect(&node, "/connect").await;
    let joined = async {
        loop {
            cleo.send(json!({"type": "join", "room": name, "ref": 1})).await;
            if cleo.answer(&json!(1)).await.kind() == "joined" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("a join", joined).await;
    proxy.make(Network::Good);
    eventually("the old connection to end", || async {
        let left = connections(&redis).await;
        left.iter().all(|id| !old.contains(id)).then_some(())
    })
    .await;
    ana.send(json!({"type": "members", "room": name, "limit": 10, "ref": 2})).await;
    let answer = ana.answer(&json!(2)).await;
    assert!(answer.list("members").iter().all(|member| member["id"] != json!(bo.id())), "{}", answer.text);
}
