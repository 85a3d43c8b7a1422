//! The log of the audit: the checker finds in it what the run found live.

use roomcast_loadtest::{audit::check::check, report::AuditReport};

use crate::support::{Gateway, Loadtest, argument};

/// What the audit of a chat on a node with `args` found live, and in the log. Both programs must exit with `code`.
async fn checked(args: &[&str], code: i32) -> (AuditReport, AuditReport) {
    let nodes = [Gateway::start(args).await];
    let args = ["--rooms", "3", "--members", "4", "--rate", "20", "--duration", "3s", "--log", "audit.log"];
    let outcome = Loadtest::against(&nodes, "chat", &args).run().await.exits(code);
    let log = outcome.file("audit.log");
    let checked = Loadtest::plain(&["check", argument(&log)]).run().await.exits(code);
    for name in outcome.findings() {
        assert!(checked.stdout.contains(name), "{name} is not in {}", checked.stdout);
    }
    (outcome.report().audit.clone(), check(&[log]).expect("a log"))
}

#[tokio::test]
async fn the_checker_of_a_sound_run_finds_nothing() {
    let (live, checked) = checked(&[], 0).await;
    assert_eq!((live.findings.values().sum::<u64>(), live.checked), (0, checked.checked));
    assert_eq!(live.findings, checked.findings);
}

#[tokio::test]
async fn the_checker_finds_what_the_run_found() {
    for faults in ["drop=7", "repeat=7", "swap=7", "corrupt=7", "misroute=7"] {
        let (live, checked) = checked(&["--sabotage", faults], 1).await;
        assert_eq!(live.findings, checked.findings, "{faults}");
        assert_eq!((live.acked, live.checked), (checked.acked, checked.checked), "{faults}");
    }
}
