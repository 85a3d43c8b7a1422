//! Connections of backends: how long they stay, what travels on them, how they end.

use serde_json::json;

use crate::support::{ALL, Backend, Client, Raw, api_node, eventually, get, room, upgrade};

#[tokio::test]
async fn a_backend_keeps_its_connection_and_may_send_ahead() {
    let node = api_node(&[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&node, &name).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let path = format!("/rooms/{name}/messages");
    let before = node.metric("roomcast_handshakes_total", &["outcome=\"api\""]).await;
    let ahead: String = (1..=20)
        .map(|number| {
            backend.request("POST", &path, Some(&json!({ "data": number, "id": format!("p#{number}") }).to_string()))
        })
        .collect();
    backend.send(ahead + &backend.request("GET", &path, None)).await;
    for number in 1..=20 {
        assert_eq!(backend.answer().await.expect(200)["seq"], number, "answered in order");
    }
    assert_eq!(backend.answer().await.expect(200)["messages"].as_array().expect("a list").len(), 20);
    let seqs: Vec<u64> = ann.messages(&name, 20).await.iter().map(crate::support::Frame::seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    backend.get("/rooms").await.expect(200);
    assert!(
        node.metric("roomcast_handshakes_total", &["outcome=\"api\""]).await - before <= 1.0,
        "it was one connection"
    );
}

/// A proxy keeps connections to a node and sends all sorts of requests over them.
#[tokio::test]
async fn a_page_or_a_socket_may_follow() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    backend.get("/rooms").await.expect(200);
    let page = backend.exchange("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((page.status, page.header("connection")), (200, "close"));
    let mut raw = Raw::connect(node.addr).await;
    raw.write(backend.request("GET", "/rooms", None).as_bytes()).await;
    assert_eq!(raw.response().await.status, 200);
    raw.write(
        b"GET /ws/after-api HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(raw.response().await.status, 101);
    let (opcode, welcome) = raw.frame().await.expect("welcome");
    assert!(opcode == 1 && welcome.starts_with(b"{\"type\":\"welcome\""));
    assert!(raw.frame().await.expect("joined").1.starts_with(b"{\"type\":\"joined\""));
    let mut backend = Backend::connect(node.addr, ALL).await;
    assert_eq!(backend.get("/rooms/after-api").await.expect(200)["online"], 1);
}

#[tokio::test]
async fn what_is_slow_is_cut_off() {
    let node = api_node(&["--header-read-timeout", "2s", "--message-deadline", "1s"]).await;
    // The first head.
    let mut backend = Backend::connect(node.addr, ALL).await;
    backend.send("GET /api/v1/rooms HTTP/1.1\r\nhost: x\r\nauth").await;
    backend.ended().await;
    // A body.
    let mut backend = Backend::connect(node.addr, ALL).await;
    let head = backend.head("POST", "/rooms/a/messages");
    backend.send(format!("{head}content-type: application/json\r\ncontent-length: 10\r\n\r\n{{\"da")).await;
    let answer = backend.answer().await;
    assert_eq!((answer.status, answer.problem().as_str(), answer.header("connection")), (408, "timeout", "close"));
    backend.ended().await;
    // A body that never comes whole, because its sender is gone.
    let mut backend = Backend::connect(node.addr, ALL).await;
    backend.send(format!("{head}content-type: application/json\r\ncontent-length: 10\r\n\r\n{{\"da")).await;
    drop(backend);
    let mut backend = Backend::connect(node.addr, ALL).await;
    assert_eq!(backend.get("/rooms/a").await.expect(200)["seq"], 0, "nothing of it was published");
}

#[tokio::test]
async fn backends_are_counted_as_connections() {
    let node = api_node(&["--max-connections", "2"]).await;
    let mut first = Backend::connect(node.addr, ALL).await;
    first.get("/rooms").await.expect(200);
    let (second, _) = Client::enter(&node, &room()).await;
    let refused = get(node.addr, "/api/v1/openapi.json").await;
    assert_eq!((refused.status, refused.header("connection")), (503, "close"));
    assert!(refused.text().contains("too_many_connections") && !refused.header("retry-after").is_empty());
    let (refused, _) = upgrade(node.addr, "/ws/x", &[]).await;
    assert_eq!(refused.status, 503);
    second.leave().await;
    drop(first);
    eventually("the places to be free", || async {
        (get(node.addr, "/api/v1/openapi.json").await.status == 200).then_some(())
    })
    .await;
}

/// Waiting connections are closed, a request under way is answered first, and nobody is cut off.
#[tokio::test]
async fn a_drain_cuts_no_request_off() {
    let mut node = api_node(&["--drain-window", "0s"]).await;
    let name = room();
    let mut waiting = Backend::connect(node.addr, ALL).await;
    waiting.get("/rooms").await.expect(200);
    let mut working = Backend::connect(node.addr, ALL).await;
    working.get("/rooms").await.expect(200);
    let body = r#"{"data":"the last one"}"#;
    let head = working.head("POST", &format!("/rooms/{name}/messages"));
    let head = format!(
        "{head}content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    working.send(head).await;
    assert_eq!(working.answer().await.status, 100, "the request is under way");
    node.terminate();
    // It is closed by the node, not by us.
    waiting.ended().await;
    let mut late = Backend::connect(node.addr, ALL).await;
    let refused = late.exchange(late.request("GET", "/rooms", None)).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "draining"));
    working.send(body).await;
    let answer = working.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{}", answer.json);
    working.ended().await;
    assert_eq!(node.ended().await.code(), Some(0));
}
