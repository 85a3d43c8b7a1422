//! Ids of publishes: numbered ones, hostile ones, and what is too long ago.

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, Frame, Node, assert_error, room};

on_both_brokers!(
    a_number_is_stored_once,
    any_id_is_an_id,
    of_a_number_long_ago_only_that_it_was_stored_is_told,
    a_number_too_far_behind_is_refused,
);

async fn enter(site: &Site) -> (Node, Client, String) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let name = room();
    let (client, _) = Client::enter(&node, &name).await;
    (node, client, name)
}

/// Publishes under an id, and gives the answer.
async fn publish(client: &mut Client, id: &str) -> Frame {
    client.send(json!({"type": "publish", "id": id, "data": id, "echo": false, "ref": "one"})).await;
    client.answer(&json!("one")).await
}

/// Publishes them all at once; each is stored.
async fn publish_all(client: &mut Client, ids: impl Iterator<Item = String>) {
    let ids: Vec<String> = ids.collect();
    for some in ids.chunks(100) {
        for id in some {
            client.send(json!({"type": "publish", "id": id, "data": 1, "echo": false, "ref": id})).await;
        }
        for id in some {
            let ack = client.answer(&json!(id)).await;
            assert_eq!((ack.kind(), &ack["duplicate"]), ("ack", &Value::Null), "{}", ack.text);
        }
    }
}

async fn a_number_is_stored_once(site: Site) {
    let (_node, mut client, name) = enter(&site).await;
    let mut stored = Vec::new();
    // Holes, some of them filled later, two producers, and the largest number there is.
    for id in ["p#1", "p#2", "p#5", "q#1", "p#4", "p#9007199254740991", "p#3"] {
        let ack = publish(&mut client, id).await;
        assert_eq!((ack.kind(), ack.str("id"), ack.seq()), ("ack", id, stored.len() as u64 + 1), "{}", ack.text);
        assert!(ack["duplicate"].is_null(), "{}", ack.text);
        stored.push((id, ack));
    }
    for (id, first) in &stored {
        let again = publish(&mut client, id).await;
        assert_eq!((again.kind(), &again["duplicate"]), ("ack", &json!(true)), "{}", again.text);
        assert_eq!((again.seq(), again.str("term")), (first.seq(), first.str("term")));
    }
    client.send(json!({"type": "history", "room": name, "after": 0, "ref": "h"})).await;
    let history = client.answer(&json!("h")).await;
    let ids: Vec<&str> = history.list("messages").iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(ids, stored.iter().map(|(id, _)| *id).collect::<Vec<_>>());
}

async fn any_id_is_an_id(site: Site) {
    let (_node, mut client, _) = enter(&site).await;
    let long = format!("{}#1", "x".repeat(126));
    let ids = [
        "#",
        "#1",
        "##",
        "p#",
        "p#-1",
        "p#+1",
        "p#01",
        "p#1e3",
        "p#9007199254740992",
        "p#18446744073709551616",
        "p#1#1",
        "\u{663c}#1",
        "p#\u{ff11}",
        "{other}#1",
        "a:b#1",
        " #1",
        "\0#1",
        "@0a 1:1",
        "p#1\r\nDEL x",
        &long,
    ];
    for (at, id) in ids.iter().enumerate() {
        let first = publish(&mut client, id).await;
        assert_eq!((first.kind(), first.seq()), ("ack", at as u64 + 1), "{id:?}: {}", first.text);
        let again = publish(&mut client, id).await;
        assert_eq!((&again["duplicate"], again.seq()), (&json!(true), at as u64 + 1), "{id:?}: {}", again.text);
    }
    for (id, code) in [(json!(""), "bad_frame"), (json!(format!("{long}1")), "too_large"), (json!(7), "bad_frame")] {
        client.send(json!({"type": "publish", "id": id, "data": 1, "ref": "r"})).await;
        assert_error(&client.answer(&json!("r")).await, code, &json!("r"));
    }
    assert_eq!(publish(&mut client, "p#1").await.seq(), ids.len() as u64 + 1, "none of them was this one");
}

async fn of_a_number_long_ago_only_that_it_was_stored_is_told(site: Site) {
    let (_node, mut client, name) = enter(&site).await;
    publish_all(&mut client, (1..=1000).map(|number| format!("p#{number}"))).await;
    let again = publish(&mut client, "p#1").await;
    assert_eq!((again.kind(), &again["duplicate"]), ("ack", &json!(true)), "{}", again.text);
    assert_eq!((&again["room"], &again["seq"], &again["term"]), (&json!(name), &Value::Null, &Value::Null));
    for number in [745, 1000] {
        let again = publish(&mut client, &format!("p#{number}")).await;
        assert_eq!((&again["duplicate"], again.seq()), (&json!(true), number), "{}", again.text);
    }
    assert_eq!(publish(&mut client, "p#0").await.seq(), 1001, "what was left out is still new");
}

async fn a_number_too_far_behind_is_refused(site: Site) {
    let (node, mut client, _) = enter(&site).await;
    publish_all(&mut client, (1..=1000).map(|number| format!("p#{}", number * 2))).await;
    for id in ["p#2", "p#3"] {
        let refused = publish(&mut client, id).await;
        assert_error(&refused, "stale_id", &json!("one"));
        assert_eq!(refused["retryable"], false, "{}", refused.text);
    }
    assert_eq!(publish(&mut client, "p#1999").await.seq(), 1001, "not so far behind");
    assert_eq!(publish(&mut client, "p#2001").await.seq(), 1002, "and it goes on");
    node.reaches("roomcast_publishes_total", &["outcome=\"stale\""], 2.0).await;
}
