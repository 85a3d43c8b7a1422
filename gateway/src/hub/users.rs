//! How many connections users have, over all nodes, if that is limited.
//!
//! Sessions ask for a [`Seat`] before they say `welcome`, on any worker. Worker 0 counts for the whole node and tells the
//! broker absolute figures, so that a call of which nobody knows whether it took effect does no harm: the next one sets it
//! right. It has one call for a user under way at a time. While the broker does not answer, the node's own count holds.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::mail::{Mail, Post};
use super::shard::Shard;
use crate::broker::{BrokerError, Claim, MAX_PAGE, Subject};

/// How long until the broker is told again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Who counts.
const COUNTER: usize = 0;

/// A user's connections on this node.
#[derive(Default)]
struct User {
    seated: u32,
    waiting: Vec<oneshot::Sender<Seat>>,
    /// True while the broker is asked for more seats.
    asking: bool,
}

/// All users of the node; empty but on the worker that counts.
#[derive(Default)]
pub(super) struct Users {
    known: RefCell<HashMap<Subject, User, RandomState>>,
    /// Whose figure the broker has wrong, or may have.
    stale: RefCell<HashSet<Subject, RandomState>>,
    telling: Cell<bool>,
}

/// One counted connection of a user; gives its place back when it is dropped.
pub struct Seat {
    user: Subject,
    post: Post,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.post.send(COUNTER, vec![Mail::Rise { user: self.user }]);
    }
}

impl Shard {
    /// Whether connections of this user are counted.
    pub fn counts(&self, user: Subject) -> bool {
        self.parts.settings.max_connections_per_user > 0 && user != Subject::NOBODY
    }

    /// A seat for one more connection of a user, if there may be one more in the cluster. May be dropped at any time.
    pub async fn seat_user(&self, user: Subject) -> Option<Seat> {
        let (answer, seat) = oneshot::channel();
        self.parts.post.send(COUNTER, vec![Mail::Sit { user, answer }]);
        let seat = seat.await.ok();
        if seat.is_none() {
            self.parts.totals.limits.seats_refused.inc();
        }
        seat
    }

    pub(super) fn take_sit(self: &Rc<Self>, user: Subject, answer: oneshot::Sender<Seat>) {
        let mut users = self.users.known.borrow_mut();
        let known = users.entry(user).or_default();
        known.waiting.push(answer);
        if !std::mem::replace(&mut known.asking, true) {
            let shard = Rc::clone(self);
            tokio::task::spawn_local(async move { shard.seat_all(user).await });
        }
    }

    pub(super) fn take_rise(self: &Rc<Self>, user: Subject) {
        if let Some(known) = self.users.known.borrow_mut().get_mut(&user) {
            known.seated = known.seated.saturating_sub(1);
        }
        self.tell_later(user);
    }

    /// Answers those who wait for a seat of one user, until none does.
    async fn seat_all(self: Rc<Self>, user: Subject) {
        while let Some((own, wanted)) = self.users.next_wish(user) {
            let (life, most) = (self.life.number(), self.parts.settings.max_connections_per_user);
            let claim = Claim { user, own, wanted, most };
            let granted = match self.claim_seats(claim).await {
                Ok(granted) => granted,
                Err(error) => {
                    tracing::debug!(%error, "connections of a user are counted on this node alone");
                    self.parts.totals.limits.alone.with_label_values(&["connections"]).inc();
                    self.users.stale.borrow_mut().insert(user);
                    most.saturating_sub(own).min(wanted)
                }
            };
            if self.life.number() != life {
                self.users.stale.borrow_mut().insert(user);
            }
            for answer in self.users.grant(user, wanted, granted) {
                // Who has gone meanwhile gives it back at once.
                _ = answer.send(Seat { user, post: self.parts.post.clone() });
            }
        }
        self.tell_all();
    }

    async fn claim_seats(&self, claim: Claim) -> Result<u32, BrokerError> {
        let incarnation = self.leased().await?;
        self.parts.broker.claim(&incarnation, claim).await
    }

    fn tell_later(self: &Rc<Self>, user: Subject) {
        self.users.stale.borrow_mut().insert(user);
        self.tell_all();
    }

    /// A new life of the node has begun: nothing of what was counted is known under it.
    pub(super) fn count_anew(self: &Rc<Self>) {
        self.users.stale.borrow_mut().extend(self.users.known.borrow().keys());
        self.tell_all();
    }

    /// Tells the broker the figures it has wrong, however long it takes, one call at a time.
    fn tell_all(self: &Rc<Self>) {
        if self.users.stale.borrow().is_empty() || self.users.telling.replace(true) {
            return;
        }
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            loop {
                let counts = shard.users.next_stale();
                let Some(incarnation) = shard.life.incarnation().filter(|_| !counts.is_empty()) else { break };
                if let Err(error) = shard.parts.broker.set_users(&incarnation, &counts).await {
                    tracing::debug!(%error, users = counts.len(), "telling of users' connections failed");
                    shard.users.stale.borrow_mut().extend(counts.iter().map(|(user, _)| user));
                    sleep(TRY_AGAIN).await;
                }
            }
            shard.users.telling.set(false);
        });
    }
}

impl Users {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.borrow().len()
    }

    #[cfg(test)]
    pub(super) fn seated(&self, user: Subject) -> u32 {
        self.known.borrow().get(&user).map_or(0, |known| known.seated)
    }

    /// How many seats a user has and how many more are wanted; none when nobody waits any more.
    fn next_wish(&self, user: Subject) -> Option<(u32, u32)> {
        let mut users = self.known.borrow_mut();
        let known = users.get_mut(&user)?;
        known.asking = !known.waiting.is_empty();
        if known.asking {
            return Some((known.seated, u32::try_from(known.waiting.len()).unwrap_or(u32::MAX)));
        }
        if known.seated == 0 {
            users.remove(&user);
        }
        None
    }

    /// Counts those who get a seat, and gives them. The others of `wanted` are told that there is none.
    fn grant(&self, user: Subject, wanted: u32, granted: u32) -> Vec<oneshot::Sender<Seat>> {
        let mut users = self.known.borrow_mut();
        let Some(known) = users.get_mut(&user) else { return Vec::new() };
        let mut answered: Vec<_> = known.waiting.drain(..(wanted as usize).min(known.waiting.len())).collect();
        answered.truncate(granted as usize);
        known.seated += answered.len() as u32;
        answered
    }

    /// Some of those whom the broker does not know as they are. Those it is being asked for are told of behind the answer.
    fn next_stale(&self) -> Vec<(Subject, u32)> {
        let (mut users, mut stale) = (self.known.borrow_mut(), self.stale.borrow_mut());
        let is_asked_for = |user: &Subject| users.get(user).is_some_and(|known| known.asking);
        let some: Vec<Subject> = stale.iter().filter(|user| !is_asked_for(user)).take(MAX_PAGE).copied().collect();
        let count = |user| {
            stale.remove(&user);
            let seated = users.get(&user).map_or(0, |known| known.seated);
            if seated == 0 {
                users.remove(&user);
            }
            (user, seated)
        };
        some.into_iter().map(count).collect()
    }
}
