//! Groups of real redis-servers for the contract suite: a master that sentinels watch, and a cluster.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::RedisOptions;
use super::test_server::Server;
use crate::broker::contract::{DEADLINE, node};

/// A master, a replica and three sentinels that call the master `main`.
pub(in crate::broker) struct Watched {
    /// The first is the master at the start.
    pub(in crate::broker) servers: [Server; 2],
    pub(in crate::broker) sentinels: Vec<Server>,
}

impl Watched {
    /// One group for all tests that run at the same time and do it no harm.
    pub(in crate::broker) fn shared() -> Arc<Self> {
        static GROUP: Mutex<Weak<Watched>> = Mutex::new(Weak::new());
        share(&GROUP, Self::start)
    }

    fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port.to_string();
        let replica = Server::start(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        let watched = |_| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let file = dir.path().join("sentinel.conf");
            let text = format!(
                "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 600\n\
                 sentinel failover-timeout main 3000\n"
            );
            std::fs::write(&file, text).expect("written");
            Server::start_in(dir, &["sentinel.conf", "--sentinel"])
        };
        Self { servers: [master, replica], sentinels: (0..3).map(watched).collect() }
    }

    /// The same, once they are able to agree on a failover.
    pub(in crate::broker) fn start_ready() -> Self {
        let group = Self::start();
        until("the sentinels know each other and the replica", || {
            group.sentinels.iter().all(|sentinel| {
                let known: std::collections::HashMap<String, String> =
                    sentinel.command(&["SENTINEL", "MASTER", "main"]);
                let is = |key: &str, value: &str| known.get(key).is_some_and(|it| it == value);
                is("num-other-sentinels", "2") && is("num-slaves", "1")
            }) && group.servers[1].command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        group
    }

    pub(in crate::broker) fn options(&self, name: &str) -> RedisOptions {
        let hosts: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        RedisOptions::new(format!("redis+sentinel://{}/main", hosts.join(",")), node(name))
    }

    /// The port of the master, as one sentinel sees it.
    pub(in crate::broker) fn master(&self) -> u16 {
        self.sentinels[0].command::<(String, u16)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).1
    }
}

/// Gone with the last test that uses it: nothing is ever dropped from a static.
fn share<T>(place: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    place.upgrade().unwrap_or_else(|| {
        let group = Arc::new(start());
        *place = Arc::downgrade(&group);
        group
    })
}

/// Polls what no process announces.
pub(in crate::broker) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
