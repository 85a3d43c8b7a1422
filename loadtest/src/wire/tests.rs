//! Connections to a server that is not ours: tungstenite's, plain and behind TLS.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::Poll;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::server::{Request as Asked, Response};
use tungstenite::{Message, WebSocket};

use super::{Closed, ConnectError, Connector, Frame, Link, Request};

const LONG: usize = 300_000;

/// Accepts one connection: greets, pings, repeats what it is told, and closes on `bye`.
fn serve(socket: impl Read + Write) -> (Asked, Vec<u8>) {
    let mut asked = None;
    #[allow(clippy::result_large_err, reason = "the shape of tungstenite's callback")]
    let note = |request: &Asked, response: Response| {
        asked = Some(request.clone());
        Ok(response)
    };
    let accepted: Result<WebSocket<_>, _> = tungstenite::accept_hdr(socket, note);
    let mut socket = accepted.expect("a handshake");
    socket.send(Message::text("x".repeat(LONG))).expect("greeted");
    socket.send(Message::Ping(b"are you there".to_vec().into())).expect("pinged");
    let mut pong = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text == "bye" => {
                let frame = tungstenite::protocol::CloseFrame { code: 1012.into(), reason: "draining".into() };
                let _ = socket.close(Some(frame));
            }
            Ok(Message::Text(text)) => socket.send(Message::Text(text)).expect("repeated"),
            Ok(Message::Pong(payload)) => pong = payload.to_vec(),
            Ok(_) => {}
            Err(_) => return (asked.expect("asked"), pong),
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn request(address: SocketAddr, tls: bool) -> Request<'static> {
    let source = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    let (host, port) = ("localhost", address.port());
    Request { address, source, host, port, tls, path: "/connect?name=a", token: Some("a.b.c") }
}

/// Reads texts until `until` of them came or the connection ended.
async fn texts(link: &mut Link, texts: &mut Vec<String>, until: usize) -> Option<Closed> {
    let mut scratch = vec![0; 1000];
    poll_fn(|cx| {
        while texts.len() < until {
            let mut on = |frame: Frame<'_>| {
                if let Frame::Text(text) = frame {
                    texts.push(String::from_utf8_lossy(text).into_owned());
                }
            };
            match link.poll(cx, &mut scratch, &mut on) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(closed)) => return Poll::Ready(Some(closed)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(None)
    })
    .await
}

async fn talk(connector: &Connector, request: Request<'_>) {
    let (mut link, rest) = connector.connect(request).await.expect("connected");
    let mut seen = Vec::new();
    link.feed(&rest, &mut |_| {});
    assert_eq!(texts(&mut link, &mut seen, 1).await, None);
    assert_eq!(seen[0].len(), LONG);
    let mut encoded = Vec::new();
    let long = "y".repeat(LONG);
    link.send(long.as_bytes(), &mut encoded);
    link.send(b"short", &mut encoded);
    assert_eq!(texts(&mut link, &mut seen, 3).await, None);
    assert_eq!((&seen[1], seen[2].as_str()), (&long, "short"));
    assert_eq!(link.backlog(), 0);
    link.send(b"bye", &mut encoded);
    let closed = texts(&mut link, &mut seen, 4).await;
    assert_eq!(closed, Some(Closed::By(1012, "draining".to_owned())));
}

fn check((asked, pong): (Asked, Vec<u8>), address: SocketAddr) {
    assert_eq!(asked.uri(), "/connect?name=a");
    assert_eq!(asked.headers()["authorization"], "Bearer a.b.c");
    assert_eq!(asked.headers()["host"], format!("localhost:{}", address.port()));
    assert_eq!(pong, b"are you there");
}

#[tokio::test]
async fn a_plain_connection_carries_long_and_short_both_ways() {
    let (listener, address) = listen();
    let server = std::thread::spawn(move || {
        let (socket, from) = listener.accept().expect("accepted");
        assert_eq!(from.ip().to_string(), "127.0.0.9");
        serve(socket)
    });
    talk(&Connector::new(None).expect("a connector"), request(address, false)).await;
    check(server.join().expect("served"), address);
}

#[tokio::test]
async fn so_does_one_behind_tls_if_its_certificate_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let config = Arc::new(config);
    let (listener, address) = listen();
    let accept = move |listener: &TcpListener| -> StreamOwned<ServerConnection, TcpStream> {
        let (socket, _) = listener.accept().expect("accepted");
        StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("a session"), socket)
    };
    let server = std::thread::spawn(move || {
        let _ = accept(&listener).flush();
        serve(accept(&listener))
    });
    let distrust = Connector::new(None).expect("a connector").connect(request(address, true)).await;
    assert!(matches!(&distrust, Err(ConnectError::Io(words)) if words.contains("certificate")), "{:?}", distrust.err());
    talk(&Connector::new(Some(&ca)).expect("a connector"), request(address, true)).await;
    check(server.join().expect("served"), address);
}

#[tokio::test]
async fn a_refusal_tells_its_status_and_words() {
    let (listener, address) = listen();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepted");
        let _ = socket.read(&mut [0; 4096]);
        let _ =
            socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\ntoo many connections\nmore\n");
    });
    let refused = Connector::new(None).expect("a connector").connect(request(address, false)).await.err();
    assert_eq!(refused, Some(ConnectError::Refused(503, "too many connections".to_owned())));
    server.join().expect("served");
}

#[tokio::test]
async fn an_ipv6_address_stands_in_brackets() {
    let listener = TcpListener::bind("[::1]:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || serve(listener.accept().expect("accepted").0));
    let asked = Request { source: None, host: "::1", ..request(address, false) };
    talk(&Connector::new(None).expect("a connector"), asked).await;
    let (asked, _) = server.join().expect("served");
    assert_eq!(asked.headers()["host"], format!("[::1]:{}", address.port()));
}

/// A server that asks for more pongs than it reads.
#[tokio::test]
async fn pongs_that_nobody_reads_do_not_pile_up() {
    const PINGS: usize = 400_000;
    let (listener, address) = listen();
    let server = std::thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().expect("accepted").0).expect("a handshake");
        let ping = [&[0x89, 125][..], &[b'x'; 125]].concat().repeat(1000);
        for _ in 0..PINGS / 1000 {
            socket.get_mut().write_all(&ping).expect("it reads");
        }
        socket.send(Message::text("done")).expect("it reads");
        socket
    });
    let (mut link, rest) =
        Connector::new(None).expect("a connector").connect(request(address, false)).await.expect("connected");
    link.feed(&rest, &mut |_| {});
    assert_eq!(texts(&mut link, &mut Vec::new(), 1).await, None);
    let socket = server.join().expect("it got everything rid of");
    // Far below the 52 MB of all pongs, of which the socket took a part.
    assert!(link.backlog() > 0, "the sockets took everything, the test shows nothing");
    assert!(link.backlog() <= 4 * 1024 * 1024, "{} bytes wait", link.backlog());
    drop(socket);
}
