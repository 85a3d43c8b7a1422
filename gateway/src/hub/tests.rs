//! Shards on one thread, with sockets of their own and a broker that fails on demand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use roomcast_protocol::{ClientId, NodeId, RoomName, Term};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::sequencer::Run;
use super::{Identity, Inbox, Parts, Peer, Post, Shard, Sight};
use crate::broker::{
    Answer, Beat, Broker, BrokerError, BrokerStats, Directory, Event, Evicted, Farewell, History, Incarnation, Member,
    MembersPage, Memory, MemoryBroker, NodeReport, Order, OrderId, Orders, PresenceCall, PresenceReply, Published,
    Pulse, Range, Record, RoomsPage, RoomsQuestion, Signs, Top, Trouble,
};
use crate::config::{RoomPolicy, Settings};
use crate::socket::frames::first_frame_len;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracing;

mod arrivals;
mod catching_up;
mod delivery;
mod ending;
mod identity;
mod joining;
mod limits;
mod lives;
mod orders;
mod outage;
mod posting;
mod sabotage;
mod terms;

/// Bytes that may wait for a client of these tests.
const QUEUE_LIMIT: usize = 1 << 20;
/// The longest any wait of a test lasts before it fails.
const DEADLINE: Duration = Duration::from_mins(1);

/// The memory broker, with a switch for presence and a gate before every answer to a read.
struct Faulty {
    inner: MemoryBroker,
    presence_fails: RefCell<Option<BrokerError>>,
    /// A gate before every change of who is there.
    presences: Semaphore,
    publish_fails: RefCell<Option<BrokerError>>,
    /// A gate before every publish.
    publishes: Semaphore,
    beat_fails: Cell<bool>,
    quotas_fail: Cell<bool>,
    /// Calls about limits so far.
    calls: Cell<usize>,
    reads: Semaphore,
    /// Reads that stand at the gate.
    waiting: Cell<usize>,
    /// Reads so far.
    asked: Cell<usize>,
}

#[async_trait(?Send)]
impl Broker for Faulty {
    async fn publish(&self, room: &RoomName, policy: &RoomPolicy, new: &[Record]) -> Result<Published, BrokerError> {
        let _pass = self.publishes.acquire().await.expect("open");
        let fault = self.publish_fails.borrow().clone();
        match fault {
            Some(error) => Err(error),
            None => self.inner.publish(room, policy, new).await,
        }
    }

    async fn broadcast(&self, room: &RoomName, records: &[Record]) -> Result<(), BrokerError> {
        let _pass = self.publishes.acquire().await.expect("open");
        let fault = self.publish_fails.borrow().clone();
        match fault {
            Some(error) => Err(error),
            None => self.inner.broadcast(room, records).await,
        }
    }

    async fn subscribe(&self, room: &RoomName) -> Result<(), BrokerError> {
        self.inner.subscribe(room).await
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    async fn history(&self, room: &RoomName, range: Range) -> Result<History, BrokerError> {
        let history = self.inner.history(room, range).await;
        self.asked.set(self.asked.get() + 1);
        self.waiting.set(self.waiting.get() + 1);
        let pass = self.reads.acquire().await.expect("open");
        self.waiting.set(self.waiting.get() - 1);
        drop(pass);
        history
    }

    async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
        self.inner.tops(rooms).await
    }

    async fn presence(&self, room: &RoomName, call: PresenceCall<'_>) -> Result<PresenceReply, BrokerError> {
        let _pass = self.presences.acquire().await.expect("open");
        let fault = self.presence_fails.borrow().clone();
        match fault {
            Some(error) => Err(error),
            None => self.inner.presence(room, call).await,
        }
    }

    async fn members(&self, room: &RoomName, cursor: Option<&str>, limit: usize) -> Result<MembersPage, BrokerError> {
        self.inner.members(room, cursor, limit).await
    }

    async fn beat(&self, beat: &Beat<'_>) -> Result<Pulse, BrokerError> {
        if self.beat_fails.get() {
            return Err(BrokerError::Unavailable("away".into()));
        }
        self.inner.beat(beat).await
    }

    async fn hold(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.inner.hold(incarnation, rooms).await
    }

    async fn release(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.inner.release(incarnation, rooms).await
    }

    async fn held(&self, incarnation: &Incarnation, limit: usize) -> Result<Vec<RoomName>, BrokerError> {
        self.inner.held(incarnation, limit).await
    }

    async fn evict(
        &self,
        room: &RoomName,
        incarnation: &Incarnation,
        behind: Option<ClientId>,
    ) -> Result<Evicted, BrokerError> {
        self.inner.evict(room, incarnation, behind).await
    }

    async fn bury(&self, incarnation: &Incarnation, farewell: Farewell) -> Result<(), BrokerError> {
        self.inner.bury(incarnation, farewell).await
    }

    fn trouble(&self) -> Option<Trouble> {
        None
    }

    fn signs(&self) -> &Signs {
        self.inner.signs()
    }
}

#[async_trait(?Send)]
impl Directory for Faulty {
    async fn member(&self, room: &RoomName, client: ClientId) -> Result<Option<Member>, BrokerError> {
        self.inner.member(room, client).await
    }

    async fn rooms(&self, question: RoomsQuestion<'_>) -> Result<RoomsPage, BrokerError> {
        self.inner.rooms(question).await
    }

    async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        self.inner.nodes().await
    }
}

#[async_trait(?Send)]
impl Orders for Faulty {
    async fn listen(&self) -> Result<(), BrokerError> {
        self.inner.listen().await
    }

    async fn order(&self, order: &Order) -> Result<(), BrokerError> {
        self.inner.order(order).await
    }

    async fn answer(&self, order: OrderId, answer: Answer) -> Result<(), BrokerError> {
        self.inner.answer(order, answer).await
    }

    async fn answers(&self, order: OrderId) -> Result<Vec<(NodeId, Answer)>, BrokerError> {
        self.inner.answers(order).await
    }
}

/// One worker.
struct Worker {
    shard: Rc<Shard>,
    broker: Rc<Faulty>,
    events: mpsc::Sender<Event>,
}

/// A node of some workers.
struct Node {
    workers: Vec<Worker>,
    memory: Memory,
}

impl Node {
    fn start(count: usize, settings: Settings) -> Self {
        let (post, inboxes) = Post::new(count);
        let (memory, metrics) = (Memory::new(), Metrics::new());
        let (settings, hasher) = (Arc::new(settings), RandomState::default());
        let one = |(index, inbox): (usize, Inbox)| {
            let (events, arriving) = mpsc::channel(64);
            let inner = memory.handle(settings.node_id.clone(), events.clone(), BrokerStats::new(&metrics));
            let reads = Semaphore::new(1 << 20);
            let broker = Rc::new(Faulty {
                inner,
                presence_fails: RefCell::default(),
                presences: Semaphore::new(1 << 20),
                publish_fails: RefCell::default(),
                publishes: Semaphore::new(1 << 20),
                beat_fails: Cell::new(false),
                quotas_fail: Cell::new(false),
                calls: Cell::new(0),
                reads,
                waiting: Cell::new(0),
                asked: Cell::new(0),
            });
            let shard = Shard::new(Parts {
                index,
                post: post.clone(),
                hasher: hasher.clone(),
                node: settings.node_id.clone(),
                settings: Arc::clone(&settings),
                broker: Rc::clone(&broker) as Rc<dyn Broker>,
                metrics: Rc::new(metrics.local(index)),
                totals: Arc::clone(&metrics),
                tracing: Tracing::off(),
                events: crate::events::Events::none(),
            });
            spawn_local(Rc::clone(&shard).run_turns());
            spawn_local(Rc::clone(&shard).run_lease());
            spawn_local(Rc::clone(&shard).run_inbox(inbox));
            spawn_local(Rc::clone(&shard).run_relay(arriving));
            spawn_local(Rc::clone(&shard).run_clock());
            spawn_local(Rc::clone(&shard).run_sweep());
            Worker { shard, broker, events }
        };
        let workers = inboxes.into_iter().enumerate().map(one).collect();
        Self { workers, memory }
    }

    /// The only worker.
    fn shard(&self) -> &Rc<Shard> {
        &self.workers[0].shard
    }

    /// A room at home on worker `home`.
    fn room(&self, home: usize) -> RoomName {
        std::iter::repeat_with(RoomName::random).find(|room| self.shard().home_of(room) == home).expect("endless")
    }
}

/// One connection without a session: both ends.
struct Client {
    shard: Rc<Shard>,
    peer: Rc<Peer>,
    socket: TcpStream,
    input: Vec<u8>,
}

impl Client {
    async fn connect(shard: &Rc<Shard>) -> Self {
        Self::connect_as(shard, "n", Identity::default()).await
    }

    async fn connect_as(shard: &Rc<Shard>, name: &str, identity: Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let stream = near.expect("accepted").0;
        let peer = Peer::new(ClientId::random(), name.into(), identity, stream, QUEUE_LIMIT, 0);
        shard.connect(&peer);
        Self { shard: Rc::clone(shard), peer, socket: far.expect("connected"), input: Vec::new() }
    }

    /// Connects and joins.
    async fn enter(shard: &Rc<Shard>, room: &RoomName) -> Self {
        let mut client = Self::connect(shard).await;
        client.shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
        client.expect("joined").await;
        client
    }

    async fn next(&mut self) -> Value {
        let read = async {
            loop {
                if let Some(len) = first_frame_len(&self.input) {
                    let frame: Vec<u8> = self.input.drain(..len).collect();
                    // No mask; the length takes 1, 3 or 9 bytes.
                    let start = [2, 4, 10][usize::from(frame[1].saturating_sub(125).min(2))];
                    return serde_json::from_slice(&frame[start..]).expect("JSON");
                }
                assert!(self.socket.read_buf(&mut self.input).await.expect("readable") > 0, "closed");
            }
        };
        timeout(DEADLINE, read).await.expect("a frame in time")
    }

    /// The next frame of a type; others are skipped, but no message is.
    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
            assert_ne!(frame["type"], "message", "waiting for {kind}, got {frame}");
        }
    }
}

fn record(text: &str) -> Record {
    Record::sample(text, format!("{text:?}"))
}

fn run(term: &str, first_seq: u64, count: usize) -> Run {
    let term = Term::new(term).expect("valid");
    Run { term, first_seq, ts: 0, records: vec![record("m"); count], own: false }
}

/// Waits until `done`, looking again whenever the other tasks have run.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("deadline passed, waiting for {what}"));
}

/// Settings with these lines in the configuration file.
fn with_rooms(toml: &str) -> Settings {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rooms.toml");
    std::fs::write(&file, toml).expect("written");
    let args = ["gateway".into(), "--config".into(), file.into_os_string()];
    match Settings::load(args, [], directory.path()) {
        Ok(crate::config::Action::Run(settings)) => *settings,
        other => panic!("no settings: {:?}", other.err()),
    }
}

/// Runs a test where local tasks can be spawned.
async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}
