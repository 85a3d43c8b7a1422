//! Groups of real redis-servers for the contract suite: a master that sentinels watch, and a cluster.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::RedisOptions;
use super::test_server::Server;
use super::test_tls::{self, Authority};
use crate::broker::contract::{DEADLINE, node};

/// How a server of a group is started.
type Start<'a> = &'a dyn Fn(TempDir, &[&str]) -> Server;

const PLAIN: Start<'static> = &|dir, args| Server::start_in(dir, args);

/// Starts servers that speak nothing but TLS, to clients and to each other.
fn over_tls(authority: &Authority) -> impl Fn(TempDir, &[&str]) -> Server {
    |dir, args| {
        authority.equip(&dir, "127.0.0.1");
        let others = ["--tls-replication", "yes", "--tls-cluster", "yes"];
        Server::start_in(dir, &[args, &test_tls::ARGS, &others].concat())
    }
}

fn fresh() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

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
        share(&GROUP, || Self::start(PLAIN))
    }

    fn start(server: Start<'_>) -> Self {
        let master = server(fresh(), &["--repl-diskless-sync-delay", "0"]);
        let port = master.port.to_string();
        let replica = server(fresh(), &["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        let watched = |_| {
            let dir = fresh();
            let file = dir.path().join("sentinel.conf");
            // Longer than the second that it leaves between two connections to one server, whose connections end when
            // its role changes: else each failover brings about the next.
            let text = format!(
                "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 1500\n\
                 sentinel failover-timeout main 3000\n"
            );
            std::fs::write(&file, text).expect("written");
            server(dir, &["sentinel.conf", "--sentinel"])
        };
        Self { servers: [master, replica], sentinels: (0..3).map(watched).collect() }
    }

    /// The same, once they are able to agree on a failover.
    pub(in crate::broker) fn start_ready() -> Self {
        Self::start(PLAIN).ready()
    }

    /// The same over TLS.
    pub(in crate::broker) fn start_ready_over_tls(authority: &Authority) -> Self {
        Self::start(&over_tls(authority)).ready()
    }

    fn ready(self) -> Self {
        let group = self;
        until("the sentinels know each other and the replica", || {
            group.sentinels.iter().all(|sentinel| {
                let known: std::collections::HashMap<String, String> =
                    sentinel.command(&["SENTINEL", "MASTER", "main"]);
                let is = |key: &str, value: &str| known.get(key).is_some_and(|it| it == value);
                // One that stood still while it started, for its disk or a core, does nothing for the next 30 s.
                is("num-other-sentinels", "2")
                    && is("num-slaves", "1")
                    && sentinel.command::<String>(&["INFO", "sentinel"]).contains("sentinel_tilt:0")
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

/// A cluster of three masters, each with a third of the slots, and a replica for each.
pub(in crate::broker) struct Sharded {
    /// The masters at the start, then their replicas in the same order.
    pub(in crate::broker) servers: Vec<Server>,
}

/// Where the thirds begin and end.
const THIRDS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl Sharded {
    /// One cluster for all tests that run at the same time and do it no harm.
    pub(in crate::broker) fn shared() -> Arc<Self> {
        static GROUP: Mutex<Weak<Sharded>> = Mutex::new(Weak::new());
        share(&GROUP, Self::start_lone)
    }

    /// A cluster of a test's own, whose replicas are ready to take over.
    pub(in crate::broker) fn start_ready() -> Self {
        Self::start(true, PLAIN)
    }

    /// The same over TLS.
    pub(in crate::broker) fn start_ready_over_tls(authority: &Authority) -> Self {
        Self::start(true, &over_tls(authority))
    }

    /// A cluster without replicas.
    pub(in crate::broker) fn start_lone() -> Self {
        Self::start(false, PLAIN)
    }

    fn start(replicas: bool, server: Start<'_>) -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--repl-diskless-sync-delay", "0"];
        let servers: Vec<Server> = (0..if replicas { 6 } else { 3 }).map(|_| server(fresh(), &args)).collect();
        for (at, server) in servers.iter().enumerate() {
            let _: String = server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if let Some((first, last)) = THIRDS.get(at) {
                let _: String = server.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
            }
            let (port, bus) = (servers[0].port.to_string(), servers[0].bus.to_string());
            let _: String = server.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let group = Self { servers };
        let all = |condition: &dyn Fn(&Server) -> bool| group.servers.iter().all(condition);
        let nodes = group.servers.len();
        until("the servers know each other", || {
            all(&|server| {
                let known: String = server.command(&["CLUSTER", "NODES"]);
                known.lines().filter(|line| !line.contains("handshake")).count() == nodes
            })
        });
        for (replica, master) in group.servers[3..].iter().zip(&group.servers) {
            let id: String = master.command(&["CLUSTER", "MYID"]);
            let _: String = replica.command(&["CLUSTER", "REPLICATE", &id]);
        }
        until("the cluster works", || {
            all(&|server| server.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        if replicas {
            until("the replicas are in step and known", || {
                group.servers[3..]
                    .iter()
                    .all(|server| server.command::<String>(&["INFO", "replication"]).contains("master_link_status:up"))
                    && all(&|server| server.command::<String>(&["CLUSTER", "NODES"]).matches("slave").count() == 3)
            });
        }
        group
    }

    pub(in crate::broker) fn options(&self, name: &str) -> RedisOptions {
        let hosts: Vec<String> = self.servers.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        RedisOptions::new(format!("redis+cluster://{}", hosts.join(",")), node(name))
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
