//! A gateway process on ports of its own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
};

use super::{Redis, eventually, within};

/// Which rooms are ephemeral: those with the prefix `eph`.
const ROOMS: &str = "[[rooms]]\npattern = \"eph-*\"\nmode = \"ephemeral\"\n";

/// The gateway: beside the load tester, where cargo puts both.
fn binary() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gateway");
    let path = std::env::var_os("GATEWAY_UNDER_TEST").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not there; build it first: cargo build -p roomcast-gateway", path.display());
    path
}

/// A running node; killed when dropped. What it logged is shown when the test fails.
pub struct Gateway {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    setup: Setup,
    _dir: TempDir,
}

/// How a node is started, apart from its ports.
#[derive(Clone, Default)]
struct Setup {
    args: Vec<String>,
    /// How far its clock is off, as `faketime` has it.
    clock: Option<String>,
}

/// `count` nodes on `redis`, each with one worker.
pub async fn cluster(redis: &Redis, count: usize) -> Vec<Gateway> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(Gateway::join(redis, &format!("n-{number}"), &[]).await);
    }
    nodes
}

impl Gateway {
    /// A node alone, with one worker and `args`. Rooms whose names begin with `eph-` are ephemeral.
    pub async fn start(args: &[&str]) -> Self {
        let setup = Setup { args: args.iter().map(ToString::to_string).collect(), clock: None };
        Self::start_on("127.0.0.1:0", "127.0.0.1:0", setup).await
    }

    /// Once it has ended: starts it again, on the same ports and with the same arguments.
    pub async fn again(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "it still runs");
        let (addr, admin) = (self.addr.to_string(), self.admin.to_string());
        *self = Self::start_on(&addr, &admin, std::mem::take(&mut self.setup)).await;
    }

    /// Waits for the process to end by itself. Gives the exit code; none if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the gateway to exit", self.child.wait()).await.unwrap().code()
    }

    async fn start_on(listen: &str, admin_listen: &str, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rooms.toml"), ROOMS).unwrap();
        let mut command = Command::new(binary());
        command.args(["--listen", listen, "--admin-listen", admin_listen, "--log-format", "json"]);
        command.args(["--workers", "1", "--config", "rooms.toml"]).args(&setup.args);
        command
            .env_clear()
            .envs(setup.clock.as_deref().map(wrong_clock).into_iter().flatten())
            .current_dir(dir.path())
            .kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary().display()));

        let log = Arc::new(Mutex::new(String::new()));
        let (found, mut listening) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(ports) = ports_of(&line) {
                    found.send_replace(Some(ports));
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let told = within("the gateway's ports", listening.wait_for(Option::is_some)).await.map(|ports| ports.unwrap());
        let Ok((addr, admin)) = told else {
            panic!("the gateway ended before it listened; it wrote:\n{}", log.lock().unwrap())
        };
        let node = Self { addr, admin, child, log, setup, _dir: dir };
        eventually("the gateway to be ready", || async {
            node.get("/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")).then_some(())
        })
        .await;
        node
    }

    /// A node on `redis`, named `id`.
    pub async fn join(redis: &Redis, id: &str, args: &[&str]) -> Self {
        Self::join_at(&redis.url(), id, args).await
    }

    /// A node of the cluster at `url`, named `id`.
    pub async fn join_at(url: &str, id: &str, args: &[&str]) -> Self {
        Self::start(&[&["--redis", url, "--node-id", id], args].concat()).await
    }

    /// A node on `redis`, named `id`, whose clock is off by `clock`: `+5m`, `-5m`.
    pub async fn join_off(redis: &Redis, id: &str, clock: &str, args: &[&str]) -> Self {
        let url = redis.url();
        let args = [&["--redis", &url, "--node-id", id], args].concat().iter().map(ToString::to_string).collect();
        Self::start_on("127.0.0.1:0", "127.0.0.1:0", Setup { args, clock: Some(clock.into()) }).await
    }

    /// For `--target`.
    pub fn target(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// What its clock was ahead of ours when it started, in seconds, a little less: it took its time.
    pub fn clock_off(&self) -> i64 {
        let log = self.log.lock().unwrap();
        let line: Value = serde_json::from_str(log.lines().next().expect("a line")).unwrap();
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let its = humantime::parse_rfc3339(line["timestamp"].as_str().expect("a time")).unwrap();
        seconds(its) - seconds(SystemTime::now())
    }

    /// The sum of all samples of a metric; 0 while the node does not answer.
    /// One of them is meant by its labels: `name{a="b"`.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.unwrap_or_default();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', ',', '}'])))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Waits until this node has taken `count` publishes: the load flows.
    pub async fn has_published(&self, count: u32) {
        eventually("publishes", || async {
            (self.metric("roomcast_publishes_total").await >= f64::from(count)).then_some(())
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).unwrap();
    }

    /// The whole answer of the admin listener.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!("--- last lines of gateway {} ---\n{last}\n---", self.addr);
        }
    }
}

/// What makes the program see another time of day. Timeouts go on as they are: no clock that only ever goes on is off.
fn wrong_clock(off: &str) -> [(&'static str, String); 3] {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
    let library = library.expect("this test needs libfaketime: `scripts/need.sh faketime`");
    let library = library.to_str().expect("UTF-8").to_owned();
    [("LD_PRELOAD", library), ("FAKETIME", off.to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
}

/// The addresses in a `listening` line.
fn ports_of(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |key: &str| line.get(key).or_else(|| line.get("fields")?.get(key))?.as_str().map(str::to_owned);
    (field("message")? == "listening").then_some(())?;
    Some((field("addr")?.parse().ok()?, field("admin")?.parse().ok()?))
}
