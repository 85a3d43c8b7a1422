//! Where many rooms stand, read with one pipeline per server, all servers at once, and without a script. Used by the
//! broker.

use ::redis::{Cmd, RedisResult, Value, cmd, pipe};
use futures_util::future::join_all;
use roomcast_protocol::{RoomName, Term};

use super::RedisBroker;
use super::cluster::Redirect;
use super::connection::verdict;
use super::script::{foreign, number, text};
use crate::broker::{BrokerError, Top, check_rooms};

pub(super) async fn read(broker: &RedisBroker, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
    check_rooms(rooms)?;
    let groups = broker.topology.together(rooms);
    // All servers at once: one that is silent must not keep the others' rooms waiting.
    let answers = join_all(groups.iter().map(|places| read_together(broker, rooms, places))).await;
    let mut tops = vec![None; rooms.len()];
    let (mut found, mut refusal) = (false, None);
    for (places, answer) in groups.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                found = true;
                for (&place, top) in places.iter().zip(answer) {
                    tops[place] = top;
                }
            }
            Err(error) => {
                tracing::debug!(%error, rooms = places.len(), "redis: where rooms stand is not known");
                refusal = Some(error);
            }
        }
    }
    refusal.filter(|_| !found).map_or(Ok(tops), Err)
}

/// Reads rooms that are on the same server.
async fn read_together(
    broker: &RedisBroker,
    rooms: &[RoomName],
    places: &[usize],
) -> Result<Vec<Option<Top>>, BrokerError> {
    let Some(&first) = places.first() else { return Ok(Vec::new()) };
    let mut all = pipe();
    for &place in places {
        all.add_command(question(broker, &rooms[place]));
    }
    let all = all.ignore_errors().clone();
    let states: Vec<RedisResult<Vec<Value>>> = broker.topology.query_all(rooms[first].as_str(), all).await?;
    if states.len() != places.len() {
        return Err(foreign("tops"));
    }
    let mut tops = Vec::with_capacity(states.len());
    for (state, &place) in states.into_iter().zip(places) {
        let state = match state {
            // The room is on its way to another server: alone, the call follows it.
            Err(error) if Redirect::of(&error).is_some() => {
                let room = &rooms[place];
                broker.topology.query(room.as_str(), question(broker, room), 64).await
            }
            state => state.map_err(|error| verdict(&error).meaning),
        };
        tops.push(match state {
            Ok(state) => Some(top(&state).unwrap_or_default()),
            // A key that somebody else made something of: there is nothing to be had.
            Err(BrokerError::Rejected(_)) => Some(Top::default()),
            Err(_) => None,
        });
    }
    Ok(tops)
}

fn question(broker: &RedisBroker, room: &RoomName) -> Cmd {
    cmd("HMGET").arg(broker.keys.key(room, ":m")).arg("t").arg("s").clone()
}

/// Nothing if the metadata is missing or not ours to read.
fn top(state: &[Value]) -> Option<Top> {
    let [term, seq] = state else { return None };
    Some(Top { term: Some(Term::new(text(term)?).ok()?), seq: number(seq)? })
}
