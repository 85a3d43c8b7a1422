//! An issuer that publishes its keys over HTTP, changes them, and dies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// A signing key with a name.
pub struct Key {
    kid: String,
    pair: KeyPair,
}

impl Key {
    pub fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    pub fn token(&self, more: &Value) -> String {
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &super::claims(more), &key).unwrap()
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key_raw();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (part(&point[1..33]), part(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y})
    }
}

/// The key set of some keys.
pub fn set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Where keys are published.
pub struct Publisher {
    pub addr: SocketAddr,
    answer: Arc<Mutex<String>>,
    paths: Arc<Mutex<Vec<String>>>,
    serving: Option<JoinHandle<()>>,
    /// Keeps the address while nobody listens there.
    held: Option<TcpSocket>,
}

impl Publisher {
    pub fn start(body: &str) -> Self {
        let addr = "127.0.0.1:0".parse().unwrap();
        let mut publisher =
            Self { addr, answer: Arc::default(), paths: Arc::default(), serving: None, held: Some(bound(addr)) };
        publisher.publish(body);
        publisher.revive();
        publisher
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys.json", self.addr)
    }

    /// Answers with this from now on.
    pub fn publish(&self, body: &str) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        *self.answer.lock().unwrap() = head + body;
    }

    /// Answers with a failure from now on.
    pub fn fail(&self) {
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .clone_into(&mut self.answer.lock().unwrap());
    }

    /// What was asked for.
    pub fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    /// Stops: connections are refused from now on.
    pub async fn die(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
            self.held = Some(bound(self.addr));
        }
    }

    /// Starts again, at the same address.
    pub fn revive(&mut self) {
        let listener = self.held.take().expect("nobody listens").listen(64).unwrap();
        self.addr = listener.local_addr().unwrap();
        let (answer, paths) = (Arc::clone(&self.answer), Arc::clone(&self.paths));
        self.serving = Some(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let Ok(read) = stream.read(&mut head).await else { continue };
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                paths.lock().unwrap().push(text.split(' ').nth(1).unwrap_or_default().to_owned());
                let answer = answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }));
    }
}

fn bound(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket
}
