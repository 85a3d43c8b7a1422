//! Under which life of the node its members are known to the broker, and their entering anew when a life begins.
//!
//! Each worker tells the broker which rooms it is home to that have members here (`hold`, before the first enters;
//! `release`, some time after the last left). A new life begins when the lease was lost: then the homes hold their
//! rooms again and have every worker name the members it has. Beats and other nodes' leases are the business of `lease`.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use roomcast_protocol::RoomName;
use tokio::time::{Instant, sleep};

use super::home::{Home, Movement};
use super::mail::{Address, Mail};
use super::shard::Shard;
use crate::broker::{BrokerError, Incarnation, MAX_PAGE, Member, PresenceCall, PresenceOp, PresenceReply};

/// How often a lease that is about to be there is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long until a call that must succeed is made again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The present life, as a worker knows it.
#[derive(Default)]
pub(super) struct Life {
    incarnation: RefCell<Option<Incarnation>>,
    /// Counts the lives of this process: 0 before the first.
    number: Cell<u32>,
    /// Rooms that nobody here is in any more and the broker was not told of. At most as many as were held at a time.
    let_go: RefCell<HashSet<RoomName>>,
}

impl Life {
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.borrow().clone()
    }

    pub(super) fn number(&self) -> u32 {
        self.number.get()
    }

    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.let_go.borrow().is_empty()
    }
}

impl Shard {
    /// Tells the broker what happened in a room. Gives the life under which it did, too.
    pub(super) async fn tell_broker(
        &self,
        home: &Home,
        ops: &[PresenceOp],
        want_members: usize,
    ) -> Result<(PresenceReply, u32), BrokerError> {
        let _turn = self.calls.acquire().await;
        let incarnation = self.leased().await?;
        let life = self.life.number();
        let enters = ops.iter().any(|op| matches!(op, PresenceOp::Enter(_)));
        if enters && home.held.get() != life {
            self.life.let_go.borrow_mut().remove(&home.name);
            self.parts.broker.hold(&incarnation, std::slice::from_ref(&home.name)).await?;
            home.held.set(life);
        }
        let unique_names = home.policy.unique_names;
        let call = PresenceCall { incarnation: &incarnation, ops, unique_names, want_members };
        Ok((self.parts.broker.presence(&home.name, call).await?, life))
    }

    /// The incarnation, once it has a lease that runs. A broker that is away is not waited for.
    pub(super) async fn leased(&self) -> Result<Incarnation, BrokerError> {
        let end = Instant::now() + self.parts.settings.redis_timeout;
        loop {
            match self.life.incarnation() {
                Some(incarnation) if self.parts.post.lease().holds() => return Ok(incarnation),
                _ if self.parts.broker.is_up() && Instant::now() < end => sleep(LOOK).await,
                _ => return Err(BrokerError::Unavailable("no lease".into())),
            }
        }
    }

    /// A new life begins: whoever is here enters under it.
    pub(super) fn begin_life(self: &Rc<Self>, incarnation: Incarnation) {
        *self.life.incarnation.borrow_mut() = Some(incarnation.clone());
        let life = self.life.number() + 1;
        self.life.number.set(life);
        // What was held under the last life is cleared with it.
        self.life.let_go.borrow_mut().clear();
        if life == 1 {
            return;
        }
        self.count_anew();
        let rooms: Vec<RoomName> = self.homes.borrow().keys().cloned().collect();
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if shard.hold_all(life, &incarnation, &rooms).await {
                for worker in 0..shard.parts.post.workers() {
                    shard.send(worker, Mail::Muster { home: shard.parts.index });
                }
            }
        });
    }

    /// Holds rooms, however long it takes; false if the life ended meanwhile.
    async fn hold_all(&self, life: u32, incarnation: &Incarnation, rooms: &[RoomName]) -> bool {
        for page in rooms.chunks(MAX_PAGE) {
            while let Err(error) = self.parts.broker.hold(incarnation, page).await {
                tracing::debug!(%error, "holding rooms failed");
                sleep(TRY_AGAIN).await;
                if self.life.number() != life {
                    return false;
                }
            }
            if self.life.number() != life {
                return false;
            }
            let homes = self.homes.borrow();
            page.iter().filter_map(|room| homes.get(room)).for_each(|home| home.held.set(life));
        }
        true
    }

    /// Names the members this worker has in the rooms that are at home on `home`.
    pub(super) fn muster(&self, home: usize) {
        let rooms: Vec<_> = self.rooms.borrow().values().filter(|room| room.len() > 0).cloned().collect();
        for room in rooms {
            if self.home_of(&room.name) == home {
                let members = room.peers().iter().map(|peer| (self.address(peer), peer.member())).collect();
                self.send(home, Mail::Present { room: room.name.clone(), members });
            }
        }
    }

    pub(super) fn take_present(&self, room: &RoomName, members: Vec<(Address, Member)>) {
        let Some(home) = self.home(room) else { return };
        let movements = members.into_iter().map(|(from, member)| Movement::again(from, member));
        home.state.borrow_mut().roll.movements.extend(movements);
        self.turn.due(&home);
    }

    /// A room that is forgotten here: the broker is told with the next ones.
    pub(super) fn let_room_go(&self, home: &Home) {
        if home.held.get() == self.life.number() && self.life.number() > 0 {
            self.life.let_go.borrow_mut().insert(home.name.clone());
        }
    }

    /// Tells the broker of the rooms that were forgotten.
    pub(super) fn release_rooms(self: &Rc<Self>) {
        let rooms: Vec<RoomName> = self.life.let_go.borrow_mut().drain().collect();
        let Some(incarnation) = self.life.incarnation().filter(|_| !rooms.is_empty()) else { return };
        let (shard, life) = (Rc::clone(self), self.life.number());
        tokio::task::spawn_local(async move {
            for page in rooms.chunks(MAX_PAGE) {
                if shard.parts.broker.release(&incarnation, page).await.is_err() && shard.life.number() == life {
                    // It may have taken effect, and late: who came back meanwhile is held once more.
                    let is_back = |room: &&RoomName| shard.home(room).is_some();
                    let (back, gone): (Vec<_>, Vec<_>) = page.iter().partition(is_back);
                    shard.life.let_go.borrow_mut().extend(gone.into_iter().cloned());
                    let back: Vec<RoomName> = back.into_iter().cloned().collect();
                    shard.hold_all(life, &incarnation, &back).await;
                }
            }
        });
    }
}

impl Movement {
    /// A member that is here already, and that the broker may have lost.
    pub(super) fn again(from: Address, member: Member) -> Self {
        Self { restored: Some(from), ..Self::new(PresenceOp::Enter(member)) }
    }
}
