//! What one client may cost the others: nothing.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::support::{Client, Node, eventually, room, upgrade, within};

#[tokio::test]
async fn a_slow_consumer_is_closed_and_nobody_else_notices() {
    let node = Node::start(&["--publish-rate", "0", "--outbound-queue-bytes", "131072"]).await;
    let name = room();
    let (mut publisher, _) = Client::enter(&node, &name).await;
    let (mut fast, _) = Client::enter(&node, &name).await;
    let (response, mut slow) = upgrade(node.addr, &format!("/ws/{name}?name=Slow"), &[]).await;
    assert_eq!(response.status, 101);
    publisher.presence("join").await;

    let reader = tokio::spawn(async move {
        let mut seqs = Vec::new();
        loop {
            let message = fast.expect("message").await;
            seqs.push(message.seq());
            if message["data"] == "end" {
                return seqs;
            }
        }
    });
    // The kernel takes some megabytes before the node's own queue begins to fill.
    let load = "x".repeat(32 * 1024);
    let mut sent = 0;
    while node.metric("roomcast_slow_consumers_total", &[]).await < 1.0 {
        for _ in 0..16 {
            publisher.send(json!({"type": "publish", "data": load, "echo": false, "ref": sent})).await;
            assert_eq!(publisher.answer(&json!(sent)).await.kind(), "ack");
            sent += 1;
        }
        assert!(sent < 4000, "125 MB were said to a client that reads nothing, and it is still there");
    }
    let gone = publisher.presence("leave").await;
    assert_eq!(gone["member"]["name"], "Slow");
    publisher.publish(&name, json!("end")).await;
    assert_eq!(reader.await.unwrap(), (1..=sent + 1).collect::<Vec<u64>>(), "the fast one got everything");
    assert_eq!(slow.close_code().await, Some(4408));
}

/// One that does read, a kilobyte a second, among others who keep up: it is closed, once its queue is full, and nobody
/// else is, misses anything or gets anything twice.
#[tokio::test]
async fn of_many_only_the_one_that_sips_is_closed() {
    let node = Node::start(&["--publish-rate", "0", "--outbound-queue-bytes", "131072"]).await;
    let name = room();
    let (mut publisher, _) = Client::enter(&node, &name).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let (mut fast, _) = Client::enter(&node, &name).await;
        readers.push(tokio::spawn(async move {
            let mut seqs = Vec::new();
            loop {
                let message = fast.expect("message").await;
                seqs.push(message.seq());
                if message["data"] == "end" {
                    return (fast, seqs);
                }
            }
        }));
    }
    let (response, mut slow) = upgrade(node.addr, &format!("/ws/{name}?name=Slow"), &[]).await;
    assert_eq!(response.status, 101);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let sipping = tokio::spawn(async move {
        // Its pace, until it is told that it is closed: the close stands behind all it has not read.
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
        while stopped.try_recv().is_err() && slow.sip(100).await {
            pace.tick().await;
        }
        slow.close_code().await
    });
    let load = "x".repeat(16 * 1024);
    let mut sent = 0;
    while node.metric("roomcast_slow_consumers_total", &[]).await < 1.0 {
        for _ in 0..16 {
            publisher.send(json!({"type": "publish", "data": load, "echo": false, "ref": sent})).await;
            assert_eq!(publisher.answer(&json!(sent)).await.kind(), "ack");
            sent += 1;
        }
        assert!(sent < 4000, "64 MB were said to a client that reads a kilobyte a second, and it is still there");
    }
    stop.send(()).unwrap();
    publisher.publish(&name, json!("end")).await;
    for reader in readers {
        let (mut fast, seqs) = reader.await.unwrap();
        assert_eq!(seqs, (1..=sent + 1).collect::<Vec<u64>>());
        fast.settle().await;
    }
    assert_eq!(sipping.await.unwrap(), Some(4408));
    assert_eq!(node.metric("roomcast_slow_consumers_total", &[]).await as u64, 1);
}

#[tokio::test]
async fn connections_are_limited() {
    let node = Node::start(&["--max-connections", "3"]).await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(Client::enter(&node, &room()).await.0);
    }
    // What alerts compare the connections with.
    let limits =
        (node.metric("roomcast_connections_limit", &[]).await, node.metric("roomcast_connect_rate_limit", &[]).await);
    assert_eq!(limits, (3.0, 2000.0));
    let (response, _) = upgrade(node.addr, "/ws/a", &[]).await;
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{response:?}");
    assert!(!response.text().trim().is_empty());
    inside.pop().unwrap().leave().await;
    eventually("the place to be free", || async {
        (upgrade(node.addr, "/ws/a", &[]).await.0.status == 101).then_some(())
    })
    .await;
    for client in &mut inside {
        client.settle().await;
    }
}

#[tokio::test]
async fn addresses_behind_a_trusted_proxy_are_limited_each() {
    let node = Node::start(&["--max-connections-per-address", "2", "--trusted-proxies", "127.0.0.0/8"]).await;
    let mut open = Vec::new();
    for (forwarded, status) in [
        ("10.0.0.1", 101),
        ("10.0.0.1", 101),
        ("10.0.0.1", 503),
        ("10.0.0.2", 101),
        // What a client claims stands before what the proxy saw, and is not believed.
        ("10.9.9.9, 10.0.0.1", 503),
        ("10.0.0.1, 10.0.0.2", 101),
        ("10.0.0.3, 10.0.0.2", 503),
        ("2001:db8::1", 101),
    ] {
        let (response, raw) = upgrade(node.addr, "/ws/a", &[("x-forwarded-for", forwarded)]).await;
        assert_eq!(response.status, status, "{forwarded}: {response:?}");
        if status == 503 {
            assert_ne!(response.header("retry-after"), "", "{response:?}");
        }
        open.push(raw);
    }
}

#[tokio::test]
async fn a_stranger_cannot_choose_its_address() {
    let node = Node::start(&["--max-connections-per-address", "2"]).await;
    let mut open = Vec::new();
    for (forwarded, status) in [("10.0.0.1", 101), ("10.0.0.2", 101), ("10.0.0.3", 503)] {
        let (response, raw) = upgrade(node.addr, "/ws/a", &[("x-forwarded-for", forwarded)]).await;
        assert_eq!(response.status, status, "{forwarded}: {response:?}");
        open.push(raw);
    }
}

#[tokio::test]
async fn other_sites_are_refused_by_their_origin() {
    let own = |node: &Node| format!("http://{}", node.addr);
    let check = |node: &Node, origin: &str| {
        let (addr, origin) = (node.addr, origin.to_owned());
        async move { upgrade(addr, "/ws/a", &[("origin", origin.as_str())]).await.0 }
    };
    let strict = Node::start(&[]).await;
    assert_eq!(check(&strict, &own(&strict)).await.status, 101, "its own page");
    assert_eq!(upgrade(strict.addr, "/ws/a", &[]).await.0.status, 101, "not a browser");
    let near = format!("{}.evil.example", own(&strict));
    for evil in ["https://evil.example", "null", "", "http://127.0.0.1", near.as_str()] {
        let response = check(&strict, evil).await;
        assert_eq!(response.status, 403, "{evil}: {response:?}");
        assert!(!response.text().trim().is_empty());
    }

    let listed = Node::start(&["--allowed-origins", "https://app.example,https://two.example:8443"]).await;
    for (origin, status) in [
        ("https://app.example", 101),
        ("https://two.example:8443", 101),
        ("http://app.example", 403),
        ("https://app.example.evil", 403),
        ("https://two.example", 403),
    ] {
        assert_eq!(check(&listed, origin).await.status, status, "{origin}");
    }
    let open = Node::start(&["--allowed-origins", "*"]).await;
    assert_eq!(check(&open, "https://anyone.example").await.status, 101);
}

#[tokio::test]
async fn headers_are_limited() {
    let node = Node::start(&["--max-headers", "16", "--max-header-bytes", "8192"]).await;
    let many: Vec<(String, String)> = (0..40).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let long = "x".repeat(20_000);
    for headers in [many, vec![("x-long", long.as_str())]] {
        let (response, _) = upgrade(node.addr, "/ws/a", &headers).await;
        assert_eq!(response.status, 431, "{response:?}");
    }
    let (mut client, joined) = Client::enter(&node, &room()).await;
    assert_eq!(joined["messages"], Value::Array(vec![]));
    client.settle().await;
}

#[tokio::test]
async fn a_client_that_always_has_the_next_message_under_way_is_not_late() {
    let node = Node::start(&["--message-deadline", "3s", "--ping-interval", "10s", "--ping-timeout", "20s"]).await;
    let (_, mut raw) = upgrade(node.addr, "/connect", &[]).await;
    assert_eq!(raw.frame().await.expect("welcome").0, 1);
    let text = br#"{"type":"ping"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    let (front, back) = frame.split_at(9);
    let on = [back, front].concat();
    raw.send_bytes(front).await;
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 7 {
        raw.send_bytes(&on).await;
        let (opcode, answer) = raw.frame().await.expect("still open");
        assert_eq!(opcode, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn renames_are_limited_as_publishes_are() {
    let node = Node::start(&["--publish-rate", "1", "--publish-burst", "3"]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    for reference in 0..10 {
        client.send(json!({"type": "rename", "name": "N", "ref": reference})).await;
    }
    let told = client.settle().await;
    assert!(told.iter().any(|frame| frame["code"] == "rate_limited"), "{told:?}");
}

#[tokio::test]
async fn an_echo_waits_for_who_does_not_read_yet() {
    let node = Node::start(&["--echo"]).await;
    let (socket, _) = connect_async(format!("ws://{}/echo", node.addr)).await.unwrap();
    let (mut to, mut from) = socket.split();
    let said = vec![7; 16 * 1024];
    let speak = async {
        for _ in 0..400 {
            to.send(Message::binary(said.clone())).await.unwrap();
        }
    };
    let hear = async {
        for number in 0..400 {
            let heard = from.next().await.expect("still open").unwrap();
            assert!(heard == Message::binary(said.clone()), "echo {number} is {} bytes", heard.len());
        }
    };
    within("all echoes", async { tokio::join!(speak, hear) }).await;
}

#[tokio::test]
async fn more_files_are_opened_than_the_shell_allows_at_first() {
    let node = Node::start_under("-Sn 64", &["--max-connections", "500"]).await;
    let mut inside = Vec::new();
    for _ in 0..200 {
        inside.push(Client::enter(&node, &room()).await.0);
    }
    assert!(!node.log().contains("open files"), "{}", node.log());
}

#[tokio::test]
async fn a_limit_that_cannot_be_raised_is_told() {
    let node = Node::start_under("-n 300", &["--max-connections", "500"]).await;
    assert!(node.log().contains("max-connections (500) needs more open files"), "{}", node.log());
}
