//! A redis-server process on a port and in a directory of its own. It keeps of its data what its arguments say.

use std::{io, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::{eventually, ports::free_port, within};

const HOW: &str = "these tests need the program redis-server: `apt-get install redis-server` or `brew install redis`";

/// In the directory of the server.
const LOG: &str = "redis.log";

/// A running server; killed when dropped. What it logged is shown when the test fails.
pub struct Redis {
    port: u16,
    child: Option<Child>,
    dir: TempDir,
    args: Vec<String>,
}

impl Redis {
    /// A server that forgets everything when it stops.
    pub async fn start() -> Self {
        Self::start_with(&["--appendonly", "no"]).await
    }

    /// One with `args` of its own.
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
            let args = args.iter().map(ToString::to_string).collect();
            let mut redis = Self { port: free_port(), child: None, dir: dir(), args };
            if redis.run().await {
                return redis;
            }
        }
        panic!("redis-server found no free port in five tries");
    }

    /// False when it ended at once: another process was faster on the port.
    async fn run(&mut self) -> bool {
        let port = self.port;
        // A file of settings must come first.
        let (file, args) = self.args.split_at(usize::from(self.args.first().is_some_and(|arg| !arg.starts_with('-'))));
        let mut child = Command::new("redis-server")
            .args(file)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--logfile", LOG])
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {HOW}"));
        let answers = eventually("redis-server to answer", || {
            let ended = child.try_wait().unwrap().is_some();
            async move { if ended { Some(false) } else { is_up(port).await.then_some(true) } }
        })
        .await;
        self.child = Some(child);
        answers
    }

    /// Kills the server, as a crash would, and starts it again on what it left.
    pub async fn crash(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    /// Kills the server, as a crash would.
    pub async fn stop(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    /// Starts it again on what it left.
    pub async fn resume(&mut self) {
        within("redis-server to come back", async { while !self.run().await {} }).await;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the answer to `line` has `wanted` in it so many times. A server that changes its role meanwhile
    /// breaks off its connections; it is asked again.
    pub async fn answers(&self, line: &str, wanted: &str, count: usize) {
        let matches = || async { (self.ask(line).await.ok()?.matches(wanted).count() == count).then_some(()) };
        eventually(line, matches).await;
    }

    /// Sends one inline command, and returns the beginning of the answer.
    pub async fn command(&self, line: &str) -> String {
        self.ask(line).await.unwrap()
    }

    /// The same of a server that may be gone, or close all connections because its role changes.
    pub async fn ask(&self, line: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("--- last lines of Redis {} ({}) ---\n{last}\n---", self.port, self.args.join(" "));
        }
    }
}

async fn is_up(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}
