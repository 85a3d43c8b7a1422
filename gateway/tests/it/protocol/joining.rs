//! Paths, `welcome`, `joined`, `join` and `leave`.

use serde_json::json;

use super::{Site, on_both_brokers};
use crate::support::{Client, assert_error, request, room, upgrade};

on_both_brokers!(
    the_path_joins_a_room,
    ws_alone_creates_a_room,
    connect_joins_nothing,
    a_query_may_name_several_rooms,
    a_join_without_a_room_creates_one,
    leaving_ends_what_comes_from_the_room,
    rooms_do_not_mix,
);

async fn the_path_joins_a_room(site: Site) {
    let node = site.node(&["--node-id", "n-here"]).await;
    let name = room();
    let mut client = Client::connect(&node, &format!("/ws/{name}?name=Zo%C3%AB%20B")).await;
    let welcome = client.welcome.clone();
    assert_eq!(client.id().len(), 36, "a hyphenated UUID: {}", welcome.text);
    assert_eq!(welcome["roomId"], name);
    assert_eq!(welcome["nodeId"], "n-here");
    assert_eq!(welcome["name"], "Zoë B");
    assert!(welcome["session"].is_string(), "{}", welcome.text);
    assert_eq!(welcome["pingIntervalMs"], 25_000);
    assert!(welcome["limits"].is_object(), "{}", welcome.text);

    let joined = client.next().await;
    assert_eq!((joined.kind(), &joined["room"]), ("joined", &json!(name)), "{}", joined.text);
    assert_eq!(joined["mode"], "durable");
    assert_eq!(joined["recovery"], "fresh");
    assert_eq!(joined["online"], 1);
    assert_eq!(joined["seq"], 0, "nothing was said here yet: {}", joined.text);
    assert_eq!(joined["members"], json!([{"id": client.id(), "name": "Zoë B"}]));
    assert_eq!(joined["messages"], json!([]));
    assert!(joined["ref"].is_null(), "nobody gave a ref: {}", joined.text);
}

async fn ws_alone_creates_a_room(site: Site) {
    let node = site.node(&[]).await;
    let mut seen = Vec::new();
    for path in ["/ws", "/ws?name=Ana"] {
        let mut client = Client::connect(&node, path).await;
        let created = client.welcome.str("roomId").to_owned();
        assert_eq!(created.len(), 36, "a UUID: {created}");
        assert_eq!(client.next().await["room"], created);
        assert_eq!(client.publish(&created, json!("hi")).await.seq(), 1);
        seen.push(created);
    }
    assert_ne!(seen[0], seen[1]);
}

async fn connect_joins_nothing(site: Site) {
    let node = site.node(&[]).await;
    let mut client = Client::connect(&node, "/connect").await;
    assert!(client.welcome["roomId"].is_null() && client.welcome.text.contains("\"roomId\":null"));
    assert!(!client.welcome.str("name").is_empty(), "a name is given where none was brought");
    client.send(json!({"type": "ping", "ref": "a"})).await;
    let pong = client.next().await;
    assert_eq!((pong.kind(), &pong["ref"]), ("pong", &json!("a")), "{}", pong.text);

    let name = room();
    client.send(json!({"type": "join", "room": name, "ref": 17})).await;
    let joined = client.expect("joined").await;
    assert_eq!((&joined["ref"], &joined["room"]), (&json!(17), &json!(name)));
}

async fn a_query_may_name_several_rooms(site: Site) {
    let node = site.node(&[]).await;
    let (one, two, three) = (room(), room(), room());
    let mut client = Client::connect(&node, &format!("/ws?room={one}&room={two}&name=Ana&room={three}")).await;
    let mut joined = Vec::new();
    for _ in 0..3 {
        joined.push(client.expect("joined").await.str("room").to_owned());
    }
    joined.sort();
    let mut asked = [one, two, three];
    asked.sort();
    assert_eq!(joined, asked);
    for name in &asked {
        assert_eq!(client.publish(name, json!(1)).await["room"], *name);
    }
}

async fn a_join_without_a_room_creates_one(site: Site) {
    let node = site.node(&[]).await;
    let mut client = Client::connect(&node, "/connect").await;
    let mut created = Vec::new();
    for reference in ["a", "b"] {
        client.send(json!({"type": "join", "ref": reference})).await;
        created.push(client.answer(&json!(reference)).await.str("room").to_owned());
    }
    assert_ne!(created[0], created[1]);
    // Another client finds the room under that name.
    let (mut other, joined) = Client::enter(&node, &created[0]).await;
    assert_eq!(joined["online"], 2);
    other.publish(&created[0], json!("found")).await;
    assert_eq!(client.expect("message").await["data"], "found");
}

async fn leaving_ends_what_comes_from_the_room(site: Site) {
    let node = site.node(&[]).await;
    let (left, kept) = (room(), room());
    let mut ana = Client::connect(&node, &format!("/ws?room={left}&room={kept}")).await;
    let mut bo = Client::connect(&node, &format!("/ws?room={left}&room={kept}")).await;
    for client in [&mut ana, &mut bo] {
        client.expect("joined").await;
        client.expect("joined").await;
    }
    ana.send(json!({"type": "leave", "room": left, "ref": "bye"})).await;
    let answer = ana.answer(&json!("bye")).await;
    assert_eq!((answer.kind(), &answer["room"]), ("left", &json!(left)));
    let gone = bo.presence("leave").await;
    assert_eq!((&gone["room"], &gone["online"], &gone["member"]["id"]), (&json!(left), &json!(1), &json!(ana.id())));

    bo.publish(&left, json!("not for ana")).await;
    bo.publish(&kept, json!("for both")).await;
    assert_eq!(ana.expect("message").await["data"], "for both");
    ana.send(json!({"type": "publish", "room": left, "data": 1, "ref": 2})).await;
    assert_error(&ana.answer(&json!(2)).await, "not_joined", &json!(2));

    // Coming back is an ordinary join.
    ana.send(json!({"type": "join", "room": left, "ref": "again"})).await;
    let again = ana.answer(&json!("again")).await;
    assert_eq!((again.kind(), &again["online"], &again["seq"]), ("joined", &json!(2), &json!(1)), "{}", again.text);
}

async fn rooms_do_not_mix(site: Site) {
    let node = site.node(&[]).await;
    let (here, there) = (room(), room());
    let (mut ana, _) = Client::enter(&node, &here).await;
    let (mut bo, _) = Client::enter(&node, &there).await;
    for count in 1..=5 {
        assert_eq!(ana.publish(&here, json!("here")).await.seq(), count);
        assert_eq!(bo.publish(&there, json!("there")).await.seq(), count);
    }
    for (client, name, word) in [(&mut ana, &here, "here"), (&mut bo, &there, "there")] {
        for _ in 0..5 {
            let message = client.expect("message").await;
            assert_eq!((&message["room"], &message["data"]), (&json!(name), &json!(word)));
        }
        assert!(client.settle().await.iter().all(|frame| frame.kind() != "message"));
    }
}

#[tokio::test]
async fn a_bad_room_name_is_refused_before_the_upgrade() {
    let node = Site::Memory.node(&[]).await;
    let long = "r".repeat(129);
    let bad = ["a%20b", "%C3%A4", "a%2Fb", "%00", "a%0d%0ab", "a+b", "a:b", long.as_str()];
    for name in bad {
        for path in [format!("/ws/{name}"), format!("/ws?room={name}"), format!("/ws?room=fine&room={name}")] {
            let (response, _) = upgrade(node.addr, &path, &[]).await;
            assert_eq!(response.status, 400, "{path}: {response:?}");
            assert!(!response.text().trim().is_empty(), "{path}: a body says what is wrong");
        }
    }
    let longest = "r".repeat(128);
    for name in [longest.as_str(), "A-Z_a.z~09", ".", "~", "%61"] {
        let (response, _) = upgrade(node.addr, &format!("/ws/{name}"), &[]).await;
        assert_eq!(response.status, 101, "{name}: {response:?}");
    }
}

const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
const UP: (&str, &str) = ("upgrade", "websocket");
const V13: (&str, &str) = ("sec-websocket-version", "13");

#[tokio::test]
async fn the_handshake_is_checked() {
    let node = Site::Memory.node(&[]).await;
    let with = |headers: &'static [(&'static str, &'static str)]| request(node.addr, "GET", "/ws/a", headers);
    // The first `Connection: close` is what `request` always sends.
    for (headers, what) in [
        (&[] as &[_], "a plain GET"),
        (&[UP, KEY, V13], "no Connection: Upgrade"),
        (&[("connection", "Upgrade"), KEY, V13], "no Upgrade"),
        (&[("connection", "Upgrade"), UP, V13], "no key"),
        (&[("connection", "Upgrade"), UP, V13, ("sec-websocket-key", "short")], "a bad key"),
        (&[("connection", "Upgrade"), UP, KEY], "no version"),
        (&[("connection", "Upgrade"), UP, KEY, ("sec-websocket-version", "8")], "an old version"),
    ] {
        let response = with(headers).await;
        assert!((400..500).contains(&response.status), "{what}: {response:?}");
        assert!(!response.text().trim().is_empty(), "{what}: a body says what is wrong");
    }
    let post = request(node.addr, "POST", "/ws/a", &[("connection", "Upgrade"), UP, KEY, V13]).await;
    assert!((400..500).contains(&post.status), "POST: {post:?}");
    assert_eq!(request(node.addr, "GET", "/no/such/place", &[]).await.status, 404);

    let (response, _) = upgrade(node.addr, "/ws/a", &[("sec-websocket-protocol", "other, roomcast.v1.json")]).await;
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, "roomcast.v1.json"));
    assert_eq!(response.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let (response, _) = upgrade(node.addr, "/ws/a", &[("sec-websocket-protocol", "other")]).await;
    assert_eq!(
        (response.status, response.header("sec-websocket-protocol")),
        (101, ""),
        "what we don't speak isn't chosen"
    );
}
