//! Where many rooms stand. Used by the broker.

use ::redis::{Cmd, Value, cmd};
use roomcast_protocol::{RoomName, Term};

use super::script::{number, text};
use super::{RedisBroker, many};
use crate::broker::{BrokerError, Top, check_rooms};

pub(super) async fn read(broker: &RedisBroker, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
    check_rooms(rooms)?;
    let states = many::ask::<Vec<Value>>(broker, rooms, |room| question(broker, room)).await;
    let mut refusal = None;
    let tops: Vec<Option<Top>> = states
        .into_iter()
        .map(|state| match state {
            Ok(state) => Some(top(&state).unwrap_or_default()),
            // A key that somebody else made something of: there is nothing to be had.
            Err(BrokerError::Rejected(_)) => Some(Top::default()),
            Err(error) => {
                refusal = Some(error);
                None
            }
        })
        .collect();
    if let Some(error) = &refusal {
        tracing::debug!(%error, "redis: where some rooms stand is not known");
    }
    refusal.filter(|_| tops.iter().all(Option::is_none)).map_or(Ok(tops), Err)
}

fn question(broker: &RedisBroker, room: &RoomName) -> Cmd {
    cmd("HMGET").arg(broker.keys.key(room, ":m")).arg("t").arg("s").clone()
}

/// Nothing if the metadata is missing or not ours to read.
fn top(state: &[Value]) -> Option<Top> {
    let [term, seq] = state else { return None };
    Some(Top { term: Some(Term::new(text(term)?).ok()?), seq: number(seq)? })
}
