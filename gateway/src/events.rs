//! What happens in rooms, told to the operator's own services: webhooks.
//!
//! The hub tells its facts to [`RoomEvents`], which puts each one, written once, into the queue of every webhook that
//! wants it. A task per webhook on main's runtime posts them. Telling never waits: a queue is bounded, and when it is
//! full its oldest events go. Knows rooms and members as names only, neither the hub nor the broker; which node tells a
//! fact is decided there.

mod payload;
mod queue;
mod retry;
mod sender;
pub mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_protocol::{MemberFields, NodeId, RoomName};

pub use crate::config::EventKind;
use crate::config::Webhook;
use crate::outbound::Outbound;
use crate::telemetry::metrics::Metrics;
pub use payload::{Message, Position};
use queue::Queue;

/// How all webhooks are called.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// This node.
    pub node: NodeId,
    /// Time of one call.
    pub timeout: Duration,
    /// Events that may wait for one webhook.
    pub queue: usize,
    /// Most events of one call.
    pub batch: usize,
    /// How long an event waits for company.
    pub linger: Duration,
    /// How long a call is tried.
    pub give_up: Duration,
}

/// Where the hub tells its facts. Cheap to clone; one for all threads. Off, it is nothing.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<[Hook]>>);

struct Hook {
    webhook: Webhook,
    queue: Arc<Queue>,
}

/// The events of one room: who wants which. Off, each call is one branch.
#[derive(Default)]
pub struct RoomEvents(Option<Box<Wanted>>);

struct Wanted {
    room: RoomName,
    hooks: Arc<[Hook]>,
    /// For each kind, the webhooks that want it, as bits.
    masks: [u16; EventKind::ALL.len()],
}

/// The tasks that post events.
pub struct Webhooks {
    senders: Vec<sender::Handle>,
}

impl Events {
    /// Nobody wants to know anything.
    pub fn none() -> Self {
        Self(None)
    }

    /// What is wanted of a room. Costs a match for each pattern: ask once and keep the answer.
    pub fn of(&self, room: &RoomName) -> RoomEvents {
        let Some(hooks) = &self.0 else { return RoomEvents(None) };
        let mut masks = [0; EventKind::ALL.len()];
        for (bit, hook) in hooks.iter().enumerate() {
            if hook.webhook.rooms.iter().any(|pattern| pattern.matches(room)) {
                for kind in &hook.webhook.events {
                    masks[*kind as usize] |= 1 << bit;
                }
            }
        }
        let is_wanted = masks.iter().any(|mask| *mask != 0);
        RoomEvents(is_wanted.then(|| Box::new(Wanted { room: room.clone(), hooks: Arc::clone(hooks), masks })))
    }
}

impl RoomEvents {
    /// Whether any event of this room is wanted.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether events of this kind are wanted.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.0.as_ref().is_some_and(|wanted| wanted.masks[kind as usize] != 0)
    }

    /// The room was empty and has a member; `version` is that of its members.
    pub fn occupied(&self, version: u64) {
        self.tell(EventKind::RoomOccupied, |room| payload::room(EventKind::RoomOccupied, room, version));
    }

    /// The room's last member is gone.
    pub fn vacated(&self, version: u64) {
        self.tell(EventKind::RoomVacated, |room| payload::room(EventKind::RoomVacated, room, version));
    }

    /// Someone is in the room who was not. `again` says that the broker had lost a member and got it back.
    pub fn joined(&self, who: MemberFields<'_>, position: Position, again: bool) {
        let reason = again.then_some("restored");
        self.tell(EventKind::MemberJoined, |room| {
            payload::member(EventKind::MemberJoined, room, who, position, reason)
        });
    }

    /// Someone is not in the room any more. `lost` says that the member's node went without a word.
    pub fn left(&self, who: MemberFields<'_>, position: Position, lost: bool) {
        let reason = lost.then_some("node_lost");
        self.tell(EventKind::MemberLeft, |room| payload::member(EventKind::MemberLeft, room, who, position, reason));
    }

    /// A message was stored or, in an ephemeral room, sent on.
    pub fn published(&self, message: &Message<'_>) {
        self.tell(EventKind::MessagePublished, |room| payload::message(room, message));
    }

    fn tell(&self, kind: EventKind, write: impl FnOnce(&RoomName) -> Vec<u8>) {
        let Some(wanted) = &self.0 else { return };
        let mask = wanted.masks[kind as usize];
        if mask == 0 {
            return;
        }
        let event = bytes::Bytes::from(write(&wanted.room));
        for (bit, hook) in wanted.hooks.iter().enumerate() {
            if mask & (1 << bit) != 0 {
                hook.queue.push(event.clone());
            }
        }
    }
}

impl Webhooks {
    /// Starts a task for each webhook on the present runtime. Without webhooks the handle is [`Events::none`].
    pub fn start(
        webhooks: &[Webhook],
        options: &WebhookOptions,
        outbound: &Outbound,
        metrics: &Metrics,
    ) -> (Events, Self) {
        let mut senders = Vec::with_capacity(webhooks.len());
        let mut hooks = Vec::with_capacity(webhooks.len());
        for webhook in webhooks {
            let meter = metrics.webhooks.of(&webhook.name);
            let queue = Arc::new(Queue::new(options.queue, meter.clone()));
            let watched = Arc::clone(&queue);
            metrics.webhooks.watch(&webhook.name, move || watched.age());
            senders.push(sender::start(webhook, options, outbound.clone(), Arc::clone(&queue), meter));
            hooks.push(Hook { webhook: webhook.clone(), queue });
        }
        let events = Events((!hooks.is_empty()).then(|| hooks.into()));
        (events, Self { senders })
    }

    /// Posts what waits, until `deadline`. What is left then is counted and named in the log.
    pub async fn flush(self, deadline: Instant) {
        for sender in &self.senders {
            sender.hurry();
        }
        for sender in self.senders {
            sender.finished(deadline).await;
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.0.as_ref().map_or(0, |hooks| hooks.len())).finish()
    }
}
