//! What frames say about members: who somebody is, who came and went, who is there.
//!
//! The `message` frame uses it for its sender. Knows nothing of how members are kept.

use super::{frame, push_number, push_str};
use crate::{ClientId, RoomName};

/// A member as others see it.
#[derive(Debug, Clone, Copy)]
pub struct MemberFields<'a> {
    /// Which session.
    pub id: ClientId,
    /// The display name.
    pub name: &'a str,
    /// Whose session, if a token said it.
    pub user: Option<&'a str>,
    /// What the token told about it: raw JSON, checked before with [`check_info`](crate::check_info).
    pub info: Option<&'a str>,
}

/// What happened to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceKind {
    /// Came.
    Join,
    /// Went.
    Leave,
    /// Changed the display name.
    Rename,
    /// Several came and went: only the count is told.
    Count,
}

/// Appends a member as a JSON object.
pub(super) fn push_member(out: &mut Vec<u8>, member: MemberFields<'_>) {
    out.extend_from_slice(br#"{"id":""#);
    out.extend_from_slice(member.id.encode(&mut [0; 36]).as_bytes());
    out.extend_from_slice(br#"","name":"#);
    push_str(out, member.name);
    if let Some(user) = member.user {
        out.extend_from_slice(br#","user":"#);
        push_str(out, user);
    }
    if let Some(info) = member.info {
        out.extend_from_slice(br#","info":"#);
        out.extend_from_slice(info.as_bytes());
    }
    out.push(b'}');
}

/// A `presence` frame; `count` carries no member.
pub fn presence_frame(room: &RoomName, kind: PresenceKind, member: Option<MemberFields<'_>>, online: u64) -> Vec<u8> {
    let mut out = frame("presence", Some(room), None);
    out.extend_from_slice(match kind {
        PresenceKind::Join => br#","event":"join""#.as_slice(),
        PresenceKind::Leave => br#","event":"leave""#.as_slice(),
        PresenceKind::Rename => br#","event":"rename""#.as_slice(),
        PresenceKind::Count => br#","event":"count""#.as_slice(),
    });
    if let Some(member) = member {
        out.extend_from_slice(br#","member":"#);
        push_member(&mut out, member);
    }
    out.extend_from_slice(br#","online":"#);
    push_number(&mut out, online);
    out.push(b'}');
    out
}

/// A JSON list of members, as `joined` and `members` carry it: the first ones, as many as take up to `most_bytes` with the
/// brackets. Says how many those are.
pub fn member_list<'a>(members: impl Iterator<Item = MemberFields<'a>>, most_bytes: usize) -> (Vec<u8>, usize) {
    let mut out = vec![b'['];
    let mut count = 0;
    for member in members {
        let end = out.len();
        if count > 0 {
            out.push(b',');
        }
        push_member(&mut out, member);
        if out.len() >= most_bytes {
            out.truncate(end);
            break;
        }
        count += 1;
    }
    out.push(b']');
    (out, count)
}

/// A `members` frame; `members` is a JSON list, `next` an opaque cursor.
pub fn members_frame(
    reference: Option<&str>,
    room: &RoomName,
    members: &[u8],
    online: u64,
    next: Option<&str>,
) -> Vec<u8> {
    let mut out = frame("members", Some(room), reference);
    out.extend_from_slice(br#","members":"#);
    out.extend_from_slice(members);
    out.extend_from_slice(br#","online":"#);
    push_number(&mut out, online);
    if let Some(next) = next {
        out.extend_from_slice(br#","next":"#);
        push_str(&mut out, next);
    }
    out.push(b'}');
    out
}
