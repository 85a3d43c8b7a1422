//! Real connections with raw bytes against a real listener.

use std::collections::HashSet;
use std::net::SocketAddr;

use roomcast_protocol::RoomName;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

mod caching;

use super::*;
use crate::access::Access;
use crate::server::{Admission, AdmissionLimits, OriginPolicy, listen};
use crate::session::accepted::Route;

const DEADLINE: Duration = Duration::from_mins(1);
const HEADERS: &str = "Host: gateway:80\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn rules() -> HandshakeRules {
    HandshakeRules {
        origins: OriginPolicy::SameOrigin,
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        header_read_timeout: Duration::from_secs(5),
        max_headers: 64,
        max_header_bytes: 16384,
        rooms_per_connection: 2,
        echo: false,
        authorizer: None,
    }
}

struct Server {
    address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    draining: Rc<Cell<bool>>,
    admission: Arc<Admission>,
    stop: Option<oneshot::Sender<()>>,
    stopped: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(rules: HandshakeRules, limits: AdmissionLimits) -> Self {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (on_socket, accepted) = mpsc::unbounded_channel();
        let (on_outcome, outcomes) = mpsc::unbounded_channel();
        let (stop, stop_asked) = oneshot::channel();
        let draining = Rc::new(Cell::new(false));
        let admission = Admission::new(limits);
        let asked = draining.clone();
        let context = Context::new(
            rules,
            admission.clone(),
            Arc::new(Access::open()),
            Rc::new(move || asked.get()),
            Rc::new(move |accepted| on_socket.send(accepted).expect("the test listens")),
            Rc::new(move |outcome, _| {
                let _ = on_outcome.send(outcome);
            }),
            None,
        );
        let stopped = tokio::task::spawn_local(crate::server::serve(listener, context, async {
            let _ = stop_asked.await;
        }));
        Self { address, accepted, outcomes, draining, admission, stop: Some(stop), stopped }
    }

    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("listening");
        stream.write_all(bytes).await.expect("open");
        stream
    }

    /// Sends a request and reads the answer to its end.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut answer = Vec::new();
        let mut stream = self.connect(bytes.as_ref()).await;
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("closed in time").expect("not reset");
        String::from_utf8(answer).expect("text")
    }

    /// Sends a request and reads the head of the answer, which leaves the connection open.
    async fn upgrade(&self, bytes: impl AsRef<[u8]>) -> (String, TcpStream) {
        let mut stream = self.connect(bytes.as_ref()).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(DEADLINE, stream.read_u8()).await.expect("answered in time").expect("open");
            answer.push(byte);
        }
        (String::from_utf8(answer).expect("text"), stream)
    }

    async fn outcome(&mut self) -> Outcome {
        timeout(DEADLINE, self.outcomes.recv()).await.expect("recorded in time").expect("serving")
    }

    async fn accepted(&mut self) -> Accepted {
        timeout(DEADLINE, self.accepted.recv()).await.expect("accepted in time").expect("serving")
    }
}

fn limits() -> AdmissionLimits {
    AdmissionLimits { max_connections: 100, max_connections_per_address: 0, connect_rate: 0 }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{HEADERS}\r\n")
}

/// A good request with lines changed: `without` removes the header of that name, `with` adds lines.
fn changed(without: &str, with: &str) -> String {
    let kept: String =
        HEADERS.split_inclusive("\r\n").filter(|line| !line.starts_with(&format!("{without}:"))).collect();
    format!("GET /ws/lobby HTTP/1.1\r\n{kept}{with}\r\n")
}

#[test]
fn a_socket_is_handed_over_with_what_the_handshake_said() {
    run(async {
        let mut server = Server::start(rules(), limits());
        let request = format!(
            "GET /ws/lobby?room=b&name=Zo%C3%AB&since=t:7 HTTP/1.1\r\n{HEADERS}Origin: http://gateway\r\n\
             Sec-WebSocket-Protocol: bearer.abc, roomcast.v1.json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
             X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n\r\nfirst frame"
        );
        let (head, mut client) = server.upgrade(request).await;
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
        for line in ["sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", "sec-websocket-protocol: roomcast.v1.json"] {
            assert!(head.contains(line), "{line} in {head}");
        }
        for name in ["bearer", "sec-websocket-extensions", "connection: close"] {
            assert!(!head.contains(name), "{name} in {head}");
        }
        let mut accepted = server.accepted().await;
        assert_eq!(&accepted.leftover[..], b"first frame");
        assert_eq!(accepted.name.as_deref(), Some("Zoë"));
        assert_eq!(accepted.peer.to_string(), "203.0.113.9");
        assert!(accepted.stream.nodelay().expect("open"));
        let Route::Rooms { rooms, path_room } = &accepted.route else { panic!("rooms") };
        assert_eq!(rooms.iter().map(|(room, _)| room.as_str()).collect::<Vec<_>>(), ["lobby", "b"]);
        assert_eq!(path_room.as_ref().map(RoomName::as_str), Some("lobby"));
        // From here on it is a plain TCP connection, both ways.
        client.write_all(b"more").await.expect("open");
        let mut four = [0; 4];
        accepted.stream.read_exact(&mut four).await.expect("open");
        accepted.stream.write_all(&four).await.expect("open");
        client.read_exact(&mut four).await.expect("open");
        assert_eq!(&four, b"more");
        assert_eq!(server.outcome().await, Outcome::Accepted);
        assert_eq!(server.admission.connections(), 1);
        drop(accepted);
        assert_eq!(server.admission.connections(), 0);
    });
}

#[test]
fn each_refusal_has_its_status_its_words_and_its_label() {
    run(async {
        let mut server = Server::start(rules(), limits());
        let key = "Sec-WebSocket-Key";
        let cases = [
            (get("/nothing"), 404, Outcome::NotFound, "/ws/{room}"),
            (get("/echo"), 404, Outcome::NotFound, "/ws/{room}"),
            (get("/ws/a").replace("GET", "PUT"), 405, Outcome::BadMethod, "GET"),
            (get("/ws/a").replace("HTTP/1.1", "HTTP/1.0"), 400, Outcome::BadHttpVersion, "HTTP/1.1"),
            (changed("", "Content-Length: 3\r\n") + "abc", 400, Outcome::BadRequest, "body"),
            (changed("Host", ""), 400, Outcome::BadRequest, "Host"),
            (changed("", "Host: other\r\n"), 400, Outcome::BadRequest, "Host"),
            (changed("Upgrade", ""), 426, Outcome::NoUpgrade, "Upgrade: websocket"),
            (changed("Upgrade", "Upgrade: h2c\r\n"), 426, Outcome::NoUpgrade, "Upgrade: websocket"),
            (changed("Connection", "Connection: close\r\n"), 426, Outcome::NoUpgrade, "Connection: Upgrade"),
            (changed("Sec-WebSocket-Version", ""), 426, Outcome::BadVersion, "13"),
            (changed("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n"), 426, Outcome::BadVersion, "13"),
            (changed(key, ""), 400, Outcome::BadKey, key),
            (changed(key, "Sec-WebSocket-Key: c2hvcnQ=\r\n"), 400, Outcome::BadKey, "16 bytes"),
            (changed("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, Outcome::BadKey, "one header"),
            (changed("", "Origin: http://evil.example\r\n"), 403, Outcome::BadOrigin, "origin"),
            (changed("", "Origin: null\r\n"), 403, Outcome::BadOrigin, "origin"),
            (changed("", "Origin: http://gateway\r\nOrigin: http://gateway\r\n"), 403, Outcome::BadOrigin, "origin"),
            (get("/ws/a%20b"), 400, Outcome::BadRoom, "room name"),
            (get("/ws?room=a&room=b&room=c"), 400, Outcome::TooManyRooms, "at most 2"),
            (get("/ws/a?since=7"), 400, Outcome::BadQuery, "<term>:<seq>"),
            (get("/ws/a?name="), 400, Outcome::BadName, "name"),
            ("\x01\x02\r\n\r\n".into(), 400, Outcome::BadRequest, ""),
        ];
        for (request, status, outcome, words) in cases {
            let answer = server.ask(&request).await;
            let version = if outcome == Outcome::BadHttpVersion { "1.0" } else { "1.1" };
            assert!(answer.starts_with(&format!("HTTP/{version} {status} ")), "{request}\n{answer}");
            assert!(answer.contains(words), "{words:?} in {answer}");
            assert_eq!(server.outcome().await, outcome, "{request}");
        }
        assert!(server.ask(get("/ws/a").replace("GET", "PUT")).await.contains("allow: GET"));
        assert!(server.ask(changed("Upgrade", "")).await.contains("upgrade: websocket"));
        assert!(server.ask(changed("Sec-WebSocket-Version", "")).await.contains("sec-websocket-version: 13"));
        server.draining.set(true);
        let answer = server.ask(get("/ws/a")).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
        assert_eq!(server.admission.connections(), 0);
    });
}

#[test]
fn lists_and_cases_of_headers_are_understood() {
    run(async {
        let mut server = Server::start(HandshakeRules { echo: true, ..rules() }, limits());
        let request = changed("Upgrade", "UPGRADE: h2c, WebSocket\r\nAuthorization: bearer t0\r\n");
        assert!(server.upgrade(request).await.0.starts_with("HTTP/1.1 101"));
        assert!(matches!(server.accepted().await.route, Route::Rooms { .. }));
        let (head, _client) = server.upgrade(get("/echo")).await;
        assert!(!head.contains("protocol:"), "nothing offered, nothing answered: {head}");
        assert_eq!(server.accepted().await.route, Route::Echo);
        let (_, _client) = server.upgrade(get("/connect?token=t1")).await;
        assert_eq!(server.accepted().await.route, Route::Bare);
    });
}

#[test]
fn connections_are_limited_per_node_and_per_address() {
    run(async {
        let mut server =
            Server::start(rules(), AdmissionLimits { max_connections: 2, max_connections_per_address: 1, ..limits() });
        let from = |address: &str| changed("", &format!("X-Forwarded-For: {address}\r\n"));
        let _clients = (server.upgrade(from("1.1.1.1")).await, server.upgrade(from("1.1.1.2")).await);
        let held = [server.accepted().await, server.accepted().await];
        for address in ["1.1.1.1", "1.1.1.3"] {
            let answer = server.ask(from(address)).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
            while server.outcome().await != Outcome::TooManyConnections {}
        }
        let [first, second] = held;
        drop(first);
        let answer = server.ask(from("1.1.1.2")).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        while server.outcome().await != Outcome::AddressLimit {}
        drop(second);
        assert!(server.upgrade(from("1.1.1.2")).await.0.starts_with("HTTP/1.1 101"));
    });
}

#[test]
fn heads_have_limits_in_time_count_and_size() {
    run(async {
        let slow = HandshakeRules { header_read_timeout: Duration::from_millis(500), ..rules() };
        let mut server = Server::start(slow, limits());
        for begun in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            assert_eq!(server.ask(begun).await, "", "closed without an answer");
            assert_eq!(server.outcome().await, Outcome::Timeout);
        }
        let mut server = Server::start(rules(), limits());
        for head in
            ["X: y\r\n".repeat(200), format!("X: {}\r\n", "y".repeat(20_000)), format!("X: {}", "y".repeat(100_000))]
        {
            let answer = server.ask(format!("GET / HTTP/1.1\r\n{head}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
            assert_eq!(server.outcome().await, Outcome::HeadersTooLarge);
        }
        drop(server.connect(b"").await);
        assert_eq!(server.outcome().await, Outcome::Abandoned);
        drop(server.connect(b"GET / HT").await);
        assert_eq!(server.outcome().await, Outcome::Abandoned);
    });
}

#[test]
fn the_page_is_served_with_a_strict_policy() {
    run(async {
        let mut server = Server::start(rules(), limits());
        for (path, content_type) in [
            ("/", "text/html"),
            ("/app.js", "text/javascript"),
            ("/roomcast.js", "text/javascript"),
            ("/style.css", "text/css"),
        ] {
            let answer = server.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            for line in
                [&format!("content-type: {content_type}"), "default-src 'none'", "x-content-type-options: nosniff"]
            {
                assert!(answer.contains(line), "{line} in {answer}");
            }
            assert_eq!(server.outcome().await, Outcome::Page);
        }
        let head = server.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    });
}

#[test]
fn workers_share_a_port_and_stopping_closes_it() {
    run(async {
        let mut server = Server::start(rules(), limits());
        let other = listen(server.address).expect("the port is shared");
        drop(other);
        server.stop.take().expect("running").send(()).expect("serving");
        timeout(DEADLINE, &mut server.stopped).await.expect("stopped in time").expect("no panic").expect("no error");
        assert!(TcpStream::connect(server.address).await.is_err());
    });
}

/// Closing a listener resets what the kernel holds for it: those are answered before.
#[test]
fn who_waits_in_the_kernel_is_answered_before_the_door_closes() {
    use std::io::{Read as _, Write as _};

    run(async {
        let mut server = Server::start(rules(), limits());
        server.draining.set(true);
        server.stop.take().expect("running").send(()).expect("serving");
        // Nothing has been accepted yet, as the accept loop runs on this thread.
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(server.address).expect("listening");
                stream.write_all(get("/ws/a").as_bytes()).expect("open");
                stream
            })
            .collect();
        // They end their connections only when all are answered: none delays another, nor the end.
        timeout(DEADLINE, &mut server.stopped).await.expect("stopped in time").expect("no panic").expect("no error");
        for mut stream in waiting {
            let mut answer = String::new();
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            stream.read_to_string(&mut answer).expect("not reset");
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
        assert!(TcpStream::connect(server.address).await.is_err());
    });
}

#[test]
fn more_connections_than_the_rate_are_refused() {
    run(async {
        let mut server = Server::start(rules(), AdmissionLimits { connect_rate: 1, ..limits() });
        assert!(server.ask(get("/nothing")).await.starts_with("HTTP/1.1 404 "), "what is no WebSocket takes no turn");
        assert_eq!(server.outcome().await, Outcome::NotFound);
        let (head, _client) = server.upgrade(get("/ws/a")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(server.outcome().await, Outcome::Accepted);
        // So many at once that some have no turn, however slow the machine is.
        let request = get("/ws/a");
        let waiting = futures_util::future::join_all((0..20).map(|_| server.connect(request.as_bytes()))).await;
        while server.outcome().await != Outcome::ConnectRate {}
        let mut answer = String::new();
        for mut stream in waiting {
            let mut head = vec![0; 4096];
            let read = timeout(DEADLINE, stream.read(&mut head)).await.expect("answered in time").expect("open");
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            if head.starts_with("HTTP/1.1 503 ") {
                answer = head;
            }
        }
        let seconds = answer.split_once("retry-after: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let seconds = seconds.and_then(|(seconds, _)| seconds.parse::<u32>().ok());
        assert!(answer.starts_with("HTTP/1.1 503 ") && seconds.is_some_and(|s| (1..=5).contains(&s)), "{answer}");
    });
}

#[test]
fn outcomes_have_distinct_labels() {
    let labels: HashSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
    assert_eq!(labels.len(), Outcome::ALL.len());
}
