//! Writes a made-up report as JSON, so that what draws reports can be looked at without a cluster:
//! `cargo run -p roomcast-loadtest --example sample_report -- [passed|failed|invalid] > report.json`, then
//! `loadtest merge report.json --html report.html`.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "an example")]

#[path = "../src/report/sample.rs"]
mod sample;

use std::io::Write as _;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "passed".to_owned());
    let Some(story) = sample::Story::named(&name) else {
        eprintln!("one of passed, failed, invalid");
        std::process::exit(2);
    };
    let report = sample::sample(story);
    roomcast_loadtest::report::summary(&report, &mut std::io::stderr()).expect("stderr");
    let json = serde_json::to_vec(&report).expect("plain data");
    std::io::stdout().write_all(&json).expect("stdout");
}
