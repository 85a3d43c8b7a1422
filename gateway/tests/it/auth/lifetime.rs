//! Tokens end, and are refreshed.

use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{CLOSED, enter, seconds, token};
use crate::support::{Node, assert_error, within};

/// Looks every 10 ms.
const QUICK: [&str; 4] = ["--ping-interval", "200ms", "--ping-timeout", "1h"];

async fn node() -> Node {
    Node::start(&[&CLOSED[..], &QUICK[..]].concat()).await
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_another_came() {
    let node = node().await;
    let exp = seconds() + 8;
    let short = token(&json!({"sub": "ann", "rooms": ["*"], "exp": exp}));
    let (mut stays, _) = enter(&node, "lobby", &short).await;
    let (mut goes, _) = enter(&node, "lobby", &short).await;
    assert_eq!(goes.welcome["expiresAtMs"], exp * 1000);
    let later = seconds() + 1000;
    let longer = token(&json!({"sub": "ann", "rooms": ["*"], "exp": later}));
    stays.send(json!({"type": "refresh", "token": longer, "ref": "r"})).await;
    let answer = stays.answer(&json!("r")).await;
    assert_eq!((answer.kind(), &answer["expiresAtMs"]), ("refreshed", &json!(later * 1000)), "{}", answer.text);
    assert_eq!(goes.close_code().await, 4401);
    assert!(seconds() >= exp, "not before its time");
    assert!((node.reaches("roomcast_closes_total", &["expired"], 1.0).await - 1.0).abs() < f64::EPSILON);
    stays.publish("lobby", json!("still here")).await;
}

#[tokio::test]
async fn an_echo_ends_with_its_token_too() {
    let node = Node::start(&[&CLOSED[..], &QUICK[..], &["--echo"]].concat()).await;
    let short = token(&json!({"sub": "ann", "rooms": ["*"], "exp": seconds() + 2}));
    let url = format!("ws://{}/echo?token={short}", node.addr);
    let (mut socket, _) = within("an echo", tokio_tungstenite::connect_async(&url)).await.unwrap();
    let code = within("its end", async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                _ => return None,
            }
        }
    })
    .await;
    assert_eq!(code, Some(4401));
}

#[tokio::test]
async fn who_came_by_the_leeway_has_what_is_left_of_it() {
    let node = node().await;
    let (mut late, _) = enter(&node, "lobby", &token(&json!({"rooms": ["*"], "exp": seconds() - 22}))).await;
    late.publish("lobby", json!("in time")).await;
    assert_eq!(late.close_code().await, 4401);
}

#[tokio::test]
async fn a_bad_refresh_changes_nothing() {
    let node = node().await;
    let exp = seconds() + 8;
    let (mut ann, _) = enter(&node, "lobby", &token(&json!({"sub": "ann", "rooms": ["*"], "exp": exp}))).await;
    let bad = [
        "no token at all".to_owned(),
        token(&json!({"sub": "ann", "rooms": ["*"], "exp": seconds() - 31})),
        token(&json!({"sub": "ann", "rooms": ["*"], "aud": "others"})),
        token(&json!({"sub": "bob", "rooms": ["*"]})),
        token(&json!({"rooms": ["*"]})),
    ];
    for (index, token) in bad.iter().enumerate() {
        ann.send(json!({"type": "refresh", "token": token, "ref": index})).await;
        assert_error(&ann.answer(&json!(index)).await, "unauthorized", &json!(index));
    }
    ann.publish("lobby", json!("the old one holds")).await;
    assert_eq!(ann.close_code().await, 4401, "until its end");
}

#[tokio::test]
async fn rooms_that_a_new_token_does_not_name_are_left() {
    let node = node().await;
    let (mut ann, _) = enter(&node, "lobby", &token(&json!({"sub": "ann", "name": "Ann", "rooms": ["*"]}))).await;
    ann.send(json!({"type": "join", "room": "team", "ref": 1})).await;
    assert_eq!(ann.answer(&json!(1)).await.kind(), "joined");
    let (mut bob, _) = enter(&node, "team", &token(&json!({"sub": "bob", "rooms": ["*"]}))).await;
    let less = json!({"sub": "ann", "name": "Anna", "rooms": {"join": ["lobby"]}});
    ann.send(json!({"type": "refresh", "token": token(&less), "ref": 2})).await;
    assert_eq!(ann.answer(&json!(2)).await.kind(), "refreshed");
    let left = ann.expect("left").await;
    assert_eq!((&left["room"], &left["reason"]), (&json!("team"), &json!("forbidden")), "{}", left.text);
    assert_eq!(bob.presence("leave").await["online"], 1);
    for (request, code) in [
        (json!({"type": "publish", "room": "lobby", "data": 1, "ref": 3}), "forbidden"),
        (json!({"type": "join", "room": "team", "ref": 4}), "forbidden"),
        (json!({"type": "leave", "room": "team", "ref": 5}), "not_joined"),
    ] {
        ann.send(request.clone()).await;
        assert_error(&ann.answer(&request["ref"]).await, code, &request["ref"]);
    }
    let all = token(&json!({"sub": "ann", "name": "Anna", "rooms": ["*"]}));
    ann.send(json!({"type": "refresh", "token": all, "ref": 6})).await;
    ann.answer(&json!(6)).await;
    ann.publish("lobby", json!("again")).await;
    assert_eq!(ann.expect("message").await["from"]["name"], "Anna", "the new token's name");
}

#[tokio::test]
async fn refreshing_without_end_costs_the_connection() {
    let node = node().await;
    let (mut ann, _) = enter(&node, "lobby", &token(&json!({"sub": "ann", "rooms": ["*"]}))).await;
    for _ in 0..40 {
        ann.send(json!({"type": "refresh", "token": "bad"})).await;
    }
    assert_eq!(ann.close_code().await, 1008);
    node.reaches("roomcast_closes_total", &["abuse"], 1.0).await;
}
