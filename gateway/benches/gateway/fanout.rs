//! One room, a thousand members: deliveries per server CPU second beside a bare send loop, then through Redis.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::driver::{Driver, Load, Measured, Pace, Room};
use crate::fleet::Fleet;
use crate::node::{Node, Redis};
use crate::report::{Readings, Table, count, percent, quantile, ratio, tenth};
use crate::sendloop::{Order, SendLoop};
use crate::{Options, WINDOWS};

/// Members of the room.
pub const MEMBERS: usize = 1000;
/// Members whose order and delay are checked.
const CHECKED: usize = 8;
const WARM_UP: Duration = Duration::from_millis(400);

/// A room of `members` on a node; the member in the middle publishes.
pub fn one_room(node: &Node, members: usize) -> Result<Driver> {
    let mut fleet = Fleet::new()?;
    fleet.open(node.address, &vec!["/ws/fanout".to_owned(); members], 1)?;
    let middle = members / 2;
    let room = Room::new("fanout".into(), middle, middle, members);
    Ok(Driver::new(fleet, vec![room], &spread(members)))
}

/// Members whose order is checked: eight, evenly over the room.
pub fn spread(members: usize) -> Vec<(usize, usize)> {
    (0..CHECKED).map(|index| (index * members / CHECKED, 0)).collect()
}

/// Windows one after the other.
pub fn closed(window: usize, length: Duration) -> Load {
    Load { pace: Pace::Closed, window, acks: false, warm_up: WARM_UP, length }
}

#[derive(Default)]
struct Row {
    frames: Readings,
    frame_bytes: Readings,
    gateway: Readings,
    bare: Readings,
    ratio: Readings,
    p50: Readings,
    p99: Readings,
    rate: Readings,
    client: Readings,
}

impl Row {
    fn cells(&self, name: String) -> Vec<String> {
        let times = |value: f64| format!("{:.1}", value / 1000.0);
        vec![
            name,
            tenth(self.frames.median()),
            format!("{:.0}", self.frame_bytes.median()),
            self.gateway.show(count),
            self.bare.show(count),
            self.ratio.show(ratio),
            times(self.p50.median()),
            times(self.p99.median()),
            count(self.rate.median()),
            format!("{:.0}%", self.client.median()),
        ]
    }

    fn json(&self, window: usize) -> Value {
        json!({
            "window": window, "frames_per_write": self.frames.json(), "frame_bytes": self.frame_bytes.json(),
            "deliveries_per_cpu_second": self.gateway.json(), "bare": self.bare.json(), "ratio": self.ratio.json(),
            "p50_us": self.p50.json(), "p99_us": self.p99.json(), "deliveries_per_second": self.rate.json(),
            "client_cpu_percent": self.client.json(),
        })
    }

    fn add(&mut self, run: &Measured, frames: f64) {
        let messages = run.totals.messages as f64;
        self.frames.push(frames);
        self.frame_bytes.push(run.totals.bytes as f64 / messages);
        self.p50.push(quantile(&run.latencies, 0.5));
        self.p99.push(quantile(&run.latencies, 0.99));
        self.rate.push(messages / run.wall.as_secs_f64());
        self.client.push(percent(run.client_cpu, run.wall));
        let cpu: Duration = run.cpu.iter().sum();
        self.gateway.push(messages / cpu.as_secs_f64());
    }
}

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    Ok(
        json!({ "memory": memory(options)?, "redis": if options.redis { through_redis(options)? } else { Value::Null } }),
    )
}

fn memory(options: &Options) -> Result<Value> {
    let node = Node::start(&options.gateway, None)?;
    let mut driver = one_room(&node, MEMBERS)?;
    let mut bare = SendLoop::start(MEMBERS)?;
    let mut rows: Vec<Row> = WINDOWS.iter().map(|_| Row::default()).collect();
    for _ in 0..options.rounds {
        for (row, &window) in rows.iter_mut().zip(&WINDOWS) {
            let writes = FramesPerWrite::begin(&node);
            let run = driver.run(&closed(window, options.length), &[&node.process])?;
            let frames = writes.end(&node, &run);
            row.add(&run, frames);
            let frame_bytes = (run.totals.bytes as f64 / run.totals.messages as f64).round() as u32;
            let frames = frames.round().max(1.0) as u32;
            let order = Order { frames, frame_bytes, first: 0, count: MEMBERS as u32 };
            let beside = bare.run(order, MEMBERS as u32 / 2, WARM_UP, options.length)?;
            let (own, other) = (run.totals.messages as f64 / run.cpu[0].as_secs_f64(), beside.per_cpu_second());
            row.bare.push(other);
            row.ratio.push(own / other);
        }
    }
    let title = format!("fanout, memory broker: 1 room x {MEMBERS} members, 128 bytes of data");
    let mut table = Table::new(title, &HEADER);
    rows.iter().zip(&WINDOWS).for_each(|(row, window)| table.row(row.cells(window.to_string())));
    table.print();
    println!("disordered or repeated on {CHECKED} checked members: {}", driver.disordered);
    let rows: Vec<Value> = rows.iter().zip(WINDOWS).map(|(row, window)| row.json(window)).collect();
    Ok(json!({ "rows": rows, "disordered": driver.disordered, "target_ratio": 0.85 }))
}

const HEADER: [&str; 10] = [
    "window",
    "frames/write",
    "frame bytes",
    "deliveries/CPU-s",
    "bare loop",
    "ratio",
    "p50 ms",
    "p99 ms",
    "deliveries/s",
    "client CPU",
];

/// Frames per write as the node counts them; as the client's reads show them where it does not.
pub struct FramesPerWrite(Option<(f64, f64)>);

impl FramesPerWrite {
    const NAME: &str = "roomcast_frames_per_write";

    pub fn begin(node: &Node) -> Self {
        Self(Self::scrape(node))
    }

    pub fn end(&self, node: &Node, run: &Measured) -> f64 {
        match self.0.zip(Self::scrape(node)) {
            Some(((frames, writes), (later_frames, later_writes))) if later_writes > writes => {
                (later_frames - frames) / (later_writes - writes)
            }
            _ => run.totals.messages as f64 / run.totals.reads.max(1) as f64,
        }
    }

    fn scrape(node: &Node) -> Option<(f64, f64)> {
        // Workers publish their counts every 250 ms.
        std::thread::sleep(Duration::from_millis(300));
        node.metric(&format!("{}_sum", Self::NAME)).zip(node.metric(&format!("{}_count", Self::NAME)))
    }
}

/// The publisher on one node, the members on another; the window is counted by a member.
fn through_redis(options: &Options) -> Result<Value> {
    let redis = Redis::start()?;
    let near = Node::start(&options.gateway, Some(&redis))?;
    let far = Node::start(&options.gateway, Some(&redis))?;
    let mut fleet = Fleet::new()?;
    fleet.open(far.address, &vec!["/ws/fanout".to_owned(); MEMBERS], 1)?;
    fleet.open(near.address, &["/ws/fanout".to_owned()], 1)?;
    let room = Room::new("fanout".into(), MEMBERS, MEMBERS / 2, MEMBERS + 1);
    let mut driver = Driver::new(fleet, vec![room], &spread(MEMBERS));
    let mut rows: Vec<(Row, [Readings; 3])> = WINDOWS.iter().map(|_| (Row::default(), Default::default())).collect();
    for _ in 0..options.rounds {
        for ((row, shares), &window) in rows.iter_mut().zip(&WINDOWS) {
            let writes = FramesPerWrite::begin(&far);
            let watched = [&near.process, &far.process, &redis.process];
            let run = driver.run(&closed(window, options.length), &watched)?;
            row.add(&run, writes.end(&far, &run));
            let messages = run.totals.messages as f64;
            shares.iter_mut().zip(&run.cpu).for_each(|(share, cpu)| share.push(cpu.as_secs_f64() * 1e6 / messages));
        }
    }
    let header = [
        "window",
        "frames/write",
        "deliveries/CPU-s, all three",
        "members' node",
        "publisher's node us",
        "members' node us",
        "redis us",
        "p50 ms",
        "p99 ms",
        "deliveries/s",
    ];
    let mut table = Table::new(
        "fanout through Redis: publisher on one node, 1000 members on another; CPU us per delivery",
        &header,
    );
    let mut out = Vec::new();
    for ((row, shares), window) in rows.iter().zip(WINDOWS) {
        let micros = |share: &Readings| format!("{:.3}", share.median());
        let alone = 1e6 / shares.get(1).context("three shares")?.median();
        table.row(vec![
            window.to_string(),
            tenth(row.frames.median()),
            row.gateway.show(count),
            count(alone),
            micros(&shares[0]),
            micros(&shares[1]),
            micros(&shares[2]),
            tenth(row.p50.median() / 1e3),
            tenth(row.p99.median() / 1e3),
            count(row.rate.median()),
        ]);
        let us: Vec<Value> = shares.iter().map(Readings::json).collect();
        out.push(json!({ "row": row.json(window), "cpu_us_publisher_node_members_node_redis": us }));
    }
    table.print();
    println!("disordered or repeated on {CHECKED} checked members: {}", driver.disordered);
    Ok(json!({ "rows": out, "disordered": driver.disordered }))
}
