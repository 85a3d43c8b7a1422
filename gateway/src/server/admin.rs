//! The operators' listener, on a port of its own: metrics, health, readiness, version. Run by main's runtime; it must
//! not know clients or rooms, and must answer while the workers are busy.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use roomcast_protocol::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::lifecycle::{Lifecycle, Missing};
use crate::telemetry::metrics::Metrics;

/// Connections served at a time. Others wait in the kernel's queue: each of these lives for [`CONNECTION`] at most.
const CONNECTIONS: usize = 64;
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// Time for a whole connection; it serves one request.
const CONNECTION: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of file descriptors, the listener would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for answers under way when the listener is stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The commit this was built from, if the build was told.
const COMMIT: Option<&str> = option_env!("GIT_COMMIT");

/// What the answers are made of.
struct Answers {
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    node: NodeId,
}

/// Serves until `stop` resolves, then lets answers under way finish for up to a second.
///
/// # Errors
///
/// Only if `listener` cannot be used at all; failures of single connections are theirs.
pub async fn serve(
    listener: std::net::TcpListener,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    node: NodeId,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let answers = Arc::new(Answers { metrics, lifecycle, node });
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            // Never closed, so always a permit.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (slot, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, Arc::clone(&answers));
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin listener: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
    Ok(())
}

async fn serve_connection(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answers.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    // A prober that hangs up early or speaks no HTTP is no event of ours.
    let _ = tokio::time::timeout(CONNECTION, connection).await;
}

impl Answers {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let known = matches!(path, "/metrics" | "/healthz" | "/readyz" | "/version");
        if !known {
            return text(StatusCode::NOT_FOUND, "here are /metrics, /healthz, /readyz and /version\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => self.metrics(),
            "/readyz" => self.ready(),
            "/version" => self.version(),
            _ => text(StatusCode::OK, "ok\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        // Set here rather than where they change, so that they cannot drift from what /readyz says.
        self.metrics.broker.up.set(self.lifecycle.is_broker_up().into());
        self.metrics.node.ready.set(self.lifecycle.is_ready().into());
        let leaving = self.lifecycle.is_on_its_way_out();
        self.metrics.node.draining.set(leaving.into());
        self.metrics.node.drain_sessions_left.set(if leaving { self.metrics.sockets.connections.get() } else { 0 });
        response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let missing: Vec<_> = self.lifecycle.missing().iter().map(explain).collect();
        let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &serde_json::json!({ "ready": missing.is_empty(), "missing": missing }))
    }

    fn version(&self) -> Response<Full<Bytes>> {
        let version = env!("CARGO_PKG_VERSION");
        json(StatusCode::OK, &serde_json::json!({ "version": version, "nodeId": self.node.as_str(), "commit": COMMIT }))
    }
}

fn explain(missing: &Missing) -> serde_json::Value {
    match missing {
        Missing::Stage(stage) => serde_json::json!({ "what": "running", "stage": stage.as_str() }),
        Missing::Broker { up, workers, reasons } => {
            serde_json::json!({ "what": "broker", "workersUp": up, "workers": workers, "reasons": reasons })
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/json", format!("{body}\n"))
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::lifecycle::Stage;

    struct Admin {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
        stop: oneshot::Sender<()>,
        served: tokio::task::JoinHandle<io::Result<()>>,
    }

    fn start() -> Admin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (metrics, lifecycle) = (Metrics::new(), Lifecycle::new(1));
        let (stop, stopped) = oneshot::channel();
        let node = NodeId::new("n-test").expect("valid");
        let stopped = async move { drop(stopped.await) };
        let served = tokio::spawn(serve(listener, Arc::clone(&metrics), lifecycle.clone(), node, stopped));
        Admin { address, metrics, lifecycle, stop, served }
    }

    async fn raw(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered and closed");
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        raw(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn readiness_follows_the_lifecycle() {
        let admin = start();
        let answer = get(admin.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("starting") && answer.contains("\"workersUp\":0"), "{answer}");

        let mut broker = admin.lifecycle.broker_flag();
        broker.set(Err("deaf"));
        let answer = get(admin.address, "/readyz").await;
        assert!(answer.contains("\"reasons\":[\"deaf\"]"), "{answer}");
        broker.set(Ok(()));
        admin.lifecycle.advance(Stage::Running);
        let answer = get(admin.address, "/readyz?x").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"missing\":[]"), "{answer}");
        assert!(get(admin.address, "/metrics").await.contains("\nroomcast_ready 1\n"));

        admin.lifecycle.advance(Stage::Draining);
        let answer = get(admin.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
        assert!(get(admin.address, "/healthz").await.starts_with("HTTP/1.1 200 "), "alive while draining");
        let metrics = get(admin.address, "/metrics").await;
        assert!(metrics.contains("\nroomcast_draining 1\n") && metrics.contains("\nroomcast_broker_up 1\n"));

        admin.stop.send(()).expect("still serving");
        admin.served.await.expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn answers_say_what_they_are() {
        let admin = start();
        admin.metrics.sockets.connections.set(7);
        let metrics = get(admin.address, "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nroomcast_connections 7\n") && metrics.contains("\nprocess_open_fds "));
        let version = get(admin.address, "/version").await;
        assert!(version.contains("\"nodeId\":\"n-test\"") && version.contains("\"version\":\"0."), "{version}");
        assert!(get(admin.address, "/").await.starts_with("HTTP/1.1 404 "));
        let post = raw(admin.address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        let head = raw(admin.address, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(raw(admin.address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_others_out() {
        tokio::time::pause();
        let admin = start();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(admin.address).await.expect("connected"));
        }
        // The paused clock jumps to the header timeout as soon as everything waits.
        assert!(get(admin.address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    }
}
