//! Resident memory per idle connection, beside plain hyper + fastwebsockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::node::Node;
use crate::process::{Process, SERVER_CPU};
use crate::report::{Table, kib, ratio};
use crate::{Options, plain};

const CONNECTIONS: usize = 10_000;
const ROOM: usize = 10;

struct Idle {
    before: u64,
    after: u64,
    /// Server CPU for opening them all, per connection.
    open_us: f64,
}

impl Idle {
    fn per_connection(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / CONNECTIONS as f64
    }
}

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    // Closed before the other begins: the client could not hold both under a limit of 20,000 files.
    let gateway = {
        let node = Node::start(&options.gateway, None)?;
        let paths: Vec<String> = (0..CONNECTIONS).map(|index| format!("/ws/idle-{}", index / ROOM)).collect();
        hold(&node.process, node.address, &paths, 1, options)?
    };
    let beside = {
        let program = std::env::current_exe().context("finding this program")?;
        let mut process = Process::spawn(SERVER_CPU, &program, &[plain::SUBCOMMAND.to_owned()])?;
        let address = process.listener(Ipv4Addr::LOCALHOST)?;
        hold(&process, address, &vec!["/".to_owned(); CONNECTIONS], 0, options)?
    };
    let title = format!("idle: {CONNECTIONS} connections, the gateway's in rooms of {ROOM}");
    let mut table = Table::new(title, &["server", "RSS/connection", "RSS before", "RSS after", "CPU us to open one"]);
    for (name, idle) in [("gateway", &gateway), ("hyper + fastwebsockets", &beside)] {
        let cells = [kib(idle.per_connection()), kib(idle.before as f64), kib(idle.after as f64)];
        table.row([name.to_owned()].into_iter().chain(cells).chain([format!("{:.0}", idle.open_us)]).collect());
    }
    table.print();
    let share = gateway.per_connection() / beside.per_connection();
    println!("gateway / plain: {}", ratio(share));
    Ok(json!({
        "connections": CONNECTIONS, "room": ROOM, "gateway_bytes": gateway.per_connection(),
        "plain_bytes": beside.per_connection(), "ratio": share, "target_bytes": 2048,
        "gateway_rss": gateway.after, "plain_rss": beside.after,
    }))
}

fn hold(process: &Process, address: SocketAddr, paths: &[String], joins: u64, options: &Options) -> Result<Idle> {
    let (before, cpu) = (process.rss()?, process.cpu()?);
    let mut fleet = Fleet::new()?;
    fleet.open(address, paths, joins)?;
    let open_us = process.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / paths.len() as f64;
    let after = settle(process, &mut fleet, options)?;
    if fleet.totals.closed > 0 {
        bail!("{} connections closed while idle: {:?}", fleet.totals.closed, fleet.first_error);
    }
    Ok(Idle { before, after, open_us })
}

/// Reads the memory once it has stood still for a while, answering pings meanwhile.
fn settle(process: &Process, fleet: &mut Fleet, options: &Options) -> Result<u64> {
    let (begin, still) = (Instant::now(), if options.long { 35 } else { 4 });
    let (still, at_most) = (Duration::from_secs(still), Duration::from_secs(still * 3));
    let (mut rss, mut since) = (process.rss()?, Instant::now());
    while since.elapsed() < still && begin.elapsed() < at_most {
        let look = Instant::now() + Duration::from_millis(500);
        while let Some(left) = look.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            fleet.turn(Some(left), |_, _, _| {})?;
        }
        let now = process.rss()?;
        if now.abs_diff(rss) > rss / 200 {
            (rss, since) = (now, Instant::now());
        }
    }
    process.rss()
}
