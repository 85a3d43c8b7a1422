//! One connection as the hub sees it: an outbox with a name, and where it sits.
//!
//! The session owns the reading half of the same socket and is woken through [`Peer::wake`]; the hub writes. Both live
//! on one thread, so everything is a cell.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use roomcast_protocol::{ClientId, RoomName};
use tokio::net::TcpStream;

use super::arrivals::Arrivals;
use super::bounds::Bounds;
use super::identity::Identity;
use super::room::Room;
use crate::broker::Member;
use crate::socket::{Outbox, SendError, Sent};

/// Publishes one connection may have waiting for their outcome before its socket is no longer read.
const MOST_OUTSTANDING: u32 = 256;
/// The same in bytes of data.
const MOST_OUTSTANDING_BYTES: usize = 128 * 1024;

/// Why a session must end, as far as floors below the session can know. The session turns it into a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The outbound queue was full.
    SlowConsumer,
    /// Writing failed: the connection is gone.
    Broken,
    /// Nothing was heard from the peer for too long.
    Silent,
    /// A message was begun and not finished in time.
    Unfinished,
    /// The node is shutting down.
    Draining,
    /// Its name was taken by another while the broker did not know of it.
    NameTaken,
    /// The node has more clients than its share.
    Rebalanced,
    /// An operator ended it, and asks for its return.
    Requested,
    /// An operator ended it.
    Removed,
    /// Its token has expired.
    Expired,
}

impl Stop {
    /// Whether the client is served until its session ends.
    fn is_gentle(self) -> bool {
        matches!(self, Self::Draining | Self::Rebalanced | Self::Requested)
    }
}

/// Whether queued bytes wait for the end of the turn or for the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Nothing is queued.
    Idle,
    /// Queued; written at the end of the turn.
    Dirty,
    /// The socket was full; written when it is writable again.
    Armed,
}

/// What became of frames given to [`Peer::deliver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Written at once.
    Written,
    /// Queued: the socket is full or has older frames waiting.
    Queued,
    /// The connection is ending.
    Gone,
}

/// A seat: the room, and the index in its list of seats.
pub(super) struct Membership {
    pub(super) room: Rc<Room>,
    pub(super) index: usize,
}

/// The outbound half of a connection.
pub struct Peer {
    /// The session's id.
    pub id: ClientId,
    /// Where the shard keeps this peer; reused after it is gone.
    pub(super) slot: Cell<u32>,
    name: RefCell<Arc<str>>,
    user: Option<Arc<str>>,
    info: RefCell<Option<Arc<str>>>,
    stream: TcpStream,
    outbox: RefCell<Outbox>,
    queue_limit: usize,
    flow: Cell<Flow>,
    queued: Cell<u32>,
    stop: Cell<Option<Stop>>,
    /// What the operator who removed it has to say.
    pub(super) words: Cell<Option<Arc<str>>>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub(super) memberships: RefCell<Vec<Membership>>,
    outstanding: Cell<u32>,
    outstanding_bytes: Cell<usize>,
    waiting: Cell<u32>,
    /// The rooms it is about to be in.
    pub(super) arrivals: Arrivals,
    /// Tick of the worker's clock at which the peer was last heard.
    pub heard: Cell<u32>,
    /// Tick at which it was last pinged.
    pub pinged: Cell<u32>,
    /// Tick by which a begun message or a begun close must be finished; 0 when there is none.
    pub deadline: Cell<u32>,
    /// What it may.
    pub bounds: Bounds,
}

impl Peer {
    /// A peer that writes to `stream` and queues at most `queue_limit` bytes.
    pub fn new(
        id: ClientId,
        name: Arc<str>,
        identity: Identity,
        stream: TcpStream,
        queue_limit: usize,
        tick: u32,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            slot: Cell::new(u32::MAX),
            name: RefCell::new(name),
            user: identity.user,
            info: RefCell::new(identity.info),
            stream,
            outbox: RefCell::new(Outbox::default()),
            queue_limit,
            flow: Cell::new(Flow::Idle),
            queued: Cell::new(0),
            stop: Cell::new(None),
            words: Cell::new(None),
            closing: Cell::new(false),
            waker: RefCell::new(None),
            memberships: RefCell::new(Vec::new()),
            outstanding: Cell::new(0),
            outstanding_bytes: Cell::new(0),
            waiting: Cell::new(0),
            arrivals: Arrivals::default(),
            heard: Cell::new(tick),
            pinged: Cell::new(tick),
            deadline: Cell::new(0),
            bounds: Bounds::default(),
        })
    }

    /// The socket, for reading.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The display name in force.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.borrow())
    }

    /// Whose session it is, for as long as it lasts.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Who it is besides its name, now.
    pub fn identity(&self) -> Identity {
        Identity { user: self.user.clone(), info: self.info.borrow().clone() }
    }

    /// Changes what is told about it. False if it was told before; else a [`Shard::show`](super::Shard::show) has to follow,
    /// which tells others.
    pub fn set_info(&self, info: Option<Arc<str>>) -> bool {
        let old = self.info.replace(info);
        old != *self.info.borrow()
    }

    /// The client as a member.
    pub(super) fn member(&self) -> Member {
        let Identity { user, info } = self.identity();
        Member { id: self.id, name: self.name(), user, info }
    }

    pub(super) fn set_name(&self, name: Arc<str>) {
        *self.name.borrow_mut() = name;
    }

    /// The names of the rooms joined.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.memberships.borrow().iter().map(|seat| seat.room.name.clone()).collect()
    }

    /// How many rooms are joined.
    pub fn room_count(&self) -> usize {
        self.memberships.borrow().len()
    }

    /// Whether `room` is joined.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.memberships.borrow().iter().any(|seat| seat.room.name == *room)
    }

    /// The room joined, if it is exactly one.
    pub fn only_room(&self) -> Option<RoomName> {
        match self.memberships.borrow().as_slice() {
            [seat] => Some(seat.room.name.clone()),
            _ => None,
        }
    }

    /// Writes `frames` at once if nothing older waits, else queues them in order.
    pub(super) fn deliver(&self, frames: &Bytes, count: u32) -> Delivered {
        if self.is_ending() {
            return Delivered::Gone;
        }
        let outcome = self.outbox.borrow_mut().send(&self.stream, frames, self.queue_limit);
        match outcome {
            Ok(Sent::Written) => Delivered::Written,
            Ok(Sent::Partly | Sent::Queued) => {
                self.queued.set(self.queued.get() + count);
                match self.flow.get() {
                    Flow::Idle => self.arm(),
                    // It goes out with the rest at the end of the turn.
                    Flow::Dirty => return Delivered::Written,
                    Flow::Armed => {}
                }
                Delivered::Queued
            }
            Err(error) => {
                self.request_stop(if matches!(error, SendError::Overflow(_)) {
                    Stop::SlowConsumer
                } else {
                    Stop::Broken
                });
                Delivered::Gone
            }
        }
    }

    /// Queues frames for the end of the turn. True if the peer must be put on the turn's list.
    pub(super) fn post(&self, frames: Bytes, count: u32) -> bool {
        if self.is_ending() {
            return false;
        }
        let pushed = self.outbox.borrow_mut().push(frames, self.queue_limit);
        if pushed.is_err() {
            self.request_stop(Stop::SlowConsumer);
            return false;
        }
        self.queued.set(self.queued.get() + count);
        if self.flow.get() == Flow::Idle {
            self.flow.set(Flow::Dirty);
            return true;
        }
        false
    }

    /// Writes what is queued as far as the socket takes it; the rest waits for writability. Returns the frames that
    /// left the queue, when it was emptied.
    pub fn flush(&self) -> Option<u32> {
        let outcome = self.outbox.borrow_mut().flush(&self.stream);
        match outcome {
            Ok(true) => {
                self.flow.set(Flow::Idle);
                self.arrivals.tell_empty();
                Some(self.queued.replace(0))
            }
            Ok(false) => {
                self.arm();
                None
            }
            Err(_) => {
                self.flow.set(Flow::Idle);
                self.request_stop(Stop::Broken);
                None
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.closing.get() || self.stop.get().is_some_and(|stop| !stop.is_gentle())
    }

    fn arm(&self) {
        self.flow.set(Flow::Armed);
        self.wake();
    }

    /// Whether the session must await writability and then call [`Peer::flush`].
    pub fn awaits_writable(&self) -> bool {
        self.flow.get() == Flow::Armed
    }

    /// Bytes queued.
    pub fn backlog(&self) -> usize {
        self.outbox.borrow().backlog()
    }

    /// Queues a last frame before the close, whatever is queued already.
    pub fn append(&self, frame: Bytes) {
        // Without a limit it cannot overflow.
        let _ = self.outbox.borrow_mut().push(frame, usize::MAX);
    }

    /// Queues the close frame as the last one. A slow consumer's queue is given up but for the rest of a frame begun.
    pub fn begin_close(&self, frame: Bytes, give_up_queue: bool) {
        self.closing.set(true);
        let mut outbox = self.outbox.borrow_mut();
        if give_up_queue || outbox.push(frame.clone(), usize::MAX).is_err() {
            outbox.close_with(frame);
        }
        drop(outbox);
        self.flush();
    }

    /// Whether [`Peer::begin_close`] was called.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Asks the session to end; the first reason stays. Only a drain and the like, which go on delivering for a moment,
    /// give way: a member that missed a batch must get nothing behind it.
    pub fn request_stop(&self, stop: Stop) {
        let gives_way = self.stop.get().is_some_and(Stop::is_gentle) && !stop.is_gentle();
        if self.stop.get().is_none() || gives_way {
            self.stop.set(Some(stop));
            self.wake();
        }
    }

    /// The reason to end, if any.
    pub fn stop(&self) -> Option<Stop> {
        self.stop.get()
    }

    /// Keeps the session's waker for the next [`Peer::wake`].
    pub fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Has the session look at this peer's state again.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether the session may read on: nothing awaited but publishes, and few enough of those.
    pub fn may_read(&self) -> bool {
        self.waiting.get() == 0
            && self.outstanding.get() < MOST_OUTSTANDING
            && self.outstanding_bytes.get() < MOST_OUTSTANDING_BYTES
    }

    /// Whether nothing this client asked for is still unanswered.
    pub fn is_settled(&self) -> bool {
        self.waiting.get() == 0 && self.outstanding.get() == 0
    }

    pub(super) fn begin_request(&self) {
        self.waiting.set(self.waiting.get() + 1);
    }

    pub(super) fn end_request(&self) {
        self.waiting.set(self.waiting.get().saturating_sub(1));
        self.wake();
    }

    pub(super) fn begin_publish(&self, bytes: usize) {
        self.outstanding.set(self.outstanding.get() + 1);
        self.outstanding_bytes.set(self.outstanding_bytes.get() + bytes);
    }

    pub(super) fn end_publish(&self, bytes: usize) {
        let was_full = !self.may_read();
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        self.outstanding_bytes.set(self.outstanding_bytes.get().saturating_sub(bytes));
        if was_full || self.outstanding.get() == 0 {
            self.wake();
        }
    }
}
