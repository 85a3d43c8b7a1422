//! The other end of the admin listener: asks a running node of the same settings how it is, for health checks in images
//! that hold nothing but the binary. Called by main, as a process of its own; must not know what makes a node ready.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Time for the whole question. Probers usually give 1 to 5 s, and the answer is made from memory.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read; more is no node's.
const ANSWER: u64 = 64 * 1024;

/// Why the node is not well.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Port 0 is another one after each start.
    #[error("--admin-listen (ROOMCAST_ADMIN_LISTEN) is {0}: with port 0 nobody else knows which one the node has")]
    NoPort(SocketAddr),
    /// Nobody takes connections there.
    #[error("no node answers on {address}: {source}")]
    Unreachable {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Connected, and then nothing in time.
    #[error("{address} did not answer within {}", humantime::format_duration(DEADLINE))]
    Silent {
        /// Who was asked.
        address: SocketAddr,
    },
    /// Something answered, but not as a node does.
    #[error("what answers on {address} is no node's admin listener")]
    Foreign {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The node's own words.
    #[error("{0}")]
    Unwell(String),
}

/// Asks the node on this machine that has `admin_listen`: whether it is ready to serve, or with `live` only whether it
/// lives. Gives its answer in a word. Blocks, for two seconds at most.
///
/// # Errors
///
/// Whatever keeps the node from being well, in words for a health check's log.
pub fn ask(admin_listen: SocketAddr, live: bool) -> Result<&'static str, ProbeError> {
    if admin_listen.port() == 0 {
        return Err(ProbeError::NoPort(admin_listen));
    }
    let (path, well) = if live { ("/healthz", "alive") } else { ("/readyz", "ready") };
    let until = Instant::now() + DEADLINE;
    let (address, stream) = connect(admin_listen, until)?;
    let answer = exchange(stream, address, path, until).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ProbeError::Silent { address },
        _ => ProbeError::Unreachable { address, source },
    })?;
    let (status, body) = parse(&answer).ok_or(ProbeError::Foreign { address })?;
    match status {
        200 => Ok(well),
        503 => Err(ProbeError::Unwell(reasons(body).ok_or(ProbeError::Foreign { address })?)),
        _ => Err(ProbeError::Foreign { address }),
    }
}

/// Where a listener can be reached from its own machine. `[::]` usually takes IPv4 as well, and a container may have no
/// IPv6 on its loopback.
fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port());
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), listen.port()), v4]
        }
        _ => vec![listen],
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut.into())
}

fn connect(listen: SocketAddr, until: Instant) -> Result<(SocketAddr, TcpStream), ProbeError> {
    let mut failed = None;
    for address in reachable(listen) {
        match left(until).and_then(|time| TcpStream::connect_timeout(&address, time)) {
            Ok(stream) => return Ok((address, stream)),
            Err(source) => failed = Some(ProbeError::Unreachable { address, source }),
        }
    }
    Err(failed.unwrap_or(ProbeError::Silent { address: listen }))
}

fn exchange(mut stream: TcpStream, address: SocketAddr, path: &str, until: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    // The time left is set for each read: somebody who sends a byte now and then must not hold the probe.
    while (answer.len() as u64) < ANSWER {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Status and body of an HTTP answer.
fn parse(answer: &[u8]) -> Option<(u16, &str)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let mut words = head.strip_prefix("HTTP/1.")?.split([' ', '\r']);
    Some((words.nth(1)?.parse().ok()?, body))
}

/// One thing that `/readyz` says is missing.
#[derive(Debug, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Missing {
    Running { stage: String },
    Broker { workers_up: u64, workers: u64, reasons: Vec<String> },
}

#[derive(Debug, Deserialize)]
struct Readiness {
    missing: Vec<Missing>,
}

/// The body of `/readyz` in a line, such as `not ready: draining` or `not ready: broker up for 0 of 2 workers (deaf)`.
fn reasons(body: &str) -> Option<String> {
    let readiness: Readiness = serde_json::from_str(body).ok()?;
    let words = readiness.missing.into_iter().map(|missing| match missing {
        Missing::Running { stage } => stage,
        Missing::Broker { workers_up, workers, reasons } => {
            format!("broker up for {workers_up} of {workers} workers ({})", reasons.join(", "))
        }
    });
    Some(format!("not ready: {}", words.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_asked_on_the_loopback() {
        let texts = |listen: &str| -> Vec<String> {
            reachable(listen.parse().expect("an address")).iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts("0.0.0.0:8081"), ["127.0.0.1:8081"]);
        assert_eq!(texts("[::]:8081"), ["[::1]:8081", "127.0.0.1:8081"]);
        assert_eq!(texts("10.0.0.7:9"), ["10.0.0.7:9"]);
    }

    #[test]
    fn answers_are_told_from_noise() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nok\n"), Some((200, "ok\n")));
        assert_eq!(parse(b"HTTP/1.0 503\r\n\r\n"), Some((503, "")));
        for noise in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 ok\r\n\r\n", b"\xff\r\n\r\n"] {
            assert_eq!(parse(noise), None, "{noise:?}");
        }
    }

    #[test]
    fn what_is_missing_is_said_in_a_line() {
        let body = r#"{"ready":false,"missing":[{"what":"running","stage":"starting"},
            {"what":"broker","workersUp":0,"workers":2,"reasons":["no_answer","deaf"]}]}"#;
        let words = "not ready: starting; broker up for 0 of 2 workers (no_answer, deaf)";
        assert_eq!(reasons(body).as_deref(), Some(words));
        assert_eq!(reasons("{}"), None);
        assert_eq!(reasons("<html>"), None);
    }

    #[test]
    fn port_zero_cannot_be_asked() {
        assert!(matches!(ask(SocketAddr::from(([127, 0, 0, 1], 0)), false), Err(ProbeError::NoPort(_))));
    }
}
