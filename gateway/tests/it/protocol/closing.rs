//! What ends a session, and with which code.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::Site;
use crate::support::{Client, room, upgrade};

const LIMIT: usize = 65_536;

#[tokio::test]
async fn binary_is_not_spoken() {
    let node = Site::Memory.node(&[]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    client.send_message(Message::binary(b"{}".to_vec())).await;
    assert_eq!(client.close_code().await, 1003);
}

#[tokio::test]
async fn a_close_is_answered_in_kind() {
    let node = Site::Memory.node(&[]).await;
    let (response, mut raw) = upgrade(node.addr, &format!("/ws/{}", room()), &[]).await;
    assert_eq!(response.status, 101);
    raw.send(0x88, &1000_u16.to_be_bytes()).await;
    assert_eq!(raw.close_code().await, Some(1000));
}

#[tokio::test]
async fn endless_abuse_ends_the_session() {
    let node = Site::Memory.node(&["--abuse-limit", "10"]).await;
    let name = room();
    let (mut good, _) = Client::enter(&node, &name).await;
    let (mut client, _) = Client::enter(&node, &name).await;
    for _ in 0..100 {
        client.send_text("nonsense").await;
    }
    assert_eq!(client.close_code().await, 1008);
    good.presence("leave").await;
    good.publish(&name, json!("unharmed")).await;
}

#[tokio::test]
async fn refused_publishes_in_a_flood_are_abuse_too() {
    let node = Site::Memory.node(&["--publish-rate", "1", "--publish-burst", "1", "--abuse-limit", "10"]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    for _ in 0..200 {
        client.send(json!({"type": "publish", "data": 1})).await;
    }
    assert_eq!(client.close_code().await, 1008);
}

/// A publish of exactly `size` bytes.
fn publish_of(size: usize) -> String {
    let head = r#"{"type":"publish","ref":1,"data":""#;
    format!("{head}{}\"}}", "x".repeat(size - head.len() - 2))
}

#[tokio::test]
async fn a_message_may_be_as_long_as_the_limit() {
    let node = Site::Memory.node(&[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    assert_eq!(client.welcome["limits"]["messageBytes"], LIMIT);
    client.send_text(&publish_of(LIMIT)).await;
    assert_eq!(client.answer(&json!(1)).await.kind(), "ack");
    assert!(client.expect("message").await.str("data").len() > LIMIT - 100);
    client.send_text(&publish_of(LIMIT + 1)).await;
    assert_eq!(client.close_code().await, 1009);
}

#[tokio::test]
async fn fragments_count_together() {
    let node = Site::Memory.node(&[]).await;
    let path = format!("/ws/{}", room());
    let whole = publish_of(LIMIT).into_bytes();
    let (_, mut raw) = upgrade(node.addr, &path, &[]).await;
    let half = whole.len() / 2;
    raw.send(0x01, &whole[..half]).await;
    raw.send(0x89, b"between").await; // control frames may come between fragments
    raw.send(0x80, &whole[half..]).await;
    let mut seen = Vec::new();
    while !(seen.contains(&0xA) && seen.contains(&0xAC)) {
        let (opcode, payload) = raw.frame().await.expect("open");
        let ack = payload.windows(12).any(|part| part == br#""type":"ack""#.as_slice());
        seen.push(if ack { 0xAC } else { opcode });
    }

    let (_, mut raw) = upgrade(node.addr, &path, &[]).await;
    let part = vec![b'x'; 40_000];
    raw.send(0x01, &part).await;
    raw.send(0x00, &part).await;
    assert_eq!(raw.close_code().await, Some(1009));
}

#[tokio::test]
async fn broken_frames_have_their_codes() {
    let node = Site::Memory.node(&[]).await;
    let path = format!("/ws/{}", room());
    for (first, payload, code, what) in [
        (0x81, b"\xff\xfe".as_slice(), 1007, "text that is not UTF-8"),
        (0xC1, b"{}", 1002, "a reserved bit"),
        (0x83, b"", 1002, "a reserved opcode"),
        (0x80, b"{}", 1002, "a continuation of nothing"),
        (0x09, b"", 1002, "a ping in fragments"),
        (0x89, &[0; 126], 1002, "a ping over 125 bytes"),
        (0x88, b"\x03", 1002, "a close with half a code"),
        (0x88, b"\x03\xed", 1002, "a close with 1005, which is not for the wire"),
    ] {
        let (response, mut raw) = upgrade(node.addr, &path, &[]).await;
        assert_eq!(response.status, 101, "{what}");
        raw.send(first, payload).await;
        assert_eq!(raw.close_code().await, Some(code), "{what}");
    }
    // And nobody else noticed.
    let (mut client, _) = Client::enter(&node, &room()).await;
    client.settle().await;
}
