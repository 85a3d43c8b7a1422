//! A redis-server process on a port and in a directory of its own.

use std::{path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::{eventually, ports::free_port, within};

const HOW: &str = "these tests need the program redis-server: `apt-get install redis-server` or `brew install redis`";

/// The server to test with: `REDIS_SERVER` names another.
fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A running server; killed when dropped.
pub struct Redis {
    port: u16,
    bus: u16,
    args: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// A server that forgets everything when it stops.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with an append-only file, synced on every write: a restart finds all it acknowledged.
    pub async fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes"]).await
    }

    /// A server with more arguments. `BUS` among them stands for another free port.
    pub async fn start_with(args: &[&str]) -> Self {
        Self::start_in(|| tempfile::tempdir().unwrap(), args).await
    }

    /// A sentinel of `main`, which is at `port`. What it waits before it takes a server for down must be longer than the
    /// second that it leaves between two connections to one server, whose connections end when its role changes: else
    /// each failover brings about the next.
    pub async fn start_sentinel(port: u16) -> Self {
        let text = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 1500\n\
             sentinel failover-timeout main 3000\n"
        );
        let dir = || {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("sentinel.conf"), &text).unwrap();
            dir
        };
        Self::start_in(dir, &["sentinel.conf", "--sentinel"]).await
    }

    async fn start_in(dir: impl Fn() -> TempDir, args: &[&str]) -> Self {
        for _ in 0..5 {
            let bus = free_port();
            let args = args.iter().map(|&arg| if arg == "BUS" { bus.to_string() } else { arg.to_owned() }).collect();
            let mut redis = Self { port: free_port(), bus, args, dir: dir(), child: None };
            if redis.run().await {
                return redis;
            }
        }
        panic!("redis-server found no free port in five tries");
    }

    /// True when it answers, false when it ended at once: another process was faster on the port.
    async fn run(&mut self) -> bool {
        let port = self.port.to_string();
        // A file of settings must come first.
        let (file, args) = self.args.split_at(usize::from(self.args.first().is_some_and(|arg| !arg.starts_with('-'))));
        let mut child = Command::new(program())
            .args(file)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendfsync", "always"])
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {HOW}"));
        let this = &*self;
        let answers = eventually("redis-server to answer", || {
            let ended = child.try_wait().unwrap().is_some();
            async move {
                if ended {
                    Some(false)
                } else {
                    this.command("PING").await.filter(|a| a.starts_with("+PONG")).map(|_| true)
                }
            }
        })
        .await;
        self.child = Some(child);
        answers
    }

    /// Kills the server, as a crash would.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Starts it again on the same port and data.
    pub async fn resume(&mut self) {
        // The old port may take a moment to be free.
        within("redis-server to come back", async { while !self.run().await {} }).await;
    }

    /// Stops the process where it stands (`Signal::STOP`), or lets it go on (`Signal::CONT`).
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.expect("it runs"), signal).unwrap();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where servers of a Redis Cluster speak to each other.
    pub fn bus(&self) -> u16 {
        self.bus
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one inline command, and returns the beginning of the answer.
    pub async fn command(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    /// A section of `INFO`, whole.
    pub async fn info(&self, section: &str) -> String {
        within("redis-server's information", async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        })
        .await
    }

    /// Sends one command with binary arguments, and returns the beginning of the answer.
    pub async fn call(&self, arguments: &[&[u8]]) -> String {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        within("an answer of redis-server", async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            stream.write_all(&request).await.unwrap();
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..read]).into_owned()
        })
        .await
    }
}
