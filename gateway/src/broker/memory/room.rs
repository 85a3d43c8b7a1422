//! One room of the memory broker. Used under its shard's lock; knows neither locks nor channels beyond holding them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use roomcast_protocol::{ClientId, Term};

use super::Peer;
use super::ids::Ids;
use crate::broker::{
    Boundary, History, Incarnation, Member, MembersPage, Moved, Outcome, PresenceCall, PresenceOp, Published, Range,
    Record, Sequenced, Subject, Top,
};
use crate::config::RoomPolicy;

/// Most ended terms remembered per room.
const MAX_ENDED: usize = 16;

#[derive(Default)]
pub(super) struct Room {
    pub(super) subscribers: Vec<Arc<Peer>>,
    /// Ordered, so that pages are exact. With the life of the node each came through.
    pub(super) members: BTreeMap<ClientId, (Incarnation, Member)>,
    /// Who has which name; only where names are unique.
    names: HashMap<Arc<str>, ClientId>,
    version: u64,
    log: Option<Log>,
    ids: Ids,
}

struct Log {
    term: Term,
    start: u64,
    ended: VecDeque<Boundary>,
    /// The next publish begins a new term.
    is_stale: bool,
    top: u64,
    messages: VecDeque<Sequenced>,
    expires: Instant,
}

impl Log {
    fn new(now: Instant) -> Self {
        let (ended, messages) = (VecDeque::new(), VecDeque::new());
        Self { term: Term::random(), start: 1, ended, is_stale: false, top: 0, messages, expires: now }
    }

    /// Ends the term where it is now.
    fn renew(&mut self) {
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        let term = std::mem::replace(&mut self.term, Term::random());
        self.ended.push_back(Boundary { term, start: self.start, end: self.top });
        (self.start, self.is_stale) = (self.top + 1, false);
    }
}

impl Room {
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.members.is_empty() && self.log.is_none() && self.ids.is_empty()
    }

    /// True if it was not subscribed before.
    pub(super) fn subscribe(&mut self, peer: &Arc<Peer>) -> bool {
        let new = !self.subscribers.iter().any(|other| Arc::ptr_eq(other, peer));
        if new {
            self.subscribers.push(Arc::clone(peer));
        }
        new
    }

    /// True if it was subscribed.
    pub(super) fn unsubscribe(&mut self, peer: &Arc<Peer>) -> bool {
        let before = self.subscribers.len();
        self.subscribers.retain(|other| !Arc::ptr_eq(other, peer));
        self.subscribers.len() < before
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.log.as_ref().is_some_and(|log| log.expires <= now) {
            self.log = None;
        }
        self.ids.expire(now);
    }

    /// As if the room's data were restored from when `top` was its last seq; none: as if it were lost. Memory does not
    /// do that by itself.
    #[cfg(test)]
    pub(super) fn restore(&mut self, top: Option<u64>) {
        self.log = self.log.take().filter(|_| top.is_some());
        if let (Some(log), Some(top)) = (&mut self.log, top) {
            log.messages.retain(|message| message.seq <= top);
            (log.top, log.is_stale) = (top, true);
        }
        self.ids.forget_behind(top.unwrap_or(0));
    }

    /// The ids that are remembered now, to be put back with [`Room::put_back`].
    #[cfg(test)]
    pub(super) fn ids(&self) -> Ids {
        self.ids.clone()
    }

    #[cfg(test)]
    pub(super) fn put_back(&mut self, ids: Ids) {
        self.ids = ids;
    }

    /// Stores what is new. Returns that, too, with its first seq.
    pub(super) fn publish(
        &mut self,
        policy: &RoomPolicy,
        records: &[Record],
        ts: u64,
        now: Instant,
    ) -> (Published, Option<(u64, Vec<Record>)>) {
        let mut log = self.log.take().unwrap_or_else(|| Log::new(now));
        if log.is_stale && records.iter().any(|record| self.ids.recall(record, now).is_none()) {
            log.renew();
        }
        let first_seq = log.top + 1;
        let mut new = Vec::with_capacity(records.len());
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            if let Some(outcome) = self.ids.recall(record, now) {
                outcomes.push(outcome);
                continue;
            }
            log.top += 1;
            let seq = log.top;
            self.ids.remember(record, &log.term, seq, now, policy.idempotency_window);
            let record = Record { subject: Subject::NOBODY, ..record.clone() };
            log.messages.push_back(Sequenced { term: log.term.clone(), seq, ts, record: record.clone() });
            new.push(record);
            outcomes.push(Outcome::Stored { seq });
        }
        let term = match outcomes.first() {
            Some(Outcome::Duplicate { term, .. }) if log.top == 0 => term.clone(),
            _ => log.term.clone(),
        };
        if !new.is_empty() {
            log.expires = now + policy.history_ttl;
            let surplus = log.messages.len().saturating_sub(policy.history_size.max(1) as usize);
            log.messages.drain(..surplus);
        }
        // Duplicates alone do not found a room anew.
        self.log = (log.top > 0).then_some(log);
        let new = (!new.is_empty()).then_some((first_seq, new));
        (Published { term, ts, outcomes }, new)
    }

    pub(super) fn top(&self) -> Top {
        self.log.as_ref().map(|log| Top { term: Some(log.term.clone()), seq: log.top }).unwrap_or_default()
    }

    pub(super) fn history(&self, range: Range) -> History {
        let Some(log) = &self.log else { return History::default() };
        let first = log.messages.front().map_or(0, |message| message.seq);
        let (term, boundaries) = (Some(log.term.clone()), log.ended.iter().cloned().collect());
        let mut history = History { term, start: log.start, boundaries, first, top: log.top, messages: Vec::new() };
        if let Some((low, high)) = range.bounds(log.top) {
            // Seqs are contiguous here: a message's place follows from its seq.
            let from = low.saturating_sub(first) as usize;
            let to = (high + 1).saturating_sub(first) as usize;
            history.messages = log.messages.range(from.min(to)..to).cloned().collect();
        }
        history
    }

    /// Applies operations; returns the version after, and what became of each.
    pub(super) fn apply(&mut self, call: PresenceCall<'_>, now_us: u64) -> (u64, Vec<Moved>) {
        let outcomes: Vec<Moved> = call.ops.iter().map(|op| self.apply_one(call, op)).collect();
        let changed = outcomes.iter().any(|outcome| matches!(outcome, Moved::Changed | Moved::Renamed));
        (self.next_version(changed, now_us), outcomes)
    }

    fn next_version(&mut self, changed: bool, now_us: u64) -> u64 {
        if self.version == 0 {
            // Versions start at the time, so that they rise also over rooms that emptied and were forgotten.
            self.version = now_us;
        }
        self.version += u64::from(changed);
        self.version
    }

    fn apply_one(&mut self, call: PresenceCall<'_>, op: &PresenceOp) -> Moved {
        match op {
            PresenceOp::Leave(member) => match self.remove(member.id) {
                Some(_) => Moved::Changed,
                None => Moved::Same,
            },
            PresenceOp::Rename(member) if !self.members.contains_key(&member.id) => Moved::Same,
            PresenceOp::Enter(member) | PresenceOp::Rename(member) => {
                if call.unique_names && self.names.get(&member.name).is_some_and(|owner| *owner != member.id) {
                    return Moved::NameTaken;
                }
                let old = self.remove(member.id);
                self.members.insert(member.id, (call.incarnation.clone(), member.clone()));
                if call.unique_names {
                    self.names.insert(Arc::clone(&member.name), member.id);
                }
                // Who is only taken over, and looks the same, neither came nor went.
                match old {
                    Some(old) if old == *member => Moved::Same,
                    Some(_) if matches!(op, PresenceOp::Enter(_)) => Moved::Renamed,
                    _ => Moved::Changed,
                }
            }
        }
    }

    /// Gives the member as it was.
    fn remove(&mut self, client: ClientId) -> Option<Member> {
        let (_, member) = self.members.remove(&client)?;
        if self.names.get(&member.name) == Some(&client) {
            self.names.remove(&member.name);
        }
        Some(member)
    }

    /// Removes what an incarnation left among the next `limit` members. Gives the version after, who is gone, and where
    /// to go on.
    pub(super) fn evict(
        &mut self,
        incarnation: &Incarnation,
        behind: Option<ClientId>,
        limit: usize,
        now_us: u64,
    ) -> (u64, Vec<Member>, Option<ClientId>) {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<(ClientId, bool)> = self
            .members
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(id, (life, _))| (*id, life == incarnation))
            .collect();
        let ghosts = page.iter().filter(|(_, left_behind)| *left_behind);
        let gone: Vec<Member> = ghosts.filter_map(|(id, _)| self.remove(*id)).collect();
        let next = page.last().filter(|_| page.len() == limit).map(|(id, _)| *id);
        (self.next_version(!gone.is_empty(), now_us), gone, next)
    }

    pub(super) fn member(&self, id: ClientId) -> Option<Member> {
        self.members.get(&id).map(|(_, member)| member.clone())
    }

    pub(super) fn page(&self, after: Option<ClientId>, limit: usize) -> MembersPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range((from, Bound::Unbounded));
        let members: Vec<Member> = rest.by_ref().take(limit).map(|(_, (_, member))| member.clone()).collect();
        let next = members.last().filter(|_| rest.next().is_some()).map(|member| member.id.to_string());
        MembersPage { members, next, online: self.members.len() as u64 }
    }
}
