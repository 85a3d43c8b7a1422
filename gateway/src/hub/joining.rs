//! Joining at a room's home: opening the room, and giving a new member its place in the room's order.

use std::rc::Rc;

use roomcast_protocol::{
    ErrorCode, JoinedHead, MessageHead, Recovery, Since, error_frame, joined_frame, member_list, message_frame,
    message_list,
};

use super::home::{Home, Movement, Phase, State};
use super::mail::{JoinRequest, Mail};
use super::publish::refusal;
use super::shard::{Shard, text_frame};
use crate::broker::{BrokerError, History, Member, PresenceOp, Range, Sequenced};

/// Messages of one read for a resume.
const PAGE: usize = 1024;

/// What a joiner is told about the past.
struct Past {
    recovery: Recovery,
    /// A JSON list.
    messages: Vec<u8>,
}

/// One stored message as the JSON of a `message` frame.
pub(super) fn message_json(room: &roomcast_protocol::RoomName, message: &Sequenced) -> Vec<u8> {
    let record = &message.record;
    let position = Some((&message.term, message.seq));
    let head = MessageHead { room, position, id: &record.id, from: record.from, name: &record.name, ts: message.ts };
    let mut json = Vec::with_capacity(record.data.len() + 256);
    message_frame(&head, &record.data, &mut json);
    json
}

impl Shard {
    pub(super) fn take_join(self: &Rc<Self>, request: JoinRequest) {
        let home = self.home_or_new(&request.room);
        let op = PresenceOp::Enter { client: request.from.client, name: request.name.clone() };
        let mut state = home.state.borrow_mut();
        state.empty_since = None;
        state.roll.movements.push_back(Movement { op, join: Some(request), known: false });
        let phase = state.phase;
        drop(state);
        match phase {
            Phase::Closed => self.open(&home),
            Phase::Opening => {}
            Phase::Open => self.turn.due(&home),
        }
    }

    fn home_or_new(&self, name: &roomcast_protocol::RoomName) -> Rc<Home> {
        if let Some(home) = self.home(name) {
            return home;
        }
        let settings = &self.parts.settings;
        let policy = settings.rooms.policy(name);
        let workers = self.parts.post.workers();
        let home = Home::new(name.clone(), policy, self.room(name), workers, settings.join_history);
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
        let subscribed = broker.subscribe(&home.name).await;
        if !home.is_durable() {
            // An ephemeral room works on this node alone until the broker is back.
            return Ok(None);
        }
        subscribed?;
        broker.history(&home.name, Range::Latest { limit: self.parts.settings.join_history }).await.map(Some)
    }

    fn opened(self: &Rc<Self>, home: &Rc<Home>, history: Option<History>) {
        let mut state = home.state.borrow_mut();
        state.phase = Phase::Open;
        if let Some(history) = history {
            state.sequencer.start(history.term, history.top);
            for message in &history.messages {
                let json = message_json(&home.name, message);
                state.recent.push(message.seq, json.into());
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
        let frame = text_frame(&error_frame(join.reference.as_deref(), code, words));
        self.send(join.from.worker, Mail::Answer { to: join.from, frame });
    }

    /// Gives seats to joiners whose presence is known, `members` being some of who is there now.
    pub(super) fn seat(self: &Rc<Self>, home: &Rc<Home>, joins: Vec<JoinRequest>, members: &[Member]) {
        if joins.is_empty() {
            return;
        }
        let list = Rc::new(member_list(members.iter().map(|member| (member.id, &*member.name))));
        for join in joins {
            // Whatever was collected before goes to the old members and into the recent messages first.
            self.seal(home);
            let past = self.past(&home.state.borrow(), join.since.as_ref());
            match past {
                Ok(past) => self.seat_one(home, &join, &past, &list),
                Err(since) => self.resume_from_stream(home, join, since, Rc::clone(&list)),
            }
        }
    }

    fn seat_one(&self, home: &Rc<Home>, join: &JoinRequest, past: &Past, members: &[u8]) {
        let mut state = home.state.borrow_mut();
        let durable = home.is_durable();
        let head = JoinedHead {
            room: &home.name,
            mode: home.policy.mode,
            term: state.sequencer.term().filter(|_| durable),
            seq: durable.then(|| state.sequencer.last()),
            recovery: past.recovery,
            online: state.roll.online,
        };
        let frame = text_frame(&joined_frame(join.reference.as_deref(), &head, members, &past.messages));
        state.seats[join.from.worker] += 1;
        drop(state);
        let (room, name, to) = (home.name.clone(), join.name.clone(), join.from);
        if to.worker == self.parts.index {
            // At once: batches reach the members at home without mail, and the next one may be sealed before mail is.
            self.admit(to, &room, name, frame);
        } else {
            self.send(to.worker, Mail::Admit { to, room, name, frame });
        }
    }

    /// Bytes of messages one `joined` frame may carry: half of what a connection may have queued.
    pub(super) fn replay_bytes(&self) -> usize {
        self.parts.settings.outbound_queue_bytes / 2
    }

    /// What a joiner is told, or the seq from which the stream must be read for it.
    fn past(&self, state: &State, since: Option<&Since>) -> Result<Past, u64> {
        let fresh = |recovery| Past { recovery, messages: self.newest(state) };
        let Some(since) = since else { return Ok(fresh(Recovery::Fresh)) };
        let (term, last) = (state.sequencer.term(), state.sequencer.last());
        if term != Some(&since.term) {
            return Ok(fresh(Recovery::UnknownTerm));
        }
        if since.seq > last {
            return Ok(fresh(Recovery::Diverged));
        }
        if since.seq == last {
            return Ok(Past { recovery: Recovery::Resumed, messages: b"[]".to_vec() });
        }
        let Some(missed) = state.recent.after(since.seq) else { return Err(since.seq) };
        let messages = message_list(missed);
        if messages.len() > self.replay_bytes() {
            return Ok(fresh(Recovery::Gap));
        }
        Ok(Past { recovery: Recovery::Resumed, messages })
    }

    /// The newest messages that fit a frame.
    fn newest(&self, state: &State) -> Vec<u8> {
        let mut bytes: usize = state.recent.all().map(|json| json.len() + 1).sum();
        let most = self.replay_bytes();
        message_list(state.recent.all().skip_while(|json| {
            let skip = bytes > most;
            bytes -= json.len() + 1;
            skip
        }))
    }

    /// A resume from further back than what is kept here: one read, then the seat.
    fn resume_from_stream(self: &Rc<Self>, home: &Rc<Home>, join: JoinRequest, since: u64, members: Rc<Vec<u8>>) {
        home.state.borrow_mut().resuming += 1;
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            let read = shard.parts.broker.history(&home.name, Range::After { seq: since, limit: PAGE }).await;
            shard.seal(&home);
            // Meanwhile the room may have begun a new term, or gone back.
            let past = shard.past(&home.state.borrow(), join.since.as_ref());
            let past = past.unwrap_or_else(|_| shard.joined_past(&home.state.borrow(), &home, since, read));
            shard.seat_one(&home, &join, &past, &members);
            home.state.borrow_mut().resuming -= 1;
            shard.turn.due(&home);
        });
    }

    /// Joins what the stream holds behind `since` with what came meanwhile, without gap or repeat.
    fn joined_past(&self, state: &State, home: &Home, since: u64, read: Result<History, BrokerError>) -> Past {
        let last = state.sequencer.last();
        let gap = || Past { recovery: Recovery::Gap, messages: self.newest(state) };
        let Ok(history) = read else { return gap() };
        let mut next = since + 1;
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for message in history.messages.iter().filter(|message| message.seq <= last) {
            if message.seq != next {
                return gap();
            }
            messages.push(message_json(&home.name, message));
            next += 1;
        }
        if next <= last {
            match state.recent.after(next - 1) {
                Some(rest) => messages.extend(rest.map(<[u8]>::to_vec)),
                None => return gap(),
            }
        }
        let replay = message_list(messages.iter().map(Vec::as_slice));
        if replay.len() > self.replay_bytes() { gap() } else { Past { recovery: Recovery::Resumed, messages: replay } }
    }
}
