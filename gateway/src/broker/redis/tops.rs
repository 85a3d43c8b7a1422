//! Where many rooms stand, read with one pipeline and without a script. Used by the broker.

use ::redis::{RedisResult, Value, cmd, pipe};
use roomcast_protocol::{RoomName, Term};

use super::RedisBroker;
use super::script::{foreign, number, text};
use crate::broker::{BrokerError, Top, check_rooms};

pub(super) async fn read(broker: &RedisBroker, rooms: &[RoomName]) -> Result<Vec<Top>, BrokerError> {
    check_rooms(rooms)?;
    if rooms.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = pipe();
    for room in rooms {
        all.add_command(cmd("HMGET").arg(broker.keys.key(room, ":m")).arg("t").arg("s").clone());
    }
    // A key that somebody else made something of must not hide where the other rooms stand.
    let states: Vec<RedisResult<Vec<Value>>> = broker.commands.query_all(all.ignore_errors().clone()).await?;
    if states.len() != rooms.len() {
        return Err(foreign("tops"));
    }
    Ok(states.iter().map(|state| state.as_deref().ok().and_then(top).unwrap_or_default()).collect())
}

/// Nothing if the metadata is missing or not ours to read.
fn top(state: &[Value]) -> Option<Top> {
    let [term, seq] = state else { return None };
    Some(Top { term: Some(Term::new(text(term)?).ok()?), seq: number(seq)? })
}
