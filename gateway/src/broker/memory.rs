//! The broker inside one process: the same semantics as over Redis, without Redis, kept in memory and bounded.
//!
//! [`Memory`] is the store, shared by all workers; [`Memory::handle`] gives each its broker. Rooms are spread over
//! shards, each behind a lock that is held for one call's work and never over an await. A room without subscriptions,
//! members, history and remembered ids is forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use foldhash::fast::FixedState;
use roomcast_protocol::{ClientId, NodeId, RoomName};
use std::hash::BuildHasher;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use self::leases::Leases;
use self::orders::Board;
use self::room::Room;
use super::stats::Command;
use super::{
    Beat, Broker, BrokerError, BrokerStats, Envelope, Event, Evicted, Farewell, History, Incarnation, Kind,
    MAX_EVICTION, MAX_MEMBERS, MAX_PAGE, MembersPage, Meters, Moved, PresenceCall, PresenceEvent, PresenceOp,
    PresenceReply, Published, Pulse, Range, Record, Signs, Subject, Top, Trouble, check_ops, check_records,
    check_rooms,
};
use crate::config::RoomPolicy;

mod directory;
mod ids;
mod leases;
mod orders;
mod quota;
mod room;

/// So many that workers seldom meet at one lock, so few that an empty store is small.
const SHARDS: usize = 32;
/// How often expired history is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The store. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Memory {
    store: Arc<Store>,
}

#[derive(Default)]
struct Store {
    shards: [Mutex<HashMap<RoomName, Room, FixedState>>; SHARDS],
    leases: Mutex<Leases>,
    board: Mutex<Board>,
    meters: Mutex<Meters>,
}

/// A worker's broker on a [`Memory`].
pub struct MemoryBroker {
    store: Arc<Store>,
    peer: Arc<Peer>,
    stats: BrokerStats,
    sweeper: JoinHandle<()>,
    /// Nothing ever changes here.
    signs: Signs,
}

/// Where a worker's events go.
struct Peer {
    node: NodeId,
    events: mpsc::Sender<Event>,
    /// An event was dropped: all that follow are, too, until `Resubscribed` found room.
    behind: AtomicBool,
    stats: BrokerStats,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A broker for one worker; its events go to `events`. When that is full, events are dropped and
    /// [`Event::Resubscribed`] follows. Must be called inside a tokio runtime.
    pub fn handle(&self, node: NodeId, events: mpsc::Sender<Event>, stats: BrokerStats) -> MemoryBroker {
        let peer = Arc::new(Peer { node, events, behind: AtomicBool::new(false), stats: stats.clone() });
        let sweeper = tokio::spawn(sweep_regularly(Arc::downgrade(&self.store)));
        MemoryBroker { store: Arc::clone(&self.store), peer, stats, sweeper, signs: Signs::default() }
    }

    /// Rooms held now.
    pub fn rooms(&self) -> usize {
        (0..SHARDS).map(|shard| self.store.lock(shard).len()).sum()
    }

    /// Takes a room back in time, or all its messages away.
    #[cfg(test)]
    pub(crate) fn restore(&self, room: &RoomName, top: Option<u64>) {
        self.store.with(room, |room| room.restore(top));
    }

    /// Gives something that puts the ids of a room back to what is remembered now.
    #[cfg(test)]
    pub(crate) fn save_ids(&self, room: &RoomName) -> Box<dyn Fn(&Self)> {
        let (room, ids) = (room.clone(), self.store.with(room, |room| room.ids()));
        Box::new(move |memory| memory.store.with(&room, |room| room.put_back(ids.clone())))
    }

    /// Drops what has expired. Handles do this every 5 s by themselves.
    pub fn sweep(&self) {
        self.store.sweep(Instant::now());
    }
}

async fn sweep_regularly(store: Weak<Store>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        store.sweep(Instant::now());
    }
}

impl Store {
    fn lock(&self, shard: usize) -> MutexGuard<'_, HashMap<RoomName, Room, FixedState>> {
        // A panic elsewhere ends one session, not the store: each change below is complete or was not begun.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on a room, which exists afterwards only if something is in it.
    fn with<T>(&self, name: &RoomName, work: impl FnOnce(&mut Room) -> T) -> T {
        let shard = FixedState::with_seed(7).hash_one(name) as usize % SHARDS;
        let mut rooms = self.lock(shard);
        let room = rooms.entry(name.clone()).or_default();
        room.expire(Instant::now());
        let result = work(room);
        if room.is_empty() {
            rooms.remove(name);
        }
        result
    }

    fn sweep(&self, now: Instant) {
        for shard in 0..SHARDS {
            let mut rooms = self.lock(shard);
            rooms.retain(|_, room| {
                room.expire(now);
                !room.is_empty()
            });
            rooms.shrink_to(64);
        }
    }
}

impl Peer {
    fn send(self: &Arc<Self>, event: Event) {
        if self.behind.load(Ordering::Acquire) {
            return;
        }
        match self.events.try_send(event) {
            Err(TrySendError::Full(_)) if !self.behind.swap(true, Ordering::AcqRel) => {
                self.stats.count_overrun();
                let peer = Arc::clone(self);
                tokio::spawn(async move {
                    if let Ok(place) = peer.events.reserve().await {
                        // First: what comes from here on is delivered; what came before is in the history by now.
                        peer.behind.store(false, Ordering::Release);
                        place.send(Event::Resubscribed);
                    }
                });
            }
            _ => {}
        }
    }
}

impl MemoryBroker {
    /// Tells all subscribers but this one.
    fn tell(&self, room: &Room, event: &Event) {
        for peer in room.subscribers.iter().filter(|peer| !Arc::ptr_eq(peer, &self.peer)) {
            peer.send(event.clone());
        }
    }

    fn counted<T>(&self, command: Command, call: impl FnOnce() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        let start = Instant::now();
        let result = call();
        self.stats.count_command(command, start.elapsed(), &result);
        result
    }

    fn apply_and_tell(&self, name: &RoomName, call: PresenceCall<'_>) -> PresenceReply {
        self.store.with(name, |room| {
            let before = room.members.len() as u64;
            let (version, outcomes) = room.apply(call, now_us());
            let online = room.members.len() as u64;
            let changed = |outcome: &Moved| matches!(outcome, Moved::Changed | Moved::Renamed);
            let changed = call.ops.iter().zip(&outcomes).filter(|(_, outcome)| changed(outcome));
            let ops: Vec<PresenceOp> = changed.map(|(op, _)| op.clone()).collect();
            if !ops.is_empty() {
                let (node, name) = (self.peer.node.clone(), name.clone());
                self.tell(room, &Event::Presence(PresenceEvent { node, room: name, version, online, ops }));
            }
            let members = room.members.values().take(call.want_members.min(MAX_MEMBERS));
            let members = members.map(|(_, member)| member.clone()).collect();
            PresenceReply { version, online, before, outcomes, members }
        })
    }

    fn evict_and_tell(&self, name: &RoomName, incarnation: &Incarnation, behind: Option<ClientId>) -> Evicted {
        self.store.with(name, |room| {
            let before = room.members.len() as u64;
            let (version, gone, next) = room.evict(incarnation, behind, MAX_EVICTION, now_us());
            let online = room.members.len() as u64;
            if !gone.is_empty() {
                let ops = gone.iter().cloned().map(PresenceOp::Leave).collect();
                let (node, name) = (incarnation.as_node().clone(), name.clone());
                let event = Event::Presence(PresenceEvent { node, room: name, version, online, ops });
                room.subscribers.iter().for_each(|peer| peer.send(event.clone()));
            }
            Evicted { next, version, online, before, gone }
        })
    }

    fn store_and_tell(&self, name: &RoomName, policy: &RoomPolicy, records: &[Record]) -> Published {
        let ts = now_us() / 1000;
        self.store.with(name, |room| {
            let (published, new) = room.publish(policy, records, ts, Instant::now());
            if let Some((first_seq, records)) = new {
                let kind = Kind::Durable { term: published.term.clone(), first_seq, ts };
                let envelope = Envelope { node: self.peer.node.clone(), room: name.clone(), kind, records };
                self.tell(room, &Event::Messages(envelope));
            }
            published
        })
    }
}

#[async_trait(?Send)]
impl Broker for MemoryBroker {
    async fn publish(
        &self,
        room: &RoomName,
        policy: &RoomPolicy,
        records: &[Record],
    ) -> Result<Published, BrokerError> {
        self.counted(Command::Publish, || {
            check_records(records)?;
            Ok(self.store_and_tell(room, policy, records))
        })
    }

    async fn broadcast(&self, room: &RoomName, records: &[Record]) -> Result<(), BrokerError> {
        self.counted(Command::Broadcast, || {
            check_records(records)?;
            let kind = Kind::Ephemeral { ts: now_us() / 1000 };
            let records = records.iter().map(|record| Record { subject: Subject::NOBODY, ..record.clone() }).collect();
            let envelope = Envelope { node: self.peer.node.clone(), room: room.clone(), kind, records };
            self.store.with(room, |state| self.tell(state, &Event::Messages(envelope)));
            Ok(())
        })
    }

    async fn subscribe(&self, room: &RoomName) -> Result<(), BrokerError> {
        self.counted(Command::Subscribe, || {
            let new = self.store.with(room, |state| state.subscribe(&self.peer));
            self.stats.begin_subscriptions(usize::from(new));
            Ok(())
        })
    }

    fn unsubscribe(&self, room: &RoomName) {
        let gone = self.store.with(room, |state| state.unsubscribe(&self.peer));
        self.stats.end_subscriptions(usize::from(gone));
    }

    async fn history(&self, room: &RoomName, range: Range) -> Result<History, BrokerError> {
        self.counted(Command::History, || Ok(self.store.with(room, |state| state.history(range))))
    }

    async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<Top>>, BrokerError> {
        self.counted(Command::Tops, || {
            check_rooms(rooms)?;
            Ok(rooms.iter().map(|room| self.store.with(room, |state| Some(state.top()))).collect())
        })
    }

    async fn presence(&self, room: &RoomName, call: PresenceCall<'_>) -> Result<PresenceReply, BrokerError> {
        self.counted(Command::Presence, || {
            check_ops(call.ops)?;
            Ok(self.apply_and_tell(room, call))
        })
    }

    async fn members(&self, room: &RoomName, cursor: Option<&str>, limit: usize) -> Result<MembersPage, BrokerError> {
        self.counted(Command::Members, || {
            let after = cursor.map(str::parse::<ClientId>).transpose();
            let after = after.map_err(|_| BrokerError::Rejected("bad cursor".into()))?;
            Ok(self.store.with(room, |state| state.page(after, limit.clamp(1, MAX_MEMBERS))))
        })
    }

    async fn beat(&self, beat: &Beat<'_>) -> Result<Pulse, BrokerError> {
        self.counted(Command::Beat, || Ok(self.store.leases().beat(beat, Instant::now())))
    }

    async fn hold(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.counted(Command::Hold, || {
            self.store.leases().hold(incarnation, rooms);
            Ok(())
        })
    }

    async fn release(&self, incarnation: &Incarnation, rooms: &[RoomName]) -> Result<(), BrokerError> {
        self.counted(Command::Release, || {
            self.store.leases().release(incarnation, rooms);
            Ok(())
        })
    }

    async fn held(&self, incarnation: &Incarnation, limit: usize) -> Result<Vec<RoomName>, BrokerError> {
        self.counted(Command::Held, || Ok(self.store.leases().held(incarnation, limit.clamp(1, MAX_PAGE))))
    }

    async fn evict(
        &self,
        room: &RoomName,
        incarnation: &Incarnation,
        behind: Option<ClientId>,
    ) -> Result<Evicted, BrokerError> {
        self.counted(Command::Evict, || Ok(self.evict_and_tell(room, incarnation, behind)))
    }

    async fn bury(&self, incarnation: &Incarnation, farewell: Farewell) -> Result<(), BrokerError> {
        self.counted(Command::Bury, || {
            self.store.leases().bury(incarnation, farewell);
            Ok(())
        })
    }

    fn trouble(&self) -> Option<Trouble> {
        None
    }

    fn signs(&self) -> &Signs {
        &self.signs
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.sweeper.abort();
        self.store.board().leave(&self.peer);
        for shard in 0..SHARDS {
            self.store.lock(shard).retain(|_, room| {
                self.stats.end_subscriptions(usize::from(room.unsubscribe(&self.peer)));
                !room.is_empty()
            });
        }
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
