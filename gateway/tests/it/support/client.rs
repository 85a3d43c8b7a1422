//! A well-behaved client, on tungstenite: a WebSocket library the gateway does not use.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json, value::RawValue};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{DEADLINE, Node, within};

/// A text frame, as it was written and as JSON. Indexing reads the JSON: `frame["seq"]`.
#[derive(Debug, Clone)]
pub struct Frame {
    pub text: String,
    json: Value,
}

impl Frame {
    fn new(text: String) -> Self {
        // Numbers that no `f64` holds are valid JSON, but not a `Value`: those frames are for `raw` only.
        let json = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "type": only_type(&text) }));
        Self { text, json }
    }

    pub fn kind(&self) -> &str {
        self["type"].as_str().unwrap_or("")
    }

    /// The bytes of a field, untouched.
    pub fn raw(&self, field: &str) -> String {
        let fields: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(&self.text).unwrap();
        fields[field].get().to_owned()
    }

    pub fn seq(&self) -> u64 {
        self["seq"].as_u64().unwrap_or_else(|| panic!("no seq: {}", self.text))
    }

    pub fn list(&self, field: &str) -> &[Value] {
        self[field].as_array().unwrap_or_else(|| panic!("no list {field}: {}", self.text))
    }

    pub fn str(&self, field: &str) -> &str {
        self[field].as_str().unwrap_or_else(|| panic!("no string {field}: {}", self.text))
    }
}

impl std::ops::Index<&str> for Frame {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.json[field]
    }
}

fn only_type(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Only {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str::<Only>(text).unwrap_or_else(|e| panic!("not a frame of ours, {e}: {text}")).kind
}

/// The seqs of a list of messages.
pub fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["seq"].as_u64().expect("a seq")).collect()
}

/// Checks an `error` frame's code, and that it says something.
pub fn assert_error(frame: &Frame, code: &str, reference: &Value) {
    assert_eq!((frame.kind(), &frame["code"], &frame["ref"]), ("error", &json!(code), reference), "{}", frame.text);
    assert!(frame["message"].as_str().is_some_and(|words| !words.is_empty()), "no words: {}", frame.text);
    assert!(frame["retryable"].is_boolean(), "not said whether to retry: {}", frame.text);
}

/// One connection.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The frame that came first.
    pub welcome: Frame,
    held: VecDeque<Frame>,
    /// The close code, once it is over; 1006 when none came.
    closed: Option<u16>,
    parting: String,
}

impl Client {
    /// Connects to `path`; `welcome` has been read and was the first frame.
    pub async fn connect(node: &Node, path: &str) -> Self {
        let url = format!("ws://{}{path}", node.addr);
        let (socket, _) = within(&url, connect_async(&url)).await.unwrap_or_else(|e| panic!("{url}: {e}"));
        let welcome = Frame { text: String::new(), json: Value::Null };
        let mut client = Self { socket, welcome, held: VecDeque::new(), closed: None, parting: String::new() };
        client.welcome = client.next().await;
        assert_eq!(client.welcome.kind(), "welcome", "something came before: {}", client.welcome.text);
        client
    }

    /// Connects to `path`, or gives the code that it was closed with instead of a `welcome`.
    pub async fn try_connect(node: &Node, path: &str) -> Result<Self, u16> {
        let url = format!("ws://{}{path}", node.addr);
        let (socket, _) = within(&url, connect_async(&url)).await.unwrap_or_else(|e| panic!("{url}: {e}"));
        let nothing = Frame { text: String::new(), json: Value::Null };
        let mut client = Self { socket, welcome: nothing, held: VecDeque::new(), closed: None, parting: String::new() };
        client.welcome = client.receive().await.ok_or(client.closed.unwrap_or(1006))?;
        assert_eq!(client.welcome.kind(), "welcome", "something came before: {}", client.welcome.text);
        Ok(client)
    }

    /// Connects and joins `room`, returning the `joined` frame too.
    pub async fn enter(node: &Node, room: &str) -> (Self, Frame) {
        let mut client = Self::connect(node, &format!("/ws/{room}")).await;
        let joined = client.next().await;
        assert_eq!((joined.kind(), &joined["room"]), ("joined", &json!(room)), "{}", joined.text);
        (client, joined)
    }

    /// The same with a query, such as `?token=...`.
    pub async fn enter_by(node: &Node, room: &str, query: &str) -> (Self, Frame) {
        let mut client = Self::connect(node, &format!("/ws/{room}{query}")).await;
        let joined = client.next().await;
        assert_eq!((joined.kind(), &joined["room"]), ("joined", &json!(room)), "{}", joined.text);
        (client, joined)
    }

    /// This session's id.
    pub fn id(&self) -> &str {
        self.welcome.str("clientId")
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        // The server may have closed already; what it said is what matters, and reading tells.
        let _ = within("a frame to be taken", self.socket.send(message)).await;
    }

    /// Publishes to `room` and waits for the `ack`.
    pub async fn publish(&mut self, room: &str, data: Value) -> Frame {
        self.send(json!({"type": "publish", "room": room, "data": data, "ref": "publish"})).await;
        self.answer(&json!("publish")).await
    }

    /// The next frame, in the order they came; fails when the socket closes instead.
    pub async fn next(&mut self) -> Frame {
        match self.held.pop_front() {
            Some(frame) => frame,
            None => self.receive().await.unwrap_or_else(|| panic!("closed with {:?}", self.closed)),
        }
    }

    /// The next frame for which `wanted` holds; those before it are kept for later.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.held.iter().position(&wanted) {
            return self.held.remove(at).expect("found there");
        }
        let deadline = Instant::now() + DEADLINE; // of the whole search: frames and pings that come meanwhile don't move it
        loop {
            let Some(frame) = self.receive_until(deadline, what).await else {
                panic!("closed with {:?}, waiting for {what}; kept: {:?}", self.closed, self.kept());
            };
            if wanted(&frame) {
                return frame;
            }
            self.held.push_back(frame);
        }
    }

    /// The next frame of a type.
    pub async fn expect(&mut self, kind: &str) -> Frame {
        self.find(kind, |frame| frame.kind() == kind).await
    }

    /// The answer that carries `reference`, whatever its type.
    pub async fn answer(&mut self, reference: &Value) -> Frame {
        self.find(&format!("an answer to ref {reference}"), |frame| &frame["ref"] == reference).await
    }

    /// The next presence event of a kind.
    pub async fn presence(&mut self, event: &str) -> Frame {
        self.find(event, |frame| frame.kind() == "presence" && frame["event"] == event).await
    }

    /// `count` messages of a room, in the order they came.
    pub async fn messages(&mut self, room: &str, count: usize) -> Vec<Frame> {
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let what = format!("message {} of {count} in {room}", found.len() + 1);
            found.push(self.find(&what, |frame| frame.kind() == "message" && frame["room"] == room).await);
        }
        found
    }

    /// Everything that was due before now, beside what is kept: a `pong` comes after it.
    pub async fn settle(&mut self) -> Vec<Frame> {
        self.send(json!({"type": "ping", "ref": "settle"})).await;
        self.answer(&json!("settle")).await;
        self.held.drain(..).collect()
    }

    /// Reads to the end and returns the close code, 1006 when none came.
    pub async fn close_code(&mut self) -> u16 {
        while let Some(frame) = self.receive().await {
            self.held.push_back(frame);
        }
        self.closed.unwrap_or(1006)
    }

    /// The close frame's words; call it behind [`Client::close_code`].
    pub fn close_words(&self) -> &str {
        &self.parting
    }

    /// Closes from this side.
    pub async fn leave(mut self) {
        let _ = self.socket.close(None).await;
        self.close_code().await;
    }

    /// What came and was not asked for yet, the first 20.
    pub fn kept(&self) -> Vec<&str> {
        self.held.iter().map(|frame| frame.text.as_str()).take(20).collect()
    }

    async fn receive(&mut self) -> Option<Frame> {
        self.receive_until(Instant::now() + DEADLINE, "a frame").await
    }

    async fn receive_until(&mut self, deadline: Instant, what: &str) -> Option<Frame> {
        loop {
            let message = timeout_at(deadline, self.socket.next()).await;
            let Ok(message) = message else {
                panic!("deadline passed, waiting for {what}; kept: {:?}", self.kept());
            };
            match message {
                Some(Ok(Message::Text(text))) => return Some(Frame::new(text.to_string())),
                Some(Ok(Message::Close(frame))) => {
                    self.parting = frame.as_ref().map(|frame| frame.reason.to_string()).unwrap_or_default();
                    self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(Message::Binary(_))) => panic!("the gateway sent a binary frame"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.closed.get_or_insert(1006);
                    return None;
                }
            }
        }
    }
}
