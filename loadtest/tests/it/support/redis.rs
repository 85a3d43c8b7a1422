//! A redis-server process on a port and in a directory of its own, which forgets everything when it stops.

use std::{net::TcpListener, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::eventually;

const HOW: &str = "these tests need the program redis-server: `apt-get install redis-server` or `brew install redis`";

/// A running server; killed when dropped.
pub struct Redis {
    port: u16,
    _child: Child,
    _dir: TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(redis) = Self::on(port).await {
                return redis;
            }
        }
        panic!("redis-server found no free port in five tries");
    }

    /// None when it ended at once: another process was faster on the port.
    async fn on(port: u16) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
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
        answers.then_some(Self { port, _child: child, _dir: dir })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn is_up(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}
