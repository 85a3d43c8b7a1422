//! What backends look at: rooms, who is in them, what was said, and the nodes that serve them.

use roomcast_protocol::{Mode, RoomName, member_list};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Query;
use super::problem::{Code, Problem};
use super::{Api, Asked, Done};
use crate::broker::{History, Member, NodeReport, Range, RoomsQuestion};
use crate::hub::{LONGEST_PAGE, PAGE, history_page};

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
    members: &'a RawValue,
    online: u64,
    next: Option<String>,
}

#[derive(Serialize)]
struct MessagesJson<'a> {
    messages: &'a RawValue,
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
        let (list, _) = member_list(page.members.iter().map(Member::fields), usize::MAX);
        Done::ok(&MembersJson { members: raw(&list)?, online: page.online, next: page.next })
    }

    pub(super) async fn history(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["before", "after", "limit"])?;
        let room = asked.room()?;
        let limit = page(&query)?;
        let (before, after) = (query.number("before", 0..=LAST_SEQ)?, query.number("after", 0..=LAST_SEQ)?);
        let range = match (before, after) {
            (_, Some(seq)) => Range::After { seq, limit },
            (Some(seq), _) => Range::Before { seq, limit },
            (None, None) => Range::Latest { limit },
        };
        let mut history = self.shard.history_of(&room, range).await?;
        if let (Some(before), Some(_)) = (before, after) {
            // Between both: as if the room ended there.
            history.messages.retain(|message| message.seq < before);
            history.top = history.top.min(before.saturating_sub(1));
        }
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

fn messages(room: &RoomName, history: &History, forward: bool) -> Result<Done, Problem> {
    let (list, next) = history_page(room, history, forward, MOST_BYTES);
    Done::ok(&MessagesJson { messages: raw(&list)?, next })
}

/// A list that is written as the wire protocol has it.
fn raw(list: &[u8]) -> Result<&RawValue, Problem> {
    serde_json::from_slice(list).map_err(|_| Problem::new(Code::Internal, "what is stored is no JSON"))
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::{ClientId, Term};

    use super::*;
    use crate::broker::{Record, Sequenced};

    fn history(seqs: std::ops::RangeInclusive<u64>, data: usize) -> History {
        let term = Term::new("t").expect("valid");
        let message = |seq| Sequenced {
            term: term.clone(),
            seq,
            ts: 1,
            record: Record { from: ClientId::NOBODY, ..Record::sample("i", format!("\"{}\"", "x".repeat(data))) },
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
