//! Where many rooms stand, read with one pipeline per server, all servers at once, and without a script. Used by the
//! broker.

use ::redis::{Cmd, RedisResult, Value, cmd, pipe};
use futures_util::future::join_all;
use roomcast_protocol::{RoomName, Term};
use tokio::time::{Instant, timeout_at};

use super::RedisBroker;
use super::cluster::Redirect;
use super::connection::verdict;
use super::script::{foreign, number, text};
use crate::broker::{BrokerError, Top, check_rooms};

/// Rooms that are asked for alone at the same time.
const FOLLOWED_AT_ONCE: usize = 32;

pub(super) async fn read(broker: &RedisBroker, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
    check_rooms(rooms)?;
    let groups = broker.topology.together(rooms);
    // All servers at once: one that is silent must not keep the others' rooms waiting.
    let answers = join_all(groups.iter().map(|places| read_together(broker, rooms, places))).await;
    let mut tops = vec![None; rooms.len()];
    let mut refusal = None;
    for (places, answer) in groups.iter().zip(answers) {
        let answer = answer.unwrap_or_else(|error| vec![Err(error); places.len()]);
        for (&place, top) in places.iter().zip(answer) {
            match top {
                Ok(top) => tops[place] = Some(top),
                Err(error) => refusal = Some(error),
            }
        }
    }
    if let Some(error) = &refusal {
        tracing::debug!(%error, "redis: where some rooms stand is not known");
    }
    refusal.filter(|_| tops.iter().all(Option::is_none)).map_or(Ok(tops), Err)
}

/// Reads rooms that are on the same server.
async fn read_together(
    broker: &RedisBroker,
    rooms: &[RoomName],
    places: &[usize],
) -> Result<Vec<Result<Top, BrokerError>>, BrokerError> {
    let Some(&first) = places.first() else { return Ok(Vec::new()) };
    let deadline = Instant::now() + broker.timeout;
    let mut all = pipe();
    for &place in places {
        all.add_command(question(broker, &rooms[place]));
    }
    let all = all.ignore_errors().clone();
    let states: Vec<RedisResult<Vec<Value>>> = broker.topology.query_all(rooms[first].as_str(), all).await?;
    if states.len() != places.len() {
        return Err(foreign("tops"));
    }
    let mut states: Vec<_> = states
        .into_iter()
        .map(|state| state.map_err(|error| (Redirect::of(&error).is_some(), verdict(&error).meaning)))
        .collect();
    // Rooms that are on their way to another server: alone, the call follows each.
    let moved: Vec<usize> = (0..states.len()).filter(|&at| matches!(states[at], Err((true, _)))).collect();
    for some in moved.chunks(FOLLOWED_AT_ONCE) {
        let follow = async |&at: &usize| {
            let room = &rooms[places[at]];
            let query = broker.topology.query(room.as_str(), question(broker, room), 64);
            timeout_at(deadline, query).await.unwrap_or_else(|_| Err(BrokerError::Unavailable("it is moving".into())))
        };
        for (&at, state) in some.iter().zip(join_all(some.iter().map(follow)).await) {
            states[at] = state.map_err(|error| (false, error));
        }
    }
    Ok(states.into_iter().map(read_state).collect())
}

fn read_state(state: Result<Vec<Value>, (bool, BrokerError)>) -> Result<Top, BrokerError> {
    match state {
        Ok(state) => Ok(top(&state).unwrap_or_default()),
        // A key that somebody else made something of: there is nothing to be had.
        Err((_, BrokerError::Rejected(_))) => Ok(Top::default()),
        Err((_, error)) => Err(error),
    }
}

fn question(broker: &RedisBroker, room: &RoomName) -> Cmd {
    cmd("HMGET").arg(broker.keys.key(room, ":m")).arg("t").arg("s").clone()
}

/// Nothing if the metadata is missing or not ours to read.
fn top(state: &[Value]) -> Option<Top> {
    let [term, seq] = state else { return None };
    Some(Top { term: Some(Term::new(text(term)?).ok()?), seq: number(seq)? })
}
