//! Joining at a room's home: opening the room, and giving a new member its place in the room's order.

use std::rc::Rc;

use bytes::Bytes;
use roomcast_protocol::{ErrorCode, MessageHead, RoomName, Term, member_list, message_frame};

use super::home::{Home, Movement, Phase};
use super::mail::{JoinRequest, Mail};
use super::naming::NAME_TAKEN;
use super::publish::refusal;
use super::shard::Shard;
use crate::broker::{BrokerError, History, Member, PresenceOp, Range, Record, Sequenced};

/// All of a `message` frame but its data.
pub(super) fn head_of<'a>(
    room: &'a RoomName,
    record: &'a Record,
    position: Option<(&'a Term, u64)>,
    ts: u64,
) -> MessageHead<'a> {
    let Record { id, from, name, user, .. } = record;
    MessageHead { room, position, id, from: *from, name, user: user.as_deref(), ts }
}

/// One stored message as the JSON of a `message` frame.
pub(super) fn message_json(room: &RoomName, message: &Sequenced) -> Vec<u8> {
    let record = &message.record;
    let position = Some((&message.term, message.seq));
    let head = head_of(room, record, position, message.ts);
    let mut json = Vec::with_capacity(record.data.len() + 256);
    message_frame(&head, &record.data, &mut json);
    json
}

impl Shard {
    pub(super) fn take_join(self: &Rc<Self>, request: JoinRequest) {
        let home = self.home_or_new(&request.room);
        let op = PresenceOp::Enter(request.member.clone());
        let mut state = home.state.borrow_mut();
        state.empty_since = None;
        state.roll.movements.push_back(Movement { join: Some(request), known: false, ..Movement::new(op) });
        let phase = state.phase;
        drop(state);
        match phase {
            Phase::Closed => self.open(&home),
            Phase::Opening => {}
            Phase::Open => self.turn.due(&home),
        }
    }

    fn home_or_new(&self, name: &RoomName) -> Rc<Home> {
        if let Some(home) = self.home(name) {
            return home;
        }
        let settings = &self.parts.settings;
        let policy = settings.rooms.policy(name);
        let workers = self.parts.post.workers();
        let events = self.parts.events.of(name);
        let home = Home::new(name.clone(), policy, self.room(name), workers, settings.join_history, events);
        self.homes.borrow_mut().insert(name.clone(), Rc::clone(&home));
        home
    }

    /// Subscribes, then reads where the room stands; whatever the bus brings in between is kept.
    fn open(self: &Rc<Self>, home: &Rc<Home>) {
        home.state.borrow_mut().phase = Phase::Opening;
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            match shard.connect_room(&home).await {
                Ok(history) => shard.opened(&home, history),
                Err(error) => shard.not_opened(&home, &error),
            }
            shard.turn.due(&home);
        });
    }

    async fn connect_room(&self, home: &Home) -> Result<Option<History>, BrokerError> {
        let broker = &self.parts.broker;
        let _turn = self.calls.acquire().await;
        let subscribed = broker.subscribe(&home.name).await;
        if !home.is_durable() {
            // An ephemeral room works on this node alone until the broker is back.
            return Ok(None);
        }
        subscribed?;
        self.read(&home.name, Range::Latest { limit: self.parts.settings.join_history }).await.map(Some)
    }

    fn opened(self: &Rc<Self>, home: &Rc<Home>, history: Option<History>) {
        let mut state = home.state.borrow_mut();
        state.phase = Phase::Open;
        if let Some(mut history) = history {
            let messages = std::mem::take(&mut history.messages);
            state.oldest = history.first;
            state.sequencer.start(history);
            let mut next = None;
            for message in &messages {
                // A run that ends at the top: what stands before a hole does not belong to it.
                if next.is_some_and(|next| next != message.seq) {
                    state.recent.clear();
                }
                next = Some(message.seq + 1);
                state.recent.push(message.seq, message_json(&home.name, message).into());
            }
            if next.is_some_and(|next| next != state.sequencer.last() + 1) {
                state.recent.clear();
            }
        }
        let early = std::mem::take(&mut state.early);
        let missed = std::mem::take(&mut state.missed_early);
        drop(state);
        for envelope in early {
            self.take_open(home, envelope);
        }
        if missed && home.is_durable() {
            let (shard, home) = (Rc::clone(self), Rc::clone(home));
            tokio::task::spawn_local(async move { shard.repair(&home).await });
        }
    }

    fn not_opened(&self, home: &Rc<Home>, error: &BrokerError) {
        tracing::debug!(room = %home.name, %error, "room could not be opened");
        self.parts.broker.unsubscribe(&home.name);
        let mut state = home.state.borrow_mut();
        state.phase = Phase::Closed;
        state.early.clear();
        state.missed_early = false;
        state.empty_since = Some(self.tick.get());
        let movements = std::mem::take(&mut state.roll.movements);
        drop(state);
        for join in movements.into_iter().filter_map(|movement| movement.join) {
            self.refuse_join(&join, error);
        }
    }

    pub(super) fn refuse_join(&self, join: &JoinRequest, error: &BrokerError) {
        let (code, _, words) = refusal(error);
        // A join that was not answered has not happened: what it left behind is taken back.
        let code = if code == ErrorCode::Undecided { ErrorCode::BrokerUnavailable } else { code };
        let frame = self.error(join.reference.as_deref(), code, words);
        self.decline_join(join, Some(frame));
    }

    /// Tells the joiner's worker that it gets no seat.
    pub(super) fn decline_join(&self, join: &JoinRequest, frame: Option<Bytes>) {
        self.send(join.from.worker, Mail::Decline { to: join.from, room: join.room.clone(), frame });
    }

    pub(super) fn refuse_name(&self, join: &JoinRequest) {
        let frame = self.error(join.reference.as_deref(), ErrorCode::NameTaken, NAME_TAKEN);
        self.decline_join(join, Some(frame));
    }

    /// Gives seats to joiners whose presence is known, `members` being some of who is there now.
    pub(super) fn seat(self: &Rc<Self>, home: &Rc<Home>, joins: Vec<JoinRequest>, members: &[Member]) {
        if joins.is_empty() {
            return;
        }
        // Half of what fits is for messages.
        let (list, _) = member_list(members.iter().map(Member::fields), self.replay_bytes() / 2);
        let list = Rc::new(list);
        for join in joins {
            // Whatever was collected before goes to the old members and into the recent messages first.
            self.seal(home);
            self.bring_up(home, join, &list);
        }
    }

    /// Makes the joiner a member, with its last frame before what comes live. To be called right behind a seal.
    pub(super) fn seat_one(&self, home: &Rc<Home>, join: &JoinRequest, frame: Bytes) {
        let mut state = home.state.borrow_mut();
        state.seats[join.from.worker] += 1;
        if join.life != self.life.number() {
            // The broker knows of it under a life that has ended since.
            state.roll.movements.push_back(Movement::again(join.from, join.member.clone()));
            self.turn.due(home);
        }
        drop(state);
        let (room, member, to) = (home.name.clone(), join.member.clone(), join.from);
        if to.worker == self.parts.index {
            // At once: batches reach the members at home without mail, and the next one may be sealed before mail is.
            self.admit(to, &room, member, frame);
        } else {
            self.send(to.worker, Mail::Admit { to, room, member, frame });
        }
    }
}
