//! An open loop offers three times what the node takes: nothing may collapse, grow or get lost.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Options;
use crate::driver::{Driver, Load, Measured, Pace, Room};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::report::{Table, count, kib, percent, quantile, ratio, tenth};

const MEMBERS: usize = 1000;
/// Members that publish.
const PUBLISHERS: usize = 4;
/// How much more is offered than was taken in the closed loop before.
const FACTOR: f64 = 3.0;
/// Messages in flight of each publisher in the closed loop: enough that more would not be faster.
const CLOSED_WINDOW: usize = 256;
/// Messages of one write: a publisher in a hurry, not one that batches.
const CHUNK: usize = 16;
/// What the client's kernel holds back per publisher: without a bound, the delay measured would be its own.
const SEND_BUFFER: usize = 16 * 1024;

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    let node = Node::start(&options.gateway, None)?;
    let mut fleet = Fleet::new()?;
    fleet.open(node.address, &vec!["/ws/overload".to_owned(); MEMBERS], 1)?;
    // One entry per publisher: each counts its own messages.
    let streams = (0..PUBLISHERS).map(|index| {
        let publisher = index * MEMBERS / PUBLISHERS + MEMBERS / PUBLISHERS / 2;
        Room::new("overload".into(), publisher, publisher, MEMBERS)
    });
    let rooms: Vec<Room> = streams.collect();
    for room in &rooms {
        fleet.bound_send_buffer(room.publisher, SEND_BUFFER)?;
    }
    let checked: Vec<(usize, usize)> = (0..8).map(|index| (index * MEMBERS / 8, index % PUBLISHERS)).collect();
    let mut driver = Driver::new(fleet, rooms, &checked);

    let warm_up = Duration::from_millis(500);
    let load = |pace, window, length| Load { pace, window, acks: false, warm_up, length };
    let closed = load(Pace::Closed, CLOSED_WINDOW, options.length);
    let taken = driver.run(&closed, &[&node.process])?;
    let per_second = taken.sent as f64 / taken.wall.as_secs_f64();
    let offered = per_second * FACTOR;
    let open = load(Pace::Open(offered / PUBLISHERS as f64), CHUNK, options.length * 3);
    let over = driver.run(&open, &[&node.process]);

    let mut table = Table::new(
        format!(
            "overload: 1 room x {MEMBERS} members, {PUBLISHERS} publishers, {FACTOR} times what the closed loop takes"
        ),
        &HEADER,
    );
    table.row(row("closed loop", per_second, &taken));
    if let Ok(over) = &over {
        table.row(row("open loop", offered, over));
    }
    table.print();
    let closed_connections = driver.fleet.totals.closed;
    let said = driver.fleet.first_error.as_deref().unwrap_or("-");
    println!(
        "connections lost: {closed_connections}; disordered: {}; errors: {}; the server said: {said}",
        driver.disordered, driver.fleet.totals.errors
    );
    let over = over?;
    let kept = rate(&over) / rate(&taken);
    println!("deliveries kept under overload: {}", ratio(kept));
    Ok(json!({
        "offered_per_second": offered, "closed": figures(&taken), "open": figures(&over), "kept": kept,
        "connections_lost": closed_connections, "disordered": driver.disordered, "said": said,
    }))
}

const HEADER: [&str; 9] = [
    "load",
    "offered msg/s",
    "sent msg/s",
    "deliveries/s",
    "server CPU",
    "accepted->delivered p50 / p99 ms",
    "written->delivered p99 ms",
    "RSS max",
    "client CPU",
];

fn rate(run: &Measured) -> f64 {
    run.totals.messages as f64 / run.wall.as_secs_f64()
}

fn row(name: &str, offered: f64, run: &Measured) -> Vec<String> {
    let accepted = |share| quantile(&run.since_accepted, share);
    vec![
        name.into(),
        count(offered),
        count(run.sent as f64 / run.wall.as_secs_f64()),
        count(rate(run)),
        format!("{:.0}%", percent(run.cpu[0], run.wall)),
        format!("{:.0} / {:.0}", accepted(0.5), accepted(0.99)),
        tenth(quantile(&run.latencies, 0.99) / 1000.0),
        kib(run.rss_max as f64),
        format!("{:.0}%", percent(run.client_cpu, run.wall)),
    ]
}

fn figures(run: &Measured) -> Value {
    json!({
        "sent_per_second": run.sent as f64 / run.wall.as_secs_f64(), "deliveries_per_second": rate(run),
        "accepted_to_delivered_ms_p50": quantile(&run.since_accepted, 0.5),
        "accepted_to_delivered_ms_p99": quantile(&run.since_accepted, 0.99),
        "written_to_delivered_us_p99": quantile(&run.latencies, 0.99), "rss_max": run.rss_max,
    })
}
