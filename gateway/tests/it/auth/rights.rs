//! Each right, at each place where it is needed.

use serde_json::json;

use super::{CLOSED, enter, knock, token};
use crate::support::{Client, Node, assert_error};

#[tokio::test]
async fn rooms_of_the_path_must_be_allowed_all() {
    let node = Node::start(&CLOSED).await;
    let some = token(&json!({"rooms": {"join": ["lobby", "team-?"]}}));
    let without = token(&json!({"sub": "ann"}));
    for (path, token, status) in [
        ("/ws/lobby", &some, 101),
        ("/ws/team-1", &some, 101),
        ("/ws/team-10", &some, 403),
        ("/ws", &some, 403),
        ("/connect", &some, 101),
        ("/ws/lobby", &without, 403),
        ("/connect", &without, 101),
    ] {
        assert_eq!(knock(&node, path, token).await.status, status, "{path}");
    }
    let (answer, _) = crate::support::upgrade(node.addr, &format!("/ws/lobby?room=other&token={some}"), &[]).await;
    assert_eq!(answer.status, 403);
    node.reaches("roomcast_handshakes_total", &["forbidden_room"], 4.0).await;
    let generous = [&CLOSED[..], &["--jwt-default-rooms", "public-*"]].concat();
    let node = Node::start(&generous).await;
    assert_eq!(knock(&node, "/ws/public-1", &without).await.status, 101);
    assert_eq!(knock(&node, "/ws/lobby", &without).await.status, 403);
    let nothing = token(&json!({"rooms": []}));
    assert_eq!(knock(&node, "/ws/public-1", &nothing).await.status, 403, "no rooms are no rooms");
}

#[tokio::test]
async fn every_request_is_asked_for_its_right() {
    let node = Node::start(&CLOSED).await;
    let all = token(&json!({"sub": "ann", "name": "Ann", "rooms": ["*"]}));
    let (mut ann, _) = enter(&node, "lobby", &all).await;
    ann.publish("lobby", json!("before")).await;
    let only_join = token(&json!({"sub": "bob", "rooms": {"join": ["lobby"]}}));
    let (mut bob, joined) = enter(&node, "lobby", &only_join).await;
    assert_eq!((joined.list("messages").len(), joined.list("members").len()), (0, 0), "{}", joined.text);
    assert_eq!(joined["online"], 2, "the count is told");
    for (request, code) in [
        (json!({"type": "join", "room": "other", "ref": 1}), "forbidden"),
        (json!({"type": "join", "ref": 2}), "forbidden"),
        (json!({"type": "publish", "room": "lobby", "data": 1, "ref": 3}), "forbidden"),
        (json!({"type": "publish", "data": 1, "ref": 4}), "forbidden"),
        (json!({"type": "history", "room": "lobby", "ref": 5}), "forbidden"),
        (json!({"type": "members", "room": "lobby", "ref": 6}), "forbidden"),
        (json!({"type": "publish", "room": "other", "data": 1, "ref": 7}), "not_joined"),
    ] {
        bob.send(request.clone()).await;
        assert_error(&bob.answer(&request["ref"]).await, code, &request["ref"]);
    }
    // Who comes and goes is told as a count, to those who may not know who it is.
    let (cat, _) = enter(&node, "lobby", &all).await;
    let told = bob.expect("presence").await;
    assert_eq!(
        (told.str("event"), &told["online"], &told["member"]),
        ("count", &json!(3), &json!(null)),
        "{}",
        told.text
    );
    ann.find("the join, by name", |frame| frame["event"] == "join" && frame["member"]["name"] == "Ann").await;
    cat.leave().await;
    let told = bob.expect("presence").await;
    assert_eq!((told.str("event"), &told["online"]), ("count", &json!(2)), "{}", told.text);
    // What is sent from now on comes.
    ann.publish("lobby", json!("after")).await;
    let message = bob.expect("message").await;
    assert_eq!((&message["data"], &message["seq"]), (&json!("after"), &json!(2)));
    let each =
        token(&json!({"rooms": {"join": ["*"], "publish": ["lobby"], "history": ["lobby"], "presence": ["lobby"]}}));
    let (mut eve, joined) = enter(&node, "lobby", &each).await;
    assert_eq!((joined.list("messages").len(), joined.list("members").len()), (2, 3), "{}", joined.text);
    assert_eq!(eve.publish("lobby", json!("mine")).await.kind(), "ack");
    for kind in ["history", "members"] {
        eve.send(json!({"type": kind, "room": "lobby", "ref": kind})).await;
        assert_eq!(eve.answer(&json!(kind)).await.kind(), kind);
    }
}

#[tokio::test]
async fn what_was_missed_is_history_too() {
    let node = Node::start(&CLOSED).await;
    let (mut ann, _) = enter(&node, "lobby", &token(&json!({"rooms": ["*"]}))).await;
    let first = ann.publish("lobby", json!(1)).await;
    ann.publish("lobby", json!(2)).await;
    let term = first.str("term");
    let without = token(&json!({"rooms": {"join": ["*"]}}));
    for (seq, recovery) in [(1, "gap"), (2, "resumed")] {
        let query = format!("?since={term}:{seq}&token={without}");
        let (_client, joined) = Client::enter_by(&node, "lobby", &query).await;
        assert_eq!((joined.str("recovery"), joined.list("messages").len()), (recovery, 0), "{}", joined.text);
    }
    let query = format!("?since={term}:1&token={}", token(&json!({"rooms": ["*"]})));
    let (_client, joined) = Client::enter_by(&node, "lobby", &query).await;
    assert_eq!((joined.str("recovery"), joined.list("messages").len()), ("resumed", 1), "{}", joined.text);
}

#[tokio::test]
async fn a_name_that_was_given_stays() {
    let node = Node::start(&CLOSED).await;
    let named = token(&json!({"sub": "ann", "name": "Ann", "rooms": ["*"]}));
    let (mut ann, _) = Client::enter_by(&node, "lobby", &format!("?name=Mallory&token={named}")).await;
    assert_eq!(ann.welcome["name"], "Ann");
    ann.send(json!({"type": "rename", "name": "Mallory", "ref": 1})).await;
    assert_error(&ann.answer(&json!(1)).await, "forbidden", &json!(1));
    ann.publish("lobby", json!(1)).await;
    assert_eq!(ann.expect("message").await["from"]["name"], "Ann");
    let free = token(&json!({"sub": "bob", "rooms": ["*"]}));
    let (mut bob, _) = Client::enter_by(&node, "lobby", &format!("?name=Bob&token={free}")).await;
    assert_eq!(bob.welcome["name"], "Bob");
    bob.send(json!({"type": "rename", "name": "Rob"})).await;
    assert_eq!(ann.presence("rename").await["member"]["name"], "Rob");
}

#[tokio::test]
async fn two_users_who_choose_the_same_id_do_not_meet() {
    let node = Node::start(&CLOSED).await;
    let of = |user: &str| token(&json!({"sub": user, "rooms": ["*"]}));
    let (mut ann, _) = enter(&node, "lobby", &of("ann")).await;
    let (mut again, _) = enter(&node, "lobby", &of("ann")).await;
    let (mut bob, _) = enter(&node, "lobby", &of("bob")).await;
    for (client, seq, duplicate) in [(&mut ann, 1, false), (&mut bob, 2, false), (&mut again, 1, true)] {
        client.send(json!({"type": "publish", "room": "lobby", "data": 1, "id": "the-id", "ref": "p"})).await;
        let ack = client.answer(&json!("p")).await;
        assert_eq!((ack.seq(), ack["duplicate"] == true), (seq, duplicate), "{}", ack.text);
    }
}
