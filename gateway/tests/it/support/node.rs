//! A gateway process on ports of its own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use super::{Redis, eventually, get, within};

/// The gateway under test.
pub fn binary() -> PathBuf {
    std::env::var_os("GATEWAY_UNDER_TEST").map_or_else(|| env!("CARGO_BIN_EXE_gateway").into(), PathBuf::from)
}

/// A running node; killed when dropped. What it logged is shown when the test fails.
pub struct Node {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    _dir: TempDir,
}

impl Node {
    /// Starts a node that answers on both ports, with `args` after the ones every test needs.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_with(args, "").await
    }

    /// The same with a configuration file, in TOML.
    pub async fn start_with(args: &[&str], toml: &str) -> Self {
        let node = Self::launch(args, toml).await;
        node.wait_ready(true).await;
        node
    }

    /// A node that listens and may not be ready.
    pub async fn launch(args: &[&str], toml: &str) -> Self {
        Self::spawn(Command::new(binary()), args, toml).await
    }

    /// A ready node for which the shell sets a limit first, as in `ulimit -Sn 64`.
    pub async fn start_under(limit: &str, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\"")).arg(binary());
        let node = Self::spawn(shell, args, "").await;
        node.wait_ready(true).await;
        node
    }

    async fn spawn(mut command: Command, args: &[&str], toml: &str) -> Self {
        // A directory of its own keeps a developer's .env out; so does the emptied environment.
        let dir = tempfile::tempdir().unwrap();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]);
        if !toml.is_empty() {
            std::fs::write(dir.path().join("rooms.toml"), toml).unwrap();
            command.args(["--config", "rooms.toml"]);
        }
        command.args(args).env_clear().current_dir(dir.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary().display()));

        let log = Arc::new(Mutex::new(String::new()));
        let (found, mut listening) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(ports) = ports_of(&line) {
                    found.send_replace(Some(ports));
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });

        let told = within("the node's ports", listening.wait_for(Option::is_some)).await.map(|ports| ports.unwrap());
        let Ok((addr, admin)) = told else {
            panic!("the node ended before it listened; it wrote:\n{}", log.lock().unwrap())
        };
        Self { addr, admin, child, log, reader, _dir: dir }
    }

    /// A node on `redis`, named `id`.
    pub async fn join(redis: &Redis, id: &str, args: &[&str]) -> Self {
        Self::join_at(&redis.url(), id, args).await
    }

    /// A node on whatever `url` leads to, named `id`.
    pub async fn join_at(url: &str, id: &str, args: &[&str]) -> Self {
        let mut all = vec!["--redis", url, "--node-id", id];
        all.extend(args);
        Self::start(&all).await
    }

    /// Waits until `/readyz` says `ready` or its opposite.
    pub async fn wait_ready(&self, ready: bool) {
        let what = if ready { "/readyz to be 200" } else { "/readyz not to be 200" };
        eventually(what, || async { ((get(self.admin, "/readyz").await.status == 200) == ready).then_some(()) }).await;
    }

    /// The sum of all samples of a metric whose line holds every one of `labels`, from `/metrics`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = get(self.admin, "/metrics").await.text();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Waits until such a sum is `least`, and returns it: workers fold their counts in from time to time.
    pub async fn reaches(&self, name: &str, labels: &[&str], least: f64) -> f64 {
        let sum = || async { Some(self.metric(name, labels).await).filter(|sum| *sum >= least) };
        eventually(&format!("{name} {labels:?} to be {least}"), sum).await
    }

    /// Memory of the process in bytes: what is resident, and all that is mapped.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id().expect("it runs"));
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("such a line");
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap()
        };
        (kib("VmRSS:") * 1024, kib("VmSize:") * 1024)
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the process to end by itself; its log is whole then.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = within("the node to exit", self.child.wait()).await.unwrap();
        within("the end of its log", &mut self.reader).await.unwrap();
        status
    }

    /// Whether the process is still there.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("--- last lines of node {} ---\n{last}\n---", self.addr);
        }
    }
}

/// The addresses in a `listening` line; its fields may stand at the top or under `fields`.
fn ports_of(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |key: &str| line.get(key).or_else(|| line.get("fields")?.get(key))?.as_str().map(str::to_owned);
    (field("message")? == "listening").then_some(())?;
    Some((field("addr")?.parse().ok()?, field("admin")?.parse().ok()?))
}
