//! Who may come in and who may do what: real tokens on real sockets.

mod keys;
mod lifetime;
mod published;
mod rights;
mod secrecy;
mod video;

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::support::{Client, Node, Response, upgrade};

/// The secret of these tests' nodes.
const SECRET: &str = "the-secret-of-these-tests-is-long-enough";
/// A node that wants tokens by that secret.
const CLOSED: [&str; 4] = ["--jwt-secret", SECRET, "--jwt-audience", "roomcast"];

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims of an hour, with some added or replaced.
fn claims(more: &Value) -> Value {
    let mut claims = json!({"aud": "roomcast", "exp": seconds() + 3600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// A token with these claims.
fn token(more: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(more), &key).unwrap()
}

/// The answer to a handshake with `token` in the query.
async fn knock(node: &Node, path: &str, token: &str) -> Response {
    upgrade(node.addr, &format!("{path}?token={token}"), &[]).await.0
}

async fn enter(node: &Node, room: &str, token: &str) -> (Client, super::support::Frame) {
    Client::enter_by(node, room, &format!("?token={token}")).await
}

#[tokio::test]
async fn without_a_key_everyone_may_come_in_and_that_is_said() {
    let open = Node::start(&[]).await;
    assert!(open.log().contains("ACCESS IS OPEN"), "{}", open.log());
    let (mut client, _) = Client::enter_by(&open, "lobby", "?token=anything").await;
    client.send(json!({"type": "refresh", "token": "whatever", "ref": 1})).await;
    let answer = client.answer(&json!(1)).await;
    assert_eq!((answer.kind(), &answer["expiresAtMs"]), ("refreshed", &json!(null)), "{}", answer.text);
    let closed = Node::start(&CLOSED).await;
    assert!(!closed.log().contains("ACCESS IS OPEN"), "{}", closed.log());
}

#[tokio::test]
async fn a_token_comes_by_header_subprotocol_or_query() {
    let node = Node::start(&CLOSED).await;
    let good = token(&json!({"sub": "ann", "rooms": ["*"]}));
    let (bearer, offered) = (format!("Bearer {good}"), format!("roomcast.v1.json, bearer.{good}"));
    let alone = format!("bearer.{good}");
    for (path, headers) in [
        ("/ws/lobby".to_owned(), vec![("authorization", bearer.as_str())]),
        ("/ws/lobby".to_owned(), vec![("sec-websocket-protocol", offered.as_str())]),
        ("/ws/lobby".to_owned(), vec![("sec-websocket-protocol", alone.as_str())]),
        (format!("/ws/lobby?token={good}"), vec![]),
        (format!("/connect?token={good}"), vec![]),
        (format!("/ws?token={good}"), vec![]),
        // The header counts, then the subprotocol, whatever else is there.
        (
            "/ws/lobby?token=bad".to_owned(),
            vec![("authorization", bearer.as_str()), ("sec-websocket-protocol", "bearer.bad")],
        ),
        ("/ws/lobby?token=bad".to_owned(), vec![("sec-websocket-protocol", alone.as_str())]),
    ] {
        let (answer, _raw) = upgrade(node.addr, &path, &headers).await;
        assert_eq!(answer.status, 101, "{path} {headers:?}: {}", answer.text());
        let chosen = answer.header("sec-websocket-protocol");
        assert_eq!(
            chosen,
            if headers.contains(&("sec-websocket-protocol", offered.as_str())) { "roomcast.v1.json" } else { "" }
        );
    }
    node.reaches("roomcast_tokens_total", &["accepted"], 8.0).await;
}

#[tokio::test]
async fn without_a_good_token_nobody_comes_in() {
    let node = Node::start(&CLOSED).await;
    for path in ["/ws/lobby", "/ws", "/connect"] {
        let (answer, _) = upgrade(node.addr, path, &[]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert!(answer.text().contains("no token"), "{}", answer.text());
    }
    let past = token(&json!({"exp": seconds() - 31, "rooms": ["*"]}));
    let foreign = token(&json!({"aud": "others", "rooms": ["*"]}));
    let early = token(&json!({"nbf": seconds() + 3600, "rooms": ["*"]}));
    let good = token(&json!({"rooms": ["*"]}));
    let cut = &good[..good.len() - 2];
    for (bad, word) in
        [(past.as_str(), "expired"), (&foreign, "aud"), (&early, "nbf"), (cut, "signature"), ("x", "no JSON Web Token")]
    {
        let answer = knock(&node, "/ws/lobby", bad).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""));
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    assert!((node.reaches("roomcast_handshakes_total", &["no_token"], 3.0).await - 3.0).abs() < f64::EPSILON);
    assert!((node.reaches("roomcast_handshakes_total", &["bad_token"], 5.0).await - 5.0).abs() < f64::EPSILON);
    assert!((node.reaches("roomcast_tokens_total", &["expired"], 1.0).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(knock(&node, "/ws/lobby", &good).await.status, 101);
}
