//! What strangers choose (rooms, names, headers, methods, paths) shows up neither in the number of time series nor as
//! lines of the log.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, Node, get, request, room, upgrade};

/// The series on the metrics port: names and labels without values.
async fn series(node: &Node) -> BTreeSet<String> {
    let text = get(node.admin, "/metrics").await.text();
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

/// Everything a label could be made of by mistake, each chosen anew.
async fn curiosities(node: &Node, round: usize) {
    for number in 0..20 {
        let odd = format!("x{round}-{number}");
        let agent = [("user-agent", odd.as_str()), ("origin", odd.as_str()), ("x-forwarded-for", odd.as_str())];
        request(node.addr, &odd.to_uppercase().replace('-', "X"), "/ws/a", &agent).await;
        request(node.addr, "GET", &format!("/{odd}?{odd}={odd}"), &agent).await;
        request(node.admin, &odd.to_uppercase().replace('-', "X"), &format!("/{odd}"), &agent).await;
        upgrade(node.addr, &format!("/ws/{odd}?name={odd}&{odd}=1"), &agent).await;
        upgrade(node.addr, &format!("/ws/{odd}"), &[("sec-websocket-protocol", odd.as_str())]).await;
    }
}

/// `rooms` rooms are entered and left, named by `round` and number.
async fn wander(client: &mut Client, round: usize, rooms: usize) {
    // So many at a time that their answers fit the client's queue.
    for first in (0..rooms).step_by(100) {
        for number in first..(first + 100).min(rooms) {
            let name = format!("{round}-{:x}", number * 2_654_435_761);
            client.send(json!({"type": "join", "room": name})).await;
            client.send(json!({"type": "leave", "room": name, "ref": number})).await;
        }
        for number in first..(first + 100).min(rooms) {
            let answer = client.answer(&json!(number)).await;
            assert_eq!(answer.kind(), "left", "{}", answer.text);
        }
        client.settle().await;
    }
}

#[tokio::test]
async fn a_hundred_thousand_rooms_add_no_series() {
    // Nobody reads for the first client while the others wander, and so it answers no ping.
    let args = ["--unsubscribe-delay", "0s", "--rooms-per-connection", "1000", "--ping-timeout", "1h"];
    let node = Node::start(&args).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    // What is counted by outcome stands there from its first time on.
    curiosities(&node, 0).await;
    wander(&mut client, 0, 200).await;
    // Workers fold their counts in from time to time, and those of two workers need not come together.
    for (metric, labels, least) in [
        ("roomcast_closes_total", &["gone"][..], 20.0),
        ("roomcast_messages_received_total", &["kind=\"leave\""], 200.0),
    ] {
        node.reaches(metric, labels, least).await;
    }
    let before = series(&node).await;
    assert!(before.len() > 100, "{} series", before.len());
    curiosities(&node, 1).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Client::enter(&node, &room()).await.0);
    }
    join_all(others.iter_mut().zip(1..).map(|(other, round)| wander(other, round, 25_000))).await;
    let after = series(&node).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{} series came: {new:?}", new.len());
}

#[tokio::test]
async fn what_strangers_say_forges_no_line_of_the_log() {
    let node = Node::start(&["--log", "trace"]).await;
    let forged = "%0a%7b%22level%22%3a%22ERROR%22%2c%22message%22%3a%22forged%22%7d%0a";
    let hostile = format!("a%1b%5b31m%0d{forged}%e2%80%ae%c2%9b");
    for path in [
        format!("/ws/{hostile}"),
        format!("/ws?room={hostile}"),
        format!("/ws/a?name={hostile}"),
        format!("/ws/a?token={hostile}"),
        format!("/{hostile}"),
        format!("/api/v1/rooms/{hostile}"),
    ] {
        upgrade(node.addr, &path, &[]).await;
        request(node.addr, "GET", &path, &[]).await;
        request(node.admin, "GET", &path, &[]).await;
    }
    // A header holds no line break, but the bytes of C1 and, against the rules, an escape.
    for value in ["\u{9b}31m\u{2028}\u{202e}", "\u{1b}[31m"] {
        for header in ["user-agent", "origin", "x-forwarded-for", "authorization", "sec-websocket-protocol"] {
            upgrade(node.addr, "/ws/a", &[(header, value)]).await;
        }
    }
    let (mut client, _) = Client::enter(&node, &room()).await;
    let text = "\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n\u{1b}[31m\u{9b}\u{202e}\u{2028}";
    for frame in [
        json!({"type": "join", "room": text}),
        json!({"type": "rename", "name": text}),
        json!({"type": text}),
        json!({"type": "publish", "data": text, "id": text}),
    ] {
        client.send(frame).await;
    }
    client.send_text(text).await;
    client.settle().await;

    let log = node.log();
    assert!(log.contains("\"level\":\"DEBUG\"") || log.contains("\"level\":\"TRACE\""), "it logs that much: {log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(event["level"].is_string() && event["message"] != "forged", "{line}");
        // Not even as a field: nothing that a stranger chose is worth a line.
        assert!(!line.contains("forged") && !line.contains("[31m"), "{line}");
        let is_unsafe = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
        assert!(!line.contains(is_unsafe), "{line:?}");
    }
}
