//! How an event is written. Called by the parent; must not know who is told.

use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_protocol::{ClientId, MemberFields, RoomName, Term};
use serde::Serialize;
use serde_json::value::RawValue;

use super::EventKind;

/// Where in the course of a room's members something happened.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Of the members; rises with every change.
    pub version: u64,
    /// Members over all nodes, after.
    pub online: u64,
}

/// A message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Unique within the room.
    pub id: &'a str,
    /// Term and seq; none in ephemeral rooms.
    pub position: Option<(&'a Term, u64)>,
    /// When it was stored or accepted, ms since the Unix epoch.
    pub ts: u64,
    /// Its author.
    pub from: MemberFields<'a>,
    /// Raw JSON.
    pub data: &'a [u8],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    room: &'a str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Person<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Body<'a>>,
}

#[derive(Serialize)]
struct Person<'a> {
    /// None for what a backend published.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<&'a str>,
    from: Person<'a>,
    data: Option<&'a RawValue>,
}

impl<'a> From<MemberFields<'a>> for Person<'a> {
    fn from(member: MemberFields<'a>) -> Self {
        let id = (member.id != ClientId::NOBODY).then(|| member.id.to_string());
        // What a token told was checked to be JSON.
        let info = member.info.and_then(|info| serde_json::from_str(info).ok());
        Self { id, name: member.name, user: member.user, info }
    }
}

fn event(kind: EventKind, room: &RoomName, ts: u64) -> Event<'_> {
    let id = uuid::Uuid::new_v4().to_string();
    let (kind, room) = (kind.as_str(), room.as_str());
    Event { id, kind, room, ts, version: None, online: None, member: None, reason: None, message: None }
}

pub(super) fn room(kind: EventKind, room: &RoomName, version: u64) -> Vec<u8> {
    written(&Event { version: Some(version), ..event(kind, room, now_ms()) })
}

pub(super) fn member(
    kind: EventKind,
    room: &RoomName,
    who: MemberFields<'_>,
    position: Position,
    reason: Option<&'static str>,
) -> Vec<u8> {
    let Position { version, online } = position;
    let (version, online, member) = (Some(version), Some(online), Some(who.into()));
    written(&Event { version, online, member, reason, ..event(kind, room, now_ms()) })
}

pub(super) fn message(room: &RoomName, message: &Message<'_>) -> Vec<u8> {
    let body = Body {
        id: message.id,
        seq: message.position.map(|(_, seq)| seq),
        term: message.position.map(|(term, _)| term.as_str()),
        from: message.from.into(),
        // What was published is JSON.
        data: serde_json::from_slice(message.data).ok(),
    };
    written(&Event { message: Some(body), ..event(EventKind::MessagePublished, room, message.ts) })
}

fn written(event: &Event<'_>) -> Vec<u8> {
    // Only texts and numbers: this does not fail.
    serde_json::to_vec(event).unwrap_or_default()
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
