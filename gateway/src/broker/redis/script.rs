//! The scripts, and the calls that publish to and read a room's stream. Used by the broker.

use ::redis::{Cmd, Value};
use bytes::Bytes;
use roomcast_protocol::{RoomName, Term};

use super::RedisBroker;
use crate::broker::envelope::{self, MAX_NUMBER};
use crate::broker::ids::Key;
use crate::broker::{
    Boundary, BrokerError, Envelope, Event, History, Kind, MAX_HISTORY, Outcome, Published, Range, Record, Sequenced,
    check_records,
};
use crate::config::RoomPolicy;

/// A script's text and the hash the server knows it by.
#[derive(Clone)]
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(text: String) -> Self {
        let hash = ::redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

/// All scripts of the broker.
#[derive(Clone)]
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) history: Script,
    pub(super) presence: Script,
    pub(super) beat: Script,
    pub(super) rooms: Script,
    pub(super) answer: Script,
    pub(super) take: Script,
    pub(super) claim: Script,
}

impl Scripts {
    /// `publish` is the command that reaches the subscribers: PUBLISH, or SPUBLISH where channels belong to slots.
    pub(super) fn new(publish: &str) -> Self {
        let script = |text: &str| Script::new(text.replace("'PUBLISH'", &format!("'{publish}'")));
        Self {
            publish: script(concat!(include_str!("producers.lua"), include_str!("publish.lua"))),
            history: script(include_str!("history.lua")),
            presence: script(include_str!("presence.lua")),
            beat: script(include_str!("beat.lua")),
            rooms: script(include_str!("rooms.lua")),
            answer: script(include_str!("answer.lua")),
            take: script(include_str!("take.lua")),
            claim: script(include_str!("claim.lua")),
        }
    }

    pub(super) fn all(&self) -> [&Script; 8] {
        [&self.publish, &self.history, &self.presence, &self.beat, &self.rooms, &self.answer, &self.take, &self.claim]
    }
}

/// An answer that our own script never gives: another server, or another script under its hash.
pub(super) fn foreign(what: &str) -> BrokerError {
    BrokerError::Rejected(format!("unexpected answer from the script: {what}"))
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

/// For `no-terms`.
const ONLY_TERM: &str = "0";
const ONLY_DATASET: &str = "-";

/// Runs the publish script.
pub(super) async fn publish(
    broker: &RedisBroker,
    room: &RoomName,
    policy: &RoomPolicy,
    records: &[Record],
) -> Result<Published, BrokerError> {
    check_records(records)?;
    let keys = publish_keys(broker, room, records);
    let mut encoded = Vec::with_capacity(records.iter().map(|record| record.data.len() + 256).sum());
    let ends: Vec<usize> = records
        .iter()
        .map(|record| {
            envelope::encode_record(record, &mut encoded);
            encoded.len()
        })
        .collect();
    let only = broker.no_terms.then(|| Term::new(ONLY_TERM).ok()).flatten();
    let term = only.clone().unwrap_or_else(Term::random);
    let millis = |duration: std::time::Duration| (duration.as_millis() as u64).clamp(1, MAX_NUMBER);
    let fill = |command: &mut Cmd, identity: &str, confirmed: bool| {
        // Whoever knows but one term takes every dataset for the one there always was.
        let (identity, confirmed) = if only.is_some() { (ONLY_DATASET, true) } else { (identity, confirmed) };
        command.arg(keys.len()).arg(&keys).arg(&keys[0][..keys[0].len() - 2]);
        command.arg(broker.node.as_str()).arg(room.as_str()).arg(term.as_str());
        command.arg(identity).arg(if confirmed { "1" } else { "0" });
        command.arg(policy.history_size.clamp(1, MAX_NUMBER)).arg(millis(policy.history_ttl));
        command.arg(millis(policy.idempotency_window)).arg(records.len());
        let mut start = 0;
        for (record, &end) in records.iter().zip(&ends) {
            command.arg(&encoded[start..end]);
            match Key::of(&record.id) {
                _ if !record.idempotent => command.arg(""),
                Key::Plain(_) => command.arg("id"),
                Key::Numbered { number, .. } => command.arg(number),
            };
            start = end;
        }
    };
    let script = &broker.scripts.publish;
    let reply: Vec<Value> = broker.topology.script_on_dataset(room.as_str(), script, encoded.len(), fill).await?;
    read_published(&reply, records.len()).ok_or_else(|| foreign("publish"))
}

fn publish_keys(broker: &RedisBroker, room: &RoomName, records: &[Record]) -> Vec<String> {
    let mut keys = vec![broker.keys.key(room, ":m"), broker.keys.key(room, ":s")];
    let prefix = broker.keys.key(room, "");
    keys.extend(records.iter().filter(|record| record.idempotent).map(|record| {
        // A tag holds no colon, so what follows it cannot be mistaken for another's.
        let tag = record.subject.tag();
        match Key::of(&record.id) {
            Key::Plain(id) => format!("{prefix}:i:{tag}:{id}"),
            Key::Numbered { producer, .. } => format!("{prefix}:n:{tag}:{producer}"),
        }
    }));
    keys
}

fn read_published(reply: &[Value], count: usize) -> Option<Published> {
    let (head, rest) = reply.split_at_checked(2)?;
    if rest.len() != count {
        return None;
    }
    let outcome = |value: &Value| match value {
        Value::Int(seq) => Some(Outcome::Stored { seq: u64::try_from(*seq).ok()? }),
        value => match text(value)? {
            "known" => Some(Outcome::Known),
            "stale" => Some(Outcome::Stale),
            first_time => {
                let (term, seq) = first_time.split_once(' ')?;
                Some(Outcome::Duplicate { term: Term::new(term).ok()?, seq: seq.parse().ok()? })
            }
        },
    };
    let outcomes: Vec<Outcome> = rest.iter().map(outcome).collect::<Option<_>>()?;
    let term = match text(&head[0])? {
        // Nothing is new, and the room's metadata is gone.
        "" => outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Duplicate { term, .. } => Some(term.clone()),
            _ => None,
        }),
        term => Some(Term::new(term).ok()?),
    };
    let term = term.unwrap_or_else(Term::random);
    Some(Published { term, ts: number(&head[1])?, outcomes })
}

/// Reads a range of a room's stream.
pub(super) async fn history(broker: &RedisBroker, room: &RoomName, range: Range) -> Result<History, BrokerError> {
    let (mode, seq, limit) = match range {
        Range::Latest { limit } => ("L", 0, limit),
        Range::After { seq, limit } => ("A", seq, limit),
        Range::Before { seq, limit } => ("B", seq, limit),
    };
    // A limit of none still asks for the state; the script needs at least one.
    let asked = limit.clamp(1, MAX_HISTORY);
    let keys = [broker.keys.key(room, ":m"), broker.keys.key(room, ":s")];
    let fill = |command: &mut Cmd| {
        command.arg(keys.len()).arg(&keys).arg(mode).arg(seq.min(MAX_NUMBER)).arg(asked);
    };
    let reply: Vec<Value> = broker.topology.script(room.as_str(), &broker.scripts.history, 512, fill).await?;
    let mut history = read_history(broker, room, reply).ok_or_else(|| foreign("history"))?;
    if limit == 0 {
        history.messages.clear();
    }
    Ok(history)
}

fn read_history(broker: &RedisBroker, room: &RoomName, mut reply: Vec<Value>) -> Option<History> {
    if reply.len() < 6 {
        return None;
    }
    let entries = reply.split_off(6);
    let [top, first, low, high] = [1, 2, 3, 4].map(|at| text(&reply[at])?.parse::<i64>().ok());
    let (low, high) = (u64::try_from(low?).unwrap_or(0), u64::try_from(high?).unwrap_or(0));
    let term = Some(text(&reply[0])?).filter(|term| !term.is_empty()).map(Term::new).transpose().ok()?;
    let (boundaries, start) = read_boundaries(text(&reply[5])?)?;
    let (first, top) = (u64::try_from(first?).ok()?, u64::try_from(top?).ok()?);
    let mut history = History { term, start, boundaries, first, top, messages: Vec::new() };
    for entry in entries {
        let Value::BulkString(payload) = entry else { return None };
        match envelope::decode(&Bytes::from(payload), room) {
            Ok(Event::Messages(Envelope { kind: Kind::Durable { term, first_seq, ts }, records, .. })) => {
                let numbered = (first_seq..).zip(records).filter(|(seq, _)| (low..=high).contains(seq));
                let messages = numbered.map(|(seq, record)| Sequenced { term: term.clone(), seq, ts, record });
                history.messages.extend(messages);
            }
            // Somebody else wrote into our stream: what is ours is still good.
            Ok(_) => broker.stats.count_ignored(envelope::DecodeError::Header),
            Err(error) => broker.stats.count_ignored(error),
        }
    }
    if history.first == 0 {
        history.first = history.messages.first().map_or(0, |message| message.seq);
    }
    Some(history)
}

/// `term start end ` of each term that ended, then the start of the present one.
fn read_boundaries(text: &str) -> Option<(Vec<Boundary>, u64)> {
    let words: Vec<&str> = text.split(' ').collect();
    let (start, ended) = words.split_last()?;
    let one = |words: &[&str]| match words {
        [term, start, end] => {
            Some(Boundary { term: Term::new(term).ok()?, start: start.parse().ok()?, end: end.parse().ok()? })
        }
        _ => None,
    };
    Some((ended.chunks(3).map(one).collect::<Option<_>>()?, start.parse().ok()?))
}
