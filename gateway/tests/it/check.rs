//! `gateway check`: what a node would meet is found out and said before one is started.

use tokio::process::Command;

use crate::support::{Node, Redis, binary, within};

/// Exit code and stdout.
async fn check(args: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let ports = [("ROOMCAST_LISTEN", "127.0.0.1:0"), ("ROOMCAST_ADMIN_LISTEN", "127.0.0.1:0")];
    let mut command = Command::new(binary());
    command.arg("check").args(args).env_clear().envs(ports).current_dir(dir.path()).kill_on_drop(true);
    let output = within("the gateway to exit", command.output()).await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_good_redis_is_good_and_nothing_stays_there() {
    let redis = Redis::start_durable().await;
    let (code, said) = check(&["--redis", &redis.url()]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 problems"), "{said}");
    for words in ["a master, noeviction, append-only file", "published, heard, read back and left"] {
        assert!(said.contains(words), "{said}");
    }
    // Its messages and the answer to its order expire within seconds; nothing else may stay.
    for pattern in ["*:p*", "*{!}:[^a]*"] {
        let keys = redis.call(&[b"KEYS", pattern.as_bytes()]).await;
        assert!(!keys.contains("rc:"), "{keys}");
    }
}

#[tokio::test]
async fn a_node_that_runs_is_not_disturbed() {
    let redis = Redis::start_durable().await;
    let node = Node::join(&redis, "n-1", &[]).await;
    let address = node.admin.to_string();
    let (code, said) = check(&["--redis", &redis.url(), "--admin-listen", &address]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("warning  addresses"), "its own port is in use: {said}");
    node.wait_ready(true).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_remedy() {
    let redis = Redis::start_durable().await;
    let url = redis.url();
    let user = url.replace("redis://", "redis://clerk@");
    let cluster = url.replace("redis://", "redis+cluster://");
    let sentinel = url.replace("redis://", "redis+sentinel://") + "/main";
    redis.command("ACL SETUSER clerk on >key ~rc:* resetchannels &rc:* +@all -xadd").await;
    let password = ["--redis-password", "key"];
    let wrong: [(&[&str], &[&str]); 6] = [
        (&["--redis", &user, password[0], password[1]], &["problem  rooms", "publish", "docs/redis.md"]),
        (&["--redis", &user, "--redis-password", "lock"], &["WRONGPASS", "--redis-password"]),
        (&["--redis", &cluster], &["cluster support disabled", "three kinds"]),
        (&["--redis", &sentinel], &["problem  sentinel", "three kinds"]),
        (&["--redis", "redis://127.0.0.1:1"], &["refused", "check the address"]),
        (&["--redis", "redis://no-such-host.invalid"], &["lookup", "DNS"]),
    ];
    for (args, words) in wrong {
        let (code, said) = check(args).await;
        assert_eq!(code, 1, "{args:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
        assert!(!said.contains("lock"), "no password is shown: {said}");
    }
    redis.command("CONFIG SET maxmemory-policy allkeys-lru").await;
    let (code, said) = check(&["--redis", &url]).await;
    assert!(code == 1 && said.contains("CONFIG SET maxmemory-policy noeviction"), "{said}");
}

#[tokio::test]
async fn without_redis_it_warns_and_works() {
    let (code, said) = check(&["--allowed-origins", "*"]).await;
    assert_eq!(code, 0, "{said}");
    for words in ["warning  redis", "warning  origins", "warning  access"] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn keys_are_looked_at() {
    let secret = ["--jwt-secret", "0123456789abcdef0123456789abcdef", "--jwt-audience", "chat"];
    let (code, said) = check(&secret).await;
    assert!(code == 0 && said.contains("ok       access"), "{said}");
    let away = ["--jwt-jwks-url", "http://127.0.0.1:1/s3cr3t", "--jwt-issuer", "id", "--jwt-audience", "chat"];
    let (code, said) = check(&away).await;
    assert!(code == 1 && said.contains("problem  keys of http://127.0.0.1:1 "), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
    let (code, said) = check(&["--jwt-public-key", "/no/such.pem", "--jwt-audience", "chat"]).await;
    assert!(code == 1 && said.contains("problem  access"), "{said}");
}
