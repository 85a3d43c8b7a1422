//! What is told to webhooks of a room's comings, goings and messages: each fact by the node that made it take effect, as
//! the broker's answer says. Called by the homes and by takeovers; off, it is one branch.
//!
//! A call that was not answered leaves a doubt. Comings and goings are told to the broker again until it answers, and
//! then show whether the first try took effect; a message shows when it comes back over the bus or is read.

use std::collections::VecDeque;
use std::time::Duration;

use roomcast_protocol::{ClientId, MemberFields, RoomName, Term};
use tokio::time::Instant;

use super::home::{Doubt, Home, Movement, State};
use super::mail::PublishRequest;
use super::shard::Shard;
use crate::broker::{
    BrokerError, Evicted, MessageId, Moved, Outcome, PresenceOp, PresenceReply, Published, Record, Sequenced,
};
use crate::events::{EventKind, Message, Position, RoomEvents};

/// Messages of one room whose storing may still show.
const MOST_DOUBTED: usize = 1024;
/// How long it may take to show: longer than clients retry, and than most outages last.
const LONGEST_DOUBT: Duration = Duration::from_hours(1);

/// Messages of one room that may have been stored without an answer.
#[derive(Default)]
pub(super) struct Doubts {
    /// The oldest first.
    open: VecDeque<Doubted>,
    /// Those that came over the bus before the answer to the call under way.
    shown: Vec<Sequenced>,
}

struct Doubted {
    from: ClientId,
    id: MessageId,
    since: Instant,
}

impl Doubts {
    /// However often a message was tried, it is in doubt once.
    fn add(&mut self, record: &Record) {
        self.clear(record);
        if self.open.len() >= MOST_DOUBTED {
            self.open.pop_front();
        }
        self.open.push_back(Doubted { from: record.from, id: record.id.clone(), since: Instant::now() });
    }

    /// A message of the call under way that is known to be stored.
    fn take_shown(&mut self, record: &Record) -> Option<Sequenced> {
        let is_it = |shown: &Sequenced| shown.record.from == record.from && shown.record.id == record.id;
        let at = self.shown.iter().position(is_it)?;
        Some(self.shown.swap_remove(at))
    }

    /// The call under way is over.
    pub(super) fn end_call(&mut self) {
        self.shown = Vec::new();
    }

    /// Whether a message was in doubt; it no longer is.
    fn clear(&mut self, record: &Record) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let now = Instant::now();
        while self.open.front().is_some_and(|oldest| now.duration_since(oldest.since) >= LONGEST_DOUBT) {
            self.open.pop_front();
        }
        let found = self.open.iter().position(|doubted| doubted.from == record.from && doubted.id == record.id);
        found.is_some_and(|at| self.open.remove(at).is_some())
    }
}

impl Shard {
    /// Tells whom this node removed behind a dead one.
    pub(super) fn tell_gone(&self, room: &RoomName, evicted: &Evicted) {
        if evicted.gone.is_empty() {
            return;
        }
        let events = self.parts.events.of(room);
        let position = Position { version: evicted.version, online: evicted.online };
        for member in &evicted.gone {
            events.left(member.fields(), position, true);
        }
        if evicted.before > 0 && evicted.online == 0 {
            events.vacated(evicted.version);
        }
    }

    /// Tells of a message for a room that is not open here: what the broker said, or none where nothing is stored.
    pub(super) fn tell_posted(&self, request: &PublishRequest, published: Option<&Published>) {
        let (events, record) = (self.parts.events.of(&request.room), &request.record);
        match published.map(|published| (published, published.outcomes.first())) {
            None => tell(&events, record, None, record.accepted_at_us / 1000),
            Some((published, Some(Outcome::Stored { seq }))) => {
                tell(&events, record, Some((&published.term, *seq)), published.ts);
            }
            Some(_) => {}
        }
    }
}

impl Home {
    /// Tells who came and went by one call.
    pub(super) fn tell_moves(&self, movements: &[Movement], reply: &PresenceReply) {
        let events = &self.events;
        if !events.is_on() {
            return;
        }
        tell_late(events, movements, reply);
        let position = Position { version: reply.version, online: reply.online };
        if reply.before == 0 && reply.online > 0 {
            events.occupied(reply.version);
        }
        for (movement, outcome) in movements.iter().zip(&reply.outcomes) {
            match (&movement.op, outcome) {
                (PresenceOp::Enter(member), Moved::Changed) => {
                    events.joined(member.fields(), position, movement.restored.is_some());
                }
                (PresenceOp::Leave(member), Moved::Changed) => events.left(member.fields(), position, false),
                _ => {}
            }
        }
        if reply.before > 0 && reply.online == 0 {
            events.vacated(reply.version);
        }
    }

    /// Tells of a message that this node published.
    pub(super) fn tell_message(&self, record: &Record, position: Option<(&Term, u64)>, ts: u64) {
        tell(&self.events, record, position, ts);
    }

    /// Tells of a message that was stored now, or turns out to have been by an earlier try of this node.
    pub(super) fn tell_outcome(&self, record: &Record, published: &Published, outcome: &Outcome) {
        if !self.events.wants(EventKind::MessagePublished) {
            return;
        }
        let was_doubted = self.state.borrow_mut().doubts.clear(record);
        match outcome {
            Outcome::Stored { seq } => self.tell_message(record, Some((&published.term, *seq)), published.ts),
            Outcome::Duplicate { term, seq } if was_doubted => {
                self.tell_message(record, Some((term, *seq)), published.ts);
            }
            Outcome::Known if was_doubted => self.tell_message(record, None, published.ts),
            _ => {}
        }
    }

    /// Remembers a message that may have been stored, if the error says so; one that has shown is told now.
    pub(super) fn doubt(&self, record: &Record, error: &BrokerError) {
        if !matches!(error, BrokerError::Undecided(_)) || !self.events.wants(EventKind::MessagePublished) {
            return;
        }
        let doubts = &mut self.state.borrow_mut().doubts;
        match doubts.take_shown(record) {
            Some(Sequenced { record, term, seq, ts, .. }) => {
                self.tell_message(&record, Some((&term, seq)), ts);
            }
            None => doubts.add(record),
        }
    }

    /// A message that is in the room's order: had it been in doubt, it is told now.
    pub(super) fn tell_if_doubted(&self, state: &mut State, message: &Sequenced, own: bool) {
        // Of what no session sent only the node can say whose try it was.
        let may_be_ours = own || message.record.from != ClientId::NOBODY;
        if may_be_ours && state.doubts.clear(&message.record) {
            self.tell_message(&message.record, Some((&message.term, message.seq)), message.ts);
        } else if own && state.publishing && self.events.wants(EventKind::MessagePublished) {
            // The answer will tell it, if one comes.
            state.doubts.shown.push(message.clone());
        }
    }
}

fn tell(events: &RoomEvents, record: &Record, position: Option<(&Term, u64)>, ts: u64) {
    if events.wants(EventKind::MessagePublished) {
        let from = MemberFields { id: record.from, name: &record.name, user: record.user.as_deref(), info: None };
        events.published(&Message { id: &record.id, position, ts, from, data: &record.data });
    }
}

/// What an earlier call, which was not answered, turns out to have done.
fn tell_late(events: &RoomEvents, movements: &[Movement], reply: &PresenceReply) {
    if movements.iter().all(|movement| movement.doubt == Doubt::None) {
        return;
    }
    let position = Position { version: reply.version, online: reply.before };
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for (movement, outcome) in movements.iter().zip(&reply.outcomes) {
        match (&movement.op, movement.doubt, outcome) {
            (PresenceOp::Enter(member), Doubt::Entered, Moved::Same | Moved::Renamed)
            | (PresenceOp::Leave(member), Doubt::Entered, Moved::Changed) => {
                came.push((member.fields(), movement.restored.is_some()));
            }
            (PresenceOp::Leave(member), Doubt::Left, Moved::Same)
            | (PresenceOp::Enter(member), Doubt::Left, Moved::Changed) => went.push(member.fields()),
            _ => {}
        }
    }
    if !came.is_empty() && reply.before == came.len() as u64 {
        events.occupied(reply.version);
    }
    for &(who, restored) in &came {
        events.joined(who, position, restored);
    }
    for &who in &went {
        events.left(who, position, false);
    }
    if !went.is_empty() && reply.before == 0 {
        events.vacated(reply.version);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn record(from: ClientId, id: &str) -> Record {
        Record { from, ..Record::sample(id, "1") }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_tried_often_is_told_once() {
        let (ann, bob) = (ClientId::random(), ClientId::random());
        let mut doubts = Doubts::default();
        for _ in 0..3 {
            doubts.add(&record(ann, "m"));
        }
        assert!(!doubts.clear(&record(bob, "m")) && !doubts.clear(&record(ann, "other")));
        assert!(doubts.clear(&record(ann, "m")));
        assert!(!doubts.clear(&record(ann, "m")), "it is known now");
    }

    #[tokio::test(start_paused = true)]
    async fn doubts_are_few_and_lapse() {
        let ann = ClientId::random();
        let mut doubts = Doubts::default();
        for number in 0..=MOST_DOUBTED {
            doubts.add(&record(ann, &number.to_string()));
        }
        assert!(!doubts.clear(&record(ann, "0")) && doubts.clear(&record(ann, "1")), "the oldest went");
        advance(LONGEST_DOUBT / 2).await;
        doubts.add(&record(ann, "later"));
        advance(LONGEST_DOUBT / 2).await;
        assert!(!doubts.clear(&record(ann, "2")));
        assert_eq!(doubts.open.len(), 1, "what lapsed is forgotten");
        assert!(doubts.clear(&record(ann, "later")));
    }
}
