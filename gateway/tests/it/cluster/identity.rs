//! Whose session a member is, as its token says: seen on every node, through reconnects, new names and the node's death.

use std::time::SystemTime;

use jsonwebtoken::{EncodingKey, Header, encode};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Client, Frame, Node, Redis, room};

const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";
const ARGS: [&str; 8] =
    ["--jwt-secret", SECRET, "--jwt-audience", "app", "--lease-beat", "500ms", "--lease-expiry", "3s"];
const INFO: &str = r#"{"avatar": "/a.png",  "level":1.50, "words": "<b>\u001f}"}"#;

#[derive(Serialize)]
struct Claims {
    aud: &'static str,
    exp: u64,
    rooms: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Box<RawValue>>,
}

fn token(sub: Option<&'static str>, info: Option<&str>) -> String {
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let info = info.map(|info| RawValue::from_string(info.to_owned()).unwrap());
    let claims = Claims { aud: "app", exp, rooms: ["*"], sub, info };
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn enter(node: &Node, room: &str, name: &str, token: &str) -> (Client, Frame) {
    let mut client = Client::connect(node, &format!("/ws/{room}?name={name}&token={token}")).await;
    let joined = client.next().await;
    assert_eq!(joined.kind(), "joined", "{}", joined.text);
    (client, joined)
}

/// A member with that token.
fn shown(client: &Client, name: &str) -> Value {
    let info: Value = serde_json::from_str(INFO).unwrap();
    json!({"id": client.id(), "name": name, "user": "ann@example.com", "info": info})
}

fn nobody(client: &Client, name: &str) -> Value {
    json!({"id": client.id(), "name": name})
}

async fn members(client: &mut Client, room: &str) -> Frame {
    client.send(json!({"type": "members", "room": room, "ref": "who"})).await;
    client.answer(&json!("who")).await
}

#[tokio::test]
async fn members_on_other_nodes_see_whose_session_it_is() {
    let redis = Redis::start().await;
    let nodes = super::nodes(&redis, 2, &ARGS).await;
    let (name, signed) = (room(), token(Some("ann@example.com"), Some(INFO)));
    let (mut bob, _) = enter(&nodes[1], &name, "Bob", &token(None, None)).await;
    let (mut ann, joined) = enter(&nodes[0], &name, "Ann", &signed).await;
    for member in [shown(&ann, "Ann"), nobody(&bob, "Bob")] {
        assert!(joined.list("members").contains(&member), "{}", joined.text);
    }
    let told = bob.presence("join").await;
    assert_eq!(told["member"], shown(&ann, "Ann"));
    assert!(told.text.contains(&format!(r#""info":{INFO}}}"#)), "byte for byte: {}", told.text);

    ann.publish(&name, json!("hi")).await;
    bob.publish(&name, json!("hello")).await;
    let from = [json!({"id": ann.id(), "name": "Ann", "user": "ann@example.com"}), nobody(&bob, "Bob")];
    for client in [&mut ann, &mut bob] {
        let said = client.messages(&name, 2).await;
        assert_eq!([&said[0]["from"], &said[1]["from"]], [&from[0], &from[1]]);
    }
    let page = members(&mut bob, &name).await;
    assert!(page.list("members").contains(&shown(&ann, "Ann")), "{}", page.text);
    let (cleo, joined) = enter(&nodes[1], &name, "Cleo", &token(None, Some("[]"))).await;
    assert!(joined.list("members").contains(&shown(&ann, "Ann")), "{}", joined.text);
    assert!(joined.list("members").contains(&json!({"id": cleo.id(), "name": "Cleo", "info": []})), "{}", joined.text);
    assert_eq!([&joined["messages"][0]["from"], &joined["messages"][1]["from"]], [&from[0], &from[1]]);

    ann.send(json!({"type": "rename", "name": "Zoë"})).await;
    assert_eq!(bob.presence("rename").await["member"], shown(&ann, "Zoë"));
    let page = members(&mut bob, &name).await;
    assert!(page.list("members").contains(&shown(&ann, "Zoë")), "{}", page.text);
    // A newer token of hers says something else.
    let newer = token(Some("ann@example.com"), None);
    ann.send(json!({"type": "refresh", "token": newer, "ref": 1})).await;
    assert_eq!(ann.answer(&json!(1)).await.kind(), "refreshed");
    let told = bob.presence("rename").await;
    assert_eq!(told["member"], json!({"id": ann.id(), "name": "Zoë", "user": "ann@example.com"}));
}

#[tokio::test]
async fn whose_session_it_was_is_told_when_it_ends_and_known_when_it_is_back() {
    let redis = Redis::start().await;
    let mut nodes = super::nodes(&redis, 2, &ARGS).await;
    let (name, signed) = (room(), token(Some("ann@example.com"), Some(INFO)));
    let (mut bob, _) = enter(&nodes[1], &name, "Bob", &token(None, None)).await;
    let (ann, _) = enter(&nodes[0], &name, "Ann", &signed).await;
    assert_eq!(bob.presence("join").await["member"], shown(&ann, "Ann"));
    let first = shown(&ann, "Ann");
    ann.leave().await;
    assert_eq!(bob.presence("leave").await["member"], first);

    let (mut ann, _) = enter(&nodes[0], &name, "Ann", &signed).await;
    let second = shown(&ann, "Ann");
    assert_ne!(second["id"], first["id"]);
    assert_eq!(bob.presence("join").await["member"], second);
    ann.publish(&name, json!("back")).await;
    assert_eq!(bob.messages(&name, 1).await[0]["from"]["user"], "ann@example.com");

    nodes[0].signal(Signal::KILL);
    nodes[0].ended().await;
    let told = bob.presence("leave").await;
    assert_eq!((&told["member"], &told["online"]), (&second, &json!(1)));
    assert!(told.text.contains(&format!(r#""info":{INFO}}}"#)), "byte for byte: {}", told.text);
    let page = members(&mut bob, &name).await;
    assert_eq!(page.list("members"), [nobody(&bob, "Bob")]);
}

#[tokio::test]
async fn where_access_is_open_nobody_has_a_user() {
    let redis = Redis::start().await;
    let nodes = super::nodes(&redis, 2, &[]).await;
    // Nobody looks at the token, so nobody is who it says.
    let (name, signed) = (room(), token(Some("ann@example.com"), Some(INFO)));
    let (mut bob, _) = enter(&nodes[1], &name, "Bob", "x").await;
    let (mut ann, joined) = enter(&nodes[0], &name, "Ann", &signed).await;
    assert!(joined.list("members").contains(&nobody(&ann, "Ann")), "{}", joined.text);
    assert_eq!(bob.presence("join").await["member"], nobody(&ann, "Ann"));
    ann.publish(&name, json!("hi")).await;
    assert_eq!(bob.messages(&name, 1).await[0]["from"], nobody(&ann, "Ann"));
    let gone = nobody(&ann, "Ann");
    ann.leave().await;
    assert_eq!(bob.presence("leave").await["member"], gone);
}
