//! A node that ends because nobody needs it, and one that does not since somebody does. Another node with the same
//! settings, started later and needed by nobody, is the clock.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Backend, Client, Node, Raw, Redis, WRITER, eventually, get, keys, room};

/// Long enough for a slow machine to start another node, and to come back, within it.
const IDLE: &str = "3s";

/// A node that begins to be idle now, as does `node`: nobody keeps it any more.
async fn clock_beside(node: &Node) -> Node {
    let client = Client::connect(node, "/connect").await;
    let clock = Node::start(&["--idle-exit", IDLE]).await;
    client.leave().await;
    clock
}

async fn until_another_ended() {
    let mut clock = Node::start(&["--idle-exit", IDLE]).await;
    assert_eq!(clock.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_node_that_nobody_needs_ends() {
    let redis = Redis::start().await;
    let began = Instant::now();
    let mut node = Node::join(&redis, "n-idle", &["--idle-exit", IDLE, "--drain-delay", "5s"]).await;
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(3), "not before its time");
    let log = node.log();
    assert!(log.contains("idle: no connection and no message") && log.contains("\"3s\""), "it says why:\n{log}");
    assert!(log.contains("drained") && log.contains("stopped"), "by the way of every end:\n{log}");
    assert!(redis.command("ZCARD rc:{!}:leases").await.is_some_and(|left| left.starts_with(":0")), "no lease is left");
}

#[tokio::test]
async fn a_node_with_a_client_stays_until_it_has_gone() {
    let mut node = Node::start(&["--idle-exit", IDLE]).await;
    let mut client = Client::connect(&node, "/connect").await;
    until_another_ended().await;
    assert!(node.runs(), "somebody is connected, who says nothing");
    client.settle().await;
    client.leave().await;
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_come_and_go_keep_it() {
    let mut node = Node::start(&["--idle-exit", IDLE]).await;
    let mut clock = clock_beside(&node).await;
    // At no moment that is looked at there need be one.
    while clock.runs() {
        Client::connect(&node, "/connect").await.leave().await;
    }
    assert!(node.runs());
    let (mut client, _) = Client::enter(&node, &room()).await;
    client.settle().await;
    assert!(!node.log().contains("idle"), "it never was");
}

#[tokio::test]
async fn messages_of_backends_keep_it() {
    let keys = keys();
    let args: Vec<&str> = keys.iter().map(String::as_str).chain(["--idle-exit", IDLE]).collect();
    let mut node = Node::start(&args).await;
    let mut clock = clock_beside(&node).await;
    let path = format!("/rooms/{}/messages", room());
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while clock.runs() {
        // On connections that do not stay: it is the message that counts.
        Backend::connect(node.addr, WRITER).await.post(&path, &json!({ "data": 1 })).await.expect(200);
        pace.tick().await;
    }
    assert!(node.runs() && !node.log().contains("idle:"));
    assert_eq!(node.ended().await.code(), Some(0), "and it ends when nothing comes any more");
}

#[tokio::test]
async fn a_node_does_not_end_in_the_middle_of_a_handshake() {
    let mut node = Node::start(&["--idle-exit", IDLE, "--header-read-timeout", "1m"]).await;
    let mut raw = Raw::connect(node.addr).await;
    assert!(raw.write(b"GET /connect HTTP/1.1\r\nhost: a\r\n").await);
    until_another_ended().await;
    assert!(node.runs(), "somebody is on the way in");
    let rest = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert!(raw.write(rest.as_bytes()).await);
    assert_eq!(raw.head().await, 101);
    let (_, welcome) = raw.frame().await.expect("a frame");
    assert!(String::from_utf8_lossy(&welcome).contains("welcome"));
    until_another_ended().await;
    assert!(node.runs());
}

#[tokio::test]
async fn who_only_looks_does_not_keep_it() {
    let mut node = Node::start(&["--idle-exit", IDLE]).await;
    let (addr, admin) = (node.addr, node.admin);
    let looking = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            // What is refused towards the end is no news.
            for (addr, path) in [(admin, "/readyz"), (admin, "/metrics"), (addr, "/"), (addr, "/nothing")] {
                let Ok(mut stream) = tokio::net::TcpStream::connect(addr).await else { return };
                let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
            }
        }
    });
    assert_eq!(node.ended().await.code(), Some(0));
    looking.await.unwrap();
}

/// A node waits for its broker for a moment before it serves: that is no idleness.
#[tokio::test]
async fn a_node_that_starts_is_not_idle() {
    let began = Instant::now();
    // Held, and nobody listens there.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let redis = format!("redis://{}", socket.local_addr().unwrap());
    let args = ["--redis", &redis, "--redis-timeout", "2s", "--idle-exit", "100ms"];
    let mut node = Node::launch(&args, "").await;
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(2), "it had not begun to serve");
}

#[tokio::test]
async fn it_is_off_unless_asked_for() {
    let mut node = Node::start(&[]).await;
    until_another_ended().await;
    assert!(node.runs());
    eventually("the node to be ready", || async { (get(node.admin, "/readyz").await.status == 200).then_some(()) })
        .await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    client.send(json!({"type": "ping", "ref": 1})).await;
    assert_eq!(client.answer(&json!(1)).await.kind(), "pong");
}
