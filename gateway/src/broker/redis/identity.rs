//! Which dataset is behind a connection: `master_replid`, new after every restart, failover and promotion.
//!
//! Used by `commands`. A room's term rests on it: seqs that were handed out by another dataset may be handed out again.
//! The publish script asks for it itself, where scripts may call INFO, so it cannot be out of date. Else it is read on
//! connecting, and again when a room was last written under another. Where INFO is forbidden altogether, a dataset that
//! went back in time goes unnoticed.

use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, RedisResult, cmd};

/// Tells the script to ask by itself.
const ASK: &str = "";
/// The identity where none is to be had.
pub(super) const NONE: &str = "-";

const PROBE: &str = "return redis.call('INFO', 'replication')";

/// What is behind a connection.
pub(super) struct Identity {
    /// What the publish script is to be given.
    pub(super) for_scripts: Arc<str>,
    /// Of the dataset as it was on connecting.
    pub(super) dataset: Arc<str>,
}

/// Reads it, by a script if that is allowed.
pub(super) async fn probe(connection: &mut MultiplexedConnection) -> RedisResult<Identity> {
    match cmd("EVAL").arg(PROBE).arg(0).query_async::<String>(connection).await {
        Ok(info) => {
            if let Some(id) = replication_id(&info) {
                return Ok(Identity { for_scripts: ASK.into(), dataset: id.into() });
            }
        }
        Err(error) if error.code().is_none() => return Err(error),
        Err(_) => {}
    }
    tracing::info!("redis: scripts may not call INFO here; the dataset's identity is read on connecting");
    let dataset = read(connection).await?;
    Ok(Identity { for_scripts: Arc::clone(&dataset), dataset })
}

/// The identity as this connection sees it now.
pub(super) async fn read(connection: &mut MultiplexedConnection) -> RedisResult<Arc<str>> {
    let info: Result<String, RedisError> = cmd("INFO").arg("replication").query_async(connection).await;
    match info {
        Ok(info) => {
            if let Some(id) = replication_id(&info) {
                return Ok(id.into());
            }
            tracing::warn!("redis: INFO names no master_replid; a restored dataset will not be noticed");
        }
        Err(error) if error.code().is_none() => return Err(error),
        Err(error) => tracing::warn!(%error, "redis: INFO is not allowed; a restored dataset will not be noticed"),
    }
    Ok(NONE.into())
}

fn replication_id(info: &str) -> Option<&str> {
    let id = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?.trim();
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}
