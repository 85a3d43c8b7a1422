//! Calls about leases: which nodes live, and in which rooms they have members. Used by the broker.

use std::time::Duration;

use ::redis::{Cmd, Value, cmd, pipe};
use roomcast_protocol::RoomName;

use super::RedisBroker;
use super::quota::forget_users;
use super::script::{foreign, number, text};
use super::topology::WHOLE;
use crate::broker::{Beat, BrokerError, Farewell, Incarnation, MAX_PAGE, Pulse};

pub(super) async fn beat(broker: &RedisBroker, beat: &Beat<'_>) -> Result<Pulse, BrokerError> {
    let fill = |command: &mut Cmd| {
        command.arg(2).arg(broker.keys.shared("leases")).arg(broker.keys.shared("nodes"));
        command.arg(beat.incarnation.as_str()).arg(beat.expiry.as_millis() as u64).arg(beat.number).arg(beat.answered);
        command.arg(beat.note.connections).arg(beat.note.tail()).arg(beat.most_claims);
        for incarnation in beat.working_on {
            command.arg(incarnation.as_str());
        }
    };
    let reply: Vec<Value> = broker.topology.script(WHOLE, &broker.scripts.beat, 512, fill).await?;
    read_pulse(&reply).ok_or_else(|| foreign("beat"))
}

fn read_pulse(reply: &[Value]) -> Option<Pulse> {
    match (text(reply.first()?)?, reply) {
        ("lost", [_]) => Some(Pulse::Lost),
        ("kept", [_, nodes, connections, next_expiry, claims @ ..]) => Some(Pulse::Kept {
            nodes: number(nodes)?,
            connections: number(connections)?,
            next_expiry: Duration::from_millis(number(next_expiry)?),
            // What is not ours was claimed all the same, and will be again: it costs nobody anything.
            claims: claims.iter().filter_map(|claim| Incarnation::parse(text(claim)?)).collect(),
        }),
        _ => None,
    }
}

fn rooms_key(broker: &RedisBroker, incarnation: &Incarnation) -> String {
    broker.keys.shared(&format!("rooms:{incarnation}"))
}

/// Adds rooms to those of an incarnation.
pub(super) async fn hold(
    broker: &RedisBroker,
    incarnation: &Incarnation,
    rooms: &[RoomName],
) -> Result<(), BrokerError> {
    let mut command = cmd("ZADD");
    command.arg(rooms_key(broker, incarnation));
    for room in rooms {
        command.arg(0).arg(room.as_str());
    }
    note(broker, command, rooms).await
}

/// Takes rooms away from those of an incarnation.
pub(super) async fn release(
    broker: &RedisBroker,
    incarnation: &Incarnation,
    rooms: &[RoomName],
) -> Result<(), BrokerError> {
    let mut command = cmd("ZREM");
    command.arg(rooms_key(broker, incarnation));
    for room in rooms {
        command.arg(room.as_str());
    }
    note(broker, command, rooms).await
}

async fn note(broker: &RedisBroker, command: Cmd, rooms: &[RoomName]) -> Result<(), BrokerError> {
    if rooms.is_empty() {
        return Ok(());
    }
    if rooms.len() > MAX_PAGE {
        return Err(BrokerError::Rejected("at most 512 rooms in one call".into()));
    }
    broker.topology.query::<i64>(WHOLE, command, 64 + rooms.len() * 136).await.map(|_| ())
}

pub(super) async fn held(
    broker: &RedisBroker,
    incarnation: &Incarnation,
    limit: usize,
) -> Result<Vec<RoomName>, BrokerError> {
    let key = rooms_key(broker, incarnation);
    let mut command = cmd("ZRANGE");
    command.arg(&key).arg(0).arg(limit.clamp(1, MAX_PAGE) - 1);
    let names: Vec<Vec<u8>> = broker.topology.query(WHOLE, command, 64).await?;
    let (mut rooms, mut strange) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        match std::str::from_utf8(&name).ok().and_then(|name| RoomName::new(name).ok()) {
            Some(room) => rooms.push(room),
            None => strange.push(name),
        }
    }
    if !strange.is_empty() {
        // Nobody but a stranger put them there, and nobody else would ever take them away.
        broker.topology.query::<i64>(WHOLE, cmd("ZREM").arg(&key).arg(strange).clone(), 1024).await?;
    }
    Ok(rooms)
}

pub(super) async fn bury(
    broker: &RedisBroker,
    incarnation: &Incarnation,
    farewell: Farewell,
) -> Result<(), BrokerError> {
    let (leases, nodes, name) = (broker.keys.shared("leases"), broker.keys.shared("nodes"), incarnation.as_str());
    let mut all = pipe();
    all.add_command(cmd("HDEL").arg(nodes).arg(name).clone());
    match farewell {
        Farewell::Clean => {
            all.add_command(cmd("DEL").arg(rooms_key(broker, incarnation)).clone());
            all.add_command(forget_users(broker, incarnation));
            all.add_command(cmd("ZREM").arg(leases).arg(name).clone());
        }
        Farewell::InHaste => _ = all.add_command(cmd("ZADD").arg(leases).arg(0).arg(name).clone()),
    }
    broker.topology.query_all::<Vec<i64>>(WHOLE, all).await.map(|_| ())
}
