//! Presence calls: who is in a room. Used by the broker.
//!
//! Members that a node leaves behind when it dies stay for the key's lifetime; leases per node are to come.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd, pipe};
use roomcast_protocol::{ClientId, RoomName};

use super::RedisBroker;
use super::script::{foreign, number, text};
use crate::broker::envelope;
use crate::broker::{BrokerError, MAX_MEMBERS, Member, MembersPage, PresenceOp, PresenceReply, check_ops};

/// How long a room's members outlive its last change or read.
const LIFETIME: Duration = Duration::from_hours(24);

pub(super) async fn apply(
    broker: &RedisBroker,
    room: &RoomName,
    ops: &[PresenceOp],
    want_members: usize,
) -> Result<PresenceReply, BrokerError> {
    check_ops(ops)?;
    let keys = [broker.keys.key(room, ":p"), broker.keys.key(room, ":pv")];
    let fill = |command: &mut Cmd| {
        command.arg(keys.len()).arg(&keys).arg(broker.keys.channel(room));
        command.arg(broker.node.as_str()).arg(room.as_str()).arg(LIFETIME.as_millis() as u64);
        command.arg(want_members.min(MAX_MEMBERS)).arg(ops.len());
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
    read_reply(&reply).ok_or_else(|| foreign("presence"))
}

fn read_reply(reply: &[Value]) -> Option<PresenceReply> {
    let (head, members) = reply.split_at_checked(2)?;
    Some(PresenceReply { version: number(&head[0])?, online: number(&head[1])?, members: read_members(members) })
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
