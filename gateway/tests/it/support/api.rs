//! The HTTP API as a backend sees it: one connection that stays, requests as bytes, answers as JSON.

use std::net::SocketAddr;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::{Node, Raw, Response};

/// Keys that tests use, with what they may do.
pub const READER: &str = "reader-key";
pub const WRITER: &str = "writer-key";
pub const ADMIN: &str = "admin-key";
pub const ALL: &str = "all-key";

/// The settings that make these keys known, for [`Node::start`] and its like.
pub fn keys() -> Vec<String> {
    let line = |name: &str, scopes: &str, key: &str| {
        let digest = digest(&SHA256, key.as_bytes());
        let hex = digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        format!("{name}:{scopes}:{hex}")
    };
    let keys = [
        line("reader", "read", READER),
        line("writer", "publish", WRITER),
        line("boss", "admin", ADMIN),
        line("all", "read+publish+admin", ALL),
    ];
    vec!["--api-keys".to_owned(), keys.join(","), "--api-rate".to_owned(), "0".to_owned()]
}

/// A node with the keys.
pub async fn api_node(args: &[&str]) -> Node {
    let keys = keys();
    let all: Vec<&str> = keys.iter().map(String::as_str).chain(args.iter().copied()).collect();
    Node::start(&all).await
}

/// An answer: status, head and JSON, null if it has no body.
pub struct Answer {
    pub status: u16,
    pub json: Value,
    response: Response,
}

impl Answer {
    /// A header's value, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.response.header(name)
    }

    /// Checks that this is a problem as RFC 9457 has it, and returns its code.
    pub fn problem(&self) -> String {
        let json = &self.json;
        assert_eq!(self.header("content-type"), "application/problem+json", "{json}");
        assert_eq!(json["status"], self.status, "{json}");
        let code = json["code"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
        assert_eq!(json["type"], format!("urn:roomcast:problem:{code}"), "{json}");
        assert!(json["title"].is_string() && json["detail"].is_string() && json["retryable"].is_boolean(), "{json}");
        if matches!(self.status, 429 | 503) {
            assert!(self.header("retry-after").parse::<u64>().is_ok(), "{json}");
        }
        if self.status == 401 {
            assert!(self.header("www-authenticate").starts_with("Bearer"), "{json}");
        }
        code
    }

    /// The JSON of an answer that must have this status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }
}

/// A connection to the API with one key.
pub struct Backend {
    pub addr: SocketAddr,
    pub key: String,
    raw: Raw,
}

impl Backend {
    pub async fn connect(addr: SocketAddr, key: &str) -> Self {
        Self { addr, key: key.to_owned(), raw: Raw::connect(addr).await }
    }

    /// The head of a request, without the empty line.
    pub fn head(&self, method: &str, path: &str) -> String {
        let authorization = match self.key.as_str() {
            "" => String::new(),
            key => format!("authorization: Bearer {key}\r\n"),
        };
        format!("{method} /api/v1{path} HTTP/1.1\r\nhost: {}\r\n{authorization}", self.addr)
    }

    /// A whole request with a body of JSON, if it has one.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let head = self.head(method, path);
        match body {
            None => format!("{head}\r\n"),
            Some(body) => {
                format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            }
        }
    }

    /// Sends bytes and reads one answer. A connection that the server closed is made anew first.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.raw.write(bytes.as_ref()).await;
        let answer = self.answer().await;
        if answer.header("connection") == "close" {
            self.raw.ended().await;
            self.raw = Raw::connect(self.addr).await;
        }
        answer
    }

    /// Reads one answer.
    pub async fn answer(&mut self) -> Answer {
        let response = self.raw.response().await;
        let json = serde_json::from_slice(&response.body).unwrap_or_default();
        Answer { status: response.status, json, response }
    }

    /// Sends bytes and reads nothing.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.raw.write(bytes.as_ref()).await
    }

    /// Reads until the server closes.
    pub async fn ended(&mut self) {
        self.raw.ended().await;
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.exchange(self.request("GET", path, None)).await
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.exchange(self.request("DELETE", path, None)).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.exchange(self.request("POST", path, Some(&body.to_string()))).await
    }
}
