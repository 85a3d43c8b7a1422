//! Starts what is measured: gateway nodes and a Redis server, with fixed settings.
//!
//! Used by every benchmark. Must not know how the load looks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, SERVER_CPU};

/// Where nodes listen for clients.
const PUBLIC_IP: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where nodes listen for operators: another loopback address, so that the two listeners can be told apart.
const ADMIN_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A gateway process.
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Node {
    /// Starts a node with one worker and no publish limit on the server's CPU.
    pub fn start(program: &Path, redis: Option<&Redis>) -> Result<Self> {
        Self::start_on(SERVER_CPU, program, redis)
    }

    /// The same with more settings, and its own broker.
    pub fn start_with(program: &Path, settings: &[&str]) -> Result<Self> {
        Self::spawn(SERVER_CPU, program, settings.iter().map(|&setting| setting.to_owned()).collect())
    }

    /// The same on another CPU.
    pub fn start_on(cpu: usize, program: &Path, redis: Option<&Redis>) -> Result<Self> {
        let settings = redis.map(|redis| ["--redis".into(), format!("redis://{}", redis.address)]);
        Self::spawn(cpu, program, settings.into_iter().flatten().collect())
    }

    fn spawn(cpu: usize, program: &Path, settings: Vec<String>) -> Result<Self> {
        let mut args: Vec<String> =
            ["--workers", "1", "--publish-rate", "0", "--connect-rate", "0", "--log", "warn"].map(str::to_owned).into();
        args.extend(["--listen".into(), format!("{PUBLIC_IP}:0"), "--admin-listen".into(), format!("{ADMIN_IP}:0")]);
        args.extend(settings);
        let mut process = Process::spawn(cpu, program, &args)?;
        let address = process.listener(PUBLIC_IP)?;
        Ok(Self { admin: process.listener(ADMIN_IP).ok(), process, address })
    }

    /// The sum of a metric over its labels; none if the node does not export it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.scrape().ok()?;
        let mut sum = None;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            let rest = &line[name.len()..];
            if rest.starts_with([' ', '{']) {
                *sum.get_or_insert(0.0) += line.rsplit_once(' ')?.1.parse::<f64>().ok()?;
            }
        }
        sum
    }

    fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin.context("no admin listener")?)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// A Redis server without persistence.
pub struct Redis {
    pub process: Process,
    pub address: SocketAddr,
}

impl Redis {
    /// Starts one on the server's CPU.
    pub fn start() -> Result<Self> {
        // Redis takes port 0 as "no TCP", so a free port is looked for first.
        let port = TcpListener::bind((PUBLIC_IP, 0))?.local_addr()?.port();
        let args = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let args: Vec<String> = args.map(str::to_owned).into();
        let mut process = Process::spawn(SERVER_CPU, &PathBuf::from("redis-server"), &args)?;
        let address = process.listener(PUBLIC_IP)?;
        Ok(Self { process, address })
    }

    /// How often scripts were called so far.
    pub fn script_calls(&self) -> Result<u64> {
        let text: String = redis::cmd("INFO").arg("commandstats").query(&mut self.connect()?)?;
        let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
        Ok(text
            .lines()
            .filter(|line| ["cmdstat_eval:", "cmdstat_evalsha:"].iter().any(|command| line.starts_with(command)))
            .filter_map(calls)
            .sum())
    }

    /// A connection for questions; the load has its own.
    pub fn connect(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(format!("redis://{}", self.address))?.get_connection()?)
    }
}
