//! Durable publishing through Redis: messages a second, CPU of node and Redis, beside the same script driven bare.
//!
//! Redis has the server's CPU to itself; the node shares the other one with the client, and the bare client has that
//! one alone. So two ratios are shown: what was reached that way, and what is reached when Redis gets half of its CPU
//! in both runs, so that it is Redis that limits, as it does where node and Redis have a core each.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Options;
use crate::busy;
use crate::driver::{Driver, Load, Measured, Pace, Room};
use crate::fleet::Fleet;
use crate::node::{Node, Redis};
use crate::process::{CLIENT_CPU, Process, SERVER_CPU};
use crate::report::{Readings, Table, count, percent, quantile, ratio, tenth};
use crate::script::{self, Calls, ScriptMeasured};

/// Rooms with a publisher each, and messages of each publisher in flight.
const CASES: [(usize, usize); 6] = [(1, 1), (32, 1), (256, 1), (32, 16), (32, 64), (256, 16)];
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Default)]
struct Row {
    per_call: Readings,
    reached: Readings,
    bare: Readings,
    ratio: Readings,
    held: Readings,
    ratio_held: Readings,
    node_us: Readings,
    redis_us: Readings,
    bare_client_us: Readings,
    bare_redis_us: Readings,
    p50: Readings,
    client: Readings,
}

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    if !options.redis {
        return Ok(Value::Null);
    }
    let redis = Redis::start()?;
    let node = Node::start_on(CLIENT_CPU, &options.gateway, Some(&redis))?;
    let mut drivers = Vec::new();
    for (case, &(rooms, _)) in CASES.iter().enumerate() {
        drivers.push(join(&node, case, rooms)?);
    }
    let mut rows: Vec<Row> = CASES.iter().map(|_| Row::default()).collect();
    for _ in 0..options.rounds_of_many() {
        for (case, (row, driver)) in rows.iter_mut().zip(&mut drivers).enumerate() {
            let (rooms, window) = CASES[case];
            let load = Load { pace: Pace::Closed, window, acks: true, warm_up: WARM_UP, length: options.length };
            let (calls, sent) = (redis.script_calls()?, driver.sent());
            let run = driver.run(&load, &[&node.process, &redis.process])?;
            let held = {
                let _busy = busy()?;
                reached(&driver.run(&load, &[&node.process, &redis.process])?, window)
            };
            let calls = redis.script_calls()? - calls;
            let per_call = (driver.sent() - sent) as f64 / calls.max(1) as f64;
            let messages = per_call.round().max(1.0) as usize;
            let beside = Calls { rooms, messages, record_bytes: record_bytes(&redis, case)? };
            let bare = script::run(&redis, beside, WARM_UP, options.length)?;
            let bare_held = {
                let _busy = busy()?;
                script::run(&redis, beside, WARM_UP, options.length)?
            };
            row.add(&run, window, per_call, bare);
            row.held.push(held);
            row.ratio_held.push(held / bare_held.messages_per_second);
        }
    }
    print(&rows);
    let errors: u64 = drivers.iter().map(|driver| driver.fleet.totals.errors).sum();
    println!("errors: {errors}");
    let json = |(row, (rooms, window)): (&Row, (usize, usize))| {
        json!({
            "rooms": rooms, "window": window, "messages_per_call": row.per_call.json(), "messages_per_second": row.reached.json(),
            "bare": row.bare.json(), "ratio": row.ratio.json(), "held": row.held.json(), "ratio_held": row.ratio_held.json(),
            "node_us": row.node_us.json(), "redis_us": row.redis_us.json(), "bare_client_us": row.bare_client_us.json(),
            "bare_redis_us": row.bare_redis_us.json(), "ack_p50_us": row.p50.json(),
        })
    };
    Ok(json!({ "rows": rows.iter().zip(CASES).map(json).collect::<Vec<_>>(), "errors": errors, "target_ratio": 0.8 }))
}

/// Takes half of Redis' CPU while it lives.
fn busy() -> Result<Process> {
    let program = std::env::current_exe().context("finding this program")?;
    Process::spawn(SERVER_CPU, &program, &[busy::SUBCOMMAND.to_owned()])
}

/// Messages acknowledged a second.
fn reached(run: &Measured, window: usize) -> f64 {
    (run.totals.acks * window as u64) as f64 / run.wall.as_secs_f64()
}

fn room(case: usize, index: usize) -> String {
    format!("publish-{case}-{index}")
}

fn join(node: &Node, case: usize, rooms: usize) -> Result<Driver> {
    let mut fleet = Fleet::new()?;
    let paths: Vec<String> = (0..rooms).map(|index| format!("/ws/{}", room(case, index))).collect();
    fleet.open(node.address, &paths, 1)?;
    let rooms = (0..rooms).map(|index| Room::new(room(case, index), index, index, 1)).collect();
    Ok(Driver::new(fleet, rooms, &[]))
}

/// The mean size of a stored record: what the last entry of a room's stream holds after its header line.
fn record_bytes(redis: &Redis, case: usize) -> Result<usize> {
    type Entries = Vec<(String, Vec<Vec<u8>>)>;
    let key = format!("rc:{{{}}}:s", room(case, 0));
    let entries: Entries =
        redis::cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1).query(&mut redis.connect()?)?;
    let envelope = entries.first().and_then(|(_, fields)| fields.get(1)).context("nothing is stored")?;
    let header = envelope.iter().position(|&byte| byte == b'\n').context("no header line")?;
    let count = envelope[..header].rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let count: usize = std::str::from_utf8(count)?.parse().context("no count in the header line")?;
    Ok((envelope.len() - header - 1) / count.max(1))
}

impl Row {
    fn add(&mut self, run: &Measured, window: usize, per_call: f64, bare: ScriptMeasured) {
        let messages = (run.totals.acks * window as u64) as f64;
        let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages;
        let (node, redis) = (us(run.cpu[0]), us(run.cpu[1]));
        let reached = reached(run, window);
        self.per_call.push(per_call);
        self.reached.push(reached);
        self.bare.push(bare.messages_per_second);
        self.ratio.push(reached / bare.messages_per_second);
        self.node_us.push(node);
        self.redis_us.push(redis);
        self.bare_client_us.push(bare.client_us);
        self.bare_redis_us.push(bare.redis_us);
        self.p50.push(quantile(&run.latencies, 0.5));
        self.client.push(percent(run.client_cpu, run.wall));
    }
}

fn print(rows: &[Row]) {
    let header = [
        "rooms x window",
        "messages/call",
        "messages/s",
        "bare script",
        "ratio",
        "Redis held: messages/s",
        "Redis held: ratio",
        "node us",
        "redis us",
        "bare client us",
        "bare redis us",
        "ack p50 ms",
        "client CPU",
    ];
    let mut table = Table::new("durable publish through Redis; CPU us per message", &header);
    for (row, (rooms, window)) in rows.iter().zip(CASES) {
        let micros = |us: &Readings| format!("{:.2}", us.median());
        table.row(vec![
            format!("{rooms} x {window}"),
            tenth(row.per_call.median()),
            row.reached.show(count),
            row.bare.show(count),
            row.ratio.show(ratio),
            row.held.show(count),
            row.ratio_held.show(ratio),
            micros(&row.node_us),
            micros(&row.redis_us),
            micros(&row.bare_client_us),
            micros(&row.bare_redis_us),
            tenth(row.p50.median() / 1000.0),
            format!("{:.0}%", row.client.median()),
        ]);
    }
    table.print();
}
