//! Presence calls: who is in a room. Used by the broker.

use std::sync::Arc;

use ::redis::{Cmd, Value, cmd, pipe};
use roomcast_protocol::{ClientId, NodeId, RoomName, check_info, check_user};

use super::RedisBroker;
use super::script::{foreign, number, text};
use crate::broker::envelope;
use crate::broker::{
    BrokerError, Evicted, Incarnation, MAX_EVICTION, MAX_MEMBERS, Member, MembersPage, Moved, PresenceCall, PresenceOp,
    PresenceReply, check_ops,
};

pub(super) async fn apply(
    broker: &RedisBroker,
    room: &RoomName,
    call: PresenceCall<'_>,
) -> Result<PresenceReply, BrokerError> {
    let PresenceCall { incarnation, ops, unique_names, want_members } = call;
    check_ops(ops)?;
    let fill = |command: &mut Cmd| {
        begin(broker, room, incarnation, &broker.node, command);
        command.arg(want_members.min(MAX_MEMBERS)).arg(u8::from(unique_names)).arg(ops.len());
        for op in ops {
            let kind = match op {
                PresenceOp::Enter(_) => "E",
                PresenceOp::Leave(_) => "L",
                PresenceOp::Rename(_) => "R",
            };
            let member = op.member();
            let mut encoded = Vec::with_capacity(96);
            envelope::encode_op(op, &mut encoded);
            command.arg(kind).arg(member.id.encode(&mut [0; 36]) as &str).arg(&*member.name).arg(rest(member));
            command.arg(encoded);
        }
    };
    let script = &broker.scripts.presence;
    let size = 512 + ops.iter().map(|op| 256 + 2 * rest_len(op.member())).sum::<usize>();
    let reply: Vec<Value> = broker.topology.script(room.as_str(), script, size, fill).await?;
    read_reply(&reply).filter(|reply| reply.outcomes.len() == ops.len()).ok_or_else(|| foreign("presence"))
}

/// Between the name, the user and the info of an entry. No name and no user has control characters, and JSON has them
/// escaped.
const SEPARATOR: char = '\u{1f}';

fn rest_len(member: &Member) -> usize {
    [&member.user, &member.info].into_iter().flatten().map(|text| 1 + text.len()).sum()
}

/// What follows the name in an entry; nothing if there is neither user nor info.
fn rest(member: &Member) -> String {
    match (member.user.as_deref(), member.info.as_deref()) {
        (None, None) => String::new(),
        (Some(user), None) => format!("{SEPARATOR}{user}"),
        (user, Some(info)) => format!("{SEPARATOR}{}{SEPARATOR}{info}", user.unwrap_or_default()),
    }
}

/// The member of an entry, if that is one of ours: what is in it goes to clients, and info into their frames as it stands.
fn member(entry: &str) -> Option<Member> {
    let mut words = entry.splitn(3, ' ');
    let (id, _incarnation, shown) = (words.next()?, words.next()?, words.next()?);
    let mut parts = shown.splitn(3, SEPARATOR);
    let name = parts.next()?;
    let user = parts.next().filter(|user| !user.is_empty());
    let info = parts.next();
    let sound = user.is_none_or(|user| check_user(user).is_ok()) && info.is_none_or(|info| check_info(info).is_ok());
    let id = id.parse().ok().filter(|_| sound)?;
    Some(Member { id, name: name.into(), user: user.map(Arc::from), info: info.map(Arc::from) })
}

/// Keys and the arguments that every call begins with. `node` is the one that the event names.
fn begin(broker: &RedisBroker, room: &RoomName, incarnation: &Incarnation, node: &NodeId, command: &mut Cmd) {
    let keys = [":p", ":pv", ":pn"].map(|suffix| broker.keys.key(room, suffix));
    command.arg(keys.len()).arg(&keys).arg(broker.keys.channel(room));
    command.arg(node.as_str()).arg(incarnation.as_str()).arg(room.as_str());
}

pub(super) async fn evict(
    broker: &RedisBroker,
    room: &RoomName,
    incarnation: &Incarnation,
    behind: Option<ClientId>,
) -> Result<Evicted, BrokerError> {
    let fill = |command: &mut Cmd| {
        begin(broker, room, incarnation, incarnation.as_node(), command);
        command.arg(0).arg(0).arg(1).arg("V");
        match behind {
            Some(client) => command.arg(client.encode(&mut [0; 36]) as &str),
            None => command.arg(""),
        };
        command.arg(MAX_EVICTION).arg("").arg("");
    };
    let reply: Vec<Value> = broker.topology.script(room.as_str(), &broker.scripts.presence, 512, fill).await?;
    let [version, online, next, before, gone @ ..] = &reply[..] else { return Err(foreign("evict")) };
    let count = |value| number(value).ok_or_else(|| foreign("evict"));
    let (version, online, before) = (count(version)?, count(online)?, count(before)?);
    // A foreign entry may stand where the page ended: there is no going on behind it, and nothing of ours is there.
    let next = text(next).and_then(|next| next.parse().ok());
    Ok(Evicted { next, version, online, before, gone: read_members(gone) })
}

fn read_reply(reply: &[Value]) -> Option<PresenceReply> {
    let (head, members) = reply.split_at_checked(4)?;
    let outcome = |mark| match mark {
        'c' => Some(Moved::Changed),
        'r' => Some(Moved::Renamed),
        's' => Some(Moved::Same),
        't' => Some(Moved::NameTaken),
        _ => None,
    };
    let outcomes = text(&head[2])?.chars().map(outcome).collect::<Option<_>>()?;
    let (version, online, before) = (number(&head[0])?, number(&head[1])?, number(&head[3])?);
    Some(PresenceReply { version, online, before, outcomes, members: read_members(members) })
}

/// Entries that are not ours are left out.
pub(super) fn read_members(entries: &[Value]) -> Vec<Member> {
    entries.iter().filter_map(|entry| member(text(entry)?)).collect()
}

pub(super) async fn page(
    broker: &RedisBroker,
    room: &RoomName,
    cursor: Option<&str>,
    limit: usize,
) -> Result<MembersPage, BrokerError> {
    let from = match cursor {
        None => "-".to_owned(),
        Some(cursor) => {
            let last: ClientId = cursor.parse().map_err(|_| BrokerError::Rejected("bad cursor".into()))?;
            // '!' follows the ' ' that ends an id: above all entries of the last one seen.
            format!("({last}!")
        }
    };
    let limit = limit.clamp(1, MAX_MEMBERS);
    let key = broker.keys.key(room, ":p");
    let mut both = pipe();
    // One more than asked for tells whether there is a next page.
    both.add_command(cmd("ZRANGEBYLEX").arg(&key).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit + 1).clone());
    both.add_command(cmd("ZCARD").arg(&key).clone());
    let (entries, online): (Vec<Value>, u64) = broker.topology.query_all(room.as_str(), both).await?;
    let more = entries.len() > limit;
    let members = read_members(&entries[..entries.len().min(limit)]);
    let next = members.last().filter(|_| more).map(|member| member.id.to_string());
    Ok(MembersPage { members, next, online })
}
