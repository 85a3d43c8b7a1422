//! The yardstick of durable publishing: the gateway's own script, driven by a bare pipelined client.
//!
//! Used by the publish benchmark. Knows the script's keys and arguments, and nothing of the gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::node::Redis;
use crate::process::own_cpu;

const SCRIPT: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/broker/redis/producers.lua"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/broker/redis/publish.lua"),
];

/// How the script is called.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// Rooms called in turn, and calls in flight.
    pub rooms: usize,
    /// Messages of each call.
    pub messages: usize,
    /// Bytes of each encoded message.
    pub record_bytes: usize,
}

/// What it came to.
#[derive(Debug, Clone, Copy)]
pub struct ScriptMeasured {
    pub messages_per_second: f64,
    /// CPU microseconds per message.
    pub redis_us: f64,
    /// Of the client, its subscriber included.
    pub client_us: f64,
}

/// Calls the script for `length` after a warm-up, with a subscriber on every channel, as a node is.
pub fn run(redis: &Redis, calls: Calls, warm_up: Duration, length: Duration) -> Result<ScriptMeasured> {
    let parts: Result<Vec<String>> = SCRIPT.iter().map(|path| std::fs::read_to_string(path).context(*path)).collect();
    let text = parts?.concat();
    let hash: String = redis::cmd("SCRIPT").arg("LOAD").arg(text).query(&mut redis.connect()?)?;
    let commands: Vec<Vec<u8>> = (0..calls.rooms).map(|room| command(&hash, room, calls)).collect();
    let subscriber = Subscriber::start(redis, calls.rooms)?;
    let mut client = Client { stream: TcpStream::connect(redis.address)?, unread: Vec::new(), next: 0 };
    client.stream.set_nodelay(true)?;
    client.stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.call(&commands, calls.rooms)?;
    let begin = Instant::now();
    while begin.elapsed() < warm_up {
        client.turn(&commands)?;
    }
    let (from, redis_cpu, own) = (Instant::now(), redis.process.cpu()?, own_cpu()?);
    let mut answered = 0;
    while from.elapsed() < length {
        answered += client.turn(&commands)?;
    }
    let (wall, messages) = (from.elapsed(), (answered * calls.messages) as f64);
    let micros = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() * 1e6 / messages;
    let measured = ScriptMeasured {
        messages_per_second: messages / wall.as_secs_f64(),
        redis_us: micros(redis.process.cpu()?, redis_cpu),
        client_us: micros(own_cpu()?, own),
    };
    drop(client);
    subscriber.stop()?;
    Ok(measured)
}

fn channel(room: usize) -> String {
    format!("rc:{{bare-{room}}}")
}

/// One call as RESP; the settings are the gateway's defaults.
fn command(hash: &str, room: usize, calls: Calls) -> Vec<u8> {
    let channel = channel(room);
    let (meta, stream, count) = (format!("{channel}:m"), format!("{channel}:s"), calls.messages.to_string());
    let room = format!("bare-{room}");
    let record = "r".repeat(calls.record_bytes);
    let mut args = vec![
        "EVALSHA", hash, "2", &meta, &stream, &channel, "n-bare", &room, "term", "", "0", "1000", "86400000", "300000",
        &count,
    ];
    for _ in 0..calls.messages {
        args.extend([record.as_str(), ""]);
    }
    resp(&args)
}

fn resp(args: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    out
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    next: usize,
}

impl Client {
    fn call(&mut self, commands: &[Vec<u8>], count: usize) -> Result<()> {
        let mut out = Vec::new();
        for _ in 0..count {
            out.extend_from_slice(&commands[self.next % commands.len()]);
            self.next += 1;
        }
        self.stream.write_all(&out).context("calling the script")
    }

    /// Takes the answers that are there and makes as many calls again.
    fn turn(&mut self, commands: &[Vec<u8>]) -> Result<usize> {
        let start = self.unread.len();
        self.unread.resize(start + (1 << 18), 0);
        let count = self.stream.read(&mut self.unread[start..]).context("awaiting the script")?;
        self.unread.truncate(start + count);
        let (mut at, mut answers) = (0, 0);
        while let Some(end) = value_end(&self.unread, at)? {
            if self.unread[at] == b'-' {
                bail!("the script failed: {}", String::from_utf8_lossy(&self.unread[at..end]));
            }
            at = end;
            answers += 1;
        }
        self.unread.drain(..at);
        if answers > 0 {
            self.call(commands, answers)?;
        }
        Ok(answers)
    }
}

/// Where the RESP2 value that begins at `at` ends; none while it is not whole.
fn value_end(bytes: &[u8], at: usize) -> Result<Option<usize>> {
    let Some(line) = bytes.get(at..).and_then(|rest| rest.windows(2).position(|two| two == b"\r\n")) else {
        return Ok(None);
    };
    let end = at + line + 2;
    let number = || -> Result<usize> { Ok(std::str::from_utf8(&bytes[at + 1..end - 2])?.parse()?) };
    match bytes[at] {
        b'*' => {
            let mut place = end;
            for _ in 0..number()? {
                match value_end(bytes, place)? {
                    Some(next) => place = next,
                    None => return Ok(None),
                }
            }
            Ok(Some(place))
        }
        b'$' => Ok(Some(end + number()? + 2).filter(|&end| end <= bytes.len())),
        _ => Ok(Some(end)),
    }
}

/// Hears every channel and throws away what it hears.
struct Subscriber {
    stream: TcpStream,
    thread: JoinHandle<()>,
}

static STOPPING: AtomicBool = AtomicBool::new(false);

impl Subscriber {
    fn start(redis: &Redis, rooms: usize) -> Result<Self> {
        let mut stream = TcpStream::connect(redis.address)?;
        let channels: Vec<String> = (0..rooms).map(channel).collect();
        let mut args = vec!["SUBSCRIBE"];
        args.extend(channels.iter().map(String::as_str));
        stream.write_all(&resp(&args))?;
        let mut reading = stream.try_clone()?;
        STOPPING.store(false, Ordering::Relaxed);
        let thread = std::thread::spawn(move || {
            let mut scratch = vec![0; 1 << 18];
            while reading.read(&mut scratch).is_ok_and(|count| count > 0) {}
            if !STOPPING.load(Ordering::Relaxed) {
                println!("the bare client's subscriber was cut off: its figures are too good");
            }
        });
        Ok(Self { stream, thread })
    }

    fn stop(self) -> Result<()> {
        STOPPING.store(true, Ordering::Relaxed);
        self.stream.shutdown(std::net::Shutdown::Both)?;
        self.thread.join().ok().context("the subscriber panicked")
    }
}
