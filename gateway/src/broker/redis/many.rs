//! One small question about each of many rooms, with one pipeline per server, all servers at once, and without a script.
//! Used by the broker's calls about many rooms.

use ::redis::{Cmd, FromRedisValue, RedisResult, pipe};
use futures_util::future::join_all;
use roomcast_protocol::RoomName;
use tokio::time::{Instant, timeout_at};

use super::RedisBroker;
use super::cluster::Redirect;
use super::connection::verdict;
use super::script::foreign;
use crate::broker::BrokerError;

/// Rooms that are asked for alone at the same time.
const FOLLOWED_AT_ONCE: usize = 32;

/// Asks, and gives the answers in the order of `rooms`; not all of one moment.
pub(super) async fn ask<T: FromRedisValue>(
    broker: &RedisBroker,
    rooms: &[RoomName],
    question: impl Fn(&RoomName) -> Cmd,
) -> Vec<Result<T, BrokerError>> {
    let groups = broker.topology.together(rooms);
    // All servers at once: one that is silent must not keep the others' rooms waiting.
    let answers = join_all(groups.iter().map(|places| ask_one(broker, rooms, places, &question))).await;
    let mut all: Vec<_> = rooms.iter().map(|_| Err(BrokerError::Unavailable("not asked".into()))).collect();
    for (places, answers) in groups.iter().zip(answers) {
        match answers {
            Ok(answers) => places.iter().zip(answers).for_each(|(&place, answer)| all[place] = answer),
            Err(error) => places.iter().for_each(|&place| all[place] = Err(error.clone())),
        }
    }
    all
}

/// Asks about rooms that are on the same server.
async fn ask_one<T: FromRedisValue>(
    broker: &RedisBroker,
    rooms: &[RoomName],
    places: &[usize],
    question: &impl Fn(&RoomName) -> Cmd,
) -> Result<Vec<Result<T, BrokerError>>, BrokerError> {
    let Some(&first) = places.first() else { return Ok(Vec::new()) };
    let deadline = Instant::now() + broker.timeout;
    let mut all = pipe();
    for &place in places {
        all.add_command(question(&rooms[place]));
    }
    let all = all.ignore_errors().clone();
    let answers: Vec<RedisResult<T>> = broker.topology.query_all(rooms[first].as_str(), all).await?;
    if answers.len() != places.len() {
        return Err(foreign("many"));
    }
    let mut moved = Vec::new();
    let mut read: Vec<Result<T, BrokerError>> = Vec::with_capacity(answers.len());
    for (at, answer) in answers.into_iter().enumerate() {
        if answer.as_ref().is_err_and(|error| Redirect::of(error).is_some()) {
            moved.push(at);
        }
        read.push(answer.map_err(|error| verdict(&error).meaning));
    }
    // Rooms that are on their way to another server: alone, the call follows each.
    for some in moved.chunks(FOLLOWED_AT_ONCE) {
        let follow = async |&at: &usize| {
            let room = &rooms[places[at]];
            let query = broker.topology.query(room.as_str(), question(room), 64);
            timeout_at(deadline, query).await.unwrap_or_else(|_| Err(BrokerError::Unavailable("it is moving".into())))
        };
        for (&at, answer) in some.iter().zip(join_all(some.iter().map(follow)).await) {
            read[at] = answer;
        }
    }
    Ok(read)
}
