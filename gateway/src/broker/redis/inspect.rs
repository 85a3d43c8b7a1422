//! Whether the server is one that rooms can be trusted to: a master, and set up to refuse writes rather than drop keys
//! when its memory is full. Asked on each new connection for commands and every half minute.
//!
//! Used by `commands`. A server that does not tell (managed, or without the right to INFO) is believed to be good.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, cmd, pipe};

/// Between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inspection {
    is_replica: bool,
    maxmemory: u64,
    policy: String,
}

/// Asks the server. Errors of single commands are silence; one of the connection is an error.
pub(super) async fn inspect(connection: &mut MultiplexedConnection) -> RedisResult<Inspection> {
    // Two commands: servers before 7 take one section only.
    let sections: Vec<RedisResult<String>> = pipe()
        .add_command(cmd("INFO").arg("memory").clone())
        .add_command(cmd("INFO").arg("replication").clone())
        .ignore_errors()
        .query_async(connection)
        .await?;
    Ok(Inspection::read(&sections.into_iter().flatten().collect::<String>()))
}

impl Inspection {
    /// Reads what INFO said.
    pub(super) fn read(info: &str) -> Self {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Self {
            is_replica: field("role") == Some("slave"),
            maxmemory: field("maxmemory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
            policy: field("maxmemory_policy").unwrap_or_default().to_owned(),
        }
    }

    /// What happens when its memory is full, in the words of Redis; empty if it does not tell.
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }

    pub(super) fn is_replica(&self) -> bool {
        self.is_replica
    }

    /// Whether the server may drop a room to make place. All keys of rooms expire some day, so `volatile-*` hits exactly
    /// them; without a limit it hits nobody. `allkeys-*` is never right for a server that keeps anything, and the limit of
    /// a managed one may not show.
    pub(super) fn evicts(&self) -> bool {
        self.policy.starts_with("allkeys-") || (self.policy.starts_with("volatile-") && self.maxmemory > 0)
    }

    /// Says it in the log, once for all workers of the node, when it has changed for this server.
    pub(super) fn tell(&self, server: &str, said: &Said) {
        let evicts = self.evicts();
        if !said.is_news(server, evicts) {
            return;
        }
        if evicts {
            tracing::error!(
                server,
                policy = self.policy,
                maxmemory = self.maxmemory,
                "not ready: when its memory is full this Redis drops rooms. Set `maxmemory-policy noeviction` \
                 (CONFIG SET, redis.conf or the parameter group); it is looked at again every 30 s"
            );
        } else {
            tracing::info!(server, policy = self.policy, "redis: the eviction policy is fine now");
        }
    }
}

/// Of which servers the log was told that they may drop rooms. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<HashSet<String>>>);

impl Said {
    fn is_news(&self, server: &str, evicts: bool) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if evicts { told.insert(server.to_owned()) } else { told.remove(server) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_news_once() {
        let said = Said::default();
        for (server, evicts, is_news) in [
            ("a", false, false),
            ("a", true, true),
            ("b", false, false),
            ("a", true, false),
            ("b", true, true),
            ("a", false, true),
            ("a", false, false),
        ] {
            assert_eq!(said.is_news(server, evicts), is_news, "{server} {evicts}");
        }
    }

    #[test]
    fn policies_that_may_drop_rooms_are_known() {
        for (maxmemory, policy, evicts) in [
            ("0", "noeviction", false),
            ("100", "noeviction", false),
            ("0", "allkeys-lru", true),
            ("100", "allkeys-lfu", true),
            ("100", "allkeys-random", true),
            ("100", "volatile-lru", true),
            ("100", "volatile-ttl", true),
            ("0", "volatile-lru", false),
        ] {
            let info =
                format!("# Memory\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:1K\r\nmaxmemory_policy:{policy}\r\n");
            let inspection = Inspection::read(&info);
            assert_eq!(inspection.evicts(), evicts, "{maxmemory} {policy}");
            assert!(!inspection.is_replica());
        }
        assert!(Inspection::read("# Replication\r\nrole:slave\r\nmaster_host:h\r\n").is_replica());
        assert_eq!(Inspection::read(""), Inspection::default());
        assert!(!Inspection::default().evicts(), "who says nothing is believed to be good");
    }
}
