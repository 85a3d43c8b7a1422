//! From a push of Redis to an event of the hub: decoded in place on the connection's task, nothing queued in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ::redis::{PushInfo, PushKind, Value};
use bytes::Bytes;
use roomcast_protocol::{NodeId, RoomName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::super::Keys;
use super::super::canary::Nest;
use super::super::topology::Recipe;
use crate::broker::envelope::{DecodeError, Head};
use crate::broker::{BrokerStats, Event, Order, Signs};

/// What all connections of a broker share.
#[derive(Clone)]
pub(in super::super) struct Intake {
    keys: Keys,
    node: NodeId,
    events: mpsc::Sender<Event>,
    stats: BrokerStats,
    keep_echo: bool,
    /// Whether channels belong to slots.
    sharded: bool,
    doubt: Arc<Notify>,
    signs: Arc<Signs>,
    canary: Arc<Nest>,
}

impl Intake {
    pub(in super::super) fn new(recipe: &Recipe, canary: Arc<Nest>) -> Self {
        Self {
            keys: recipe.keys.clone(),
            node: recipe.options.node.clone(),
            events: recipe.events.clone(),
            stats: recipe.stats.clone(),
            keep_echo: recipe.options.keep_echo,
            sharded: recipe.is_sharded(),
            doubt: Arc::clone(&recipe.doubt),
            signs: Arc::clone(&recipe.signs),
            canary,
        }
    }

    pub(super) fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    /// Whether channels belong to slots.
    pub(super) fn sharded(&self) -> bool {
        self.sharded
    }

    /// Told of every connection that is lost: its server may not be the right one any more.
    pub(super) fn doubt(&self) -> &Notify {
        &self.doubt
    }

    /// For the hub.
    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }

    pub(super) fn canary(&self) -> &Nest {
        &self.canary
    }

    pub(super) fn tap(&self, perch: Arc<str>) -> Tap {
        Tap {
            intake: self.clone(),
            number: self.canary.begin_connection(),
            orders: self.keys.orders(),
            perch,
            lost: Notify::new(),
            overrun: AtomicBool::new(false),
            leaving: AtomicUsize::new(0),
            expelled: AtomicBool::new(false),
            born: Instant::now(),
            last_push_ms: AtomicU64::new(0),
        }
    }
}

/// One connection's pushes.
pub(super) struct Tap {
    intake: Intake,
    /// Of the connection, at the canary.
    number: u64,
    /// The channel of the orders.
    orders: String,
    /// The canary's channel. When that changes, the connection is made anew.
    perch: Arc<str>,
    lost: Notify,
    /// An event was dropped: all that follow are, too, until the hub is told to catch up.
    overrun: AtomicBool,
    /// Channels of slots that we asked to leave and have not left yet.
    leaving: AtomicUsize,
    /// The server ended a subscription by itself: the slot is another's now.
    expelled: AtomicBool,
    born: Instant,
    last_push_ms: AtomicU64,
}

impl Tap {
    /// Takes a push. Never blocks.
    pub(super) fn take(&self, push: PushInfo) {
        self.last_push_ms.store(self.born.elapsed().as_millis() as u64, Relaxed);
        match push.kind {
            PushKind::Disconnection => self.lost.notify_one(),
            PushKind::SUnsubscribe => self.left(),
            PushKind::Message | PushKind::SMessage if !self.overrun.load(Relaxed) => match self.decode(push.data) {
                Ok(Some(event)) => self.hand_over(event),
                Ok(None) => {}
                Err(error) => self.intake.stats.count_ignored(error),
            },
            _ => {}
        }
    }

    /// Resolves when the connection ended or must end.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    pub(super) fn reason(&self) -> &'static str {
        match (self.overrun.load(Relaxed), self.expelled.load(Relaxed)) {
            (true, _) => "the hub is behind",
            (_, true) => "rooms moved to another server",
            _ => "disconnected",
        }
    }

    /// That so many channels of slots will be left.
    pub(super) fn expect_to_leave(&self, channels: usize) {
        self.leaving.fetch_add(channels, Relaxed);
    }

    /// What nobody asked for would also be taken for the answer to the next request: the connection is not used again.
    fn left(&self) {
        if self.leaving.fetch_update(Relaxed, Relaxed, |leaving| leaving.checked_sub(1)).is_err() {
            self.expelled.store(true, Relaxed);
            self.lost.notify_one();
        }
    }

    pub(super) fn perch(&self) -> &str {
        &self.perch
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.last_push_ms.load(Relaxed)))
    }

    fn decode(&self, data: Vec<Value>) -> Result<Option<Event>, DecodeError> {
        let Ok([Value::BulkString(channel), Value::BulkString(payload)]) = <[Value; 2]>::try_from(data) else {
            return Err(DecodeError::Version);
        };
        if channel == self.perch.as_bytes() {
            self.intake.canary.hear(self.number);
            self.intake.signs.stir();
            return Ok(None);
        }
        if channel == self.orders.as_bytes() {
            return Order::decode(&payload).map(Event::Order).map(Some).map_err(|_| DecodeError::Order);
        }
        let room = self.intake.keys.room(&channel).ok_or(DecodeError::Room)?;
        let head = Head::parse(&payload, room)?;
        if head.is_own_ephemeral(&self.intake.node) && !self.intake.keep_echo {
            self.intake.stats.count_own_echo(head.count());
            return Ok(None);
        }
        let room = RoomName::new(room).map_err(|_| DecodeError::Room)?;
        head.decode(&Bytes::from(payload), room).map(Some)
    }

    fn hand_over(&self, event: Event) {
        match self.intake.events.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.overrun.store(true, Relaxed);
                self.intake.stats.count_overrun();
                self.lost.notify_one();
            }
            Err(TrySendError::Closed(_)) => self.lost.notify_one(),
        }
    }
}
