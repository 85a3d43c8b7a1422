//! The contract of [`Broker`]: one suite, run on every implementation, and what only a real Redis can show.
//!
//! Nothing here sleeps to hope. That an event does *not* come is shown by a later one that comes first.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{ClientId, Mode, NodeId, RoomName};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::redis::test_groups::{Sharded, Watched};
use super::redis::test_server::Server;
use super::{
    Broker, BrokerStats, Directory, Envelope, Event, Incarnation, Kind, Member, Memory, NodeNote, Orders, Outcome,
    PresenceCall, PresenceOp, Record, RedisBroker, RedisOptions, Subject,
};
use crate::config::RoomPolicy;
use crate::telemetry::metrics::Metrics;

mod directory;
mod examine;
mod failover;
mod faults;
mod history;
mod identity;
mod ids;
mod leases;
mod messages;
mod orders;
mod passwords;
mod presence;
mod quota;
mod scripts;
mod sharding;
mod terms;
mod tls;
mod trust;
mod wishes;

/// The longest any wait of a test lasts before it fails.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

/// Two nodes on one store, and their events.
struct Pair {
    a: Box<dyn Broker>,
    b: Box<dyn Broker>,
    from_a: Events,
    from_b: Events,
    store: Store,
}

/// What both nodes of a pair share; it lives as long as they.
enum Store {
    Memory(Memory),
    Redis(Server),
    /// Several servers, which other tests use, too: kept alive, and not to be tampered with.
    Group(#[expect(dead_code, reason = "lives as long as the pair")] Box<dyn std::any::Any>),
}

/// A room as it once was.
enum Saved {
    Memory(RoomName, Option<u64>, Box<dyn Fn(&Memory)>),
    /// Keys and their values as `DUMP` gives them.
    Redis(Vec<(String, Vec<u8>)>),
}

impl Pair {
    async fn save(&self, room: &RoomName) -> Saved {
        match &self.store {
            Store::Memory(store) => {
                let history = self.a.history(room, super::Range::Latest { limit: 1 }).await.expect("history");
                Saved::Memory(room.clone(), history.term.map(|_| history.top), store.save_ids(room))
            }
            Store::Redis(server) => {
                let keys: Vec<String> = server.command(&["KEYS", "*"]);
                let dump = |key: String| (key.clone(), server.command::<Vec<u8>>(&["DUMP", &key]));
                Saved::Redis(keys.into_iter().map(dump).collect())
            }
            Store::Group(_) => unreachable!("for one server only"),
        }
    }

    /// What a backup that is put back does, or a replica that lagged and became master.
    fn restore(&self, saved: &Saved) {
        match (&self.store, saved) {
            (Store::Memory(store), Saved::Memory(room, top, put_back_ids)) => {
                store.restore(room, *top);
                put_back_ids(store);
            }
            (Store::Redis(server), Saved::Redis(keys)) => {
                let _: String = server.command(&["FLUSHALL"]);
                for (key, value) in keys {
                    let _: String = server.call(&[b"RESTORE", key.as_bytes(), b"60000", value]);
                }
                server.change_identity();
            }
            _ => unreachable!("saved elsewhere"),
        }
    }
}

/// What comes to one node.
struct Events {
    node: NodeId,
    channel: mpsc::Receiver<Event>,
}

impl Events {
    fn channel(name: &str, capacity: usize) -> (mpsc::Sender<Event>, Self) {
        let (sender, channel) = mpsc::channel(capacity);
        (sender, Self { node: node(name), channel })
    }

    /// The next event from another node; own echoes are allowed and skipped.
    async fn next(&mut self) -> Event {
        let next = async {
            loop {
                let event = self.channel.recv().await.expect("the broker lives");
                let own = match &event {
                    Event::Messages(envelope) => envelope.node == self.node,
                    Event::Presence(event) => event.node == self.node,
                    Event::Order(_) | Event::Resubscribed => false,
                };
                if !own {
                    return event;
                }
            }
        };
        timeout(DEADLINE, next).await.expect("an event in time")
    }

    async fn messages(&mut self) -> Envelope {
        match self.next().await {
            Event::Messages(envelope) => envelope,
            other => panic!("expected messages, got {other:?}"),
        }
    }

    /// Waits for `Resubscribed`, whatever comes before it.
    async fn resubscribed(&mut self) {
        while self.next().await != Event::Resubscribed {}
    }
}

fn memory() -> Pair {
    let store = Memory::new();
    let (to_a, from_a) = Events::channel("node-a", 1024);
    let (to_b, from_b) = Events::channel("node-b", 1024);
    let (a, b) = (store.handle(node("node-a"), to_a, stats()), store.handle(node("node-b"), to_b, stats()));
    Pair { a: Box::new(a), b: Box::new(b), from_a, from_b, store: Store::Memory(store) }
}

async fn redis() -> Pair {
    let server = Server::start(&[]);
    over(&server.options("node-a"), Store::Redis(server)).await
}

async fn sentinel() -> Pair {
    let group = Watched::shared();
    over(&apart(group.options("node-a")), Store::Group(Box::new(group))).await
}

async fn cluster() -> Pair {
    let group = Sharded::shared();
    over(&apart(group.options("node-a")), Store::Group(Box::new(group))).await
}

/// Keys of its own, on servers that other tests use, too.
fn apart(options: RedisOptions) -> RedisOptions {
    RedisOptions { prefix: format!("t{:016x}", rand::random::<u64>()), ..options }
}

async fn over(options: &RedisOptions, store: Store) -> Pair {
    let (a, from_a) = connect(options, 1024).await;
    let (b, from_b) = connect(&RedisOptions { node: node("node-b"), ..options.clone() }, 1024).await;
    Pair { a: Box::new(a), b: Box::new(b), from_a, from_b, store }
}

/// A broker that is up.
async fn connect(options: &RedisOptions, capacity: usize) -> (RedisBroker, Events) {
    let (sender, events) = Events::channel(options.node.as_str(), capacity);
    let broker = RedisBroker::connect(options, sender, stats()).expect("good options");
    until("the broker is up", || broker.is_up()).await;
    (broker, events)
}

/// Polls a condition that nothing announces.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn stats() -> BrokerStats {
    BrokerStats::new(&Metrics::new())
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("valid")
}

fn policy() -> RoomPolicy {
    RoomPolicy {
        mode: Mode::Durable,
        history_size: 1000,
        history_ttl: Duration::from_mins(1),
        idempotency_window: Duration::from_mins(1),
        unique_names: false,
        publish_rate: None,
    }
}

/// What a node says of itself.
fn note(node: &NodeId) -> NodeNote<'_> {
    NodeNote { node, connections: 1, rooms: 1, max_connections: 100, load: 0.5, version: "1.2.3" }
}

/// Operations through one life of a node, the same for all who use this.
fn call(ops: &[PresenceOp], want_members: usize) -> PresenceCall<'_> {
    static LIFE: LazyLock<Incarnation> = LazyLock::new(|| Incarnation::new(&node("node")));
    PresenceCall { incarnation: &LIFE, ops, unique_names: false, want_members }
}

/// A member that came without a token.
fn member(id: ClientId, name: &str) -> Member {
    Member { id, name: name.into(), user: None, info: None }
}

fn enter(id: ClientId, name: &str) -> PresenceOp {
    PresenceOp::Enter(member(id, name))
}

fn leave(id: ClientId, name: &str) -> PresenceOp {
    PresenceOp::Leave(member(id, name))
}

fn rename(id: ClientId, name: &str) -> PresenceOp {
    PresenceOp::Rename(member(id, name))
}

/// A message whose data is `text`, under an id that is the client's.
fn idempotent(id: &str, text: &str) -> Record {
    Record { id: id.into(), idempotent: true, ..plain(text) }
}

/// A message whose data is `text`, under a generated id.
fn plain(text: &str) -> Record {
    Record {
        id: uuid::Uuid::new_v4().to_string().into(),
        idempotent: false,
        subject: Subject::NOBODY,
        from: ClientId::random(),
        name: "Ann".into(),
        user: None,
        echo: true,
        accepted_at_us: 1_700_000_000_000_000,
        trace: None,
        data: Bytes::from(format!("{text:?}")),
    }
}

fn plains(texts: std::ops::Range<usize>) -> Vec<Record> {
    texts.map(|number| plain(&number.to_string())).collect()
}

fn stored(outcomes: &[Outcome]) -> Vec<u64> {
    let seq = |outcome: &Outcome| match outcome {
        Outcome::Stored { seq } => *seq,
        _ => panic!("not stored now: {outcomes:?}"),
    };
    outcomes.iter().map(seq).collect()
}

fn first_seq(envelope: &Envelope) -> u64 {
    match envelope.kind {
        Kind::Durable { first_seq, .. } => first_seq,
        Kind::Ephemeral { .. } => panic!("expected durable messages, got {envelope:?}"),
    }
}

/// Runs each case on both implementations, and on every topology of Redis.
macro_rules! everywhere {
    ($($case:ident),+ $(,)?) => {
        crate::broker::contract::on_both!($($case),+);
        mod on_sentinel {
            $(#[tokio::test(flavor = "local")]
            async fn $case() {
                super::$case(crate::broker::contract::sentinel().await).await;
            })+
        }
        mod on_cluster {
            $(#[tokio::test(flavor = "local")]
            async fn $case() {
                super::$case(crate::broker::contract::cluster().await).await;
            })+
        }
    };
}
use everywhere;

/// Runs each case on both implementations, Redis being one server.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod on_memory {
            $(#[tokio::test(flavor = "local")]
            async fn $case() {
                super::$case(crate::broker::contract::memory()).await;
            })+
        }
        mod on_redis {
            $(#[tokio::test(flavor = "local")]
            async fn $case() {
                super::$case(crate::broker::contract::redis().await).await;
            })+
        }
    };
}
use on_both;
