//! Settings, as an operator meets them: a wrong one is named, and `gateway config` can be fed back.

use std::{path::Path, process::Output};

use tokio::process::Command;

use crate::support::{Node, binary, room, within};

async fn run(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(dir).kill_on_drop(true);
    within("the gateway to exit", command.output()).await.unwrap()
}

/// The settings that `gateway config` prints, without the notes on where each came from.
fn settings(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bare = text.lines().map(|line| line.split(" # ").next().unwrap_or("").trim().to_owned());
    bare.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[tokio::test]
async fn a_wrong_value_is_named_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    for (name, toml) in [
        ("unknown.toml", "publish_raet = 5\n"),
        ("mode.toml", "[[rooms]]\npattern = \"a-*\"\nmode = \"eternal\"\n"),
        ("type.toml", "max_connections = \"many\"\n"),
        ("broken.toml", "publish_rate = = 5\n"),
    ] {
        std::fs::write(dir.path().join(name), toml).unwrap();
    }
    for (args, env, said) in [
        (&["--listen", "nowhere"][..], &[][..], "listen"),
        (&["--admin-listen", "127.0.0.1"], &[], "admin"),
        (&["--redis", "http://127.0.0.1"], &[], "redis"),
        (&["--ping-interval", "soon"], &[], "ping"),
        (&["--ping-interval", "25"], &[], "ping"),
        (&["--max-connections=-1"], &[], "max"),
        (&["--workers", "0"], &[], "workers"),
        (&["--node-id", "a b"], &[], "node"),
        (&["--trusted-proxies", "10.0.0.300/8"], &[], "proxies"),
        (&["--otlp-sample-ratio", "7"], &[], "ratio"),
        (&["--log-format", "xml"], &[], "log"),
        (&[], &[("ROOMCAST_PUBLISH_RATE", "fast")], "PUBLISH_RATE"),
        (&[], &[("ROOMCAST_PUBLIHS_RATE", "5")], "PUBLIHS_RATE"),
        (&["--config", "not-there.toml"], &[], "not-there.toml"),
        (&["--config", "unknown.toml"], &[], "publish_raet"),
        (&["--config", "mode.toml"], &[], "mode"),
        (&["--config", "type.toml"], &[], "max-connections"),
        (&["--config", "broken.toml"], &[], "broken.toml"),
        (&["--no-such-flag"], &[], "no-such-flag"),
    ] {
        let output = run(dir.path(), args, env).await;
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}: {words}");
        assert!(words.contains(said), "{args:?} {env:?} does not name {said}: {words}");
        assert!(!words.contains("panicked"), "{words}");
    }
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let node = Node::start(&[]).await;
    let taken = node.admin.to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--listen", "127.0.0.1:0", "--admin-listen", &taken], &[]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{words}");
    assert!(words.contains(&taken) || words.contains("admin"), "which port is it? {words}");
}

#[tokio::test]
async fn what_config_prints_can_be_fed_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("first.toml"),
        "abuse_limit = 7\n[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n\
         [[rooms]]\npattern = \"log-*\"\nmode = \"durable\"\nhistory_size = 9\nhistory_ttl = \"90m\"\n",
    )
    .unwrap();
    let args = ["config", "--config", "first.toml", "--publish-rate", "7", "--node-id", "n-fixed"];
    let first = run(dir.path(), &args, &[("ROOMCAST_PING_INTERVAL", "7s")]).await;
    let printed = settings(&first);
    for line in ["publish_rate = 7", "abuse_limit = 7", "ping_interval = \"7s\"", "node_id = \"n-fixed\""] {
        assert!(printed.iter().any(|other| other == line), "{line} is not in {printed:#?}");
    }
    std::fs::write(dir.path().join("second.toml"), &first.stdout).unwrap();
    let second = run(dir.path(), &["config", "--config", "second.toml"], &[]).await;
    assert_eq!(settings(&second), printed);
}

#[tokio::test]
async fn flags_outrank_the_environment_the_env_file_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(".env"),
        "ROOMCAST_PUBLISH_RATE=2\nROOMCAST_PUBLISH_BURST=2\nROOMCAST_JOIN_HISTORY=2\n",
    )
    .unwrap();
    let file = "publish_rate = 1\npublish_burst = 1\njoin_history = 1\nmembers_cap = 1\n";
    std::fs::write(dir.path().join("file.toml"), file).unwrap();
    let env = [("ROOMCAST_PUBLISH_RATE", "3"), ("ROOMCAST_PUBLISH_BURST", "3"), ("ROOMCAST_CONFIG", "file.toml")];
    let printed = settings(&run(dir.path(), &["config", "--publish-rate", "4"], &env).await);
    for line in ["publish_rate = 4", "publish_burst = 3", "join_history = 2", "members_cap = 1"] {
        assert!(printed.iter().any(|other| other == line), "{line} is not in {printed:#?}");
    }
}

#[tokio::test]
async fn a_password_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["config", "run"] {
        let args = [command, "--redis", "redis://me:hunter2@127.0.0.1:1/x"];
        let output = run(dir.path(), &args, &[]).await; // `/x` is no database, so that `run` ends as well
        let words = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!words.contains("hunter2"), "{command}: {words}");
    }
}

#[tokio::test]
async fn every_setting_of_a_node_can_come_from_a_file() {
    let toml = "node_id = \"n-file\"\nrooms_per_connection = 2\n";
    let node = Node::start_with(&[], toml).await;
    let (client, _) = crate::support::Client::enter(&node, &room()).await;
    assert_eq!((&client.welcome["nodeId"], &client.welcome["limits"]["rooms"]), (&"n-file".into(), &2.into()));
}
