//! The part of the hub that one worker thread owns: its connections, the rooms they are in, and the rooms at home here.
//!
//! Sessions call the methods of the first half and get their answers as frames in their outbox. Nothing here is
//! shared between threads; what other workers must know goes by mail.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use roomcast_protocol::{ErrorCode, NodeId, RoomName, Since, error_frame, left_frame};
use slab::Slab;
use tokio::sync::Semaphore;

use super::allowance::UserAllowances;
use super::dismissals::Dismissals;
use super::home::Home;
use super::mail::{Address, JoinRequest, Mail, Post, PublishRequest, Publisher, Question, Sight};
use super::muster::Life;
use super::orders::Busy;
use super::peer::{Delivered, Peer, Stop};
use super::posting::Postings;
use super::room::Room;
use super::sabotage::Sabotage;
use super::tend::Told;
use super::turn::Turn;
use super::users::Users;
use crate::broker::{Broker, BrokerError, History, Range, Record};
use crate::config::{Fault, Settings};
use crate::events::Events;
use crate::socket::frames;
use crate::telemetry::metrics::{Metrics, WorkerMetrics};
use crate::telemetry::trace::{Span, Tracing};

/// What a shard is made of.
pub struct Parts {
    /// This worker's number.
    pub index: usize,
    /// The ways to the workers of the node.
    pub post: Post,
    /// The same hasher on every worker, so that all agree on a room's home.
    pub hasher: RandomState,
    /// This node.
    pub node: NodeId,
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// This worker's way to the broker.
    pub broker: Rc<dyn Broker>,
    /// This worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
    /// The node's metrics, for what happens seldom.
    pub totals: Arc<Metrics>,
    /// Spans.
    pub tracing: Tracing,
    /// Webhooks.
    pub events: Events,
}

/// One worker's part of the hub.
pub struct Shard {
    pub(super) parts: Parts,
    pub(super) peers: RefCell<Slab<Rc<Peer>>>,
    pub(super) rooms: RefCell<HashMap<RoomName, Rc<Room>, RandomState>>,
    pub(super) homes: RefCell<HashMap<RoomName, Rc<Home>, RandomState>>,
    pub(super) turn: Turn,
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) tick: Cell<u32>,
    pub(super) told: Told,
    pub(super) life: Life,
    pub(super) user_allowances: UserAllowances,
    pub(super) users: Users,
    /// Turns at the broker for joins: a storm of them waits here instead of being refused there.
    pub(super) calls: Semaphore,
    /// Turns at reading streams.
    reads: Semaphore,
    pub(super) postings: Postings,
    pub(super) orders: Busy,
    pub(super) dismissals: Dismissals,
    /// Promises broken on purpose; none, but where that is to be seen.
    pub(super) sabotage: Option<Sabotage>,
}

/// A text frame around `json`.
pub(super) fn text_frame(json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + 10);
    frames::text(json, &mut out);
    out.freeze()
}

impl Shard {
    /// An empty shard.
    pub fn new(parts: Parts) -> Rc<Self> {
        let hasher = parts.hasher.clone();
        let turn = Turn::new(parts.post.workers());
        let sabotage = Sabotage::of(&parts.settings);
        Rc::new(Self {
            parts,
            peers: RefCell::default(),
            rooms: RefCell::new(HashMap::with_hasher(hasher.clone())),
            homes: RefCell::new(HashMap::with_hasher(hasher)),
            turn,
            scratch: RefCell::default(),
            tick: Cell::new(0),
            told: Told::default(),
            life: Life::default(),
            user_allowances: UserAllowances::default(),
            users: Users::default(),
            calls: Semaphore::new(super::MOST_CALLS_FOR_JOINS),
            reads: Semaphore::new(super::MOST_READS),
            postings: Postings::default(),
            orders: Busy::default(),
            dismissals: Dismissals::default(),
            sabotage,
        })
    }

    /// Takes a connection in.
    pub fn connect(&self, peer: &Rc<Peer>) {
        let slot = self.peers.borrow_mut().insert(Rc::clone(peer));
        peer.slot.set(slot as u32);
    }

    /// Lets a connection go: it leaves its rooms everywhere. False if it had gone before.
    pub fn disconnect(&self, peer: &Rc<Peer>) -> bool {
        let slot = peer.slot.replace(u32::MAX) as usize;
        if self.peers.borrow_mut().try_remove(slot).is_none() {
            return false;
        }
        for room in peer.rooms() {
            self.unseat(peer, &room);
        }
        true
    }

    /// Calls `visit` for every connection.
    pub fn visit_peers(&self, mut visit: impl FnMut(&Rc<Peer>)) {
        for (_, peer) in self.peers.borrow().iter() {
            visit(peer);
        }
    }

    /// Connections of this worker.
    pub fn peer_count(&self) -> usize {
        self.peers.borrow().len()
    }

    /// Queues a JSON frame for `peer`, written at the end of the turn.
    pub fn tell(&self, peer: &Rc<Peer>, json: &[u8]) {
        self.post_frame(peer, text_frame(json));
    }

    /// Queues an `error` frame for `peer`.
    pub fn refuse(&self, peer: &Rc<Peer>, reference: Option<&str>, code: ErrorCode, message: &str) {
        self.post_frame(peer, self.error(reference, code, message));
    }

    /// An `error` frame, counted.
    pub(super) fn error(&self, reference: Option<&str>, code: ErrorCode, message: &str) -> Bytes {
        self.parts.totals.sockets.protocol_errors.with_label_values(&[code.as_str()]).inc();
        text_frame(&error_frame(reference, code, message))
    }

    /// Queues a ready-made frame for `peer`, written at the end of the turn.
    pub fn post_frame(&self, peer: &Rc<Peer>, frame: Bytes) {
        if peer.post(frame, 1) {
            self.turn.dirty(peer);
        }
    }

    /// Writes a ready-made frame to `peer` at once, or queues what its socket does not take.
    pub fn write_now(&self, peer: &Peer, frame: &Bytes) {
        if peer.deliver(frame, 1) == Delivered::Written {
            self.parts.metrics.wrote(1, frame.len());
        }
    }

    /// Asks for a seat; `joined` or `error` follows.
    pub fn join(&self, peer: &Rc<Peer>, room: RoomName, since: Option<Since>, sight: Sight, reference: Option<&str>) {
        peer.begin_request();
        peer.arrivals.begin(&room);
        let home = self.home_of(&room);
        let request = JoinRequest {
            from: self.address(peer),
            member: peer.member(),
            since,
            sight,
            reference: reference.map(Into::into),
            room,
            life: 0,
        };
        self.send(home, Mail::Join(request));
    }

    /// Gives up a seat; `left` is queued.
    pub fn leave(&self, peer: &Rc<Peer>, room: &RoomName, reference: Option<&str>) {
        self.remove(peer, room, text_frame(&left_frame(reference, room, None)));
    }

    /// Takes a seat away; `left` with the reason is queued.
    pub fn expel(&self, peer: &Rc<Peer>, room: &RoomName, reason: &str) {
        self.remove(peer, room, text_frame(&left_frame(None, room, Some(reason))));
    }

    /// Publishes; `ack` or `error` follows if `reference` is given.
    pub fn publish(
        &self,
        peer: &Rc<Peer>,
        room: &RoomName,
        mut record: Record,
        reference: Option<&str>,
        span: Option<Span>,
    ) {
        record.idempotent &= !self.commits(Fault::NoDedupe);
        peer.begin_publish(record.data.len());
        let request = PublishRequest {
            room: room.clone(),
            from: Publisher::Session(self.address(peer)),
            reference: reference.map(Into::into),
            record,
            _span: span.map(Box::new),
        };
        self.send_home(room, Mail::Publish(request));
    }

    /// Asks for history or members; the answer or `error` follows.
    pub fn ask(&self, peer: &Rc<Peer>, room: &RoomName, question: Question, reference: Option<&str>) {
        peer.begin_request();
        let reference = reference.map(Into::into);
        self.send_home(room, Mail::Ask { room: room.clone(), from: self.address(peer), reference, question });
    }

    /// Takes a seat away; `left`, that frame, is queued.
    pub(super) fn remove(&self, peer: &Rc<Peer>, room: &RoomName, left: Bytes) {
        self.unseat(peer, room);
        self.post_frame(peer, left);
    }

    fn unseat(&self, peer: &Rc<Peer>, name: &RoomName) {
        let room = self.rooms.borrow().get(name).cloned();
        let Some(room) = room.filter(|room| room.dismiss(peer)) else { return };
        self.parts.totals.hub.members.dec();
        self.forget_if_empty(&room);
        let mail = Mail::Leave { room: name.clone(), member: peer.member(), worker: self.parts.index };
        self.send_home(name, mail);
    }

    /// A room away from home exists only while it has members or batches; at home it lives with its home.
    pub(super) fn forget_if_empty(&self, room: &Rc<Room>) {
        if room.len() > 0 || room.is_busy() || self.home_of(&room.name) == self.parts.index {
            return;
        }
        let mut rooms = self.rooms.borrow_mut();
        // A room that was held may be let go a moment after it was forgotten and made anew: that one has members.
        if rooms.get(&room.name).is_some_and(|known| Rc::ptr_eq(known, room)) {
            rooms.remove(&room.name);
        }
    }

    pub(super) fn address(&self, peer: &Peer) -> Address {
        Address { worker: self.parts.index, slot: peer.slot.get(), client: peer.id }
    }

    /// The connection at an address of this worker, if it is still the same one.
    pub(super) fn resolve(&self, to: Address) -> Option<Rc<Peer>> {
        self.peers.borrow().get(to.slot as usize).filter(|peer| peer.id == to.client).cloned()
    }

    /// Which worker a room is at home on.
    pub(super) fn home_of(&self, room: &RoomName) -> usize {
        match self.parts.post.workers() {
            1 => 0,
            workers => (self.parts.hasher.hash_one(room) % workers as u64) as usize,
        }
    }

    pub(super) fn send_home(&self, room: &RoomName, mail: Mail) {
        self.turn.send(self.home_of(room), self.parts.index, mail);
    }

    pub(super) fn send(&self, worker: usize, mail: Mail) {
        self.turn.send(worker, self.parts.index, mail);
    }

    /// A part of a room's stream. Few reads at a time: a page of large messages is megabytes.
    pub(super) async fn read(&self, room: &RoomName, range: Range) -> Result<History, BrokerError> {
        let _turn = self.reads.acquire().await;
        self.parts.broker.history(room, range).await
    }

    pub(super) fn home(&self, room: &RoomName) -> Option<Rc<Home>> {
        self.homes.borrow().get(room).cloned()
    }

    pub(super) fn room(&self, name: &RoomName) -> Rc<Room> {
        Rc::clone(self.rooms.borrow_mut().entry(name.clone()).or_insert_with(|| Room::new(name.clone())))
    }

    /// Carries out one piece of mail.
    pub(super) fn receive(self: &Rc<Self>, mail: Mail) {
        match mail {
            Mail::Join(request) => self.take_join(request),
            Mail::Leave { room, member, worker } => self.take_leave(&room, member, worker),
            Mail::Publish(request) => self.take_publish(request),
            Mail::Rename { room, member, claim } => self.take_rename(&room, member, claim),
            Mail::Ask { room, from, reference, question } => self.take_question(room, from, reference, question),
            Mail::Admit { to, room, member, frame } => self.admit(to, &room, member, frame),
            Mail::Replay { to, room, frames, taken } => self.take_replay(to, &room, frames, taken),
            Mail::Decline { to, room, frame } => self.decline(to, &room, frame),
            Mail::Answer { to, frame } => {
                if let Some(peer) = self.resolve(to) {
                    self.post_frame(&peer, frame);
                    peer.end_request();
                }
            }
            Mail::Settle { to, frame, bytes } => {
                if let Some(peer) = self.resolve(to) {
                    if let Some(frame) = frame {
                        self.post_frame(&peer, frame);
                    }
                    peer.end_publish(bytes);
                }
            }
            Mail::Batch { room, batch } => {
                let room = self.room(&room);
                room.push(batch);
                self.turn.activate(&room);
            }
            Mail::Life(incarnation) => self.begin_life(incarnation),
            Mail::Muster { home } => self.muster(home),
            Mail::Present { room, members } => self.take_present(&room, members),
            Mail::Sit { user, answer } => self.take_sit(user, answer),
            Mail::Rise { user } => self.take_rise(user),
            Mail::Expel { to } => {
                if let Some(peer) = self.resolve(to) {
                    peer.request_stop(Stop::NameTaken);
                }
            }
            // Whoever gave the order may have stopped waiting.
            Mail::Order { task, done } => _ = done.try_send(self.obey(&task)),
        }
    }
}
