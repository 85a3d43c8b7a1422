//! A real redis-server of a test's own, for the contract suite: started on a free port in a temporary directory, killed on drop.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::RedisOptions;
use super::ports::free_port;
use crate::broker::contract::{DEADLINE, node};

pub(in crate::broker) struct Server {
    child: Option<Child>,
    pub(in crate::broker) port: u16,
    /// Where the servers of a cluster speak to each other.
    pub(in crate::broker) bus: u16,
    pub(in crate::broker) dir: TempDir,
    args: Vec<String>,
}

/// The server to test with: `REDIS_SERVER` names another.
fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

impl Server {
    pub(in crate::broker) fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), args)
    }

    pub(in crate::broker) fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut server = Self { child: None, port: 0, bus: 0, dir, args };
        // Between looking for a free port and using it another may take it: then try again.
        for _ in 0..10 {
            (server.port, server.bus) = (free_port(), free_port());
            if server.run() {
                return server;
            }
        }
        panic!("redis-server does not start: {}", server.log());
    }

    /// Starts the process; false if it ended before it was ready.
    pub(in crate::broker) fn run(&mut self) -> bool {
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let tls = self.is_tls();
        let (port, tls_port) = if tls { (0, self.port) } else { (self.port, 0) };
        let mut command = Command::new(program());
        // A file of settings must come first.
        let (file, args) = self.args.split_at(usize::from(self.args.first().is_some_and(|arg| !arg.starts_with('-'))));
        command.args(file).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]).args(args);
        if args.iter().any(|arg| arg == "--cluster-enabled") {
            command.args(["--cluster-port", &self.bus.to_string()]);
        }
        if tls {
            command.args(["--tls-port", &tls_port.to_string(), "--tls-auth-clients", "no"]);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => panic!(
                "these tests need a redis-server in PATH: `apt-get install redis-server`, `brew install redis` \
                 or `dnf install redis`"
            ),
            Err(error) => panic!("redis-server: {error}"),
        };
        let start = Instant::now();
        while !["Ready to accept connections", "Sentinel ID is"].iter().any(|ready| self.log().contains(ready)) {
            if child.try_wait().expect("a child").is_some() {
                return false;
            }
            assert!(start.elapsed() < DEADLINE, "redis-server is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
        true
    }

    /// As a crash would.
    pub(in crate::broker) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    pub(in crate::broker) fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "redis-server does not restart: {}", self.log());
    }

    /// Stops the process where it stands (`STOP`) or lets it go on (`CONT`).
    pub(in crate::broker) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill");
        assert!(status.success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn is_tls(&self) -> bool {
        self.args.iter().any(|arg| arg == "--tls-cert-file")
    }

    pub(in crate::broker) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.is_tls() { "rediss" } else { "redis" }, self.port)
    }

    pub(in crate::broker) fn options(&self, name: &str) -> RedisOptions {
        RedisOptions::new(self.url(), node(name))
    }

    pub(in crate::broker) fn is_master(&self) -> bool {
        self.command::<String>(&["INFO", "replication"]).contains("role:master")
    }

    /// Runs a command on a connection of its own.
    pub(in crate::broker) fn command<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.call(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// The same for words that are no text.
    pub(in crate::broker) fn call<T: ::redis::FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let ca_pem = self.dir.path().join("ca.pem");
        let client = super::connection::client(&self.url(), self.is_tls().then_some(&*ca_pem)).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        let mut command = ::redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// A replica that is promoted has an identity of its own from then on. No client notices.
    pub(in crate::broker) fn change_identity(&self) {
        let _: String = self.command(&["REPLICAOF", "127.0.0.1", "1"]);
        let _: String = self.command(&["REPLICAOF", "NO", "ONE"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}
