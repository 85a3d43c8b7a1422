//! Several processes are one test: they share rooms, start together, and their reports add up.

use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_loadtest::{
    record::{Count, Latency},
    report::{Finding, Report},
};

use crate::support::{Gateway, Loadtest, Outcome, Redis, argument, cluster};

/// Two processes of one run, and their merged report.
async fn both(nodes: &[Gateway]) -> ([Outcome; 2], Outcome) {
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 8;
    let soon = soon.to_string();
    let start = |process: &str| {
        let args = ["--rooms", "4", "--members", "6", "--rate", "10", "--duration", "4s", "--run", "c0ffee"];
        let share = ["--processes", "2", "--process", process, "--start-at", &soon, "--ramp", "2s"];
        Loadtest::against(nodes, "chat", &args).with(&share).start()
    };
    let (first, second) = (start("0"), start("1"));
    let parts = [first.ended().await, second.ended().await];
    let files = [parts[0].file("report.json"), parts[1].file("report.json")];
    let args = ["merge", argument(&files[0]), argument(&files[1]), "--json", "report.json"];
    (parts, Loadtest::plain(&args).run().await)
}

#[tokio::test]
async fn the_merged_report_is_the_sum_of_the_parts() {
    let redis = Redis::start().await;
    let (parts, merged) = both(&cluster(&redis, 2).await).await;
    let [first, second] = parts.map(|part| part.exits(0));
    let merged = merged.exits(0);
    merged.is_clean();
    for count in Count::ALL {
        assert_eq!(merged.count(count), first.count(count) + second.count(count), "{count:?}");
    }
    assert_eq!((first.count(Count::Connected), second.count(Count::Connected)), (12, 12));
    for what in Latency::ALL {
        let mut sum = first.latency(what);
        sum.add(second.latency(what)).unwrap();
        assert_eq!(merged.latency(what), sum, "{what:?}");
    }
    let Report { run, generators, audit, .. } = merged.report();
    assert_eq!((run.id.as_str(), run.processes, generators.len(), run.clients), ("00c0ffee", 2, 2, 24));
    assert_eq!(merged.count(Count::Due), 4 * 10 * 4);
    assert_eq!(audit.checked, first.report().audit.checked + second.report().audit.checked);
}

#[tokio::test]
async fn what_only_one_process_lacks_is_found() {
    let nodes = [Gateway::start(&["--sabotage", "drop=7"]).await];
    let (_, merged) = both(&nodes).await;
    assert_eq!(merged.exits(1).findings(), [Finding::Lost.name()]);
}
