//! Video tokens are for the user whose client it is, and for nobody else.

use serde_json::json;

use super::{CLOSED, enter, seconds, token};
use crate::support::{Answer, Backend, Node};

const LIVEKIT: [&str; 6] = [
    "--livekit-url",
    "wss://video.example.com",
    "--livekit-api-key",
    "APItest",
    "--livekit-api-secret",
    "a-secret-of-the-video-server-1234",
];

async fn ask(node: &Node, token: &str, client: &str) -> Answer {
    Backend::connect(node.addr, token).await.post("/rooms/lobby/video-token", &json!({ "clientId": client })).await
}

#[tokio::test]
async fn a_client_is_its_own_users_only() {
    let node = Node::start(&[&CLOSED[..], &LIVEKIT[..]].concat()).await;
    let of_ann = token(&json!({"sub": "ann", "rooms": ["lobby"]}));
    let of_bob = token(&json!({"sub": "bob", "rooms": ["lobby"]}));
    let of_nobody = token(&json!({"rooms": ["lobby"]}));
    let elsewhere = token(&json!({"sub": "ann", "rooms": ["other"]}));
    let (ann, _) = enter(&node, "lobby", &of_ann).await;
    let (anyone, _) = enter(&node, "lobby", &of_nobody).await;
    assert_eq!(ask(&node, &of_ann, ann.id()).await.status, 200);
    for (token, client, code) in [
        (&of_bob, &ann, "forbidden"),
        (&of_nobody, &ann, "forbidden"),
        // Whose token names nobody cannot be told from the others of that kind.
        (&of_nobody, &anyone, "forbidden"),
        (&elsewhere, &ann, "forbidden"),
    ] {
        let answer = ask(&node, token, client.id()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, code));
    }
    assert_eq!(ask(&node, "", ann.id()).await.status, 401);
}

#[tokio::test]
async fn bad_tokens_of_some_keep_nobody_else_at_their_address_out() {
    let node = Node::start(&[&CLOSED[..], &LIVEKIT[..]].concat()).await;
    let of_ann = token(&json!({"sub": "ann", "rooms": ["lobby"]}));
    let stale = token(&json!({"sub": "ann", "rooms": ["lobby"], "exp": seconds() - 60}));
    let (ann, _) = enter(&node, "lobby", &of_ann).await;
    for _ in 0..25 {
        assert_eq!(ask(&node, &stale, ann.id()).await.status, 401);
    }
    assert_eq!(ask(&node, &of_ann, ann.id()).await.status, 200);
}
