//! Orders to all nodes: what one node is asked to do wherever the one concerned may be, and what the others answer.
//!
//! Used by the hub and by every broker. An order is a text that may come from any version, or from a stranger: decoding
//! takes nothing on trust, and an order that this version does not know is answered as such.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use roomcast_protocol::{ClientId, NodeId, RoomName, check_user};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::BrokerError;

/// Of the format. A reader of another one does not carry out what it may misread.
const VERSION: u32 = 1;
/// Longest order, in bytes; ours stay far below.
const MAX_ORDER_BYTES: usize = 4096;
/// Longest words to a client, in bytes: what a close frame holds.
pub const MAX_WORDS_BYTES: usize = 123;

/// Orders and their answers. Part of [`super::Broker`], under its rules.
#[async_trait(?Send)]
pub trait Orders {
    /// Asks for the orders, as [`super::Event::Order`]. As [`super::Broker::subscribe`], but for ever. What was ordered
    /// while the subscription was away is not told later.
    async fn listen(&self) -> Result<(), BrokerError>;

    /// Tells every node that listens, this one included.
    async fn order(&self, order: &Order) -> Result<(), BrokerError>;

    /// Says what came of an order on this node. Kept for [`ANSWERS_STAY`].
    async fn answer(&self, order: OrderId, answer: Answer) -> Result<(), BrokerError>;

    /// The answers so far.
    async fn answers(&self, order: OrderId) -> Result<Vec<(NodeId, Answer)>, BrokerError>;
}

/// How long answers are kept after the last one.
pub const ANSWERS_STAY: std::time::Duration = std::time::Duration::from_secs(10);

/// Names an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderId(Uuid);

impl OrderId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    fn parse(text: &str) -> Result<Self, NotAnOrder> {
        Uuid::try_parse(text).map(Self).map_err(|_| NotAnOrder)
    }
}

/// 32 hexadecimal digits, good for the name of a key.
impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// Something all nodes are to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Under which it is answered.
    pub id: OrderId,
    /// Who gave it, for the log.
    pub from: NodeId,
    /// What.
    pub task: Task,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Take these out of a room. They stay connected.
    Remove {
        /// Which room.
        room: RoomName,
        /// Whom.
        target: Target,
        /// What they are told. [`check_words`] holds.
        words: Option<Arc<str>>,
    },
    /// End the connections of these.
    Disconnect {
        /// Whose.
        target: Target,
        /// Whether they are asked to come back, to any node.
        may_return: bool,
        /// What they are told if they may not. [`check_words`] holds.
        words: Option<Arc<str>>,
    },
    /// Something that a later version knows.
    Unknown,
}

/// Whom an order concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One session.
    Client(ClientId),
    /// All sessions of a user. [`roomcast_protocol::check_user`] holds.
    User(Arc<str>),
}

/// What a node says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Done {
        /// Connections it concerned.
        hit: u64,
    },
    /// This version does not know such orders.
    Unknown,
    /// Too many orders at a time: not carried out.
    Overloaded,
}

/// Why an order could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an order")]
pub struct NotAnOrder;

/// Checks words to a client: at most [`MAX_WORDS_BYTES`] bytes, no control characters.
///
/// # Errors
/// The rule, in words.
pub fn check_words(words: &str) -> Result<(), &'static str> {
    if words.len() > MAX_WORDS_BYTES || words.chars().any(char::is_control) {
        return Err("expected at most 123 bytes without control characters");
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    v: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow, rename = "do")]
    task: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    may_return: Option<bool>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    words: Option<Cow<'a, str>>,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    v: u32,
}

/// What the answer to an order of any version needs.
#[derive(Deserialize)]
struct Later<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
}

impl Order {
    /// A new one.
    pub fn new(from: NodeId, task: Task) -> Self {
        Self { id: OrderId::random(), from, task }
    }

    /// Whether it can be sent: its names and words follow their rules.
    pub fn is_good(&self) -> bool {
        self.encode().is_ok()
    }

    /// As it is sent. Refuses what others would refuse.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BrokerError> {
        let mut raw = Raw {
            v: VERSION,
            id: self.id.to_string().into(),
            from: self.from.as_str().into(),
            task: "".into(),
            room: None,
            client: None,
            user: None,
            may_return: None,
            words: None,
        };
        let (task, target, words) = match &self.task {
            Task::Remove { room, target, words } => {
                raw.room = Some(room.as_str().into());
                ("remove", target, words)
            }
            Task::Disconnect { target, may_return, words } => {
                raw.may_return = Some(*may_return);
                ("disconnect", target, words)
            }
            Task::Unknown => return Err(BrokerError::Rejected("an order that nobody knows".into())),
        };
        raw.task = task.into();
        raw.words = words.as_deref().map(Cow::Borrowed);
        match target {
            Target::Client(client) => raw.client = Some(client.to_string().into()),
            Target::User(user) => raw.user = Some(Cow::Borrowed(user)),
        }
        let text = serde_json::to_vec(&raw).map_err(|error| BrokerError::Rejected(error.to_string()))?;
        match Self::decode(&text) {
            Ok(read) if read == *self => Ok(text),
            _ => Err(BrokerError::Rejected("an order breaks a bound".into())),
        }
    }

    /// Reads an order. Costs no more than its bytes account for.
    pub fn decode(text: &[u8]) -> Result<Self, NotAnOrder> {
        if text.len() > MAX_ORDER_BYTES {
            return Err(NotAnOrder);
        }
        let Head { v } = serde_json::from_slice(text).map_err(|_| NotAnOrder)?;
        if v != VERSION {
            return Self::decode_later(text, v);
        }
        let raw: Raw<'_> = serde_json::from_slice(text).map_err(|_| NotAnOrder)?;
        let from = NodeId::new(&raw.from).map_err(|_| NotAnOrder)?;
        let task = match &*raw.task {
            "remove" => {
                let room = raw.room.as_deref().and_then(|room| RoomName::new(room).ok()).ok_or(NotAnOrder)?;
                Task::Remove { room, target: raw.target()?, words: raw.words()? }
            }
            "disconnect" => {
                let may_return = raw.may_return.ok_or(NotAnOrder)?;
                Task::Disconnect { target: raw.target()?, may_return, words: raw.words()? }
            }
            _ => Task::Unknown,
        };
        Ok(Self { id: OrderId::parse(&raw.id)?, from, task })
    }

    /// Of a format that is not ours no more is read than what the answer needs.
    fn decode_later(text: &[u8], version: u32) -> Result<Self, NotAnOrder> {
        let later: Later<'_> = serde_json::from_slice(text).map_err(|_| NotAnOrder)?;
        let from = NodeId::new(&later.from).map_err(|_| NotAnOrder)?;
        let is_later = version > VERSION;
        if is_later { Ok(Self { id: OrderId::parse(&later.id)?, from, task: Task::Unknown }) } else { Err(NotAnOrder) }
    }
}

impl Raw<'_> {
    fn target(&self) -> Result<Target, NotAnOrder> {
        match (self.client.as_deref(), self.user.as_deref()) {
            (Some(client), None) => client.parse().map(Target::Client).map_err(|_| NotAnOrder),
            (None, Some(user)) if check_user(user).is_ok() => Ok(Target::User(user.into())),
            _ => Err(NotAnOrder),
        }
    }

    fn words(&self) -> Result<Option<Arc<str>>, NotAnOrder> {
        let words = self.words.as_deref();
        words.map_or(Ok(()), check_words).map_err(|_| NotAnOrder)?;
        Ok(words.map(Arc::from))
    }
}

impl Answer {
    /// As it is kept.
    pub(super) fn encode(self) -> String {
        match self {
            Self::Done { hit } => format!("done {hit}"),
            Self::Unknown => "unknown".into(),
            Self::Overloaded => "overloaded".into(),
        }
    }

    /// Reads one, whoever wrote it.
    pub(super) fn decode(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("done", hit)) => Some(Self::Done { hit: hit.parse().ok()? }),
            None if text == "unknown" => Some(Self::Unknown),
            None if text == "overloaded" => Some(Self::Overloaded),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::MAX_USER_BYTES;

    use super::*;

    fn order(task: Task) -> Order {
        Order::new(NodeId::new("n").expect("valid"), task)
    }

    fn user(text: &str) -> Target {
        Target::User(text.into())
    }

    fn disconnect(target: Target, words: Option<&str>) -> Task {
        Task::Disconnect { target, may_return: false, words: words.map(Arc::from) }
    }

    #[test]
    fn orders_are_read_as_they_were_written() {
        let room = RoomName::new("lobby").expect("valid");
        for task in [
            Task::Remove { room: room.clone(), target: Target::Client(ClientId::random()), words: None },
            Task::Remove { room, target: user("ann \"\\ \u{1f600}"), words: Some("spam".into()) },
            disconnect(user(&"u".repeat(MAX_USER_BYTES)), Some(&"w".repeat(MAX_WORDS_BYTES))),
            Task::Disconnect { target: Target::Client(ClientId::NOBODY), may_return: true, words: None },
        ] {
            let order = order(task);
            let text = order.encode().expect("good");
            assert!(text.len() < MAX_ORDER_BYTES / 2, "far below: {}", text.len());
            assert_eq!(Order::decode(&text), Ok(order));
        }
    }

    #[test]
    fn what_breaks_a_bound_is_not_sent() {
        let long = "w".repeat(MAX_WORDS_BYTES + 1);
        for task in [
            disconnect(user(""), None),
            disconnect(user("a\nb"), None),
            disconnect(user(&"u".repeat(MAX_USER_BYTES + 1)), None),
            disconnect(user("u"), Some(&long)),
            disconnect(user("u"), Some("a\nb")),
            Task::Unknown,
        ] {
            assert!(order(task.clone()).encode().is_err(), "{task:?}");
        }
    }

    #[test]
    fn what_a_later_version_orders_is_known_as_unknown() {
        let id = "00112233445566778899aabbccddeeff";
        let head = format!(r#""id":"{id}","from":"n""#);
        for text in [
            format!(r#"{{"v":1,{head},"do":"sing"}}"#),
            format!(r#"{{"v":2,{head},"do":"disconnect","user":7}}"#),
            format!(r#"{{"v":2,{head},"what":["else"]}}"#),
        ] {
            let order = Order::decode(text.as_bytes()).expect("an order");
            assert_eq!((order.id.to_string().as_str(), order.task), (id, Task::Unknown), "{text}");
        }
    }

    #[test]
    fn what_strangers_say_is_no_order() {
        let good = String::from_utf8(order(disconnect(user("u"), None)).encode().expect("good")).expect("text");
        let changed = |from: &str, to: &str| {
            assert!(good.contains(from), "{good}");
            good.replace(from, to)
        };
        let padded = format!("{good}{}", " ".repeat(MAX_ORDER_BYTES));
        for text in [
            String::new(),
            "null".into(),
            "[]".into(),
            "[[[[[[".repeat(600),
            padded,
            changed(r#""v":1"#, r#""v":0"#),
            changed(r#""v":1"#, r#""v":-1"#),
            changed(r#""v":1,"#, ""),
            changed(r#""id":""#, r#""id":"x"#),
            changed(r#""from":"n""#, r#""from":"a b""#),
            changed(r#""user":"u""#, r#""user":"""#),
            changed(r#""user":"u""#, r#""user":["u"]"#),
            changed(r#""user":"u""#, r#""user":"u","user":"u""#),
            changed(r#""user":"u""#, r#""user":"u","client":"00112233445566778899aabbccddeeff""#),
            changed(r#""user":"u""#, r#""other":"u""#),
            changed(r#""disconnect""#, r#""remove""#),
            changed(r#","mayReturn":false"#, ""),
            changed(r#""user":"u""#, r#""user":"u","words":"a\u0000b""#),
        ] {
            assert_eq!(Order::decode(text.as_bytes()), Err(NotAnOrder), "{}", text.get(..80).unwrap_or(&text));
        }
        assert_eq!(Order::decode(&[b'{', 0xff, b'}']), Err(NotAnOrder));
        for text in ["", "done", "done x", "done -1", "unknown x", "DONE 1"] {
            assert_eq!(Answer::decode(text), None, "{text:?}");
        }
        for answer in [Answer::Done { hit: 3 }, Answer::Unknown, Answer::Overloaded] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }
}
