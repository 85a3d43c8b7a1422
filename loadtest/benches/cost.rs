//! What the load tester costs beside the gateway that it loads, in the same run: each has one core of its own and one
//! thread. A ratio below 1 means that the gateway is exhausted first. Prints a table; nothing is asserted.
//!
//! `cargo bench --package roomcast-loadtest [-- SECONDS]`

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a program for the terminal")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use roomcast_loadtest::record::{Count, Latency};
use roomcast_loadtest::report::{self, Report};

/// A gateway on the embedded broker, on core 0 with one worker; killed when dropped.
struct Gateway {
    process: Child,
    url: String,
    metrics: String,
}

impl Gateway {
    fn start(binary: &Path) -> Self {
        let mut process = Command::new("taskset")
            .args(["-c", "0"])
            .arg(binary)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", "1", "--publish-rate", "0"])
            .args(["--log-format", "json", "--connect-rate", "0"])
            .env_clear()
            .current_dir(std::env::temp_dir())
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskset and the gateway");
        let log = BufReader::new(process.stderr.take().expect("its log"));
        let mut lines = log.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("\"listening\"")).expect("the gateway listens");
        let fields: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        std::thread::spawn(move || lines.for_each(drop));
        let field = |name: &str| find(&fields, name).expect("an address");
        let (url, metrics) = (format!("ws://{}", field("addr")), format!("http://{}/metrics", field("admin")));
        Self { process, url, metrics }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value of a key, wherever it stands.
fn find(value: &serde_json::Value, key: &str) -> Option<String> {
    let object = value.as_object()?;
    let own = object.get(key).and_then(|found| found.as_str()).map(str::to_owned);
    own.or_else(|| object.values().find_map(|inner| find(inner, key)))
}

fn run(gateway: &Gateway, arguments: &[&str], seconds: &str) -> Report {
    let json = std::env::temp_dir().join(format!("roomcast-cost-{}.json", std::process::id()));
    let status = Command::new("taskset")
        .args(["-c", "1", env!("CARGO_BIN_EXE_loadtest")])
        .args(arguments)
        .args(["--target", &gateway.url, "--scrape", &gateway.metrics, "--workers", "1", "--max-lag", "10s"])
        .args(["--duration", seconds, "--quiet", "--json"])
        .arg(&json)
        .env_clear()
        .stdout(Stdio::null())
        .status()
        .expect("the load tester");
    assert!(status.success(), "loadtest {arguments:?} did not pass");
    let report = report::read(&json).expect("a report");
    let _ = std::fs::remove_file(&json);
    report
}

/// CPU seconds that the gateway spent in the whole seconds within the load, and the messages received in them.
fn gateway_share(report: &Report) -> (f64, f64) {
    let window = report.run.load_started_ms / 1000 + 1..report.run.load_ended_ms / 1000;
    let samples = report.servers.iter().flat_map(|server| &server.samples);
    // A sample tells of the second before it.
    let spent = samples.filter(|sample| window.contains(&(sample.at_s - 1))).map(|sample| sample.cpu).sum();
    let rows = report.series.rows.iter().filter(|row| window.contains(&row.at_s));
    let received: u64 = rows.map(|row| row.counts.get(&Count::Received).copied().unwrap_or(0)).sum();
    (spent, received as f64 / 1e6)
}

fn compare(binary: &Path, name: &str, arguments: &[&str], seconds: &str) {
    let report = run(&Gateway::start(binary), arguments, seconds);
    let (spent, millions) = gateway_share(&report);
    let received = report.count(Count::Received) as f64;
    let own = report.generators[0].load_cpu_seconds / (received / 1e6);
    let gateway = spent / millions;
    let p99 = report.histogram(&[Latency::DeliverySame]).value_at_quantile(0.99) as f64 / 1000.0;
    println!(
        "| {name} | {:.0} | {gateway:.2} | {own:.2} | {:.2} | {p99:.1} |",
        received / report.load_seconds(),
        own / gateway
    );
}

fn idle(binary: &Path, connections: u64, seconds: &str) {
    let gateway = Gateway::start(binary);
    let report = run(&gateway, &["idle", "--connections", &connections.to_string()], seconds);
    let generator = &report.generators[0];
    let own = generator.resident_connected_bytes.saturating_sub(generator.resident_before_bytes);
    println!(
        "\nidle, {connections} connections: {:.2} KiB each in the load tester",
        own as f64 / 1024.0 / connections as f64
    );
}

fn build_gateway() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--release", "--package", "roomcast-gateway"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the gateway could not be built");
    Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gateway")
}

fn main() {
    // cargo adds --bench.
    let seconds =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_else(|| "10".to_owned());
    let seconds = format!("{seconds}s");
    let gateway = build_gateway();
    println!("| load | received/s | gateway, CPU s per million | load tester, CPU s per million | ratio | p99 ms |");
    println!("|---|---|---|---|---|---|");
    let fanout = ["fanout", "--members", "1000", "--rate"];
    for rate in ["20", "80"] {
        compare(
            &gateway,
            &format!("fanout, 1000 members, {rate} a second"),
            &[&fanout[..], &[rate]].concat(),
            &seconds,
        );
    }
    let burst = ["fanout", "--members", "100", "--rate", "4000"];
    compare(&gateway, "fanout, 100 members, 4000 a second", &burst, &seconds);
    let chat = ["chat", "--rooms", "100", "--members", "20", "--rate", "50"];
    compare(&gateway, "chat, 100 rooms of 20, 50 a second each", &chat, &seconds);
    idle(&gateway, 10_000, &seconds);
}
