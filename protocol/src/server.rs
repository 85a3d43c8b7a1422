//! Frames that the server sends, encoded straight to JSON text.
//!
//! `message` is written by hand: it is the one frame on the hot path. The others go through serde.

mod members;
mod parting;
#[cfg(test)]
mod tests;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use members::push_member;
pub use members::{MemberFields, PresenceKind, member_list, members_frame, presence_frame};
pub use parting::removed_frame;

use crate::{ClientId, ErrorCode, RoomName, Since, Term};

/// What a session may do, told in `welcome`. Bytes, counts, and messages a second.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Longest message, bytes.
    pub message_bytes: usize,
    /// Most rooms joined at once.
    pub rooms: usize,
    /// Publishes a second, 0 for unlimited.
    pub publish_rate: u32,
    /// Longest backlog before the session is closed as a slow consumer, bytes.
    pub queue_bytes: usize,
}

/// The first frame of every session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "type", rename = "welcome")]
pub struct Welcome<'a> {
    /// This session's id.
    #[serde(serialize_with = "display")]
    pub client_id: ClientId,
    /// The room of the path, or null on `/connect`.
    #[serde(serialize_with = "display_option")]
    pub room_id: Option<RoomName>,
    /// Which node serves this session.
    pub node_id: &'a str,
    /// The display name in force.
    pub name: &'a str,
    /// An opaque token naming this session.
    pub session: &'a str,
    /// How often the server pings, milliseconds.
    pub ping_interval_ms: u64,
    /// The limits in force.
    pub limits: Limits,
    /// When the session ends unless a new token is brought, milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// What kind of room it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Ordered, stored, resumable.
    Durable,
    /// Lowest latency, may lose.
    Ephemeral,
}

/// How a join relates to what the client had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// No `since` was given.
    Fresh,
    /// Everything after `since` is in `messages` or follows.
    Resumed,
    /// `since` is older than what is kept.
    Gap,
    /// The server lost messages that the client has seen.
    Diverged,
    /// The server does not know that term.
    UnknownTerm,
}

impl Recovery {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Resumed => "resumed",
            Self::Gap => "gap",
            Self::Diverged => "diverged",
            Self::UnknownTerm => "unknown_term",
        }
    }
}

/// The answer to a join, but for its lists.
#[derive(Debug, Clone, Copy)]
pub struct JoinedHead<'a> {
    /// The room.
    pub room: &'a RoomName,
    /// Durable or ephemeral.
    pub mode: Mode,
    /// The room's term; null in ephemeral rooms and before the first message.
    pub term: Option<&'a Term>,
    /// The room's last seq at this moment; null in ephemeral rooms.
    pub seq: Option<u64>,
    /// How this join relates to `since`.
    pub recovery: Recovery,
    /// When it diverged: the last position of the client's that still is one of the room's.
    pub rollback: Option<&'a Since>,
    /// Sessions in the room over all nodes.
    pub online: u64,
}

/// The answer to a publish that asked for one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "type", rename = "ack")]
pub struct Ack<'a> {
    /// The request's `ref`.
    #[serde(rename = "ref")]
    pub reference: &'a RawValue,
    /// The message's id.
    pub id: &'a str,
    /// The room.
    #[serde(serialize_with = "display")]
    pub room: &'a RoomName,
    /// Its seq, in durable rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Its term, in durable rooms.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_option")]
    pub term: Option<Term>,
    /// True when the message had been stored before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Everything of a `message` frame but its data.
#[derive(Debug, Clone, Copy)]
pub struct MessageHead<'a> {
    /// The room.
    pub room: &'a RoomName,
    /// Term and seq, in durable rooms.
    pub position: Option<(&'a Term, u64)>,
    /// The message's id.
    pub id: &'a str,
    /// The sender.
    pub from: ClientId,
    /// The sender's display name at that moment.
    pub name: &'a str,
    /// The sender's user, if it has one.
    pub user: Option<&'a str>,
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
}

fn display<T: std::fmt::Display, S: Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn display_option<T: std::fmt::Display, S: Serializer>(value: &Option<T>, out: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(out)
}

/// Appends any plain value as JSON.
fn push<T: Serialize>(out: &mut Vec<u8>, value: T) {
    // Writing to a Vec cannot fail, and these values have no other way to.
    let _ = serde_json::to_writer(&mut *out, &value);
}

/// Appends `text` as a JSON string.
fn push_str(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail; there is no other way to fail for a str.
    let _ = serde_json::to_writer(&mut *out, text);
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a `message` frame to `out`; `data` is JSON already.
pub fn message_frame(head: &MessageHead<'_>, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"message","room":""#);
    out.extend_from_slice(head.room.as_str().as_bytes());
    if let Some((term, seq)) = head.position {
        out.extend_from_slice(br#"","seq":"#);
        push_number(out, seq);
        out.extend_from_slice(br#","term":""#);
        out.extend_from_slice(term.as_str().as_bytes());
    }
    out.extend_from_slice(br#"","id":"#);
    push_str(out, head.id);
    out.extend_from_slice(br#","from":"#);
    let (id, name, user) = (head.from, head.name, head.user);
    push_member(out, MemberFields { id, name, user, info: None });
    out.extend_from_slice(br#","ts":"#);
    push_number(out, head.ts);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data);
    out.push(b'}');
}

fn frame(kind: &str, room: Option<&RoomName>, reference: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if let Some(reference) = reference {
        out.extend_from_slice(br#","ref":"#);
        out.extend_from_slice(reference.as_bytes());
    }
    if let Some(room) = room {
        out.extend_from_slice(br#","room":""#);
        out.extend_from_slice(room.as_str().as_bytes());
        out.push(b'"');
    }
    out
}

/// An `error` frame; `reference` is the raw JSON of the request's `ref`.
pub fn error_frame(reference: Option<&str>, code: ErrorCode, message: &str) -> Vec<u8> {
    let mut out = frame("error", None, reference);
    out.extend_from_slice(br#","code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(br#"","message":"#);
    push_str(&mut out, message);
    out.extend_from_slice(br#","retryable":"#);
    out.extend_from_slice(if code.retryable() { b"true}" } else { b"false}" });
    out
}

/// A `pong` frame.
pub fn pong_frame(reference: Option<&str>) -> Vec<u8> {
    let mut out = frame("pong", None, reference);
    out.push(b'}');
    out
}

/// A `joined` frame; `members` (some of them, capped) and `messages` (replayed or recent, oldest first) are JSON lists.
pub fn joined_frame(reference: Option<&str>, head: &JoinedHead<'_>, members: &[u8], messages: &[u8]) -> Vec<u8> {
    let mut out = frame("joined", Some(head.room), reference);
    out.extend_from_slice(br#","mode":"#);
    push(&mut out, head.mode);
    out.extend_from_slice(br#","term":"#);
    push(&mut out, head.term.map(Term::as_str));
    out.extend_from_slice(br#","seq":"#);
    push(&mut out, head.seq);
    out.extend_from_slice(br#","recovery":"#);
    push(&mut out, head.recovery);
    if let Some(rollback) = head.rollback {
        out.extend_from_slice(br#","rollback":{"term":"#);
        push(&mut out, rollback.term.as_str());
        out.extend_from_slice(br#","seq":"#);
        push_number(&mut out, rollback.seq);
        out.push(b'}');
    }
    out.extend_from_slice(br#","online":"#);
    push_number(&mut out, head.online);
    out.extend_from_slice(br#","members":"#);
    out.extend_from_slice(members);
    out.extend_from_slice(br#","messages":"#);
    out.extend_from_slice(messages);
    out.push(b'}');
    out
}

/// A `left` frame; `reason` says why, if it was not the client's wish.
pub fn left_frame(reference: Option<&str>, room: &RoomName, reason: Option<&str>) -> Vec<u8> {
    let mut out = frame("left", Some(room), reference);
    if let Some(reason) = reason {
        out.extend_from_slice(br#","reason":"#);
        push_str(&mut out, reason);
    }
    out.push(b'}');
    out
}

/// A `refreshed` frame: the new token holds, until `expires_at_ms` (milliseconds since the Unix epoch) if it ends.
pub fn refreshed_frame(reference: Option<&str>, expires_at_ms: Option<u64>) -> Vec<u8> {
    let mut out = frame("refreshed", None, reference);
    out.extend_from_slice(br#","expiresAtMs":"#);
    push(&mut out, expires_at_ms);
    out.push(b'}');
    out
}

/// A `reconnect` frame: close and come back after `after_ms` milliseconds.
pub fn reconnect_frame(reason: &str, after_ms: u64) -> Vec<u8> {
    let mut out = frame("reconnect", None, None);
    out.extend_from_slice(br#","reason":"#);
    push_str(&mut out, reason);
    out.extend_from_slice(br#","afterMs":"#);
    push_number(&mut out, after_ms);
    out.push(b'}');
    out
}

/// A `reset` frame: what follows does not continue what came before.
pub fn reset_frame(room: &RoomName, reason: Recovery, term: Option<&Term>, seq: u64) -> Vec<u8> {
    let mut out = frame("reset", Some(room), None);
    out.extend_from_slice(br#","reason":"#);
    push(&mut out, reason);
    out.extend_from_slice(br#","term":"#);
    push(&mut out, term.map(Term::as_str));
    out.extend_from_slice(br#","seq":"#);
    push_number(&mut out, seq);
    out.push(b'}');
    out
}

/// A JSON list of ready `message` objects, as `joined` and `history` carry it.
pub fn message_list<'a>(messages: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (index, message) in messages.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.push(b']');
    out
}

/// A `history` frame; `messages` is a JSON list, `next` a seq to go on from.
pub fn history_frame(reference: Option<&str>, room: &RoomName, messages: &[u8], next: Option<u64>) -> Vec<u8> {
    let mut out = frame("history", Some(room), reference);
    out.extend_from_slice(br#","messages":"#);
    out.extend_from_slice(messages);
    if let Some(next) = next {
        out.extend_from_slice(br#","next":"#);
        push_number(&mut out, next);
    }
    out.push(b'}');
    out
}
