//! Tokens and secrets are nowhere but where they belong; and `gateway token`.

use std::fmt::Write as _;

use serde_json::json;
use tokio::process::Command;

use super::{CLOSED, SECRET, knock, token};
use crate::support::{Client, Node, binary, get, room, upgrade, within};
use crate::traces::collector;

/// Exit code, stdout and stderr of the gateway.
async fn run(args: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(args).env_clear().current_dir(dir.path()).kill_on_drop(true);
    let output = within("the gateway to exit", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn tokens_reach_no_log_no_trace_and_no_metric() {
    let (endpoint, mut received) = collector().await;
    let args = [&CLOSED[..], &["--log", "trace", "--otlp-endpoint", &endpoint, "--otlp-sample-ratio", "1"]].concat();
    let node = Node::start(&args).await;
    let name = room();
    let good = token(&json!({"sub": "kanarium-user", "rooms": ["*"], "jti": "kanarium"}));
    let expired = token(&json!({"exp": 1, "jti": "kanarium"}));
    for token in [good.as_str(), &expired, "kanarium.of.nothing"] {
        knock(&node, &format!("/ws/{name}"), token).await;
        knock(&node, &format!("/nowhere/{name}"), token).await;
        upgrade(node.addr, &format!("/ws/{name}"), &[("authorization", &format!("Bearer {token}"))]).await;
        upgrade(node.addr, &format!("/ws/{name}"), &[("sec-websocket-protocol", &format!("bearer.{token}"))]).await;
    }
    let (mut client, _) = Client::enter_by(&node, &name, &format!("?token={good}")).await;
    for token in [good.as_str(), &expired, "kanarium.of.nothing"] {
        client.send(json!({"type": "refresh", "token": token, "ref": 1})).await;
        let answer = client.answer(&json!(1)).await;
        assert!(
            !answer.text.contains(token.rsplit('.').next().unwrap()) || token.starts_with("kanarium"),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("kanarium"), "{}", answer.text);
    }
    client.publish(&name, json!("seen")).await;
    let mut traced = String::new();
    within("a span of the publish", async {
        while !traced.contains("broker publish") {
            write!(traced, "{:?}", received.recv().await.unwrap()).unwrap();
        }
    })
    .await;
    let (log, metrics) = (node.log(), get(node.admin, "/metrics").await.text());
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "it logs that much");
    for secret in good.split('.').chain(expired.split('.')).skip(1).chain(["kanarium", SECRET]) {
        for (place, text) in [("log", &log), ("traces", &traced), ("metrics", &metrics)] {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
}

#[tokio::test]
async fn settings_are_shown_without_their_secrets() {
    let (code, shown, _) = run(&[&["config"][..], &CLOSED].concat()).await;
    assert_eq!(code, 0);
    assert!(shown.contains("jwt_secret = \"***\"") && !shown.contains(SECRET), "{shown}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    let path = file.to_str().unwrap();
    let toml =
        format!("[[issuers]]\nissuer = \"one\"\naudience = \"us\"\nsecret = \"{SECRET}\"\nuser_prefix = \"o/\"\n");
    std::fs::write(&file, &toml).unwrap();
    let (code, shown, _) = run(&["config", "--config", path]).await;
    assert!(code == 0 && shown.contains("secret = \"***\"") && shown.contains("user_prefix = \"o/\""), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    let short = "too-short-to-be-a-secret-of-any";
    let key = dir.path().join("key.pem");
    std::fs::write(&key, "nonsense").unwrap();
    let audience = ["--jwt-audience", "us"];
    for (args, words) in [
        (vec!["--jwt-secret", short, audience[0], audience[1]], "at least 32 bytes"),
        (vec!["--jwt-secret", SECRET], "--jwt-audience"),
        (vec!["--jwt-audience", "us"], "nothing, unless"),
        (vec!["--jwt-jwks-url", "http://id.example/keys", audience[0], audience[1]], "--outbound-http"),
        (vec!["--jwt-jwks-url", "id.example/keys", audience[0], audience[1]], "https://host"),
        (vec!["--jwt-secret", SECRET, audience[0], audience[1], "--jwt-default-rooms", "a b"], "room name"),
        (
            vec![
                "--jwt-public-key",
                key.to_str().unwrap(),
                audience[0],
                audience[1],
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ],
            "PEM public key",
        ),
    ] {
        let (code, _, said) = run(&args).await;
        assert!(code != 0 && said.contains(words), "{args:?}: {said}");
        assert!(!said.contains(SECRET) && !said.contains(short), "{said}");
    }
    for (text, words) in [
        ("issuer = \"one\"\naudience = \"us\"", "secret, secret_file, public_key or jwks_url"),
        ("issuer = \"one\"\nsecret = 1234567890123456789", "a text in quotes"),
        ("issuer = \"one\"\naudience = \"us\"\nsecret = \"too-short-to-be-a-secret-of-any\"", "32 bytes"),
        ("secret = \"x\"", "missing field `issuer`"),
        ("issuer = \"one\"\nscret = \"x\"", "unknown field"),
    ] {
        std::fs::write(&file, format!("[[issuers]]\n{text}\n")).unwrap();
        let (code, _, said) = run(&["config", "--config", path]).await;
        assert!(code == 2 && said.contains("[[issuers]] number 1") && said.contains(words), "{text}: {said}");
        assert!(!said.contains(short) && !said.contains("1234567890"), "{said}");
    }
    std::fs::write(&file, format!("{toml}{toml}")).unwrap();
    let (code, _, said) = run(&["config", "--config", path]).await;
    assert!(code == 2 && said.contains("number 2") && said.contains("twice"), "{said}");
}

#[tokio::test]
async fn a_printed_token_is_one_that_the_node_takes() {
    let node = Node::start(&CLOSED).await;
    let printed = |more: &'static [&'static str]| async move {
        let (code, token, said) = run(&[&["token"][..], &CLOSED, more].concat()).await;
        assert_eq!(code, 0, "{said}");
        token.trim().to_owned()
    };
    let ann = printed(&["--user", "ann", "--name", "Ann", "--rooms", "lobby,team-*", "--info", "{\"a\":1}"]).await;
    let (client, _) = Client::enter_by(&node, "lobby", &format!("?token={ann}")).await;
    assert_eq!(client.welcome["name"], "Ann");
    assert_eq!(knock(&node, "/ws/team-7", &ann).await.status, 101);
    assert_eq!(knock(&node, "/ws/other", &ann).await.status, 403);
    let reader = printed(&["--rooms", "{\"join\":[\"lobby\"],\"history\":[\"lobby\"]}", "--expires", "10m"]).await;
    assert_eq!(knock(&node, "/ws/lobby", &reader).await.status, 101);
    for (args, words) in [
        (&["token", "--user", "ann"][..], "nothing to sign with"),
        (&["token", "--info", "{", "--jwt-secret", SECRET, "--jwt-audience", "us"], "--info"),
        (&["token", "--key", "/nonexistent"], "/nonexistent"),
        (&["run", "--user", "ann"], "belong to token"),
    ] {
        let (code, _, said) = run(args).await;
        assert!(code == 2 && said.contains(words), "{args:?}: {said}");
    }
}
