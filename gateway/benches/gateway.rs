//! The gateway's benchmarks: real processes, real sockets, loopback, one CPU for the server and one for the client.
//!
//! `cargo bench --bench gateway -- [fanout] [overload] [idle] [publish] [scale] [slow-consumer] [extras] [--long] [--rounds N]
//! [--no-redis] [--gateway PROGRAM] [--json FILE]`; without names all run. Only ratios within one run mean anything on a shared machine.

#![allow(clippy::print_stdout)]

#[path = "gateway/busy.rs"]
mod busy;
#[path = "gateway/driver.rs"]
mod driver;
#[path = "gateway/extras.rs"]
mod extras;
#[path = "gateway/fanout.rs"]
mod fanout;
#[path = "gateway/fleet.rs"]
mod fleet;
#[path = "gateway/idle.rs"]
mod idle;
#[path = "gateway/message.rs"]
mod message;
#[path = "gateway/node.rs"]
mod node;
#[path = "gateway/overload.rs"]
mod overload;
#[path = "gateway/plain.rs"]
mod plain;
#[path = "gateway/process.rs"]
mod process;
#[path = "gateway/publish.rs"]
mod publish;
#[path = "gateway/report.rs"]
mod report;
#[path = "gateway/scale.rs"]
mod scale;
#[path = "gateway/script.rs"]
mod script;
#[path = "gateway/sendloop.rs"]
mod sendloop;
#[path = "gateway/slow_consumer.rs"]
mod slow_consumer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// Messages in flight, where the window varies.
pub const WINDOWS: [usize; 3] = [1, 16, 64];

/// What was asked for on the command line.
pub struct Options {
    pub gateway: PathBuf,
    pub long: bool,
    pub redis: bool,
    /// Readings of each figure.
    pub rounds: usize,
    /// How long one reading takes, without its warm-up.
    pub length: Duration,
    json: PathBuf,
    names: Vec<String>,
}

impl Options {
    /// Readings of each figure in benchmarks with many cases: fewer in the short form.
    pub fn rounds_of_many(&self) -> usize {
        if self.long { self.rounds } else { self.rounds.min(2) }
    }
}

type Benchmark = (&'static str, fn(&Options) -> Result<Value>);
const ALL: [Benchmark; 7] = [
    ("fanout", fanout::run),
    ("overload", overload::run),
    ("idle", idle::run),
    ("publish", publish::run),
    ("scale", scale::run),
    ("slow-consumer", slow_consumer::run),
    ("extras", extras::run),
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(sendloop::SUBCOMMAND) => sendloop::serve(args.get(1).context("how many connections")?.parse()?),
        Some(plain::SUBCOMMAND) => plain::serve(),
        Some(busy::SUBCOMMAND) => busy::spin(),
        _ => measure(&options(&args)?),
    }
}

fn measure(options: &Options) -> Result<()> {
    process::pin_self(process::CLIENT_CPU)?;
    let mut results = Map::new();
    let mut failed = 0;
    for (name, run) in
        ALL.iter().filter(|(name, _)| options.names.is_empty() || options.names.iter().any(|n| n == name))
    {
        let begin = Instant::now();
        match run(options) {
            Ok(value) => results.insert((*name).to_owned(), value),
            Err(error) => {
                failed += 1;
                println!("\n{name} failed: {error:#}");
                results.insert((*name).to_owned(), Value::String(format!("failed: {error:#}")))
            }
        };
        println!("({name}: {:.0} s)", begin.elapsed().as_secs_f64());
    }
    std::fs::write(&options.json, serde_json::to_string_pretty(&results)?).context("writing the results")?;
    println!("\nresults: {}", options.json.display());
    if failed > 0 {
        bail!("{failed} benchmarks failed");
    }
    Ok(())
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        gateway: env!("CARGO_BIN_EXE_gateway").into(),
        long: false,
        redis: true,
        rounds: 0,
        length: Duration::ZERO,
        json: concat!(env!("CARGO_TARGET_TMPDIR"), "/gateway-bench.json").into(),
        names: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--long" => options.long = true,
            "--no-redis" => options.redis = false,
            "--rounds" => options.rounds = value()?.parse()?,
            "--gateway" => options.gateway = value()?.into(),
            "--json" => options.json = value()?.into(),
            name if ALL.iter().any(|(known, _)| *known == name) => options.names.push(name.to_owned()),
            other => bail!(
                "unknown argument {other}: expected benchmark names, --long, --no-redis, --rounds, --gateway or --json"
            ),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.long { 7 } else { 3 };
    }
    options.length = Duration::from_millis(if options.long { 4000 } else { 1500 });
    Ok(options)
}
