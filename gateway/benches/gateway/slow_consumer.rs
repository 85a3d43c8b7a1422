//! What a member that reads a kilobyte a second costs the others: the p99 of their deliveries with it and without it, in
//! pairs of readings.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::Options;
use crate::driver::{Driver, Load, Pace, Room};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::report::{Readings, Table, quantile, ratio, tenth};

const MEMBERS: usize = 1000;
/// Members whose deliveries are timed.
const CHECKED: usize = 16;
/// Messages a second, and of them in one write: enough that the slow one's queue is full within a reading.
const RATE: f64 = 400.0;
const WINDOW: usize = 16;
/// What its kernel takes before the node's has to wait.
const RECEIVE_BUFFER: usize = 4096;
/// Segments as on a real network. With those of loopback, 64 KiB each, the node's kernel takes some megabytes.
const SEGMENT: u32 = 1400;
const CLOSED: &str = "roomcast_slow_consumers_total";

const HEADER: [&str; 7] = [
    "p99 ms without",
    "p99 ms with one",
    "p99 with / without",
    "server CPU with / without",
    "slow ones closed",
    "others closed",
    "disordered",
];

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    let node = Node::start(&options.gateway, None)?;
    let mut fleet = Fleet::new()?;
    fleet.open(node.address, &vec!["/ws/slow".to_owned(); MEMBERS], 1)?;
    let publisher = MEMBERS / 2;
    let rooms = vec![Room::new("slow".into(), publisher, publisher, MEMBERS)];
    let checked: Vec<(usize, usize)> = (0..CHECKED).map(|index| (index * MEMBERS / CHECKED, 0)).collect();
    let mut driver = Driver::new(fleet, rooms, &checked);
    let load = Load {
        pace: Pace::Open(RATE),
        window: WINDOW,
        acks: false,
        warm_up: Duration::from_millis(300),
        length: options.length * 2,
    };
    let closed_before = node.metric(CLOSED).unwrap_or_default();
    let pairs = options.rounds * 3;
    let (mut p99, mut ratios) = ([Readings::default(), Readings::default()], Readings::default());
    let mut costs = Readings::default();
    for pair in 0..pairs {
        let (mut both, mut cpu) = ([0.0; 2], [0.0; 2]);
        // In turns, so that what the machine does meanwhile hits both alike.
        for place in 0..2 {
            let with = (pair + place) % 2;
            let slow = (with == 1).then(|| Slow::join(node.address)).transpose()?;
            let measured = driver.run(&load, &[&node.process])?;
            drop(slow);
            both[with] = quantile(&measured.latencies, 0.99) / 1000.0;
            p99[with].push(both[with]);
            cpu[with] = measured.cpu[0].as_secs_f64() / measured.totals.messages as f64;
        }
        ratios.push(both[1] / both[0]);
        costs.push(cpu[1] / cpu[0]);
    }
    let closed = node.metric(CLOSED).unwrap_or_default() - closed_before;
    let lost = driver.fleet.totals.closed;
    let [without, with] = &p99;
    let mut table = Table::new(
        format!("slow consumer: 1 room x {MEMBERS} members, {RATE} messages/s, {pairs} pairs of readings"),
        &HEADER,
    );
    table.row(vec![
        without.show(tenth),
        with.show(tenth),
        ratios.show(ratio),
        costs.show(ratio),
        format!("{closed:.0} of {pairs}"),
        lost.to_string(),
        driver.disordered.to_string(),
    ]);
    table.print();
    ensure!(lost == 0 && driver.disordered == 0, "the others were not left alone");
    Ok(json!({
        "p99_ms_without": without.json(), "p99_ms_with": with.json(), "ratio": ratios.json(), "cpu_ratio": costs.json(),
        "slow_closed": closed, "pairs": pairs, "others_closed": lost, "disordered": driver.disordered,
    }))
}

/// A member that reads a hundred bytes ten times a second.
struct Slow {
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
}

impl Slow {
    fn join(address: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_tcp_mss(SEGMENT)?;
        socket.connect(&address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(crate::fleet::request("/ws/slow", address).as_bytes())?;
        let mut few = [0; 100];
        stream.read_exact(&mut few[..12]).context("the handshake")?;
        ensure!(few.starts_with(b"HTTP/1.1 101"), "refused: {}", String::from_utf8_lossy(&few[..12]));
        let mut reading = stream.try_clone()?;
        let reader = std::thread::spawn(move || {
            while matches!(reading.read(&mut few), Ok(1..)) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self { stream, reader: Some(reader) })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
