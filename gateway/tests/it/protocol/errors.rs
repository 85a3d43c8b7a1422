//! What is wrong is answered by its code and with its `ref`, and the session goes on.

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, assert_error, room};

on_both_brokers!(
    membership_is_required,
    a_room_is_joined_once,
    rooms_are_limited,
    publishes_are_limited,
    renames_are_limited
);

#[tokio::test]
async fn what_cannot_be_read_is_answered() {
    let node = Site::Memory.node(&["--abuse-limit", "1000"]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    for (text, reference) in [
        ("", Value::Null),
        ("nonsense", Value::Null),
        ("[]", Value::Null),
        ("7", Value::Null),
        ("{}", Value::Null),
        (r#"{"type":"ping""#, Value::Null),
        (r#"{"ref":"no-type"}"#, json!("no-type")),
        (r#"{"type":7,"ref":"r"}"#, json!("r")),
        (r#"{"type":"publish","ref":"no-data"}"#, json!("no-data")),
        (r#"{"type":"publish","data":1,"echo":"yes","ref":3}"#, json!(3)),
        (r#"{"type":"publish","data":1,"id":5,"ref":4}"#, json!(4)),
        (r#"{"type":"publish","data":1,"id":"","ref":5}"#, json!(5)),
        (r#"{"ref":6,"type":"join","room":["a"]}"#, json!(6)),
        (r#"{"ref":7,"type":"join","room":"a","since":"x:1"}"#, json!(7)),
        (r#"{"ref":8,"type":"join","room":"a","since":{"term":"t"}}"#, json!(8)),
        (r#"{"ref":9,"type":"leave"}"#, json!(9)),
        (r#"{"ref":10,"type":"rename"}"#, json!(10)),
        (r#"{"ref":11,"type":"rename","name":""}"#, json!(11)),
        (r#"{"ref":12,"type":"rename","name":"a\u0007b"}"#, json!(12)),
        (r#"{"ref":13,"type":"history","room":"a","after":-1}"#, json!(13)),
        (r#"{"ref":14,"type":"history","room":"a","limit":"many"}"#, json!(14)),
    ] {
        client.send_text(text).await;
        let frame = client.expect("error").await;
        assert_error(&frame, "bad_frame", &reference);
        assert_eq!(frame["retryable"], false, "{text}");
    }
    // A ref that is neither string nor number cannot be given back.
    client.send_text(r#"{"type":"ping","ref":[1]}"#).await;
    assert_error(&client.expect("error").await, "bad_frame", &Value::Null);

    for (text, reference) in [
        (r#"{"type":"dance","ref":"r"}"#, json!("r")),
        (r#"{"type":"","ref":2}"#, json!(2)),
        (r#"{"type":"Publish","data":1}"#, Value::Null),
        (r#"{"type":"welcome","ref":3}"#, json!(3)),
    ] {
        client.send_text(text).await;
        assert_error(&client.expect("error").await, "unknown_type", &reference);
    }
    let long = "r".repeat(129);
    for name in ["a b", "", "ä", "a/b", "a\u{0}", long.as_str()] {
        client.send(json!({"type": "join", "room": name, "ref": name.len()})).await;
        assert_error(&client.expect("error").await, "bad_room", &json!(name.len()));
    }
    for text in [
        format!(r#"{{"type":"rename","ref":1,"name":"{}"}}"#, "n".repeat(1000)),
        format!(r#"{{"type":"publish","ref":1,"data":1,"id":"{}"}}"#, "i".repeat(1000)),
    ] {
        client.send_text(&text).await;
        assert_error(&client.expect("error").await, "too_large", &json!(1));
    }
    client.send(json!({"type": "publish", "data": "still here", "ref": "end"})).await;
    assert_eq!(client.answer(&json!("end")).await.seq(), 1, "nothing of the above was published");
}

async fn membership_is_required(site: Site) {
    let node = site.node(&[]).await;
    let elsewhere = room();
    let (mut other, _) = Client::enter(&node, &elsewhere).await;
    other.publish(&elsewhere, json!("secret")).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    for (reference, frame) in [
        json!({"type": "publish", "data": 1}),
        json!({"type": "leave"}),
        json!({"type": "history", "after": 0}),
        json!({"type": "members"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frame = frame;
        frame["room"] = json!(elsewhere);
        frame["ref"] = json!(reference);
        client.send(frame).await;
        assert_error(&client.answer(&json!(reference)).await, "not_joined", &json!(reference));
    }
    assert!(other.settle().await.iter().all(|frame| frame.kind() != "message" || frame["data"] == "secret"));
}

async fn a_room_is_joined_once(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    client.send(json!({"type": "join", "room": name, "ref": 1})).await;
    assert_error(&client.answer(&json!(1)).await, "already_joined", &json!(1));
    // Two joins at once are one join as well.
    let next = room();
    for reference in ["a", "b"] {
        client.send(json!({"type": "join", "room": next, "ref": reference})).await;
    }
    assert_eq!(client.answer(&json!("a")).await.kind(), "joined");
    assert_error(&client.answer(&json!("b")).await, "already_joined", &json!("b"));
    client.publish(&next, json!(1)).await;
    client.publish(&next, json!(2)).await;
    let seqs: Vec<_> = client.messages(&next, 2).await.iter().map(crate::support::Frame::seq).collect();
    assert_eq!(seqs, [1, 2], "each message once");
}

async fn rooms_are_limited(site: Site) {
    let node = site.node(&["--rooms-per-connection", "3"]).await;
    let rooms = [room(), room(), room(), room()];
    let mut client = Client::connect(&node, "/connect").await;
    assert_eq!(client.welcome["limits"]["rooms"], 3);
    for name in &rooms[..3] {
        client.send(json!({"type": "join", "room": name, "ref": name})).await;
        assert_eq!(client.answer(&json!(name)).await.kind(), "joined");
    }
    client.send(json!({"type": "join", "room": rooms[3], "ref": 1})).await;
    assert_error(&client.answer(&json!(1)).await, "room_limit", &json!(1));
    client.send(json!({"type": "leave", "room": rooms[0], "ref": 2})).await;
    assert_eq!(client.answer(&json!(2)).await.kind(), "left");
    client.send(json!({"type": "join", "room": rooms[3], "ref": 3})).await;
    assert_eq!(client.answer(&json!(3)).await.kind(), "joined");
}

/// A new name goes to every member of every room: it costs what a publish costs.
async fn renames_are_limited(site: Site) {
    let node = site.node(&["--publish-rate", "1", "--publish-burst", "3", "--abuse-limit", "1000"]).await;
    let (mut client, _) = Client::enter(&node, &room()).await;
    for number in 0..10 {
        client.send(json!({"type": "rename", "name": format!("name-{number}"), "ref": number})).await;
    }
    let refused = client.answer(&json!(9)).await;
    assert_error(&refused, "rate_limited", &json!(9));
}

async fn publishes_are_limited(site: Site) {
    let node = site.node(&["--publish-rate", "1", "--publish-burst", "10", "--abuse-limit", "1000"]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    for reference in 0..60 {
        client.send(json!({"type": "publish", "data": reference, "ref": reference})).await;
    }
    let (mut stored, mut refused) = (0, 0);
    for reference in 0..60 {
        let answer = client.answer(&json!(reference)).await;
        if answer.kind() == "ack" {
            stored += 1;
            assert_eq!(answer.seq(), stored);
        } else {
            refused += 1;
            assert_error(&answer, "rate_limited", &json!(reference));
            assert_eq!(answer["retryable"], true);
        }
    }
    assert!(stored >= 10, "the burst passes: {stored}");
    assert!(refused > 0, "sixty within moments are more than one a second");
    // Another client is not punished for it.
    let (mut other, joined) = Client::enter(&node, &name).await;
    assert_eq!(joined.seq(), stored);
    other.publish(&name, json!("fine")).await;
}
