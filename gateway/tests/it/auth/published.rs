//! Keys that are fetched: rotated, lost, and never had.

use serde_json::json;

use super::keys::{Key, Publisher, set};
use super::{SECRET, knock, token};
use crate::support::{Node, eventually, get, until_logged};

async fn node(publisher: &Publisher) -> Node {
    Node::start(&["--jwt-jwks-url", &publisher.url(), "--jwt-audience", "roomcast", "--jwks-refresh", "1s"]).await
}

async fn becomes(node: &Node, token: &str, status: u16) {
    let what = format!("the handshake to be answered with {status}");
    eventually(&what, || async { (knock(node, "/ws/lobby", token).await.status == status).then_some(()) }).await;
}

/// Waits for this number of keys, and whether the latest fetch went well; from lines that must be there.
async fn until_gauges(node: &Node, wanted: [u32; 2]) {
    eventually(&format!("keys and up to be {wanted:?}"), || async {
        let text = get(node.admin, "/metrics").await.text();
        let found = ["roomcast_jwks_keys", "roomcast_jwks_up"].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{issuer=\"1\"}} ")));
            line.and_then(|value| value.parse().ok())
        });
        (found == wanted.map(Some)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_rotate_and_outlive_their_publisher() {
    let (first, second) = (Key::new("one"), Key::new("two"));
    let mut publisher = Publisher::start(&set(&[&first]));
    let node = node(&publisher).await;
    let all = json!({"sub": "ann", "rooms": ["*"]});
    becomes(&node, &first.token(&all), 101).await;
    assert_eq!(knock(&node, "/ws/lobby", &second.token(&all)).await.status, 401, "not published yet");
    assert_eq!(knock(&node, "/ws/lobby", &Key::new("one").token(&all)).await.status, 401, "only called the same");
    publisher.publish(&set(&[&first, &second]));
    becomes(&node, &second.token(&all), 101).await;
    assert_eq!(knock(&node, "/ws/lobby", &first.token(&all)).await.status, 101, "both hold");
    publisher.publish(&set(&[&second]));
    becomes(&node, &first.token(&all), 401).await;

    // What it answers now is no set; then it does not answer at all. The keys there are go on being used.
    let failed = node.metric("roomcast_jwks_fetches_total", &["failed"]).await;
    publisher.publish("{\"keys\":[]}");
    node.reaches("roomcast_jwks_fetches_total", &["failed"], failed + 1.0).await;
    publisher.fail();
    publisher.die().await;
    let failed = node.metric("roomcast_jwks_fetches_total", &["failed"]).await;
    node.reaches("roomcast_jwks_fetches_total", &["failed"], failed + 1.0).await;
    assert_eq!(knock(&node, "/ws/lobby", &second.token(&all)).await.status, 101);
    until_logged(&node, "published keys cannot be fetched").await;
    // The key is still there, though nobody publishes it.
    until_gauges(&node, [1, 0]).await;
    publisher.publish(&set(&[&first]));
    publisher.revive();
    becomes(&node, &first.token(&all), 101).await;
    until_gauges(&node, [1, 1]).await;
}

#[tokio::test]
async fn a_node_without_keys_asks_to_come_back() {
    let key = Key::new("one");
    let mut publisher = Publisher::start(&set(&[&key]));
    publisher.die().await;
    let node = node(&publisher).await;
    let token = key.token(&json!({"rooms": ["*"]}));
    let answer = knock(&node, "/ws/lobby", &token).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!((1..=5).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    // Zeros, so that an alert sees them.
    until_gauges(&node, [0, 0]).await;
    publisher.revive();
    becomes(&node, &token, 101).await;
}

#[tokio::test]
async fn no_token_makes_the_node_ask_anyone() {
    let (known, unknown) = (Key::new("one"), Key::new("http://127.0.0.1:1/evil.json"));
    let publisher = Publisher::start(&set(&[&known]));
    let elsewhere = Publisher::start(&set(&[&unknown]));
    let node =
        Node::start(&["--jwt-jwks-url", &publisher.url(), "--jwt-audience", "roomcast", "--jwks-refresh", "24h"]).await;
    becomes(&node, &known.token(&json!({"rooms": ["*"]})), 101).await;
    let asked = publisher.paths().len();
    for _ in 0..20 {
        let token = unknown.token(&json!({"iss": elsewhere.url(), "rooms": ["*"]}));
        assert_eq!(knock(&node, "/ws/lobby", &token).await.status, 401);
    }
    assert_eq!((publisher.paths().len(), elsewhere.paths().len()), (asked, 0));
    assert!(publisher.paths().iter().all(|path| path == "/keys.json"));
}

#[tokio::test]
async fn several_issuers_do_not_mix() {
    let key = Key::new("one");
    let publisher = Publisher::start(&set(&[&key]));
    let toml = format!(
        "jwt_secret = \"{SECRET}\"\njwt_issuer = \"own\"\njwt_audience = [\"roomcast\"]\n\n[[issuers]]\n\
         issuer = \"https://id.example\"\njwks_url = \"{}\"\nuser_prefix = \"id:\"\ndefault_rooms = [\"open-*\"]\n",
        publisher.url()
    );
    let node = Node::start_with(&[], &toml).await;
    let theirs = |iss: &str| key.token(&json!({"iss": iss, "sub": "ann"}));
    let what = "the published key";
    eventually(what, || async {
        (knock(&node, "/ws/open-1", &theirs("https://id.example")).await.status == 101).then_some(())
    })
    .await;
    assert_eq!(knock(&node, "/ws/lobby", &theirs("https://id.example")).await.status, 403);
    assert_eq!(knock(&node, "/ws/open-1", &theirs("own")).await.status, 401);
    let own = |iss: &str| token(&json!({"iss": iss, "sub": "ann", "rooms": ["*"]}));
    assert_eq!(knock(&node, "/ws/lobby", &own("own")).await.status, 101);
    assert_eq!(knock(&node, "/ws/lobby", &own("https://id.example")).await.status, 401);
    assert_eq!(knock(&node, "/ws/lobby", &own("nobody")).await.status, 401);
}
