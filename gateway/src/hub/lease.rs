//! The node's lease on its members, and what it does for nodes that let theirs run out. Worker 0 runs it for all.
//!
//! A beat costs the broker one call, whatever the node holds. What depends on rooms happens when a life of this node
//! begins or another's ends. Which members there are is the business of `muster` and of the rooms' homes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roomcast_protocol::RoomName;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::mail::Mail;
use super::shard::{Parts, Shard};
use crate::broker::{Beat, Broker, BrokerError, Farewell, Incarnation, NodeNote, Pulse};

/// Between two tries of a beat that failed: a broker that comes back should find its nodes alive soon.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// How long after another's lease ran out it is looked for, so that the clocks need not agree.
const GRACE: Duration = Duration::from_millis(20);
/// How long a node that was cut off from the broker takes over nobody: others may have been, too, and get the time to
/// come back. Longer than a connection takes to be made again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Dead nodes one node takes over at the same time.
const MOST_TAKEOVERS: usize = 4;
/// Rooms asked for, and rooms worked on, at the same time during a takeover. Each call to the broker is short: these
/// bound what it has to do between two calls of others.
const ROOMS_AT_ONCE: usize = 256;
const EVICTIONS_AT_ONCE: usize = 16;
/// What is measured over less than this says little.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// Until when the node's lease is known to run, for all workers to see.
pub(super) struct Validity {
    base: Instant,
    until_ms: AtomicU64,
    /// No beat is to follow.
    ended: AtomicBool,
}

impl Validity {
    pub(super) fn new() -> Self {
        Self { base: Instant::now(), until_ms: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    fn extend(&self, until: Instant) {
        let until = until.saturating_duration_since(self.base).as_millis() as u64;
        self.until_ms.store(until, Ordering::Release);
    }

    fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// False before the first beat, and after a silence in which others may have taken over: nobody may enter then.
    pub(super) fn holds(&self) -> bool {
        (self.base.elapsed().as_millis() as u64) < self.until_ms.load(Ordering::Acquire)
    }
}

/// One life of the node, as the beats see it.
struct Lease {
    incarnation: Incarnation,
    number: u64,
    answered: u64,
    working_on: Rc<RefCell<Vec<Incarnation>>>,
    /// True after a beat that was not answered.
    cut_off: bool,
    patient_until: Instant,
    /// Of the broker when this life began: members are known to its data as it was then, and has grown since.
    upheavals: u64,
    load: Load,
}

/// How busy the workers were between two looks.
#[derive(Default)]
struct Load {
    since: Option<Instant>,
    before: Vec<f64>,
    last: f64,
}

impl Load {
    /// The share of the time since the last look that the busiest worker was busy. `busy` gives seconds since the start.
    fn look(&mut self, now: Instant, workers: usize, busy: impl Fn(usize) -> f64) -> f64 {
        let passed = self.since.map(|since| now.saturating_duration_since(since));
        // Workers say so every 250 ms: a shorter look would see nothing, or twice as much as there was.
        if passed.is_some_and(|passed| passed < SHORTEST_LOOK) {
            return self.last;
        }
        let after: Vec<f64> = (0..workers).map(busy).collect();
        if let Some(passed) = passed {
            let shares = after.iter().zip(&self.before).map(|(after, before)| (after - before) / passed.as_secs_f64());
            self.last = shares.fold(0.0, f64::max).min(1.0);
        }
        (self.since, self.before) = (Some(now), after);
        self.last
    }
}

impl Shard {
    /// Beats for ever, on worker 0.
    pub async fn run_lease(self: Rc<Self>) {
        if self.parts.index != 0 {
            return std::future::pending().await;
        }
        // Before others count on it. A broker that is away does not keep the node from trying to live; the wish stays.
        if let Err(error) = self.parts.broker.listen().await {
            tracing::debug!(%error, "orders cannot be heard yet");
        }
        let mut lease = self.new_life(Rc::default(), Instant::now());
        loop {
            match self.beat(&mut lease).await {
                Some(pause) => self.rest(pause, &lease).await,
                None => self.wait_for_broker().await,
            }
            if self.parts.post.lease().ended.load(Ordering::Acquire) {
                return std::future::pending().await;
            }
        }
    }

    fn new_life(&self, working_on: Rc<RefCell<Vec<Incarnation>>>, patient_until: Instant) -> Lease {
        let incarnation = Incarnation::new(&self.parts.node);
        let upheavals = self.parts.broker.signs().upheavals();
        Lease {
            incarnation,
            number: 0,
            answered: 0,
            working_on,
            cut_off: false,
            patient_until,
            upheavals,
            load: Load::default(),
        }
    }

    fn note(&self, load: f64) -> NodeNote<'_> {
        let Parts { node, settings, totals, .. } = &self.parts;
        let count = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        NodeNote {
            node,
            connections: count(totals.sockets.connections.get()),
            rooms: count(totals.hub.rooms.get()),
            max_connections: settings.max_connections as u64,
            load,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Waits until the next beat, but not with data that may have gone back: who came or went since is not known there.
    async fn rest(&self, pause: Duration, lease: &Lease) {
        let _ = timeout(pause, self.until_sign(|broker| broker.signs().upheavals() != lease.upheavals)).await;
    }

    /// Waits a moment, but not longer than until the broker is there: joins wait for the first beat.
    async fn wait_for_broker(&self) {
        let was_up = self.parts.broker.is_up();
        // The subscription alone may be away: then beats go through.
        let _ = timeout(TRY_AGAIN, self.until_sign(|broker| !was_up && broker.is_up())).await;
    }

    async fn until_sign(&self, is_so: impl Fn(&dyn Broker) -> bool) {
        let broker = &*self.parts.broker;
        loop {
            let sign = broker.signs().next();
            if is_so(broker) {
                return;
            }
            sign.await;
        }
    }

    /// One beat; gives the time until the next, none if it failed.
    async fn beat(self: &Rc<Self>, lease: &mut Lease) -> Option<Duration> {
        let (settings, totals) = (&self.parts.settings, &self.parts.totals);
        lease.number += 1;
        let (sent, working_on) = (Instant::now(), lease.working_on.borrow().clone());
        let may_claim = !lease.cut_off && sent >= lease.patient_until;
        let most_claims = if may_claim { MOST_TAKEOVERS.saturating_sub(working_on.len()) } else { 0 };
        let upheavals = self.parts.broker.signs().upheavals();
        // The data may not have been away for as long as a beat. It knows of no beat with this number: the lease is lost.
        let went_back = lease.answered > 0 && upheavals != lease.upheavals;
        let answered = if went_back { lease.number } else { lease.answered };
        let load = lease.load.look(sent, self.parts.post.workers(), |worker| totals.busy_seconds(worker));
        let beat = Beat {
            incarnation: &lease.incarnation,
            expiry: settings.lease_expiry,
            number: lease.number,
            answered,
            note: self.note(load),
            working_on: &working_on,
            most_claims,
        };
        match self.parts.broker.beat(&beat).await {
            Ok(Pulse::Kept { nodes, connections, next_expiry, claims }) => {
                totals.cluster.nodes.set(signed(nodes));
                totals.cluster.connections.set(signed(connections));
                lease.upheavals = upheavals;
                self.kept(lease, sent, claims);
                let early = Some(next_expiry).filter(|next| !next.is_zero()).map(|next| next + GRACE);
                Some(early.map_or(settings.lease_beat, |early| early.min(settings.lease_beat)))
            }
            Ok(Pulse::Lost) => {
                let reason = if went_back { "dataset" } else { "expired" };
                tracing::warn!(incarnation = %lease.incarnation, reason, "the lease was lost: all members enter anew");
                totals.cluster.leases_lost.with_label_values(&[reason]).inc();
                self.parts.post.lease().end();
                // What kept this node away keeps others, perhaps for longer: a new life is no less patient.
                let patient_until = if went_back || lease.cut_off { sent + PATIENCE } else { lease.patient_until };
                let load = std::mem::take(&mut lease.load);
                *lease = Lease { load, ..self.new_life(Rc::clone(&lease.working_on), patient_until) };
                Some(Duration::ZERO)
            }
            Err(error) => {
                tracing::debug!(%error, "a beat failed");
                lease.cut_off = true;
                None
            }
        }
    }

    fn kept(self: &Rc<Self>, lease: &mut Lease, sent: Instant, claims: Vec<Incarnation>) {
        let is_new = lease.answered == 0;
        lease.answered = lease.number;
        self.parts.post.lease().extend(sent + self.parts.settings.lease_expiry);
        if std::mem::take(&mut lease.cut_off) {
            lease.patient_until = sent + PATIENCE;
        }
        if is_new {
            // Not before: nobody may be a member through a life that has no lease.
            for worker in 0..self.parts.post.workers() {
                self.send(worker, Mail::Life(lease.incarnation.clone()));
            }
        }
        for dead in claims {
            self.take_over(dead, &lease.working_on);
        }
    }

    /// Removes the members that a dead node left, in the background.
    fn take_over(self: &Rc<Self>, dead: Incarnation, working_on: &Rc<RefCell<Vec<Incarnation>>>) {
        working_on.borrow_mut().push(dead.clone());
        let (shard, working_on) = (Rc::clone(self), Rc::clone(working_on));
        tokio::task::spawn_local(async move {
            let began = Instant::now();
            let takeovers = &shard.parts.totals.cluster.takeovers;
            match shard.evict_all(&dead).await {
                Ok(rooms) => {
                    tracing::info!(incarnation = %dead, rooms, took = ?began.elapsed(), "took over from a dead node");
                    takeovers.with_label_values(&["done"]).inc();
                }
                Err(error) => {
                    // No longer named as being worked on, it is somebody's again once the claim has run out.
                    tracing::warn!(incarnation = %dead, %error, "taking over from a dead node failed");
                    takeovers.with_label_values(&["failed"]).inc();
                }
            }
            working_on.borrow_mut().retain(|other| *other != dead);
        });
    }

    async fn evict_all(self: &Rc<Self>, dead: &Incarnation) -> Result<usize, BrokerError> {
        let broker = &self.parts.broker;
        let mut done = 0;
        loop {
            let rooms = broker.held(dead, ROOMS_AT_ONCE).await?;
            if rooms.is_empty() {
                broker.bury(dead, Farewell::Clean).await?;
                return Ok(done);
            }
            done += rooms.len();
            let queue = Rc::new(RefCell::new(VecDeque::from(rooms.clone())));
            let mut evictions = JoinSet::new();
            for _ in 0..EVICTIONS_AT_ONCE.min(rooms.len()) {
                let (shard, dead, queue) = (Rc::clone(self), dead.clone(), Rc::clone(&queue));
                evictions.spawn_local(async move {
                    loop {
                        let next = queue.borrow_mut().pop_front();
                        let Some(room) = next else { return Ok(()) };
                        shard.evict_from(&room, &dead).await?;
                    }
                });
            }
            while let Some(outcome) = evictions.join_next().await {
                outcome.unwrap_or_else(|_| Err(BrokerError::Unavailable("interrupted".into())))?;
            }
            broker.release(dead, &rooms).await?;
        }
    }

    async fn evict_from(&self, room: &RoomName, dead: &Incarnation) -> Result<(), BrokerError> {
        let mut behind = None;
        loop {
            let evicted = self.parts.broker.evict(room, dead, behind).await?;
            self.tell_gone(room, &evicted);
            behind = evicted.next;
            if behind.is_none() {
                return Ok(());
            }
        }
    }

    /// Ends the lease of a node that ends: its members are gone, or are taken over as soon as another beats. Does
    /// nothing but on worker 0. `settled` says that all workers are done.
    pub async fn end_lease(&self, settled: bool) {
        self.parts.post.lease().ended.store(true, Ordering::Release);
        let Some(incarnation) = self.life.incarnation().filter(|_| self.parts.index == 0) else { return };
        let farewell = if settled { Farewell::Clean } else { Farewell::InHaste };
        let bury = self.parts.broker.bury(&incarnation, farewell);
        if !matches!(timeout(self.parts.settings.redis_timeout, bury).await, Ok(Ok(()))) {
            tracing::warn!("the lease could not be ended, it runs out by itself");
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
