//! The broker over one Redis (6.2 or later) or Valkey: scripts for all that must be one step, `PubSub` between nodes.
//!
//! One value per worker, with two connections of its own to each server: `commands` for all calls (pipelined, fails fast)
//! and `subscription` for what comes in. Both are supervised by a task that reconnects with backoff and jitter, and a
//! `canary` shows that they work together. It must run inside a tokio `LocalRuntime` or `LocalSet`.
//!
//! Keys of a room, which share one hash slot: `<prefix>:{<room>}` and `:m` meta, `:s` stream, `:i:<subject>:<id>` a
//! remembered id, `:n:<subject>:<producer>` remembered numbers, `:p` members, `:pv` their version, `:pn` their names where
//! names are unique, `:r` its publish rate; the channel is `<prefix>:{<room>}`, that of a canary `<prefix>:canary:<random>`.
//! Keys of the cluster, which share another slot: `<prefix>:{!}:leases`, `:nodes`, `:rooms:<incarnation>`,
//! `:users:<incarnation>` and `:answers:<order>`; the channel of the orders is `<prefix>:{!}:orders`. A user's publish rate
//! has a slot of its own: `<prefix>:{u:<subject>}:r`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use roomcast_protocol::{ClientId, NodeId, RoomName};
use tokio::sync::mpsc;

pub use self::examine::examine;
pub use self::inspect::Said;
use self::script::Scripts;
use self::subscription::Topic;
use self::topology::{Recipe, Topology, WHOLE};
use super::stats::Command;
use super::{
    Beat, Broker, BrokerError, BrokerStats, Event, Evicted, Farewell, History, Incarnation, MembersPage, PresenceCall,
    PresenceReply, Published, Pulse, Range, Record, Signs, Top, Trouble, check_records, envelope,
};
use crate::config::{RedisUrl, RoomPolicy};

mod canary;
mod cluster;
mod commands;
mod connection;
mod directory;
mod examine;
mod fence;
mod identity;
mod inspect;
mod lease;
mod many;
mod orders;
#[cfg(test)]
#[path = "../../tests/it/support/ports.rs"]
mod ports;
mod presence;
mod quota;
mod script;
mod sentinel;
mod subscription;
#[cfg(test)]
pub(super) mod test_groups;
#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
pub(super) mod test_tls;
mod topology;
mod tops;

/// The commands an ACL user needs, beside `~<prefix>:*` and `&<prefix>:*`. Nothing else is ever sent.
pub const ACL_COMMANDS: &str = "+hello +auth +ping +client|id +client|kill +evalsha +eval +script|load +publish \
     +subscribe +unsubscribe +info +time +hmget +hset +get +set +append +del +pexpire +xadd +xrange +xrevrange +xinfo +zadd \
     +zrem +zcard +zrangebylex +exists +hget +hdel +hvals +hgetall +zrange +zrangebyscore +zscore +unlink +role";

/// What they need on the servers of a cluster, in addition.
pub const ACL_CLUSTER_COMMANDS: &str = "+cluster|slots +asking +spublish +ssubscribe +sunsubscribe";

/// Where Redis is and how to speak to it.
#[derive(Clone)]
pub struct RedisOptions {
    /// As [`crate::config::RedisUrl`] reads it: one server, sentinels or a cluster. Holds secrets: never print it.
    pub url: String,
    /// PEM file of the certificate authority to trust instead of the public ones. Only with `rediss://`.
    pub ca_pem: Option<PathBuf>,
    /// What all keys and channels start with: 1 to 32 of `A-Z a-z 0-9 _ . -`.
    pub prefix: String,
    /// This process; the same for all its workers.
    pub node: NodeId,
    /// How long a call may take (2 s).
    pub timeout: Duration,
    /// How long connecting may take, TLS and authentication included (1 s).
    pub connect_timeout: Duration,
    /// Sabotage (off): gives the hub this node's own ephemeral messages, too.
    pub keep_echo: bool,
    /// Sabotage (off): all that is published here is of one term, on whatever dataset.
    pub no_terms: bool,
    /// Shared by all workers of a node, so that one of them speaks for all.
    pub said: Said,
}

impl RedisOptions {
    /// Options with the default prefix (`rc`) and timeouts.
    pub fn new(url: impl Into<String>, node: NodeId) -> Self {
        Self {
            url: url.into(),
            ca_pem: None,
            prefix: "rc".into(),
            node,
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            keep_echo: false,
            no_terms: false,
            said: Said::default(),
        }
    }
}

/// A worker's handle on Redis. Dropping it closes its connections.
pub struct RedisBroker {
    keys: Keys,
    node: NodeId,
    /// PUBLISH or SPUBLISH.
    publish: &'static str,
    scripts: Scripts,
    topology: Topology,
    stats: BrokerStats,
    signs: Arc<Signs>,
    no_terms: bool,
    /// Of one call.
    timeout: Duration,
}

impl RedisBroker {
    /// Starts both connections and returns at once, also when Redis is away: the broker is then not up, and keeps trying.
    ///
    /// Events go to `events`; when that is full the subscription is made anew and [`Event::Resubscribed`] follows.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] for options that can never work.
    pub fn connect(
        options: &RedisOptions,
        events: mpsc::Sender<Event>,
        stats: BrokerStats,
    ) -> Result<Self, BrokerError> {
        let url: RedisUrl =
            options.url.parse().map_err(|error| BrokerError::Misconfigured(format!("redis: {error}")))?;
        let keys = Keys::new(&options.prefix)?;
        let publish = if topology::is_sharded(&url) { "SPUBLISH" } else { "PUBLISH" };
        let scripts = Scripts::new(publish);
        let signs = Arc::<Signs>::default();
        let recipe = Recipe {
            options: options.clone(),
            keys: keys.clone(),
            scripts: scripts.clone(),
            publish,
            events,
            stats: stats.clone(),
            doubt: Arc::default(),
            signs: Arc::clone(&signs),
        };
        let topology = Topology::start(&url, recipe)?;
        let (node, no_terms, timeout) = (options.node.clone(), options.no_terms, options.timeout);
        Ok(Self { keys, node, publish, scripts, topology, stats, signs, no_terms, timeout })
    }

    /// Publishing and subscription.
    #[cfg(test)]
    pub(super) fn paths_up(&self) -> (bool, bool) {
        self.topology.paths_up()
    }

    /// Which of the rooms are on the same server.
    #[cfg(test)]
    pub(super) fn together(&self, rooms: &[RoomName]) -> Vec<Vec<usize>> {
        self.topology.together(rooms)
    }

    /// As on a connection whose scripts may not ask for the identity.
    #[cfg(test)]
    pub(super) async fn read_identity_outside(&self) {
        self.topology.read_identity().await.expect("an identity");
    }

    async fn counted<T>(
        &self,
        command: Command,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let start = Instant::now();
        let result = call.await;
        self.stats.count_command(command, start.elapsed(), &result);
        result
    }

    async fn send_broadcast(&self, room: &RoomName, records: &[Record]) -> Result<(), BrokerError> {
        check_records(records)?;
        let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let payload = envelope::encode_ephemeral(room, &self.node, ts, records);
        let mut command = ::redis::cmd(self.publish);
        command.arg(self.keys.channel(room)).arg(&payload);
        self.topology.query::<i64>(room.as_str(), command, payload.len()).await.map(|_| ())
    }
}

#[async_trait(?Send)]
impl Broker for RedisBroker {
    async fn publish(
        &self,
        room: &RoomName,
        policy: &RoomPolicy,
        records: &[Record],
    ) -> Result<Published, BrokerError> {
        self.counted(Command::Publish, script::publish(self, room, policy, records)).await
    }

    async fn broadcast(&self, room: &RoomName, records: &[Record]) -> Result<(), BrokerError> {
        self.counted(Command::Broadcast, self.send_broadcast(room, records)).await
    }

    async fn subscribe(&self, room: &RoomName) -> Result<(), BrokerError> {
        self.counted(Command::Subscribe, self.topology.subscribe(&Topic::Room(room.clone()))).await
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.topology.unsubscribe(&Topic::Room(room.clone()));
    }

    async fn history(&self, room: &RoomName, range: Range) -> Result<History, BrokerError> {
        self.counted(Command::History, script::history(self, room, range)).await
    }

    async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
        self.counted(Command::Tops, tops::read(self, rooms)).await
    }

    async fn presence(&self, room: &RoomName, call: PresenceCall<'_>) -> Result<PresenceReply, BrokerError> {
        self.counted(Command::Presence, presence::apply(self, room, call)).await
    }

    async fn members(&self, room: &RoomName, cursor: Option<&str>, limit: usize) -> Result<MembersPage, BrokerError> {
        self.counted(Command::Members, presence::page(self, room, cursor, limit)).await
    }

    async fn beat(&self, beat: &Beat<'_>) -> Result<Pulse, BrokerError> {
        self.counted(Command::Beat, lease::beat(self, beat)).await
    }

    async fn hold(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.counted(Command::Hold, lease::hold(self, incarnation, rooms)).await
    }

    async fn release(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.counted(Command::Release, lease::release(self, incarnation, rooms)).await
    }

    async fn held(&self, incarnation: &Incarnation, limit: usize) -> Result<Vec<RoomName>, BrokerError> {
        self.counted(Command::Held, lease::held(self, incarnation, limit)).await
    }

    async fn evict(
        &self,
        room: &RoomName,
        incarnation: &Incarnation,
        behind: Option<ClientId>,
    ) -> Result<Evicted, BrokerError> {
        self.counted(Command::Evict, presence::evict(self, room, incarnation, behind)).await
    }

    async fn bury(&self, incarnation: &Incarnation, farewell: Farewell) -> Result<(), BrokerError> {
        self.counted(Command::Bury, lease::bury(self, incarnation, farewell)).await
    }

    fn trouble(&self) -> Option<Trouble> {
        self.topology.trouble()
    }

    fn signs(&self) -> &Signs {
        &self.signs
    }
}

/// Names of a room's keys and of its channel.
#[derive(Clone)]
struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    fn new(prefix: &str) -> Result<Self, BrokerError> {
        // Braces would let the prefix choose the hash slot.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if !(1..=32).contains(&prefix.len()) || !prefix.bytes().all(allowed) {
            return Err(BrokerError::Misconfigured("redis prefix: expected 1 to 32 of A-Z a-z 0-9 _ . -".into()));
        }
        Ok(Self { prefix: prefix.into() })
    }

    fn channel(&self, room: &RoomName) -> String {
        self.key(room, "")
    }

    fn key(&self, room: &RoomName, suffix: &str) -> String {
        self.tagged(room.as_str(), suffix)
    }

    fn tagged(&self, tag: &str, suffix: &str) -> String {
        let prefix = &*self.prefix;
        let mut key = String::with_capacity(prefix.len() + tag.len() + suffix.len() + 3);
        for part in [prefix, ":{", tag, "}", suffix] {
            key.push_str(part);
        }
        key
    }

    /// A key of the cluster as a whole; to be used with the tag [`WHOLE`]. No room has this name, and all share one slot.
    fn shared(&self, name: &str) -> String {
        format!("{}:{{{WHOLE}}}:{name}", self.prefix)
    }

    /// Where orders to all nodes go.
    fn orders(&self) -> String {
        self.shared("orders")
    }

    /// The room that `channel` belongs to.
    fn room<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let rest = channel.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":{")?.strip_suffix(b"}")?;
        std::str::from_utf8(rest).ok()
    }
}
