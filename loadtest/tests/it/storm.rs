//! Everybody breaks off at once and comes back.

use std::time::Duration;

use roomcast_loadtest::record::{Count, Latency};

use crate::support::{Gateway, Loadtest, Redis, eventually, setting};

/// How soon all must be back.
const BACK: Duration = Duration::from_secs(30);
const MEMBERS: u64 = 20;
const READS: &str = "roomcast_broker_commands_total{command=\"history\"";
const MEMORY: &str = "process_resident_memory_bytes";

async fn sum(nodes: &[Gateway], metric: &str) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metric(metric).await;
    }
    sum
}

/// All of them, on three nodes. They find the rooms as they left them: Redis is asked once for each room and node at
/// most, and nothing of the storm stays in memory.
#[tokio::test]
async fn all_come_back_and_leave_nothing_behind() {
    let clients = setting("STORM_CLIENTS", 600);
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["n-1", "n-2", "n-3"] {
        let args = ["--max-connections-per-address", "100000", "--max-connections", "100000", "--connect-rate", "2000"];
        nodes.push(Gateway::join(&redis, id, &args).await);
    }
    let (rooms, members) = ((clients / MEMBERS).to_string(), MEMBERS.to_string());
    let args = ["--rooms", &rooms, "--members", &members, "--rate", "0.5", "--dropped", "100%", "--first", "4s"];
    let seconds = (BACK.as_secs() + 14).min(20 + clients / 250).to_string() + "s";
    let run =
        Loadtest::against(&nodes, "storm", &args).with(&["--duration", &seconds, "--connect-rate", "2000"]).start();

    let all = clients as f64;
    eventually("all to be there", || async { (sum(&nodes, "roomcast_connections").await >= all).then_some(()) }).await;
    // What they said is behind them, and their rooms are open on every node.
    nodes[0].has_published(clients as u32 / 60).await;
    let (reads, memory) = (sum(&nodes, READS).await, sum(&nodes, MEMORY).await);
    eventually("all to be back", || async {
        let opened = sum(&nodes, "roomcast_connections_total").await;
        (opened >= 2.0 * all && sum(&nodes, "roomcast_connections").await >= all).then_some(())
    })
    .await;
    let outcome = run.ended().await.exits(0);
    let (reads, after) = (sum(&nodes, READS).await - reads, sum(&nodes, MEMORY).await);

    outcome.is_clean();
    assert_eq!((outcome.count(Count::Dropped), outcome.report().audit.absent_members), (clients, 0));
    let recoveries = &outcome.report().audit.recoveries;
    assert_eq!(recoveries.get("resumed"), Some(&clients), "{recoveries:?}");
    let resume = outcome.latency(Latency::Resume);
    assert!(u128::from(resume.max()) <= BACK.as_micros(), "the last came back after {} us", resume.max());
    let most = clients / MEMBERS * nodes.len() as u64;
    assert!(reads <= most as f64, "{reads} reads of {most}");
    assert!(after <= memory * 1.25 + f64::from(24 << 20), "{memory} bytes before, {after} after");
    eprintln!(
        "{clients} back, p99 {} us, the last after {} us; {reads} reads, {most} allowed; {:.1} MiB a node before, {:.1} after",
        resume.value_at_quantile(0.99),
        resume.max(),
        memory / 3.0 / 1_048_576.0,
        after / 3.0 / 1_048_576.0
    );
}
