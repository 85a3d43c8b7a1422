//! What tokens, limits and webhooks add to a delivery and to a connection's opening, beside a node without them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::Options;
use crate::driver::{Driver, Measured, Room};
use crate::fanout::{MEMBERS, closed, spread};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::report::{Readings, Table, count, percent, ratio, tenth};

const SECRET: &str = "the-secret-of-this-benchmark-is-long-enough";
const WINDOWS: [usize; 2] = [1, 16];
/// Connections opened for one reading.
const OPENED: usize = 1000;

/// A node and what its clients bring.
struct Subject {
    name: &'static str,
    node: Node,
    tokens: bool,
}

impl Subject {
    fn paths(&self, count: usize, room: impl Fn(usize) -> String) -> Result<Vec<String>> {
        let path = |index| {
            let token = if self.tokens { format!("?token={}", token(index)?) } else { String::new() };
            Ok(format!("/ws/{}{token}", room(index)))
        };
        (0..count).map(path).collect()
    }
}

/// The whole benchmark.
pub fn run(options: &Options) -> Result<Value> {
    let service = serve()?;
    let start = |name, tokens, settings: &[&[&str]]| -> Result<Subject> {
        Ok(Subject { name, node: Node::start_with(&options.gateway, &settings.concat())?, tokens })
    };
    let secret = ["--jwt-secret", SECRET, "--jwt-audience", "bench"];
    let limits = ["--user-publish-rate", "1000000", "--user-publish-burst", "1000000"];
    let per_user = ["--max-connections-per-user", "1000"];
    let hooks = ["--webhook-url", &service, "--webhook-secret", SECRET];
    let all = ["--webhook-events", "room_occupied,room_vacated,member_joined,member_left,message_published"];
    let asked = ["--authorize-url", &service, "--authorize-secret", SECRET];
    let subjects = [
        start("nothing", false, &[])?,
        start("tokens", true, &[&secret])?,
        start("tokens, limits per user", true, &[&secret, &limits, &per_user])?,
        start("tokens, limits, webhooks of all events", true, &[&secret, &limits, &per_user, &hooks, &all])?,
    ];
    let deliveries = deliveries(options, &subjects)?;
    let asking = start("tokens, authorize-url", true, &[&secret, &asked])?;
    let opening = opening(options, &subjects.iter().chain([&asking]).collect::<Vec<_>>())?;
    Ok(json!({ "deliveries": deliveries, "opening": opening }))
}

/// Readings of one subject in one shape.
#[derive(Default)]
struct Row {
    own: Readings,
    ratio: Readings,
    messages: Readings,
    posted: f64,
    dropped: f64,
    client: Readings,
}

fn deliveries(options: &Options, subjects: &[Subject]) -> Result<Value> {
    let mut drivers = Vec::new();
    for subject in subjects {
        let mut fleet = Fleet::new()?;
        fleet.open(subject.node.address, &subject.paths(MEMBERS, |_| "fanout".to_owned())?, 1)?;
        let room = Room::new("fanout".into(), MEMBERS / 2, MEMBERS / 2, MEMBERS);
        drivers.push(Driver::new(fleet, vec![room], &spread(MEMBERS)));
    }
    let mut rows: Vec<Row> = (0..WINDOWS.len() * subjects.len()).map(|_| Row::default()).collect();
    for _ in 0..options.rounds {
        for (shape, window) in WINDOWS.into_iter().enumerate() {
            let mut plain = 0.0;
            for (index, (subject, driver)) in subjects.iter().zip(&mut drivers).enumerate() {
                let run = driver.run(&closed(window, options.length), &[&subject.node.process])?;
                let own = per_cpu_second(&run);
                plain = if index == 0 { own } else { plain };
                let row = &mut rows[shape * subjects.len() + index];
                row.own.push(own);
                row.ratio.push(own / plain);
                row.messages.push(run.sent as f64 / run.wall.as_secs_f64());
                row.client.push(percent(run.client_cpu, run.wall));
            }
        }
    }
    for (index, row) in rows.iter_mut().enumerate() {
        let node = &subjects[index % subjects.len()].node;
        row.posted = node.metric("roomcast_webhook_events_sent_total").unwrap_or_default();
        row.dropped = node.metric("roomcast_webhook_events_dropped_total").unwrap_or_default();
    }
    let title = format!("extras: deliveries, memory broker: 1 room x {MEMBERS} members");
    let header =
        ["window", "with", "deliveries/CPU-s", "to nothing", "messages/s", "posted, dropped in all", "client CPU"];
    let mut table = Table::new(title, &header);
    let mut out = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let (window, name) = (WINDOWS[index / subjects.len()], subjects[index % subjects.len()].name);
        let posted = format!("{}, {}", count(row.posted), count(row.dropped));
        let client = format!("{:.0}%", row.client.median());
        let (own, to_plain) = (row.own.show(count), row.ratio.show(ratio));
        let messages = count(row.messages.median());
        table.row(vec![window.to_string(), name.to_owned(), own, to_plain, messages, posted, client]);
        out.push(json!({
            "window": window, "with": name, "deliveries_per_cpu_second": row.own.json(), "ratio": row.ratio.json(),
            "events_posted": row.posted, "events_dropped": row.dropped,
        }));
    }
    table.print();
    let disordered: u64 = drivers.iter().map(|driver| driver.disordered).sum();
    println!("disordered or repeated on the checked members: {disordered}");
    Ok(json!({ "rows": out, "disordered": disordered }))
}

fn per_cpu_second(run: &Measured) -> f64 {
    run.totals.messages as f64 / run.cpu.iter().sum::<Duration>().as_secs_f64()
}

/// Connections in rooms of ten, each with a user of its own, opened and joined.
fn opening(options: &Options, subjects: &[&Subject]) -> Result<Value> {
    let mut rows: Vec<[Readings; 2]> = subjects.iter().map(|_| Default::default()).collect();
    for round in 0..options.rounds {
        let mut plain = 0.0;
        for (index, (subject, [micros, to_plain])) in subjects.iter().zip(&mut rows).enumerate() {
            let paths = subject.paths(OPENED, |connection| format!("open-{round}-{}", connection / 10))?;
            let (mut fleet, before) = (Fleet::new()?, subject.node.process.cpu()?);
            fleet.open(subject.node.address, &paths, 1)?;
            let cpu = subject.node.process.cpu()?.saturating_sub(before);
            if fleet.totals.closed > 0 {
                bail!("{} connections of {} closed: {:?}", fleet.totals.closed, subject.name, fleet.first_error);
            }
            let own = cpu.as_secs_f64() * 1e6 / OPENED as f64;
            plain = if index == 0 { own } else { plain };
            micros.push(own);
            to_plain.push(own / plain);
        }
    }
    let title = format!("extras: opening {OPENED} connections that join a room of 10, server CPU");
    let mut table = Table::new(title, &["with", "us to open one", "to nothing"]);
    let mut out = Vec::new();
    for (subject, [micros, to_plain]) in subjects.iter().zip(&rows) {
        table.row(vec![subject.name.to_owned(), micros.show(tenth), to_plain.show(ratio)]);
        out.push(json!({ "with": subject.name, "us": micros.json(), "ratio": to_plain.json() }));
    }
    table.print();
    Ok(Value::Array(out))
}

/// A token of an hour for everything.
fn token(user: usize) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({ "sub": format!("u{user}"), "aud": "bench", "exp": now + 3600, "rooms": ["*"] });
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

/// Takes webhooks and lets everybody in, on the client's CPU. Gives its address.
fn serve() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends with the caller's connection.
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(format!("http://{address}/"))
}

fn answer(stream: TcpStream) -> Result<()> {
    let (mut reader, mut stream) = (BufReader::new(stream.try_clone()?), stream);
    stream.set_nodelay(true)?;
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().context("a length")?;
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let answer = r#"{"allow":true}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    }
}
