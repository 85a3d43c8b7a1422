//! Reads the nodes' `/metrics` once a second: what the load costs the servers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::report::Sample;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What came of one attempt. One a second and node: the channel needs no bound.
pub(super) struct Scraped {
    pub(super) url: String,
    pub(super) sample: Result<Sample>,
}

/// Scrapes one node for ever.
pub(super) async fn scrape(url: String, clock: Clock, out: UnboundedSender<Scraped>) {
    let mut before: Option<Raw> = None;
    loop {
        let second = clock.now_ns() / 1_000_000_000;
        tokio::time::sleep_until(clock.instant((second + 1) * 1_000_000_000).into()).await;
        let read = tokio::time::timeout(PATIENCE, get(&url)).await.context("no answer").and_then(|read| read);
        let sample = read.map(|text| {
            let raw = Raw::read(&text, clock.now_ns());
            let sample = raw.since(before.as_ref());
            before = Some(raw);
            sample
        });
        if sample.is_err() {
            before = None;
        }
        if out.send(Scraped { url: url.clone(), sample }).is_err() {
            return;
        }
    }
}

async fn get(url: &str) -> Result<String> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().context("no host in the address")?;
    let (host, port) = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path =
        uri.path_and_query().map_or("/metrics", |path| if path.as_str() == "/" { "/metrics" } else { path.as_str() });
    let request = Request::get(path).header("host", authority.as_str()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?;
    connection.abort();
    ensure!(status.is_success(), "HTTP {status}");
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// The metrics that are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Raw {
    at_ns: u64,
    cpu_seconds: f64,
    resident_bytes: f64,
    connections: f64,
}

impl Raw {
    fn read(text: &str, at_ns: u64) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<f64>().ok()).filter(|value| value.is_finite()).unwrap_or(0.0)
        };
        Self {
            at_ns,
            cpu_seconds: value("process_cpu_seconds_total"),
            resident_bytes: value("process_resident_memory_bytes"),
            connections: value("roomcast_connections"),
        }
    }

    fn since(&self, before: Option<&Self>) -> Sample {
        // A node that was restarted begins again at 0.
        let cpu = before.map_or(0.0, |before| {
            let seconds = self.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
            ((self.cpu_seconds - before.cpu_seconds) / seconds.max(1e-3)).max(0.0)
        });
        Sample {
            at_s: self.at_ns / 1_000_000_000,
            cpu,
            resident_bytes: self.resident_bytes as u64,
            connections: self.connections as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP process_cpu_seconds_total x\nprocess_cpu_seconds_total 4.5\nroomcast_connections_total 9\n\
                        roomcast_connections 7\nprocess_resident_memory_bytes 1048576\n";

    #[test]
    fn cpu_is_cores_in_use_since_the_sample_before() {
        let first = Raw::read(TEXT, 10_000_000_000);
        assert_eq!(first.since(None), Sample { at_s: 10, cpu: 0.0, resident_bytes: 1_048_576, connections: 7 });
        let later = Raw { at_ns: 12_000_000_000, cpu_seconds: 7.5, ..first };
        assert!((later.since(Some(&first)).cpu - 1.5).abs() < 1e-9);
        let restarted = Raw { cpu_seconds: 0.1, ..later };
        assert!(restarted.since(Some(&first)).cpu.abs() < 1e-9);
    }

    #[test]
    fn what_is_no_metric_counts_as_nothing() {
        let raw = Raw::read("<html>process_cpu_seconds_total NaN\nroomcast_connections x", 1);
        assert_eq!((raw.cpu_seconds, raw.connections), (0.0, 0.0));
    }

    #[tokio::test]
    async fn a_page_is_asked_for_by_its_whole_address() {
        use std::io::{Read as _, Write as _};

        for host in ["127.0.0.1", "[::1]"] {
            let listener = std::net::TcpListener::bind(format!("{host}:0")).expect("bound");
            let authority = listener.local_addr().expect("an address").to_string();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepted");
                let mut asked = vec![0; 4096];
                let read = stream.read(&mut asked).expect("asked");
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc\n").expect("answered");
                String::from_utf8_lossy(&asked[..read]).to_lowercase()
            });
            assert_eq!(get(&format!("http://{authority}/metrics")).await.expect("a page"), "abc\n");
            let asked = server.join().expect("served");
            assert!(asked.contains(&format!("host: {authority}\r\n")), "{asked}");
        }
    }
}
