//! How a run ends: exit codes, words, Ctrl-C.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use roomcast_loadtest::record::Count;

use crate::support::{Gateway, Loadtest, within};

#[tokio::test]
async fn a_cluster_out_of_reach_is_told_with_3() {
    // Port 1 belongs to tcpmux, which nobody runs.
    let args = ["chat", "--target", "ws://127.0.0.1:1", "--rooms", "1", "--members", "2", "--duration", "1s"];
    let loud = Loadtest::plain(&args).with(&["--connect-timeout", "1s"]).run().await.exits(3);
    let quiet = Loadtest::plain(&args).with(&["--connect-timeout", "1s", "--quiet"]).run().await.exits(3);
    for words in [&loud.stdout, &quiet.stderr] {
        assert!(words.contains("127.0.0.1:1") && words.contains("refused"), "{words}");
    }
    assert_eq!(quiet.stdout, "");
}

#[tokio::test]
async fn a_generator_that_lags_is_told_with_3() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["chat", "--target", &nodes[0].target(), "--rooms", "1", "--members", "2", "--duration", "1s"];
    let outcome = Loadtest::plain(&args).with(&["--rate", "20", "--max-lag", "1us"]).run().await.exits(3);
    let words = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(words.contains("lag"), "{words}");
}

#[tokio::test]
async fn a_run_interrupted_before_it_began_says_so() {
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("ws://{}", silent.local_addr().unwrap());
    let args = ["chat", "--target", &target, "--rooms", "1", "--members", "2", "--json", "report.json"];
    let run = Loadtest::plain(&args).start();
    let _connection = within("a connection", silent.accept()).await.unwrap();
    run.signal(Signal::INT);
    let outcome = run.ended().await.exits(3);
    assert!(outcome.report().run.interrupted && outcome.report().run.load_started_ms == 0);
}

#[tokio::test]
async fn a_failed_threshold_is_told_with_1() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--rooms", "1", "--members", "2", "--rate", "10", "--duration", "1s"];
    let run = Loadtest::against(&nodes, "chat", &args);
    let outcome = run.with(&["--assert", "delivery.p99<1us", "--assert", "delivery.p99<1h"]).run().await.exits(1);
    outcome.is_clean();
    let verdict = |text: &str| outcome.report().thresholds.iter().find(|one| one.text == text).map(|one| one.passed);
    assert_eq!((verdict("delivery.p99<1us"), verdict("delivery.p99<1h")), (Some(false), Some(true)));
    assert!(outcome.stdout.contains("delivery.p99<1us"), "{}", outcome.stdout);
}

#[tokio::test]
async fn bad_usage_is_told_with_2() {
    let target = ["--target", "ws://127.0.0.1:1"];
    for (args, said) in [
        (&["chat", "--rooms", "banana"][..], "banana"),
        (&["chat", "--assert", "delivery.p99<"], "delivery.p99<"),
        (&["chat", "--assert", "deliverance.p99<5ms"], "deliverance"),
        (&["chat", "--duration", "10"], "10"),
        (&["chat", "--mode", "eternal"], "eternal"),
        (&["chat", "--prefix", "a b"], "a b"),
        (&["chat", "--processes", "2", "--process", "2"], "process"),
        (&["chat", "--start-at", "soon"], "soon"),
        (&["chat", "--processes", "2"], "--run"),
        (&["chat", "--no-such-flag"], "no-such-flag"),
        (&["dance"], "dance"),
        (&["merge", "not-there.json"], "not-there.json"),
        (&["check", "not-there.log"], "not-there.log"),
    ] {
        let outcome = Loadtest::plain(args);
        let outcome = if args[0] == "chat" { outcome.with(&target) } else { outcome };
        let outcome = outcome.run().await.exits(2);
        assert!(outcome.stderr.contains(said), "{args:?} does not name {said}: {}", outcome.stderr);
    }
    let outcome = Loadtest::plain(&["chat", "--target", "http:/127.0.0.1"]).run().await.exits(2);
    assert!(outcome.stderr.contains("http:/127.0.0.1"), "{}", outcome.stderr);
}

#[tokio::test]
async fn every_scenario_explains_itself() {
    for scenario in ["fanout", "chat", "idle", "storm", "churn", "soak"] {
        let outcome = Loadtest::plain(&[scenario, "--help"]).run().await.exits(0);
        for word in ["--target", "--assert", "--json"] {
            assert!(outcome.stdout.contains(word), "{scenario} --help lacks {word}");
        }
    }
}

#[tokio::test]
async fn a_quiet_run_that_passed_says_nothing() {
    let args = ["fanout", "--self", "--members", "2", "--duration", "1s", "--quiet", "--max-lag", "1m"];
    let outcome = Loadtest::plain(&args).run().await.exits(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
}

#[tokio::test]
async fn goodbyes_are_no_lost_connections() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--rooms", "2", "--members", "20", "--rate", "10", "--duration", "1s"];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(0);
    assert_eq!((outcome.count(Count::Connected), outcome.count(Count::Disconnected)), (40, 0));
    assert_eq!(outcome.report().closes.len(), 0, "{:?}", outcome.report().closes);
}

#[tokio::test]
async fn an_interrupted_run_ends_with_a_whole_report() {
    let nodes = [Gateway::start(&[]).await];
    let args = ["--rooms", "2", "--members", "3", "--rate", "20", "--duration", "10m"];
    let run = Loadtest::against(&nodes, "chat", &args).start();
    nodes[0].has_published(50).await;
    run.signal(Signal::INT);
    let outcome = run.ended().await.exits(0);
    outcome.is_clean();
    assert!(outcome.report().run.interrupted);
    assert!(outcome.count(Count::Acked) >= 50 && outcome.count(Count::Due) == outcome.count(Count::Acked));
    assert!(outcome.report().run.load_ended_ms > outcome.report().run.load_started_ms);
}

/// Hours of load must not be lost because a disk is full at their end.
#[tokio::test]
async fn a_report_that_cannot_be_written_still_prints_its_summary() {
    let args = ["fanout", "--self", "--members", "2", "--duration", "1s", "--max-lag", "1m", "--json", "/dev/full"];
    let outcome = Loadtest::plain(&args).with(&["--html", "report.html"]).run().await.exits(2);
    assert!(outcome.stdout.trim_end().ends_with("passed"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("/dev/full"), "{}", outcome.stderr);
    assert!(outcome.file("report.html").is_file(), "the other file can be written");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_makes_the_run_invalid() {
    let args = ["fanout", "--self", "--members", "2", "--duration", "1s", "--max-lag", "1m", "--json", "report.json"];
    let outcome = Loadtest::plain(&args).with(&["--log", "/dev/full"]).run().await.exits(3);
    assert!(outcome.stdout.contains("log is incomplete"), "{}", outcome.stdout);
    assert!(outcome.count(Count::Received) > 0);
}

/// A server's words end in a terminal, which obeys control characters.
#[tokio::test]
async fn what_a_server_says_cannot_steer_the_terminal() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("ws://{}", server.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n\x1b[31m go!").await;
        }
    });
    let args = ["chat", "--target", &target, "--rooms", "1", "--members", "2", "--connect-timeout", "1s"];
    for quiet in [&[][..], &["--quiet"]] {
        let outcome = Loadtest::plain(&args).with(quiet).run().await.exits(3);
        let words = outcome.stdout + &outcome.stderr;
        assert!(words.contains("403") && words.contains("go!") && !words.contains('\x1b'), "{words:?}");
    }
}
