//! The members of one room on this worker, and the batches on their way to them.
//!
//! Batches are numbered. A seat knows the number it needs next, so a member gets every batch from its admission on
//! exactly once although seats move while a delivery pauses between slices.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use roomcast_protocol::RoomName;

use super::batch::Batch;
use super::peer::{Delivered, Membership, Peer};

struct Seat {
    peer: Rc<Peer>,
    next: u64,
}

/// A room as one worker sees it.
pub struct Room {
    /// Its name.
    pub name: RoomName,
    seats: RefCell<Vec<Seat>>,
    queue: RefCell<VecDeque<Arc<Batch>>>,
    /// The number of the batch at the head of the queue.
    head: Cell<u64>,
    /// Seats the head batch has still to visit, from the end down; `None` before it begins.
    cursor: Cell<Option<usize>>,
    backlogged: Cell<usize>,
    /// True while most members have not read the last batch yet.
    pub(super) held: Cell<bool>,
    /// True while the room is on the shard's ring.
    pub(super) active: Cell<bool>,
}

/// Where a slice of delivery ended.
pub(super) enum Progress {
    /// Members remain.
    Paused,
    /// The batch reached everyone; most of them could not take it at once if `lagging`.
    Finished { batch: Arc<Batch>, lagging: bool },
    /// Nothing to deliver.
    Empty,
}

impl Room {
    pub(super) fn new(name: RoomName) -> Rc<Self> {
        Rc::new(Self {
            name,
            seats: RefCell::default(),
            queue: RefCell::default(),
            head: Cell::new(0),
            cursor: Cell::new(None),
            backlogged: Cell::new(0),
            held: Cell::new(false),
            active: Cell::new(false),
        })
    }

    /// Members here.
    pub(super) fn len(&self) -> usize {
        self.seats.borrow().len()
    }

    /// The members here.
    pub(super) fn peers(&self) -> Vec<Rc<Peer>> {
        self.seats.borrow().iter().map(|seat| Rc::clone(&seat.peer)).collect()
    }

    /// Whether a batch waits or is being delivered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Bytes of the batches that wait or are being delivered.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.borrow().iter().map(|batch| batch.frames.len()).sum()
    }

    /// Seats `peer`: it gets every batch pushed from now on.
    pub(super) fn admit(self: &Rc<Self>, peer: &Rc<Peer>) {
        let mut seats = self.seats.borrow_mut();
        let next = self.head.get() + self.queue.borrow().len() as u64;
        peer.memberships.borrow_mut().push(Membership { room: Rc::clone(self), index: seats.len() });
        seats.push(Seat { peer: Rc::clone(peer), next });
    }

    /// Unseats `peer`. False if it had no seat.
    pub(super) fn dismiss(self: &Rc<Self>, peer: &Peer) -> bool {
        let mut own = peer.memberships.borrow_mut();
        let Some(position) = own.iter().position(|seat| Rc::ptr_eq(&seat.room, self)) else { return false };
        let index = own.swap_remove(position).index;
        drop(own);
        let mut seats = self.seats.borrow_mut();
        seats.swap_remove(index);
        if let Some(moved) = seats.get(index) {
            let mut theirs = moved.peer.memberships.borrow_mut();
            if let Some(seat) = theirs.iter_mut().find(|seat| Rc::ptr_eq(&seat.room, self)) {
                seat.index = index;
            }
        }
        self.cursor.set(self.cursor.get().map(|left| left.min(seats.len())));
        true
    }

    pub(super) fn push(&self, batch: Arc<Batch>) {
        self.queue.borrow_mut().push_back(batch);
    }

    /// Delivers the head batch to at most `budget` members. `send` writes to one of them.
    pub(super) fn deliver(&self, budget: &mut usize, mut send: impl FnMut(&Rc<Peer>, &Batch) -> Delivered) -> Progress {
        let Some(batch) = self.queue.borrow().front().cloned() else { return Progress::Empty };
        let mut seats = self.seats.borrow_mut();
        let mut left = self.cursor.get().unwrap_or_else(|| {
            self.backlogged.set(0);
            seats.len()
        });
        while left > 0 {
            if *budget == 0 {
                self.cursor.set(Some(left));
                return Progress::Paused;
            }
            left -= 1;
            let seat = &mut seats[left];
            if seat.next != self.head.get() {
                continue;
            }
            seat.next += 1;
            *budget -= 1;
            if send(&seat.peer, &batch) == Delivered::Queued {
                self.backlogged.set(self.backlogged.get() + 1);
            }
        }
        self.queue.borrow_mut().pop_front();
        self.head.set(self.head.get() + 1);
        self.cursor.set(None);
        Progress::Finished { batch, lagging: self.backlogged.get() * 2 > seats.len() }
    }

    /// Whether more than half of the members have bytes queued.
    pub(super) fn mostly_backlogged(&self) -> bool {
        let seats = self.seats.borrow();
        seats.iter().filter(|seat| seat.peer.backlog() > 0).count() * 2 > seats.len()
    }
}
