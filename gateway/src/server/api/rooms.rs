//! What backends look at: rooms, who is in them, what was said, and the nodes that serve them.

use roomcast_protocol::{Mode, RoomName};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Query;
use super::problem::{Code, Problem};
use super::{Api, Asked, Done};
use crate::broker::{History, Member, NodeReport, Range, RoomsQuestion};
use crate::hub::{LONGEST_PAGE, PAGE, message_json};

/// Bytes of messages in one answer, but for one message that is longer by itself.
const MOST_BYTES: usize = 1024 * 1024;
/// Largest seq: what comes behind it no client could count.
const LAST_SEQ: u64 = (1 << 53) - 1;

#[derive(Serialize)]
struct RoomsJson {
    rooms: Vec<RoomOnlineJson>,
    next: Option<String>,
}

#[derive(Serialize)]
struct RoomOnlineJson {
    room: String,
    online: u64,
}

#[derive(Serialize)]
struct RoomJson<'a> {
    room: &'a str,
    mode: &'static str,
    online: u64,
    seq: Option<u64>,
    term: Option<String>,
}

#[derive(Serialize)]
struct MembersJson<'a> {
    members: Vec<MemberJson<'a>>,
    online: u64,
    next: Option<String>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct MessagesJson<'a> {
    messages: Vec<&'a RawValue>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct NodesJson<'a> {
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeJson<'a> {
    id: &'a str,
    connections: u64,
    max_connections: Option<u64>,
    rooms: u64,
    load: Option<f64>,
    version: Option<&'a str>,
}

impl<'a> From<&'a NodeReport> for NodeJson<'a> {
    fn from(node: &'a NodeReport) -> Self {
        Self {
            id: node.node.as_str(),
            connections: node.connections,
            max_connections: node.max_connections,
            rooms: node.rooms,
            load: node.load,
            version: node.version.as_deref(),
        }
    }
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            id: member.id.to_string(),
            name: &member.name,
            user: member.user.as_deref(),
            info: member.info.as_deref().and_then(|info| serde_json::from_str(info).ok()),
        }
    }
}

impl Api {
    pub(super) async fn rooms(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["after", "prefix", "limit"])?;
        let limit = page(&query)?;
        let name = |key| query.text(key).map(|text| room_name(key, text)).transpose();
        let (after, prefix) = (name("after")?, name("prefix")?);
        let question = RoomsQuestion { after: after.as_ref(), prefix: prefix.as_ref(), limit };
        let page = self.shard.rooms_page(question).await?;
        let rooms = page.rooms.iter().map(|(room, online)| RoomOnlineJson { room: room.to_string(), online: *online });
        Done::ok(&RoomsJson { rooms: rooms.collect(), next: page.next.map(|room| room.to_string()) })
    }

    pub(super) async fn room(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        Query::read(asked.parts.uri.query(), &[])?;
        let room = asked.room()?;
        let online = self.shard.members_of(&room, None, 1).await?.online;
        let (mode, seq, term) = match self.settings.rooms.policy(&room).mode {
            Mode::Ephemeral => ("ephemeral", None, None),
            Mode::Durable => {
                let history = self.shard.history_of(&room, Range::Latest { limit: 0 }).await?;
                ("durable", Some(history.top), history.term.map(|term| term.to_string()))
            }
        };
        Done::ok(&RoomJson { room: room.as_str(), mode, online, seq, term })
    }

    pub(super) async fn members(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["cursor", "limit"])?;
        let room = asked.room()?;
        let page = self.shard.members_of(&room, query.text("cursor"), page(&query)?).await?;
        let members = page.members.iter().map(MemberJson::from).collect();
        Done::ok(&MembersJson { members, online: page.online, next: page.next })
    }

    pub(super) async fn history(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["before", "after", "limit"])?;
        let room = asked.room()?;
        let limit = page(&query)?;
        let (before, after) = (query.number("before", 0..=LAST_SEQ)?, query.number("after", 0..=LAST_SEQ)?);
        let range = match (before, after) {
            (Some(_), Some(_)) => return Err(Problem::new(Code::BadRequest, "either before or after, not both")),
            (_, Some(seq)) => Range::After { seq, limit },
            (Some(seq), _) => Range::Before { seq, limit },
            (None, None) => Range::Latest { limit },
        };
        let history = self.shard.history_of(&room, range).await?;
        messages(&room, &history, after.is_some())
    }

    pub(super) async fn nodes(&self) -> Result<Done, Problem> {
        let nodes = self.shard.nodes().await?;
        Done::ok(&NodesJson { nodes: nodes.iter().map(NodeJson::from).collect() })
    }
}

fn page(query: &Query<'_>) -> Result<usize, Problem> {
    let limit = query.number("limit", 1..=LONGEST_PAGE as u64)?;
    Ok(limit.map_or(PAGE, |limit| limit as usize))
}

fn room_name(key: &str, text: &str) -> Result<RoomName, Problem> {
    RoomName::new(text).map_err(|error| Problem::new(Code::BadRoom, format!("{key}: {error}")))
}

/// A page that is not too large; what does not fit is left for the next one, so `next` follows what is really there.
fn messages(room: &RoomName, history: &History, forward: bool) -> Result<Done, Problem> {
    let all: Vec<(u64, Vec<u8>)> =
        history.messages.iter().map(|message| (message.seq, message_json(room, message))).collect();
    let mut bytes = 0;
    let mut fits = |(_, json): &&(u64, Vec<u8>)| {
        bytes += json.len();
        bytes <= MOST_BYTES.max(json.len())
    };
    let kept = if forward {
        &all[..all.iter().take_while(&mut fits).count()]
    } else {
        &all[all.len() - all.iter().rev().take_while(&mut fits).count()..]
    };
    let next = match (kept.first(), kept.last()) {
        (_, Some((last, _))) if forward && *last < history.top => Some(*last),
        (Some((first, _)), _) if !forward && *first > history.first => Some(*first),
        _ => None,
    };
    let raw = |(_, json): &'_ (u64, Vec<u8>)| serde_json::from_slice::<Box<RawValue>>(json);
    let messages: Result<Vec<Box<RawValue>>, _> = kept.iter().map(raw).collect();
    let messages = messages.map_err(|_| Problem::new(Code::Internal, "a stored message is no JSON"))?;
    Done::ok(&MessagesJson { messages: messages.iter().map(|message| &**message).collect(), next })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use roomcast_protocol::{ClientId, Term};

    use super::*;
    use crate::broker::{Record, Sequenced, Subject};

    fn history(seqs: std::ops::RangeInclusive<u64>, data: usize) -> History {
        let term = Term::new("t").expect("valid");
        let message = |seq| Sequenced {
            term: term.clone(),
            seq,
            ts: 1,
            record: Record {
                id: Arc::from("i"),
                idempotent: false,
                subject: Subject::NOBODY,
                from: ClientId::NOBODY,
                user: None,
                name: Arc::from("n"),
                echo: true,
                accepted_at_us: 0,
                trace: None,
                data: Bytes::from(format!("\"{}\"", "x".repeat(data))),
            },
        };
        let messages = seqs.map(message).collect();
        History { term: Some(term.clone()), start: 1, first: 1, top: 100, messages, ..History::default() }
    }

    fn page_of(history: &History, forward: bool) -> (Vec<u64>, Option<u64>) {
        let room = RoomName::new("a").expect("valid");
        let done = messages(&room, history, forward).expect("a page");
        let json: serde_json::Value = serde_json::from_slice(&done.body).expect("JSON");
        let seqs = json["messages"].as_array().expect("a list").iter().map(|m| m["seq"].as_u64().expect("a seq"));
        (seqs.collect(), json["next"].as_u64())
    }

    #[test]
    fn next_follows_what_is_there() {
        assert_eq!(page_of(&history(51..=52, 1), false), (vec![51, 52], Some(51)));
        assert_eq!(page_of(&history(1..=2, 1), false), (vec![1, 2], None));
        assert_eq!(page_of(&history(1..=2, 1), true), (vec![1, 2], Some(2)));
        assert_eq!(page_of(&history(99..=100, 1), true), (vec![99, 100], None));
        assert_eq!(page_of(&History::default(), true), (vec![], None));
    }

    #[test]
    fn a_page_is_not_too_large() {
        let large = history(11..=20, MOST_BYTES / 2 - 1000);
        assert_eq!(page_of(&large, true), (vec![11, 12], Some(12)));
        assert_eq!(page_of(&large, false), (vec![19, 20], Some(19)));
        assert_eq!(page_of(&history(11..=12, 2 * MOST_BYTES), true), (vec![11], Some(11)), "never none");
    }
}
