//! Presence calls: who is in a room. Used by the broker.

use std::sync::Arc;

use ::redis::{Cmd, Value, cmd, pipe};
use roomcast_protocol::{ClientId, NodeId, RoomName};

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
            let (kind, client, name) = match op {
                PresenceOp::Enter { client, name } => ("E", client, &**name),
                PresenceOp::Leave { client, name } => ("L", client, &**name),
                PresenceOp::Rename { client, name } => ("R", client, &**name),
            };
            let mut encoded = Vec::with_capacity(96);
            envelope::encode_op(op, &mut encoded);
            command.arg(kind).arg(client.encode(&mut [0; 36]) as &str).arg(name).arg(encoded);
        }
    };
    let script = &broker.scripts.presence;
    let reply: Vec<Value> = broker.topology.script(room.as_str(), script, 512 + ops.len() * 256, fill).await?;
    read_reply(&reply).filter(|reply| reply.outcomes.len() == ops.len()).ok_or_else(|| foreign("presence"))
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
        command.arg(MAX_EVICTION).arg("");
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
fn read_members(entries: &[Value]) -> Vec<Member> {
    let member = |entry: &Value| {
        let mut words = text(entry)?.splitn(3, ' ');
        let (id, _node, name) = (words.next()?, words.next()?, words.next()?);
        Some(Member { id: id.parse::<ClientId>().ok()?, name: Arc::from(name) })
    };
    entries.iter().filter_map(member).collect()
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
