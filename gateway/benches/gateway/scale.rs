//! Server CPU per delivery as rooms, members and nodes grow, with one publish in flight at a time, so
//! that every shape has the same frames per write.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Options;
use crate::driver::{Driver, Load, Measured, Pace, Room};
use crate::fanout::FramesPerWrite;
use crate::fleet::Fleet;
use crate::node::{Node, Redis};
use crate::report::{Readings, Table, count, ratio, tenth};
use crate::sendloop::{Order, SendLoop};

/// Frames per write: a window is published in one write.
const WINDOW: usize = 16;
/// How long one reading takes in the short form.
const LENGTH: Duration = Duration::from_secs(1);
/// Connections of one run at most.
const CONNECTIONS: usize = 10_000;
/// The bare loop's at most: together they must stay below a limit of 20,000 files.
const BARE_CONNECTIONS: usize = 9000;

/// One shape of the same load.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rooms: usize,
    members: usize,
    nodes: usize,
}

struct Row {
    shape: Shape,
    connections: usize,
    frames: f64,
    rate: f64,
    cost: Readings,
    bare: Readings,
    over_bare: Readings,
    redis: Readings,
}

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    let shape = |rooms, members| Shape { rooms, members, nodes: 0 };
    let rooms = [1, 10, 100, 1000, 10_000].map(|rooms| shape(rooms, 10));
    let members = [10, 100, 1000, 5000].map(|members| shape(1, members));
    let nodes = [1, 2, 3].map(|nodes| Shape { rooms: 1, members: 900, nodes });
    let mut out = serde_json::Map::new();
    out.insert("rooms".into(), series("scale: rooms of 10 members", &rooms, options)?);
    out.insert("members".into(), series("scale: members of one room", &members, options)?);
    if options.redis {
        out.insert("nodes".into(), series("scale: nodes behind one Redis, one room", &nodes, options)?);
    }
    Ok(Value::Object(out))
}

fn series(title: &str, shapes: &[Shape], options: &Options) -> Result<Value> {
    let mut rows = Vec::new();
    for &shape in shapes {
        rows.push(measure(shape, options)?);
    }
    let header = [
        "rooms",
        "members",
        "nodes",
        "connections",
        "frames/write",
        "deliveries/s",
        "CPU us/delivery",
        "bare loop",
        "over bare",
        "redis",
        "to first",
    ];
    let mut table = Table::new(format!("{title}, {WINDOW} messages a publish, one publish at a time"), &header);
    let first = rows.first().context("a shape")?.cost.median();
    for row in &rows {
        let micros = |cost: &Readings| cost.show(|value| format!("{value:.3}"));
        table.row(vec![
            row.shape.rooms.to_string(),
            row.shape.members.to_string(),
            row.shape.nodes.max(1).to_string(),
            row.connections.to_string(),
            tenth(row.frames),
            count(row.rate),
            micros(&row.cost),
            micros(&row.bare),
            row.over_bare.show(ratio),
            micros(&row.redis),
            ratio(row.cost.median() / first),
        ]);
    }
    table.print();
    let json = |row: &Row| {
        json!({
            "rooms": row.shape.rooms, "members": row.shape.members, "nodes": row.shape.nodes.max(1),
            "connections": row.connections, "frames_per_write": row.frames, "deliveries_per_second": row.rate,
            "cpu_us_per_delivery": row.cost.json(), "bare": row.bare.json(), "over_bare": row.over_bare.json(), "redis": row.redis.json(),
        })
    };
    Ok(rows.iter().map(json).collect())
}

fn measure(shape: Shape, options: &Options) -> Result<Row> {
    let redis = if shape.nodes > 0 { Some(Redis::start()?) } else { None };
    let start = |_| Node::start(&options.gateway, redis.as_ref());
    let nodes = (0..shape.nodes.max(1)).map(start).collect::<Result<Vec<Node>>>()?;
    let mut driver = join(shape, &nodes)?;
    let connections = driver.fleet.len();
    let mut bare = SendLoop::start(connections.min(BARE_CONNECTIONS))?;
    let mut row = Row {
        shape,
        connections,
        frames: 0.0,
        rate: 0.0,
        cost: Readings::default(),
        bare: Readings::default(),
        over_bare: Readings::default(),
        redis: Readings::default(),
    };
    let length = if options.long { options.length } else { LENGTH };
    let load = Load { pace: Pace::Serial, window: WINDOW, acks: false, warm_up: length / 4, length };
    for _ in 0..options.rounds_of_many() {
        let mut watched: Vec<_> = nodes.iter().map(|node| &node.process).collect();
        watched.extend(redis.as_ref().map(|redis| &redis.process));
        let writes = FramesPerWrite::begin(&nodes[0]);
        let run = driver.run(&load, &watched)?;
        row.frames = writes.end(&nodes[0], &run);
        row.rate = run.totals.messages as f64 / run.wall.as_secs_f64();
        let cost = |cpu: &[Duration]| cpu.iter().sum::<Duration>().as_secs_f64() * 1e6 / run.totals.messages as f64;
        let own = cost(&run.cpu[..nodes.len()]);
        row.cost.push(own);
        if redis.is_some() {
            row.redis.push(cost(&run.cpu[nodes.len()..]));
        }
        let bare = beside(&mut bare, shape, &run, row.frames, length)?;
        row.bare.push(bare);
        row.over_bare.push(own / bare);
    }
    Ok(row)
}

/// The bare loop, with the same bytes to groups of the same size.
fn beside(bare: &mut SendLoop, shape: Shape, run: &Measured, frames: f64, length: Duration) -> Result<f64> {
    let frame_bytes = (run.totals.bytes as f64 / run.totals.messages as f64).round() as u32;
    let count = shape.members as u32;
    let order = Order { frames: frames.round().max(1.0) as u32, frame_bytes, first: 0, count };
    Ok(1e6 / bare.run(order, count - 1, length / 4, length)?.per_cpu_second())
}

/// Joins everyone: each connection in one room, or in as many as it takes to stay below the limit of connections.
fn join(shape: Shape, nodes: &[Node]) -> Result<Driver> {
    let connections = (shape.rooms * shape.members).min(CONNECTIONS);
    let each = shape.rooms * shape.members / connections;
    let groups = connections / shape.members;
    let mut fleet = Fleet::new()?;
    // Room r belongs to the group of connections r % groups; a group's connections are spread over the nodes.
    let path = |connection: usize| {
        let group = connection / shape.members;
        let rooms: Vec<String> = (0..each).map(|step| format!("room=scale-{}", group + step * groups)).collect();
        format!("/ws?{}", rooms.join("&"))
    };
    let mut order = Vec::with_capacity(connections);
    for (index, node) in nodes.iter().enumerate() {
        let own: Vec<usize> = (index..connections).step_by(nodes.len()).collect();
        fleet.open(node.address, &own.iter().map(|&connection| path(connection)).collect::<Vec<_>>(), each as u64)?;
        order.extend(own);
    }
    let mut place = vec![0; connections];
    order.iter().enumerate().for_each(|(at, &connection)| place[connection] = at);
    let room = |index: usize| {
        let first = index % groups * shape.members;
        // The last member is on the last node: its messages have gone all the way.
        let (publisher, pacer) = (place[first + shape.members / 2], place[first + shape.members - 1]);
        Room::new(format!("scale-{index}"), publisher, pacer, shape.members)
    };
    let rooms = (0..shape.rooms).map(room).collect();
    Ok(Driver::new(fleet, rooms, &[(place[0], 0), (place[connections - 1], groups - 1)]))
}
