//! Tokens for LiveKit, read by LiveKit's own SDK for servers.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Backend, Client, Node, api_node, get, room, within};

const SECRET: &str = "a-secret-of-the-video-server-1234";
const LIVEKIT: [&str; 8] = [
    "--livekit-url",
    "wss://video.example.com",
    "--livekit-api-key",
    "APItest",
    "--livekit-api-secret",
    SECRET,
    "--livekit-client-url",
    "https://cdn.example.com/livekit.mjs",
];

/// What the SDK says of a token: its claims, or why it refuses it.
async fn verified(token: &str, secret: &str) -> Result<Value, String> {
    const PROGRAM: &str = "const { TokenVerifier } = require('livekit-server-sdk'); \
        new TokenVerifier('APItest', process.argv[2]).verify(process.argv[1]) \
          .then(claims => console.log(JSON.stringify(claims)), error => { console.error(String(error)); process.exit(1); })";
    let modules = std::env::var_os("NODE_PATH")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/node_modules"), PathBuf::from);
    assert!(modules.join("livekit-server-sdk").is_dir(), "run scripts/need.sh node_modules");
    let run = Command::new("node").args(["-e", PROGRAM, token, secret]).env("NODE_PATH", modules).output();
    let output = within("node to end", run).await.expect("node");
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).expect("claims"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn ask(backend: &mut Backend, room: &str, client: &str) -> crate::support::Answer {
    backend.post(&format!("/rooms/{room}/video-token"), &json!({ "clientId": client })).await
}

#[tokio::test]
async fn a_member_gets_a_token_that_livekit_takes() {
    let node = Node::start(&LIVEKIT).await;
    let name = room();
    let (mut ann, _) = Client::enter(&node, &name).await;
    ann.send(json!({ "type": "rename", "name": "Ann" })).await;
    ann.presence("rename").await;
    let mut page = Backend::connect(node.addr, "").await;
    let answer = ask(&mut page, &name, ann.id()).await.expect(200);
    assert_eq!(answer["url"], "wss://video.example.com");
    let token = answer["token"].as_str().expect("a token");
    let claims = verified(token, SECRET).await.expect("the SDK takes it");
    assert_eq!(claims["sub"], ann.id());
    assert_eq!((&claims["iss"], &claims["name"]), (&json!("APItest"), &json!("Ann")));
    let video =
        json!({ "room": name, "roomJoin": true, "canPublish": true, "canSubscribe": true, "canPublishData": false });
    assert_eq!(claims["video"], video, "for this room, and nothing else");
    let (from, until) = (claims["nbf"].as_u64().expect("a time"), claims["exp"].as_u64().expect("a time"));
    assert_eq!(answer["expiresAtMs"], until * 1000);
    assert!((120..=180).contains(&(until - from)), "short: {} s", until - from);
    assert!(verified(token, "another-secret-of-the-video-server").await.is_err());
    assert!(!node.log().contains(token) && !node.log().contains(SECRET));
}

#[tokio::test]
async fn others_get_none() {
    let node = Node::start(&LIVEKIT).await;
    let name = room();
    let (ann, _) = Client::enter(&node, &name).await;
    let mut page = Backend::connect(node.addr, "").await;
    let other = room();
    let (bob, _) = Client::enter(&node, &other).await;
    assert_eq!(ask(&mut page, &other, ann.id()).await.problem(), "not_joined");
    assert_eq!(ask(&mut page, &name, bob.id()).await.problem(), "not_joined");
    assert_eq!(ask(&mut page, &name, "0b9a1f3e-7c4d-4f0a-9b43-2f6d8c1e5a70").await.problem(), "not_joined");
    assert_eq!(ask(&mut page, &name, "nonsense").await.problem(), "invalid");
    assert_eq!(ask(&mut page, "a%20b", ann.id()).await.problem(), "bad_room");
    let left = ann.id().to_owned();
    ann.leave().await;
    crate::support::eventually("the member to be gone", || async {
        let mut page = Backend::connect(node.addr, "").await;
        (ask(&mut page, &name, &left).await.status == 403).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_page_learns_where_video_is_and_may_go_there() {
    let node = Node::start(&LIVEKIT).await;
    let config: Value = serde_json::from_slice(&get(node.addr, "/api/v1/client-config").await.body).expect("JSON");
    let video = json!({ "url": "wss://video.example.com", "clientUrl": "https://cdn.example.com/livekit.mjs" });
    assert_eq!(config["video"], video);
    let page = get(node.addr, "/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self' https://cdn.example.com;"), "{policy}");
    assert!(policy.contains("connect-src 'self' wss://video.example.com https://video.example.com"), "{policy}");
    // Unconfigured there is neither, and no token.
    let plain = api_node(&[]).await;
    let page = get(plain.addr, "/").await;
    assert!(!page.header("content-security-policy").contains("https:"));
    let (ann, _) = Client::enter(&plain, "a").await;
    let answer = ask(&mut Backend::connect(plain.addr, "").await, "a", ann.id()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"));
}
