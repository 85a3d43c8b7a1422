//! One room of the memory broker. Used under its shard's lock; knows neither locks nor channels beyond holding them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use roomcast_protocol::{ClientId, NodeId, Term};

use super::Peer;
use crate::broker::{
    History, Member, MembersPage, MessageId, Outcome, PresenceOp, Published, Range, Record, Sequenced, Top,
};
use crate::config::RoomPolicy;

/// Most ids remembered per room; the oldest are forgotten first. Over Redis its memory limit bounds them.
const MAX_IDS: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Room {
    pub(super) subscribers: Vec<Arc<Peer>>,
    /// Ordered, so that pages are exact. With the node each came through.
    pub(super) members: BTreeMap<ClientId, (NodeId, Arc<str>)>,
    version: u64,
    log: Option<Log>,
    ids: HashMap<MessageId, Remembered>,
    /// When to forget which id, oldest first. An id may be here again with a later time.
    forget: VecDeque<(Instant, MessageId)>,
}

struct Log {
    term: Term,
    top: u64,
    messages: VecDeque<Sequenced>,
    expires: Instant,
}

struct Remembered {
    term: Term,
    seq: u64,
    until: Instant,
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
        while self.forget.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((until, id)) = self.forget.pop_front() else { return };
        if self.ids.get(&id).is_some_and(|remembered| remembered.until <= until) {
            self.ids.remove(&id);
        }
    }

    /// Stores what is new. Returns that, too, with its first seq.
    pub(super) fn publish(
        &mut self,
        policy: &RoomPolicy,
        records: &[Record],
        ts: u64,
        now: Instant,
    ) -> (Published, Option<(u64, Vec<Record>)>) {
        let fresh = || Log { term: Term::random(), top: 0, messages: VecDeque::new(), expires: now };
        let mut log = self.log.take().unwrap_or_else(fresh);
        let first_seq = log.top + 1;
        let mut new = Vec::with_capacity(records.len());
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            if record.idempotent
                && let Some(Remembered { term, seq, .. }) = self.ids.get(&record.id)
            {
                outcomes.push(Outcome::Duplicate { term: term.clone(), seq: *seq });
                continue;
            }
            log.top += 1;
            let seq = log.top;
            if record.idempotent {
                let until = now + policy.idempotency_window;
                self.remember(record.id.clone(), Remembered { term: log.term.clone(), seq, until });
            }
            log.messages.push_back(Sequenced { term: log.term.clone(), seq, ts, record: record.clone() });
            new.push(record.clone());
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

    fn remember(&mut self, id: MessageId, remembered: Remembered) {
        if self.ids.len() >= MAX_IDS {
            self.forget_oldest();
        }
        self.forget.push_back((remembered.until, Arc::clone(&id)));
        self.ids.insert(id, remembered);
    }

    pub(super) fn top(&self) -> Top {
        self.log.as_ref().map(|log| Top { term: Some(log.term.clone()), seq: log.top }).unwrap_or_default()
    }

    pub(super) fn history(&self, range: Range) -> History {
        let Some(log) = &self.log else { return History::default() };
        let first = log.messages.front().map_or(0, |message| message.seq);
        let mut history = History { term: Some(log.term.clone()), first, top: log.top, messages: Vec::new() };
        if let Some((low, high)) = range.bounds(log.top) {
            // Seqs are contiguous here: a message's place follows from its seq.
            let from = low.saturating_sub(first) as usize;
            let to = (high + 1).saturating_sub(first) as usize;
            history.messages = log.messages.range(from.min(to)..to).cloned().collect();
        }
        history
    }

    /// Applies operations; returns the version after, and those that changed something.
    pub(super) fn apply(&mut self, node: &NodeId, ops: &[PresenceOp], now_us: u64) -> (u64, Vec<PresenceOp>) {
        if self.version == 0 {
            // Versions start at the time, so that they rise also over rooms that emptied and were forgotten.
            self.version = now_us;
        }
        let effective: Vec<PresenceOp> = ops.iter().filter(|op| self.apply_one(node, op)).cloned().collect();
        if !effective.is_empty() {
            self.version += 1;
        }
        (self.version, effective)
    }

    fn apply_one(&mut self, node: &NodeId, op: &PresenceOp) -> bool {
        match op {
            PresenceOp::Leave { client, .. } => self.members.remove(client).is_some(),
            PresenceOp::Rename { client, .. } if !self.members.contains_key(client) => false,
            PresenceOp::Enter { client, name } | PresenceOp::Rename { client, name } => {
                let new = (node.clone(), Arc::clone(name));
                self.members.insert(*client, new.clone()) != Some(new)
            }
        }
    }

    pub(super) fn page(&self, after: Option<ClientId>, limit: usize) -> MembersPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range((from, Bound::Unbounded));
        let members: Vec<Member> =
            rest.by_ref().take(limit).map(|(&id, (_, name))| Member { id, name: Arc::clone(name) }).collect();
        let next = members.last().filter(|_| rest.next().is_some()).map(|member| member.id.to_string());
        MembersPage { members, next, online: self.members.len() as u64 }
    }
}
