//! Who is in a room: the home tells the broker who came and went, and its members what all nodes say.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::rc::Rc;

use roomcast_protocol::{ClientId, MemberFields, Mode, PresenceKind, RoomName, presence_frame};

use super::home::{Doubt, Home, Movement, Phase, State};
use super::mail::{JoinRequest, Mail};
use super::shard::Shard;
use crate::broker::{BrokerError, Member, Moved, PresenceEvent, PresenceOp, PresenceReply};

/// Most comings and goings of one broker call.
const MOST_AT_ONCE: usize = 256;

impl Shard {
    pub(super) fn take_leave(&self, room: &RoomName, member: Member, worker: usize) {
        let Some(home) = self.home(room) else { return };
        let mut state = home.state.borrow_mut();
        state.seats[worker] = state.seats[worker].saturating_sub(1);
        if state.seated() == 0 {
            state.empty_since = Some(self.tick.get());
        }
        state.roll.movements.push_back(Movement::new(PresenceOp::Leave(member)));
        drop(state);
        self.turn.due(&home);
    }

    /// Tells the broker what came together in this turn, one call at a time for each room.
    pub(super) fn run_movements(self: &Rc<Self>, home: &Rc<Home>) {
        let mut state = home.state.borrow_mut();
        let roll = &mut state.roll;
        if roll.calling || roll.resting || roll.movements.is_empty() || state.phase == Phase::Opening {
            return;
        }
        let roll = &mut state.roll;
        roll.calling = true;
        // The list itself is taken too: rooms in which nobody comes or goes keep none.
        let rest = roll.movements.split_off(roll.movements.len().min(MOST_AT_ONCE));
        let movements: Vec<Movement> = std::mem::replace(&mut roll.movements, rest).into();
        drop(state);
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            let ops: Vec<PresenceOp> = movements.iter().map(|movement| movement.op.clone()).collect();
            let joins = movements.iter().any(|movement| movement.join.is_some());
            let wanted = if joins { shard.parts.settings.members_cap } else { 0 };
            let result = shard.tell_broker(&home, &ops, wanted).await;
            home.state.borrow_mut().roll.calling = false;
            match result {
                Ok((reply, life)) => shard.moved(&home, movements, &reply, life),
                Err(error) => shard.not_moved(&home, movements, &error),
            }
            shard.turn.due(&home);
        });
    }

    fn moved(self: &Rc<Self>, home: &Rc<Home>, movements: Vec<Movement>, reply: &PresenceReply, life: u32) {
        let mut state = home.state.borrow_mut();
        let outcomes = || movements.iter().zip(&reply.outcomes);
        let news =
            outcomes().filter(|(movement, outcome)| movement.is_news(**outcome)).map(|(movement, _)| &movement.op);
        self.announce(home, &mut state, reply.version, reply.online, news);
        drop(state);
        home.tell_moves(&movements, reply);
        let mut joins = Vec::new();
        for (movement, outcome) in movements.into_iter().zip(&reply.outcomes) {
            let taken = *outcome == Moved::NameTaken;
            if let Some(claim) = movement.claim {
                // Who asked may have gone.
                let _ = claim.send(Ok(*outcome));
            }
            match (movement.join, movement.restored) {
                (Some(join), _) if taken => self.refuse_name(&join),
                (Some(join), _) => joins.push(JoinRequest { life, ..join }),
                (None, Some(to)) if taken => self.send(to.worker, Mail::Expel { to }),
                (None, _) => {}
            }
        }
        self.seat(home, joins, &reply.members);
    }

    /// Joins of durable rooms fail; those of ephemeral rooms go on with what this node knows. Goings are told later. That
    /// holds for those behind the failed call, too: nobody waits for a broker that is away.
    fn not_moved(self: &Rc<Self>, home: &Rc<Home>, movements: Vec<Movement>, error: &BrokerError) {
        tracing::debug!(room = %home.name, %error, "presence call failed");
        let told = if matches!(error, BrokerError::Undecided(_)) { movements.len() } else { 0 };
        let behind = std::mem::take(&mut home.state.borrow_mut().roll.movements);
        let mut seated = Vec::new();
        let mut again = Vec::new();
        for (index, mut movement) in movements.into_iter().chain(behind).enumerate() {
            if index < told {
                movement.known = true;
                movement.doubt = movement.doubted();
            }
            match movement.join.take() {
                None => match movement.claim.take() {
                    Some(claim) => _ = claim.send(Err(error.clone())),
                    None => again.push(movement),
                },
                Some(join) if home.policy.mode == Mode::Ephemeral => {
                    again.push(Movement { told: true, ..movement });
                    seated.push(JoinRequest { life: self.life.number(), ..join });
                }
                Some(join) => {
                    if movement.known {
                        let op = PresenceOp::Leave(join.member.clone());
                        again.push(Movement { doubt: movement.doubt, ..Movement::new(op) });
                    }
                    self.refuse_join(&join, error);
                }
            }
        }
        let mut state = home.state.borrow_mut();
        state.roll.resting = true;
        state.roll.movements = last_words(again);
        self.announce_alone(home, &mut state, &seated);
        drop(state);
        let members: Vec<Member> = seated.iter().map(|join| join.member.clone()).collect();
        self.seat(home, seated, &members);
    }

    /// A join that was told to the broker and then failed: tells it that the client is gone.
    pub(super) fn take_back(&self, home: &Rc<Home>, join: &JoinRequest) {
        let op = PresenceOp::Leave(join.member.clone());
        home.state.borrow_mut().roll.movements.push_back(Movement::new(op));
        self.turn.due(home);
    }

    /// Without the broker, `online` counts the members of this node.
    fn announce_alone(&self, home: &Rc<Home>, state: &mut State, joins: &[JoinRequest]) {
        if joins.is_empty() {
            return;
        }
        let online = u64::from(state.seated()) + joins.len() as u64;
        state.roll.online = online;
        if online > self.parts.settings.presence_fold_above {
            state.roll.count_due = true;
            return;
        }
        for join in joins {
            let member = Some(join.member.fields());
            tell(home, state, PresenceKind::Join, member, online);
        }
        self.turn.due(home);
    }

    pub(super) fn take_presence(&self, event: &PresenceEvent) {
        if event.node == self.parts.node {
            return;
        }
        let Some(home) = self.home(&event.room) else { return };
        let mut state = home.state.borrow_mut();
        self.announce(&home, &mut state, event.version, event.online, event.ops.iter());
        drop(state);
        self.turn.due(&home);
    }

    /// Collects what members are told: each coming and going in small rooms, a count now and then in large ones.
    fn announce<'a>(
        &self,
        home: &Home,
        state: &mut State,
        version: u64,
        online: u64,
        ops: impl Iterator<Item = &'a PresenceOp>,
    ) {
        let roll = &mut state.roll;
        if version > roll.version {
            roll.version = version;
            roll.online = online;
        }
        let online = roll.online;
        if online > self.parts.settings.presence_fold_above {
            roll.count_due = true;
            return;
        }
        for op in ops {
            let kind = match op {
                PresenceOp::Enter(_) => PresenceKind::Join,
                PresenceOp::Leave(_) => PresenceKind::Leave,
                PresenceOp::Rename(_) => PresenceKind::Rename,
            };
            tell(home, state, kind, Some(op.member().fields()), online);
        }
    }

    /// Once a second: counts that are due, presence calls to try again, rooms to let go.
    pub(super) fn tend_home(&self, home: &Rc<Home>) {
        let mut state = home.state.borrow_mut();
        let retry = std::mem::take(&mut state.roll.resting) && !state.roll.movements.is_empty();
        let count = std::mem::take(&mut state.roll.count_due);
        if count {
            let online = state.roll.online;
            state.builder.frame(&presence_frame(&home.name, PresenceKind::Count, None, online));
        }
        drop(state);
        if retry || count {
            self.turn.due(home);
        }
    }
}

/// Tells the members what one did, and those who may not know who is there only how many are.
fn tell(home: &Home, state: &mut State, kind: PresenceKind, member: Option<MemberFields<'_>>, online: u64) {
    let count = presence_frame(&home.name, PresenceKind::Count, None, online);
    state.builder.frame_for_seeing(&presence_frame(&home.name, kind, member, online), &count);
}

/// What is left to be told after a failed call: one word about each client, and none about those who came and went
/// meanwhile. So a long outage costs no more than the members there were and are.
fn last_words(movements: Vec<Movement>) -> VecDeque<Movement> {
    let mut words: Vec<Option<Movement>> = Vec::with_capacity(movements.len());
    let mut places = HashMap::with_capacity(movements.len());
    for movement in movements {
        match places.entry(movement.client()) {
            Entry::Vacant(place) => {
                place.insert(words.len());
                words.push(Some(movement));
            }
            Entry::Occupied(place) => {
                let word = &mut words[*place.get()];
                *word = match word.take() {
                    Some(before) => before.then(movement),
                    None => Some(movement),
                };
            }
        }
    }
    words.into_iter().flatten().collect()
}

impl Movement {
    /// Whether the members here are to be told. Who enters anew is news only to those who were told of a leave.
    fn is_news(&self, outcome: Moved) -> bool {
        match outcome {
            Moved::Changed | Moved::Renamed => !(self.told && matches!(self.op, PresenceOp::Enter(_))),
            Moved::Same => self.restored.is_none() && !self.told,
            Moved::NameTaken => false,
        }
    }

    /// What is not known once a call with it was not answered.
    fn doubted(&self) -> Doubt {
        match (self.doubt, &self.op) {
            (Doubt::None, PresenceOp::Enter(_)) => Doubt::Entered,
            (Doubt::None, PresenceOp::Leave(_)) => Doubt::Left,
            (doubt, _) => doubt,
        }
    }

    fn client(&self) -> ClientId {
        self.op.member().id
    }

    /// This and the same client's next movement in one, if anything is left of them.
    fn then(self, next: Self) -> Option<Self> {
        let known = self.known || !matches!(self.op, PresenceOp::Enter(_));
        let op = match (self.op, next.op) {
            (PresenceOp::Enter(_), PresenceOp::Leave(_)) if !known => return None,
            (PresenceOp::Enter(_), PresenceOp::Rename(member)) => PresenceOp::Enter(member),
            (leave @ PresenceOp::Leave(_), PresenceOp::Rename(_)) => leave,
            (_, op) => op,
        };
        let doubt = if self.doubt == Doubt::None { next.doubt } else { self.doubt };
        Some(Self { op, join: next.join, known, told: false, restored: next.restored, claim: next.claim, doubt })
    }
}
