//! `gateway probe` and `gateway pause`: what an image without a shell has for health checks and preStop hooks.

use std::net::SocketAddr;
use std::process::Output;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::{Node, Redis, binary, eventually, within};

async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(dir.path()).kill_on_drop(true);
    within("the gateway to exit", command.output()).await.unwrap()
}

/// Exit code, stdout and stderr of a probe of what listens at `admin`.
async fn probe(admin: SocketAddr, args: &[&str]) -> (i32, String, String) {
    let admin = admin.to_string();
    let output = run(&[&["probe"], args].concat(), &[("ROOMCAST_ADMIN_LISTEN", &admin)]).await;
    words(&output)
}

fn words(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_node_that_serves_is_ready_and_alive() {
    let node = Node::start(&[]).await;
    assert_eq!(probe(node.admin, &[]).await, (0, "ready\n".to_owned(), String::new()));
    assert_eq!(probe(node.admin, &["--live"]).await, (0, "alive\n".to_owned(), String::new()));
    // As it is set where the node listens on every address.
    for listen in [format!("0.0.0.0:{}", node.admin.port()), format!("[::]:{}", node.admin.port())] {
        let output = run(&["probe", "--admin-listen", &listen], &[]).await;
        assert_eq!(words(&output), (0, "ready\n".to_owned(), String::new()), "{listen}");
    }
}

#[tokio::test]
async fn what_a_node_lacks_is_said() {
    let mut redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &["--workers", "2"]).await;
    redis.stop().await;
    node.wait_ready(false).await;
    let said = eventually("both workers to notice", || async {
        let (code, out, said) = probe(node.admin, &[]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{said}");
        said.contains("0 of 2 workers").then_some(said)
    })
    .await;
    assert!(said.starts_with("gateway: not ready: broker up for 0 of 2 workers ("), "{said}");
    assert_eq!(probe(node.admin, &["--live"]).await.0, 0, "it lives without Redis");
}

#[tokio::test]
async fn a_node_on_its_way_out_is_not_ready() {
    let node = Node::start(&["--drain-delay", "5m", "--shutdown-timeout", "10m"]).await;
    node.terminate();
    node.wait_ready(false).await;
    assert_eq!(probe(node.admin, &[]).await, (1, String::new(), "gateway: not ready: leaving\n".to_owned()));
    assert_eq!(probe(node.admin, &["--live"]).await.0, 0);
}

#[tokio::test]
async fn whoever_is_no_node_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts: the kernel takes the connection, and that is all.
    let (code, _, said) = probe(address, &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains("did not answer within 2s"), "{said}");

    // A byte now and then does not hold the probe.
    let drip = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap(); // of the probe before
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"H").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        drop(first);
        listener
    });
    let (code, _, said) = probe(address, &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains("did not answer within 2s"), "{said}");

    let listener = within("the dripper to be hung up on", drip).await.unwrap();
    let web = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 503 Down\r\n\r\n<html>").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let (code, _, said) = probe(address, &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains("is no node's admin listener"), "{said}");
    within("the other server", web).await.unwrap();

    let (code, _, said) = probe(address, &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains(&format!("no node answers on {address}")), "{said}");
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    for (args, said) in [
        (&["probe", "--admin-listen", "127.0.0.1:0"][..], "port 0"),
        (&["probe", "--admin-listen", "nowhere"], "admin-listen"),
        (&["probe", "5s"], "belongs to pause"),
        (&["--live"], "belongs to probe"),
        (&["config", "--live"], "belongs to probe"),
        (&["pause"], "DURATION"),
        (&["pause", "5"], "expected a duration with its unit"),
        (&["pause", "2h"], "from 0s to 1h"),
    ] {
        let (code, out, err) = words(&run(args, &[]).await);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(said), "{args:?} does not say {said}: {err}");
    }
    // No setting of that name has come into being.
    let (code, _, err) = words(&run(&["config"], &[("ROOMCAST_LIVE", "true")]).await);
    assert_eq!(code, 2, "{err}");
}

#[tokio::test]
async fn a_pause_is_as_long_as_asked_whatever_the_settings() {
    let began = std::time::Instant::now();
    let output = run(&["pause", "150ms"], &[("ROOMCAST_WORKERS", "none")]).await;
    assert_eq!(words(&output), (0, String::new(), String::new()));
    assert!(began.elapsed() >= std::time::Duration::from_millis(150));
}
