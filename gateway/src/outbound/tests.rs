//! Calls to real servers, with and without TLS.

use std::io::{Read, Write};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers every connection with `answer`, and keeps the requests.
async fn server(answer: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/keys?secret=canary", listener.local_addr().expect("bound"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.expect("open");
                seen.lock().expect("whole").push(String::from_utf8_lossy(&head[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("open");
            });
        }
    });
    (url, requests)
}

fn get(url: &str) -> Call<'_> {
    Call { url, headers: &[("accept", "application/json")], body: None, timeout: SHORT, longest_answer: 1000 }
}

const SHORT: Duration = Duration::from_secs(20);

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_answer_comes_back_whatever_its_status() {
    let (url, requests) = server(answer("429 Slow\r\nRetry-After: 7", "later")).await;
    let outbound = Outbound::new(None).expect("made");
    let body = Some(Bytes::from_static(b"{}"));
    let got = outbound.call(Call { body, ..get(&url) }).await.expect("answered");
    assert_eq!((got.status, &got.body[..], got.retry_after), (429, &b"later"[..], Some(Duration::from_secs(7))));
    let seen = requests.lock().expect("whole").join("");
    assert!(
        seen.starts_with("POST /keys?secret=canary HTTP/1.1") && seen.contains("accept: application/json"),
        "{seen}"
    );
}

#[tokio::test]
async fn redirects_are_answers() {
    let (elsewhere, reached) = server(answer("200 OK", "inside")).await;
    let (url, _) = server(answer(&format!("302 Found\r\nLocation: {elsewhere}"), "")).await;
    let got = Outbound::new(None).expect("made").call(get(&url)).await.expect("answered");
    assert_eq!((got.status, got.body.len()), (302, 0));
    assert!(reached.lock().expect("whole").is_empty());
}

#[tokio::test]
async fn what_is_too_long_or_too_slow_is_given_up() {
    let outbound = Outbound::new(None).expect("made");
    let (url, _) = server(answer("200 OK", &"x".repeat(1001))).await;
    assert!(matches!(outbound.call(get(&url)).await, Err(OutboundError::TooLong(1000))));
    let endless = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "64\r\n".to_owned() + &"x".repeat(100) + "\r\n"
    );
    let (url, _) = server(endless).await;
    let call = Call { timeout: Duration::from_millis(100), ..get(&url) };
    let error = outbound.call(call).await.expect_err("cut off, or in time");
    assert!(matches!(error, OutboundError::Timeout | OutboundError::Unreachable(_)), "{error:?}");
    // Accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", silent.local_addr().expect("bound"));
    let call = Call { timeout: Duration::from_millis(100), ..get(&url) };
    assert!(matches!(outbound.call(call).await, Err(OutboundError::Timeout)));
}

#[tokio::test]
async fn errors_say_why_but_not_where() {
    // Held, and nobody listens there.
    let held = tokio::net::TcpSocket::new_v4().expect("a socket");
    held.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let url = format!("http://{}/canary?canary=1", held.local_addr().expect("bound"));
    let error = Outbound::new(None).expect("made").call(get(&url)).await.expect_err("nobody there").to_string();
    assert!(error.contains("refused") && !error.contains("canary"), "{error}");
}

/// A server that speaks TLS with a certificate of its own making. Gives its address and the certificate.
fn tls_server() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://localhost:{}/", listener.local_addr().expect("bound").port());
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut tls = rustls::StreamOwned::new(session, stream.expect("a connection"));
            if tls.read(&mut [0; 4096]).is_ok() {
                let _ = tls.write_all(answer("200 OK", "{\"keys\":[]}").as_bytes());
            }
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn certificates_are_verified_against_the_roots_and_the_file() {
    let (url, pem) = tls_server();
    let error = Outbound::new(None).expect("made").call(get(&url)).await.expect_err("not trusted").to_string();
    assert!(error.contains("certificate"), "{error}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, pem).expect("written");
    let got = Outbound::new(Some(&file)).expect("made").call(get(&url)).await.expect("trusted");
    assert_eq!((got.status, &got.body[..]), (200, &b"{\"keys\":[]}"[..]));
    for (text, part) in [("", "none in it"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")] {
        std::fs::write(&file, text).expect("written");
        let error = Outbound::new(Some(&file)).expect_err("no certificates").to_string();
        assert!(error.contains("ca.pem") && error.contains(part), "{error}");
    }
    assert!(Outbound::new(Some(Path::new("/nonexistent.pem"))).is_err());
}

#[test]
fn a_server_may_ask_for_time() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (header, expected) in [
        ("7", Some(Duration::from_secs(7))),
        (" 0 ", Some(Duration::ZERO)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(Duration::from_secs(10))),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO)),
        ("-1", None),
        ("soon", None),
        ("", None),
    ] {
        assert_eq!(wait(header, now), expected, "{header:?}");
    }
}
