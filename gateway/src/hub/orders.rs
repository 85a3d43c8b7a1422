//! Orders to all nodes: given here by whoever may, carried out here whoever gave them.
//!
//! The server gives them, on any worker. Worker 0 hears those of all nodes, has every worker carry them out on its
//! own connections, and answers. Nothing is ordered twice: a node that does not answer is told of, not retried.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use roomcast_protocol::{ErrorCode, NodeId, RoomName, removed_frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::mail::Mail;
use super::peer::{Peer, Stop};
use super::posting::Refused;
use super::shard::{Shard, text_frame};
use crate::broker::{Answer, Order, OrderId, Target, Task};

/// How long the answers of the nodes are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a node's workers have to carry out an order that is to be answered in time.
const WORKERS_PATIENCE: Duration = Duration::from_millis(1500);
/// The first pause between two looks at the answers, and the longest.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Orders that a node carries out at the same time. Each costs a look at all connections at most.
const MOST_ORDERS: usize = 64;

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Nodes that lived when it was given.
    pub nodes: usize,
    /// Nodes that carried it out. If there are fewer than `nodes`, whom it concerns may still be somewhere.
    pub answered: usize,
    /// Nodes that answered, and did not: of an older version, or overloaded.
    pub refused: usize,
    /// Connections it concerned.
    pub hit: u64,
}

impl Carried {
    fn of(nodes: &BTreeSet<NodeId>, answers: &BTreeMap<NodeId, Answer>) -> Self {
        let all = nodes.len() + answers.keys().filter(|node| !nodes.contains(*node)).count();
        let mut carried = Self { nodes: all, answered: 0, refused: 0, hit: 0 };
        for answer in answers.values() {
            match answer {
                Answer::Done { hit } => {
                    carried.answered += 1;
                    carried.hit = carried.hit.saturating_add(*hit);
                }
                Answer::Unknown | Answer::Overloaded => carried.refused += 1,
            }
        }
        carried
    }

    /// Whether every node carried it out.
    pub fn is_complete(&self) -> bool {
        self.answered == self.nodes
    }
}

/// Orders being carried out.
#[derive(Default)]
pub(super) struct Busy(Cell<usize>);

struct Place(Rc<Shard>);

impl Place {
    fn take(shard: &Rc<Shard>) -> Option<Self> {
        let count = &shard.orders.0;
        if count.get() >= MOST_ORDERS {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(Rc::clone(shard)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let count = &self.0.orders.0;
        count.set(count.get() - 1);
    }
}

impl Shard {
    /// Takes members out of a room, wherever they are. They get `left` with the reason `removed` and `words`, stay
    /// connected, and may join again if they may.
    ///
    /// # Errors
    /// [`ErrorCode::BadFrame`] for a name or words that break their rules; as for a publish if the broker did not take the
    /// order. An order that was given always has a result.
    pub async fn remove_member(
        &self,
        room: &RoomName,
        target: Target,
        words: Option<&str>,
    ) -> Result<Carried, Refused> {
        self.give(Task::Remove { room: room.clone(), target, words: words.map(Arc::from) }).await
    }

    /// Ends connections, wherever they are: with 4409 and `words` in the close frame, or, if they may return, with
    /// `reconnect` and 1012.
    ///
    /// # Errors
    /// As [`Shard::remove_member`].
    pub async fn disconnect_everywhere(
        &self,
        target: Target,
        may_return: bool,
        words: Option<&str>,
    ) -> Result<Carried, Refused> {
        self.give(Task::Disconnect { target, may_return, words: words.map(Arc::from) }).await
    }

    async fn give(&self, task: Task) -> Result<Carried, Refused> {
        let order = Order::new(self.parts.node.clone(), task);
        if !order.is_good() {
            let words = "a user has 1 to 128 bytes, words to a client at most 123, both without control characters";
            return Err(Refused { code: ErrorCode::BadFrame, words });
        }
        let given = &self.parts.totals.cluster.orders_given;
        let outcome = async {
            let living = self.parts.broker.nodes().await?;
            // This one lives, also before its first beat.
            let own = std::iter::once(self.parts.node.clone());
            let nodes: BTreeSet<NodeId> = living.into_iter().map(|report| report.node).chain(own).collect();
            self.parts.broker.order(&order).await?;
            Ok(Carried::of(&nodes, &self.answers(order.id, &nodes).await))
        };
        let outcome: Result<Carried, Refused> = outcome.await;
        let label = match &outcome {
            Ok(carried) if carried.is_complete() => "answered",
            Ok(carried) => {
                tracing::warn!(order = %order.id, ?carried, "not all nodes carried out an order");
                "unanswered"
            }
            Err(_) => "failed",
        };
        given.with_label_values(&[label]).inc();
        outcome
    }

    /// Waits for the answers of all nodes, but not for ever.
    async fn answers(&self, order: OrderId, nodes: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Answer> {
        let (deadline, mut pause) = (Instant::now() + PATIENCE, LOOK);
        let mut answers = BTreeMap::new();
        while Instant::now() < deadline {
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // One look that fails, or comes late, says nothing: the next one may.
            if let Ok(Ok(found)) = timeout(PATIENCE, self.parts.broker.answers(order)).await {
                answers.extend(found);
            }
            if nodes.iter().all(|node| answers.contains_key(node)) {
                break;
            }
        }
        answers
    }

    /// An order came: all workers carry it out, and then it is answered.
    pub(super) fn take_order(self: &Rc<Self>, order: Order) {
        let (shard, place) = (Rc::clone(self), Place::take(self));
        tokio::task::spawn_local(async move {
            let answer = match (&order.task, &place) {
                (Task::Unknown, _) => Some(Answer::Unknown),
                (_, None) => Some(Answer::Overloaded),
                (_, Some(_)) => shard.have_carried_out(order.task.clone()).await.map(|hit| Answer::Done { hit }),
            };
            let label = match answer {
                Some(Answer::Done { .. }) => "done",
                Some(Answer::Unknown) => "unknown",
                Some(Answer::Overloaded) => "overloaded",
                None => "failed",
            };
            tracing::info!(order = %order.id, from = %order.from, outcome = label, ?answer, "an order to all nodes");
            let answered = match answer {
                Some(answer) => shard.parts.broker.answer(order.id, answer).await.is_ok(),
                None => false,
            };
            let label = if answered { label } else { "failed" };
            shard.parts.totals.cluster.orders_taken.with_label_values(&[label]).inc();
        });
    }

    /// How many connections of this node it concerned; none if some worker did not say in time.
    async fn have_carried_out(&self, task: Task) -> Option<u64> {
        let workers = self.parts.post.workers();
        let (done, mut counts) = mpsc::channel(workers);
        let task = Arc::new(task);
        for worker in 0..workers {
            self.send(worker, Mail::Order { task: Arc::clone(&task), done: done.clone() });
        }
        drop(done);
        let (deadline, mut hit) = (Instant::now() + WORKERS_PATIENCE, 0);
        // A worker that has ended has no connections, and drops its sender.
        while let Some(count) = timeout_at(deadline, counts.recv()).await.ok()? {
            hit += count;
        }
        Some(hit)
    }

    /// Carries out an order on this worker. Gives the connections it concerned.
    pub(super) fn obey(&self, task: &Task) -> u64 {
        match task {
            Task::Remove { room, target, words } => {
                let members = self.rooms.borrow().get(room).map(|room| room.peers()).unwrap_or_default();
                let concerned = members.into_iter().filter(|peer| peer.is_meant(target));
                let left = text_frame(&removed_frame(room, words.as_deref()));
                let mut hit = concerned.inspect(|peer| self.remove(peer, room, left.clone())).count() as u64;
                // Who is about to be a member leaves as soon as it is.
                self.visit_peers(|peer| {
                    hit += u64::from(peer.is_meant(target) && peer.arrivals.call_off(room, &left));
                });
                hit
            }
            Task::Disconnect { target, may_return, words } => {
                let stop = if *may_return { Stop::Requested } else { Stop::Removed };
                let mut hit = 0;
                if let Target::User(user) = target {
                    self.dismissals.note(user, stop, words.as_ref());
                }
                self.visit_peers(|peer| {
                    hit += u64::from(peer.is_meant(target) && peer.dismiss(stop, words.clone()));
                });
                hit
            }
            Task::Unknown => 0,
        }
    }
}

impl Peer {
    fn is_meant(&self, target: &Target) -> bool {
        match target {
            Target::Client(client) => self.id == *client,
            Target::User(user) => self.user() == Some(user),
        }
    }

    /// Ends it for an operator. False if it was ending before.
    pub(super) fn dismiss(&self, stop: Stop, words: Option<Arc<str>>) -> bool {
        if self.is_closing() || self.stop() == Some(stop) {
            return false;
        }
        self.request_stop(stop);
        let is_done = self.stop() == Some(stop);
        if is_done {
            self.words.set(words);
        }
        is_done
    }

    /// What the operator who ended it said, once.
    pub fn take_words(&self) -> Option<Arc<str>> {
        self.words.take()
    }
}
