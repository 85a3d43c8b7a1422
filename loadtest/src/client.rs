//! One client: connects, joins its room, publishes what falls due, checks what it receives, and comes back.
//!
//! Started by the engine, one task each on a worker's thread. It knows its room and its worker's [`Floor`], and no
//! schedule: the pacer tells it what is due.

mod decode;
mod entry;
mod life;
mod memo;
mod nodes;
mod notes;
mod publisher;
mod session;
#[cfg(test)]
mod tests;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use roomcast_protocol::RoomName;

use self::memo::Memo;
use self::nodes::Nodes;
pub use self::notes::Notes;
use self::publisher::Publisher;
pub use self::watch::LOOK;
use self::watch::{Cut, Looks};
use crate::audit::{Audit, Seat};
use crate::clock::Clock;
use crate::plan::Plan;
use crate::record::{Count, Recorder};
use crate::wire::{Connector, Link};

/// Bytes a thread reads at once.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Bytes waiting for one socket before publishes wait unsent.
const MOST_BACKLOG_BYTES: usize = 1024 * 1024;

/// What all threads of a process share.
#[derive(Default)]
pub struct Gauges {
    /// Clients in their rooms.
    pub joined: AtomicU32,
    /// Open connections.
    pub connections: AtomicU32,
    /// When a message last arrived, ns since the Unix epoch.
    pub last_received_ns: AtomicU64,
    /// A reason why the run cannot go on, such as a limit of the cluster's.
    pub fatal: std::sync::Mutex<Option<String>>,
}

impl Gauges {
    /// Keeps the first reason.
    pub fn give_up(&self, reason: String) {
        self.fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(reason);
    }
}

/// Held by a task: a panic ends only the task, and without a word. The run must not go on as if nothing were missing.
pub struct EndsRun<'a>(pub &'a Gauges);

impl Drop for EndsRun<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up("a part of the load tester panicked, see above; please report it".to_owned());
        }
    }
}

/// A publish, or with number 0 the join, that must be tried again: for the pacer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retry {
    pub at_ns: u64,
    pub client: usize,
    pub number: u32,
    /// How often it had been sent when this was asked for: who has sent it since then must not send it twice.
    pub sent: u8,
}

/// What the clients of one thread share.
pub struct Floor {
    pub plan: Arc<Plan>,
    pub audit: Arc<Audit>,
    pub gauges: Arc<Gauges>,
    pub clock: Clock,
    pub recorder: Recorder,
    pub notes: RefCell<Notes>,
    pub retries: RefCell<Vec<Retry>>,
    connector: Connector,
    scratch: RefCell<Vec<u8>>,
    encoded: RefCell<Vec<u8>>,
    memo: RefCell<Memo>,
    nodes: RefCell<Nodes>,
    looks: Looks,
}

impl Floor {
    pub fn new(plan: Arc<Plan>, audit: Arc<Audit>, gauges: Arc<Gauges>, clock: Clock, connector: Connector) -> Self {
        Self {
            plan,
            audit,
            gauges,
            clock,
            recorder: Recorder::default(),
            notes: RefCell::default(),
            retries: RefCell::default(),
            connector,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            encoded: RefCell::default(),
            memo: RefCell::new(Memo::new()),
            nodes: RefCell::default(),
            looks: Looks::default(),
        }
    }

    /// A look begins: every client is to be [watched](Client::watch). To be called every [`LOOK`].
    pub fn look(&self) {
        self.looks.next();
    }
}

/// Where a client is in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Not connected, or not answered yet.
    Out,
    Joined,
    /// Left on purpose, for a while.
    Away,
}

/// What a client knows; apart from its link, so that both can be used at once.
struct State {
    presence: Presence,
    seat: Seat,
    publisher: Option<Box<Publisher>>,
    node: u32,
    node_id: Option<Arc<str>>,
    /// When the connection was due.
    connecting_since_ns: u64,
    /// When the join was sent.
    joining_since_ns: u64,
    /// When the last connection ended, or was to be taken up again; 0 before the first.
    gone_at_ns: u64,
    /// Messages up to this seq are older than the last join.
    joined_seq: u64,
    /// The look in which the connection was opened or the join sent, until it is answered.
    awaits_since: Option<u32>,
    /// How often the server said it would ping; 0 if it did not.
    ping_interval_ms: u64,
    /// The server asked to come back after so long.
    come_back_ms: Option<u64>,
}

/// What frames that were read ask for.
#[derive(Default)]
struct Output {
    frames: Vec<Vec<u8>>,
    /// The room was joined: what waited for that can go.
    joined: bool,
}

/// One member of one room, over all its connections.
pub struct Client {
    floor: Rc<Floor>,
    /// Among its thread's clients.
    slot: usize,
    /// Among all clients of the run.
    pub index: u32,
    pub room: u32,
    pub member: u32,
    room_name: RoomName,
    me: RefCell<State>,
    link: RefCell<Option<Box<Link>>>,
    waker: RefCell<Option<Waker>>,
    /// The look in which something was last received.
    heard: Cell<u32>,
    cut: Cell<Option<Cut>>,
    /// The run is over for it: connections that end now are none that were lost.
    concluded: Cell<bool>,
}

impl Client {
    /// None if the plan's prefix makes no room name, which it was checked for.
    pub fn new(floor: &Rc<Floor>, slot: usize, room: u32, member: u32) -> Option<Rc<Self>> {
        let index = room * floor.plan.members + member;
        let publishes = member < floor.plan.publishers && floor.plan.rate > 0.0;
        Some(Rc::new(Self {
            floor: Rc::clone(floor),
            slot,
            index,
            room,
            member,
            room_name: floor.plan.room_name(room)?,
            me: RefCell::new(State {
                presence: Presence::Out,
                seat: Seat::new(index, room),
                publisher: publishes.then(Box::default),
                node: 0,
                node_id: None,
                connecting_since_ns: 0,
                joining_since_ns: 0,
                gone_at_ns: 0,
                joined_seq: 0,
                awaits_since: None,
                ping_interval_ms: 0,
                come_back_ms: None,
            }),
            link: RefCell::new(None),
            waker: RefCell::new(None),
            heard: Cell::new(0),
            cut: Cell::new(None),
            concluded: Cell::new(false),
        }))
    }

    /// Whether this client has messages to publish.
    pub fn publishes(&self) -> bool {
        self.me.borrow().publisher.is_some()
    }

    /// A publish is due, or was due at `intended_ns`. Sent now if there is a connection, else as soon as there is.
    pub fn publish(&self, intended_ns: u64) {
        self.floor.recorder.count(Count::Due, 1);
        let mut me = self.me.borrow_mut();
        let Some(publisher) = me.publisher.as_deref_mut() else { return };
        let (number, fits) = publisher.due(intended_ns);
        if !fits {
            self.floor.recorder.count(Count::Abandoned, 1);
            self.floor.audit.abandoned(self.index, self.room, number);
            return;
        }
        self.send(&mut me, number);
    }

    /// Tries once more what was refused, if it still has no answer.
    pub fn retry(&self, retry: Retry) {
        let mut me = self.me.borrow_mut();
        match retry.number {
            0 if me.presence == Presence::Out && me.node_id.is_some() && me.awaits_since.is_none() => {
                let join = self.join_frame(&mut me);
                drop(me);
                self.send_text(&join);
            }
            0 => {}
            session::UNSENT => self.send_unsent(&mut me),
            number => {
                let pending = me.publisher.as_deref_mut().and_then(|publisher| publisher.get(number));
                if pending.is_some_and(|pending| pending.sent == retry.sent) {
                    self.send(&mut me, number);
                }
            }
        }
    }

    /// Breaks the connection off, without a word, and comes back at once. False if there is none.
    pub fn break_off(&self) -> bool {
        let open = self.link.borrow().is_some();
        if open {
            self.cut(Cut::Storm);
        }
        open
    }

    /// Leaves the room. False if it is not in it, or publishes.
    pub fn leave(&self) -> bool {
        let mut me = self.me.borrow_mut();
        if me.presence != Presence::Joined || me.publisher.is_some() {
            return false;
        }
        me.presence = Presence::Away;
        me.seat.left(&self.floor.audit);
        self.floor.gauges.joined.fetch_sub(1, Relaxed);
        self.floor.recorder.count(Count::Left, 1);
        drop(me);
        self.send_text(format!(r#"{{"type":"leave","room":"{}"}}"#, self.room_name).as_bytes());
        true
    }

    /// Joins the room again after [`Client::leave`].
    pub fn come_back(&self) {
        let mut me = self.me.borrow_mut();
        if me.presence == Presence::Away {
            me.presence = Presence::Out;
            if me.node_id.is_some() {
                let join = self.join_frame(&mut me);
                drop(me);
                self.send_text(&join);
            }
        }
    }

    /// Whether nothing that is known to be stored is still owed to it, and all its publishes are answered.
    pub fn is_settled(&self) -> bool {
        let me = self.me.borrow();
        let has_all = me.presence == Presence::Joined && me.seat.is_caught_up(&self.floor.audit);
        has_all && !me.publisher.as_ref().is_some_and(|publisher| publisher.has_pending())
    }

    /// Ends the run for this client: what is still owed to it is lost.
    pub fn conclude(&self) {
        self.concluded.set(true);
        self.me.borrow_mut().seat.conclude(&self.floor.audit);
        if let Some(link) = self.link.borrow_mut().as_deref_mut() {
            link.say_goodbye();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Writes a frame on the open connection, if there is one.
    fn send_text(&self, text: &[u8]) {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_deref_mut() else { return };
        let waiting = link.backlog();
        link.send(text, &mut self.floor.encoded.borrow_mut());
        self.floor.recorder.count(Count::BytesOut, text.len() as u64);
        if waiting == 0 && link.backlog() > 0 {
            // Its task must wait for the socket to take the rest.
            self.wake();
        }
    }

    fn can_send(&self) -> bool {
        self.link.borrow().as_deref().is_some_and(|link| link.backlog() < MOST_BACKLOG_BYTES)
    }
}
