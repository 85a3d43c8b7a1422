//! Publishing within a rate of the whole cluster: allowances are taken from the broker ahead of time and spent here.
//!
//! Sessions spend their user's, homes their room's. An allowance is small and lapses soon, so that what one node took and
//! does not use is missed by the others for a moment only. While the broker does not answer, the rate holds for this
//! node alone. Without rates nothing here is ever called.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use roomcast_protocol::{ErrorCode, RoomName};
use tokio::time::Instant;

use super::home::{Home, State};
use super::peer::Peer;
use super::publish::now_us;
use super::shard::Shard;
use crate::broker::{Bucket, Subject, Taken};
use crate::config::Rate;
use crate::telemetry::metrics::PublishOutcome;

/// How long what was taken may be spent.
const LAPSE: Duration = Duration::from_millis(250);
/// Of what may be had in a second, the part that is taken at once at most.
const PART: u32 = 10;
/// How long a broker that did not answer is not asked again.
const REST: Duration = Duration::from_secs(1);
/// Users that a worker knows before it looks for those that have gone.
const LEAST_SWEEP: usize = 256;

/// What is said when a room's rate is used up.
pub(super) const ROOM_IS_FULL: &str = "the room takes no more for a moment";

/// What may be done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// So many, at least one.
    Some(u32),
    /// None, and there will be none for a moment.
    None,
    /// Nobody knows until the broker was asked.
    Unknown,
}

/// What came of spending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spending {
    /// It is spent.
    Done,
    /// There is none to be had.
    Refused,
    /// The peer is not to be read until the broker was asked, and then this is to be tried again.
    Waits,
}

/// Who goes on once the broker has answered.
enum Waiter {
    Peer(Rc<Peer>),
    Home(Rc<Home>),
}

/// A worker's share of a bucket.
pub struct Allowance {
    bucket: Bucket,
    rate: Rate,
    left: Cell<u32>,
    lapses_at: Cell<Instant>,
    refused_until: Cell<Instant>,
    alone_until: Cell<Instant>,
    /// How many were taken last.
    taken: Cell<u32>,
    asking: Cell<bool>,
    waiting: RefCell<Vec<Waiter>>,
}

/// The users of a worker's connections, if their rate is limited.
#[derive(Default)]
pub(super) struct UserAllowances {
    by_user: RefCell<HashMap<Subject, Weak<Allowance>, RandomState>>,
    sweep_at: Cell<usize>,
}

impl UserAllowances {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_user.borrow().len()
    }
}

impl Allowance {
    pub(super) fn new(bucket: Bucket, rate: Rate) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            bucket,
            rate,
            left: Cell::new(0),
            lapses_at: Cell::new(now),
            refused_until: Cell::new(now),
            alone_until: Cell::new(now),
            taken: Cell::new(0),
            asking: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    fn left(&self, now: Instant) -> Left {
        match self.left.get() {
            left @ 1.. if now < self.lapses_at.get() => Left::Some(left),
            _ if now < self.refused_until.get() => Left::None,
            _ => Left::Unknown,
        }
    }

    fn use_up(&self, count: u32) {
        self.left.set(self.left.get().saturating_sub(count));
    }

    /// How many to ask for. Who spends all before it lapses gets twice as much the next time; who does not, little.
    fn wish(&self, now: Instant, waiting: usize) -> u32 {
        let is_spent = self.left.replace(0) == 0 && now < self.lapses_at.get();
        let ahead = if is_spent { self.taken.get().saturating_mul(2).min(self.rate.per_second / PART) } else { 1 };
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        ahead.max(waiting).clamp(1, self.rate.burst)
    }

    fn answered(&self, taken: Taken, wanted: u32, now: Instant) {
        self.taken.set(taken.granted);
        self.left.set(taken.granted);
        self.lapses_at.set(now + LAPSE);
        if taken.granted < wanted {
            self.refused_until.set(now + taken.retry_after);
        }
    }
}

impl Home {
    /// So many of its publishes were sent off.
    pub(super) fn spent(&self, count: usize) {
        if let Some(allowance) = &self.allowance {
            allowance.use_up(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}

impl Shard {
    /// What a user may publish over all connections and nodes; none if there is no such limit, or no such user.
    pub fn user_allowance(&self, user: Subject) -> Option<Rc<Allowance>> {
        let settings = &self.parts.settings;
        let rate = Rate { per_second: settings.user_publish_rate, burst: settings.user_publish_burst };
        if rate.per_second == 0 || user == Subject::NOBODY {
            return None;
        }
        let UserAllowances { by_user, sweep_at } = &self.user_allowances;
        let mut by_user = by_user.borrow_mut();
        if let Some(known) = by_user.get(&user).and_then(Weak::upgrade) {
            return Some(known);
        }
        if by_user.len() >= sweep_at.get().max(LEAST_SWEEP) {
            by_user.retain(|_, allowance| allowance.strong_count() > 0);
            sweep_at.set(by_user.len() * 2);
        }
        let allowance = Allowance::new(Bucket::User(user), rate);
        by_user.insert(user, Rc::downgrade(&allowance));
        Some(allowance)
    }

    /// Spends one for `peer`, which waits if the broker has to be asked: nothing is read from it until then.
    pub fn spend(self: &Rc<Self>, allowance: &Rc<Allowance>, peer: &Rc<Peer>) -> Spending {
        match allowance.left(Instant::now()) {
            Left::Some(_) => {
                allowance.use_up(1);
                Spending::Done
            }
            Left::None => Spending::Refused,
            Left::Unknown => {
                peer.begin_request();
                self.ask_for(allowance, Waiter::Peer(Rc::clone(peer)), 1);
                Spending::Waits
            }
        }
    }

    /// How many of its waiting publishes a room may send off now. Those that are too many are refused; if the broker must
    /// be asked, the home is due again when it was.
    pub(super) fn allowed(self: &Rc<Self>, home: &Rc<Home>, state: &mut State) -> usize {
        let Some(allowance) = &home.allowance else { return usize::MAX };
        match allowance.left(Instant::now()) {
            Left::Some(count) => count as usize,
            Left::None => {
                let requests = state.take_all_pending();
                self.parts.totals.limits.refused(kind(&allowance.bucket), requests.len() as u64);
                self.parts.metrics.published(home.policy.mode, PublishOutcome::Refused, requests.len() as u64);
                for request in requests {
                    self.settle(request, Err((ErrorCode::RateLimited, ROOM_IS_FULL)));
                }
                0
            }
            Left::Unknown => {
                if !allowance.asking.get() {
                    self.ask_for(allowance, Waiter::Home(Rc::clone(home)), state.pending.len());
                }
                0
            }
        }
    }

    /// Whether a room that is not open here takes one more. There is nothing that could be taken ahead for it.
    pub(super) async fn takes_one(&self, room: &RoomName, rate: Rate) -> bool {
        let bucket = Bucket::Room(room.clone());
        let is_granted = self.take(&bucket, rate, 1, self.postings.alone_until()).await.granted > 0;
        if !is_granted {
            self.parts.totals.limits.refused(kind(&bucket), 1);
        }
        is_granted
    }

    fn ask_for(self: &Rc<Self>, allowance: &Rc<Allowance>, waiter: Waiter, wanted: usize) {
        allowance.waiting.borrow_mut().push(waiter);
        if allowance.asking.replace(true) {
            return;
        }
        let (shard, allowance) = (Rc::clone(self), Rc::clone(allowance));
        tokio::task::spawn_local(async move {
            let wanted = allowance.wish(Instant::now(), wanted);
            let Allowance { bucket, rate, alone_until, .. } = &*allowance;
            let taken = shard.take(bucket, *rate, wanted, alone_until).await;
            allowance.answered(taken, wanted, Instant::now());
            allowance.asking.set(false);
            let waiting = std::mem::take(&mut *allowance.waiting.borrow_mut());
            for waiter in waiting {
                match waiter {
                    Waiter::Peer(peer) => peer.end_request(),
                    Waiter::Home(home) => shard.turn.due(&home),
                }
            }
        });
    }

    /// Takes from the broker, or, if that does not answer and until it is asked again, from what this node may have alone.
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32, alone_until: &Cell<Instant>) -> Taken {
        if Instant::now() >= alone_until.get() {
            match self.parts.broker.take(bucket, rate, wanted).await {
                Ok(taken) => return taken,
                Err(error) => {
                    tracing::debug!(%error, kind = kind(bucket), "a rate holds for this node alone");
                    alone_until.set(Instant::now() + REST);
                }
            }
        }
        self.parts.totals.limits.alone.with_label_values(&[kind(bucket)]).inc();
        self.parts.post.alone().take(bucket, rate, wanted, now_us())
    }
}

/// For the metrics.
fn kind(bucket: &Bucket) -> &'static str {
    match bucket {
        Bucket::Room(_) => "room",
        Bucket::User(_) => "user",
    }
}
