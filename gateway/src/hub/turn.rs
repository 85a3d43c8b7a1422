//! A turn of the worker's loop: mail is carried out, publishes are sent off, batches go to members, queues are flushed.
//!
//! Sessions run first and only leave notes here; the turn task is woken behind them, so whatever was ready in one pass
//! of the runtime travels together, without a timer. After every slice of sends it yields, so that a large room delays
//! nobody by more than a slice.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::home::{Home, State};
use super::mail::{Inbox, Mail};
use super::peer::{Delivered, Peer};
use super::room::{Progress, Room};
use super::shard::Shard;

/// Sends between two yields: about a millisecond at 7-10 us a send.
const SENDS_PER_SLICE: usize = 128;
/// How long a room whose members mostly lag keeps its publishers waiting before it goes on all the same.
const LONGEST_HOLD: Duration = Duration::from_millis(100);
/// How often a held room looks whether its members have caught up.
const HOLD_STEP: Duration = Duration::from_millis(2);

/// The notes of a turn.
pub(super) struct Turn {
    ring: RefCell<VecDeque<Rc<Room>>>,
    homes: RefCell<VecDeque<Rc<Home>>>,
    dirty: RefCell<Vec<Rc<Peer>>>,
    inbox: RefCell<VecDeque<Mail>>,
    outgoing: RefCell<Vec<Vec<Mail>>>,
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            ring: RefCell::default(),
            homes: RefCell::default(),
            dirty: RefCell::default(),
            inbox: RefCell::default(),
            outgoing: RefCell::new((0..workers).map(|_| Vec::new()).collect()),
            called: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    fn call(&self) {
        if !self.called.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// The room has a batch to deliver.
    pub(super) fn activate(&self, room: &Rc<Room>) {
        if !room.held.get() && !room.active.replace(true) {
            self.ring.borrow_mut().push_back(Rc::clone(room));
            self.call();
        }
    }

    /// The home has something to publish, to send off or to seal.
    pub(super) fn due(&self, home: &Rc<Home>) {
        if !home.due.replace(true) {
            self.homes.borrow_mut().push_back(Rc::clone(home));
            self.call();
        }
    }

    /// The peer has bytes queued for the end of the turn.
    pub(super) fn dirty(&self, peer: &Rc<Peer>) {
        self.dirty.borrow_mut().push(Rc::clone(peer));
        self.call();
    }

    /// Mail for a worker; what is for this one is carried out in the same turn.
    pub(super) fn send(&self, worker: usize, here: usize, mail: Mail) {
        if worker == here {
            self.inbox.borrow_mut().push_back(mail);
        } else {
            self.outgoing.borrow_mut()[worker].push(mail);
        }
        self.call();
    }

    async fn called(&self) {
        poll_fn(|cx| {
            if self.called.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether mail waits to be carried out or handed over.
    pub(super) fn has_mail(&self) -> bool {
        !self.inbox.borrow().is_empty() || self.outgoing.borrow().iter().any(|mail| !mail.is_empty())
    }

    fn rooms_active(&self) -> usize {
        self.ring.borrow().len()
    }
}

impl Shard {
    /// Runs turns for ever.
    pub async fn run_turns(self: Rc<Self>) {
        loop {
            self.turn.called().await;
            self.run_turn();
            // Whatever this turn called for is done in the next one, behind the sessions that are ready by then.
            tokio::task::yield_now().await;
        }
    }

    /// Carries out the mail of the other workers as it comes.
    pub async fn run_inbox(self: Rc<Self>, mut inbox: Inbox) {
        while let Some(mail) = inbox.next().await {
            for piece in mail {
                self.receive(piece);
            }
        }
    }

    pub(super) fn run_turn(self: &Rc<Self>) {
        loop {
            let next = self.turn.inbox.borrow_mut().pop_front();
            let Some(mail) = next else { break };
            self.receive(mail);
        }
        self.run_homes();
        self.fan_out();
        self.flush_dirty();
        self.hand_over();
    }

    fn run_homes(self: &Rc<Self>) {
        let homes = std::mem::take(&mut *self.turn.homes.borrow_mut());
        for home in homes {
            home.due.set(false);
            self.run_publishes(&home);
            self.run_movements(&home);
            self.spread(&home);
        }
    }

    /// Seals what a home collected and passes it to the workers that have members, once the last batch is through.
    fn spread(self: &Rc<Self>, home: &Rc<Home>) {
        if home.room.is_busy() {
            return;
        }
        if self.is_overloaded_away(home) {
            self.look_again(home);
        } else {
            self.seal(home);
        }
    }

    /// Has the home looked at again when another worker may have caught up.
    fn look_again(self: &Rc<Self>, home: &Rc<Home>) {
        if home.waits.replace(true) {
            return;
        }
        self.parts.totals.hub.shard_handover_stalls.inc();
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(HOLD_STEP).await;
            home.waits.set(false);
            shard.turn.due(&home);
        });
    }

    /// Whether a worker with members of this room has too many batches waiting.
    pub(super) fn is_overloaded_away(&self, home: &Home) -> bool {
        let state = home.state.borrow();
        let here = self.parts.index;
        state.seats.iter().enumerate().any(|(worker, seats)| {
            *seats > 0 && worker != here && self.parts.post.load(worker) > super::MOST_HANDED_OVER_BYTES
        })
    }

    /// Seals at once: a new member must begin behind what was collected before it.
    pub(super) fn seal(&self, home: &Home) {
        self.seal_state(home, &mut home.state.borrow_mut());
    }

    pub(super) fn seal_state(&self, home: &Home, state: &mut State) {
        let Some(batch) = state.seal() else { return };
        let batch = Arc::new(batch);
        for (worker, seats) in state.seats.iter().enumerate() {
            if *seats == 0 {
                continue;
            }
            if worker == self.parts.index {
                home.room.push(Arc::clone(&batch));
                self.turn.activate(&home.room);
            } else {
                self.parts.metrics.handed_over();
                self.send(worker, Mail::Batch { room: home.name.clone(), batch: Arc::clone(&batch) });
            }
        }
    }

    /// Gives the rooms on the ring a slice of sends each, until the turn's sends are used up.
    fn fan_out(self: &Rc<Self>) {
        let mut budget = SENDS_PER_SLICE;
        while budget > 0 {
            let next = self.turn.ring.borrow_mut().pop_front();
            let Some(room) = next else { return };
            let several = self.turn.rooms_active() > 0;
            match room.deliver(&mut budget, |peer, batch| self.write(&room, peer, batch, several)) {
                Progress::Paused => self.turn.ring.borrow_mut().push_back(room),
                Progress::Empty => self.retire(&room),
                Progress::Finished { batch, lagging } => {
                    self.finished(&room, &batch);
                    // Away from home, batches wait one by one: a hold for each would let a few slow members delay all.
                    if lagging && !room.is_busy() && !self.is_pressed(&room) {
                        self.hold(room);
                    } else if room.is_busy() {
                        self.turn.ring.borrow_mut().push_back(room);
                    } else {
                        self.retire(&room);
                    }
                }
            }
        }
        self.turn.call();
    }

    fn write(&self, room: &Room, peer: &Rc<Peer>, batch: &Batch, several: bool) -> Delivered {
        let own;
        let frames = if batch.is_uniform() {
            &batch.frames
        } else {
            own = batch.for_client(peer.id, || peer.bounds.sees(&room.name));
            if own.is_empty() {
                return Delivered::Written;
            }
            &own
        };
        // A member of several rooms that have news gets them in one write at the end of the turn.
        if several && peer.room_count() > 1 {
            if peer.post(frames.clone(), batch.count) {
                self.turn.dirty(peer);
            }
            self.parts.metrics.delivered(u64::from(batch.count));
            return Delivered::Written;
        }
        let outcome = peer.deliver(frames, batch.count);
        if outcome != Delivered::Gone {
            self.parts.metrics.delivered(u64::from(batch.count));
            if outcome == Delivered::Written {
                self.parts.metrics.wrote(batch.count, frames.len());
            }
        }
        outcome
    }

    fn finished(&self, room: &Rc<Room>, batch: &Batch) {
        if self.home_of(&room.name) != self.parts.index {
            self.parts.post.unload(self.parts.index, batch);
        }
        self.record_delivery(batch);
    }

    fn retire(&self, room: &Rc<Room>) {
        room.active.set(false);
        if let Some(home) = self.home(&room.name) {
            self.turn.due(&home);
        }
        self.forget_if_empty(room);
    }

    /// Whether a room has collected so much that it must go on although its members lag.
    fn is_pressed(&self, room: &Room) -> bool {
        let collected = self.home(&room.name).map_or(0, |home| home.state.borrow().builder.len());
        collected + room.queued_bytes() > super::MOST_COLLECTED_BYTES
    }

    /// Most members have not taken the last batch: wait for them, but not for long, while publishers wait in turn.
    fn hold(self: &Rc<Self>, room: Rc<Room>) {
        room.held.set(true);
        room.active.set(false);
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let end = Instant::now() + LONGEST_HOLD;
            while room.mostly_backlogged() && Instant::now() < end && !shard.is_pressed(&room) {
                tokio::time::sleep(HOLD_STEP).await;
            }
            room.held.set(false);
            if room.is_busy() {
                shard.turn.activate(&room);
            } else {
                shard.retire(&room);
            }
        });
    }

    fn flush_dirty(&self) {
        let dirty = std::mem::take(&mut *self.turn.dirty.borrow_mut());
        for peer in dirty {
            self.flush(&peer);
        }
    }

    /// Writes what `peer` has queued, as far as its socket takes it.
    pub fn flush(&self, peer: &Peer) {
        let bytes = peer.backlog();
        if let Some(frames) = peer.flush().filter(|frames| *frames > 0) {
            self.parts.metrics.wrote(frames, bytes);
        }
    }

    fn hand_over(&self) {
        for (worker, mail) in self.turn.outgoing.borrow_mut().iter_mut().enumerate() {
            if !mail.is_empty() {
                self.parts.post.send(worker, std::mem::take(mail));
            }
        }
    }
}
