//! How channels are subscribed to and left, on one server or where they belong to slots. Used by the subscription.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult};

pub(super) async fn enter(mut to: MultiplexedConnection, channels: Vec<String>, sharded: bool) -> RedisResult<()> {
    if sharded { one_by_one("SSUBSCRIBE", to, channels).await } else { to.subscribe(channels).await }
}

pub(super) async fn leave(mut to: MultiplexedConnection, channels: Vec<String>, sharded: bool) -> RedisResult<()> {
    if sharded { one_by_one("SUNSUBSCRIBE", to, channels).await } else { to.unsubscribe(channels).await }
}

/// Channels in different slots cannot share a command. With one each, every push that confirms is a command's answer.
async fn one_by_one(command: &str, mut to: MultiplexedConnection, channels: Vec<String>) -> RedisResult<()> {
    let mut all = Pipeline::with_capacity(channels.len());
    for channel in channels {
        all.cmd(command).arg(channel).ignore();
    }
    all.query_async(&mut to).await
}
