//! Leases of the memory broker. A node alone needs none: they are here so that one contract holds for both brokers.
//! Used under a lock; knows no clock of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Instant;

use roomcast_protocol::RoomName;

use crate::broker::{Beat, Claim, Farewell, Incarnation, NodeReport, Pulse, RoomsQuestion, Subject};

#[derive(Default)]
pub(super) struct Leases {
    lives: BTreeMap<String, Lease>,
    rooms: HashMap<Incarnation, BTreeSet<RoomName>>,
    users: HashMap<Incarnation, HashMap<Subject, u32>>,
}

struct Lease {
    incarnation: Incarnation,
    until: Instant,
    /// What its node said last; none once it was claimed.
    note: Option<Note>,
}

struct Note {
    number: u64,
    report: NodeReport,
}

impl Leases {
    pub(super) fn beat(&mut self, beat: &Beat<'_>, now: Instant) -> Pulse {
        let until = now + beat.expiry;
        let lease = |note| Lease { incarnation: beat.incarnation.clone(), until, note };
        let known = self.lives.get_mut(beat.incarnation.as_str());
        let last = known.as_ref().and_then(|lease| lease.note.as_ref()).map(|note| note.number);
        if beat.answered > 0 && !last.is_some_and(|last| (beat.answered..=beat.number).contains(&last)) {
            match known {
                Some(lease) => {
                    // A claim stays whose it is.
                    if lease.note.take().is_some() {
                        lease.until = until;
                    }
                }
                None => _ = self.lives.insert(beat.incarnation.as_str().to_owned(), lease(None)),
            }
            return Pulse::Lost;
        }
        let was_live = known.is_some_and(|lease| lease.until > now);
        let note = Note { number: beat.number, report: beat.note.report(beat.incarnation) };
        self.lives.insert(beat.incarnation.as_str().to_owned(), lease(Some(note)));
        for claim in beat.working_on {
            if let Some(lease) = self.lives.get_mut(claim.as_str()) {
                lease.until = until;
            }
        }
        // Whose own lease had run out was cut off, and so, perhaps, was everybody: they get the time to come back.
        let most = if was_live { beat.most_claims } else { 0 };
        let expired = self.lives.values_mut().filter(|lease| lease.until <= now).take(most);
        let claims = expired
            .map(|lease| {
                lease.until = until;
                lease.note = None;
                lease.incarnation.clone()
            })
            .collect();
        let notes = || self.lives.values().filter_map(|lease| lease.note.as_ref());
        let first = self.lives.values().map(|lease| lease.until).min().unwrap_or(until);
        Pulse::Kept {
            nodes: notes().count() as u64,
            connections: notes().map(|note| note.report.connections).sum(),
            next_expiry: first.saturating_duration_since(now),
            claims,
        }
    }

    pub(super) fn hold(&mut self, incarnation: &Incarnation, rooms: &[RoomName]) {
        if !rooms.is_empty() {
            self.rooms.entry(incarnation.clone()).or_default().extend(rooms.iter().cloned());
        }
    }

    pub(super) fn release(&mut self, incarnation: &Incarnation, rooms: &[RoomName]) {
        if let Some(held) = self.rooms.get_mut(incarnation) {
            for room in rooms {
                held.remove(room);
            }
            if held.is_empty() {
                self.rooms.remove(incarnation);
            }
        }
    }

    pub(super) fn held(&self, incarnation: &Incarnation, limit: usize) -> Vec<RoomName> {
        self.rooms.get(incarnation).into_iter().flatten().take(limit).cloned().collect()
    }

    /// Names of rooms where someone may be, in order, at most `limit`, behind `after`; and whether there are more.
    pub(super) fn rooms(
        &self,
        question: RoomsQuestion<'_>,
        after: Option<&RoomName>,
        limit: usize,
    ) -> (Vec<RoomName>, bool) {
        let after = after.max(question.after);
        let from = match (after, question.prefix) {
            (after, Some(prefix)) if after.is_none_or(|after| after < prefix) => Bound::Included(prefix),
            (Some(after), _) => Bound::Excluded(after),
            (None, _) => Bound::Unbounded,
        };
        let leased = self.rooms.iter().filter(|(life, _)| self.lives.contains_key(life.as_str()));
        // As many of each as are wanted in all: what is cut off lies behind them.
        let some = leased.flat_map(|(_, rooms)| {
            let rest = rooms.range((from, Bound::Unbounded));
            rest.take_while(|name| question.is_about(name)).take(limit + 1)
        });
        let names: BTreeSet<&RoomName> = some.collect();
        let more = names.len() > limit;
        (names.into_iter().take(limit).cloned().collect(), more)
    }

    pub(super) fn nodes(&self, now: Instant) -> Vec<NodeReport> {
        let alive = self.lives.values().filter(|lease| lease.until > now);
        alive.filter_map(|lease| lease.note.as_ref()).map(|note| note.report.clone()).collect()
    }

    /// None if this incarnation has no lease.
    pub(super) fn claim(&mut self, incarnation: &Incarnation, claim: Claim, now: Instant) -> Option<u32> {
        let Claim { user, own, wanted, most } = claim;
        let living = || self.lives.values().filter(|lease| lease.until > now && lease.note.is_some());
        living().find(|lease| lease.incarnation == *incarnation)?;
        let count = |lease: &Lease| self.users.get(&lease.incarnation).and_then(|users| users.get(&user)).copied();
        let others = living().filter(|lease| lease.incarnation != *incarnation).filter_map(count).sum::<u32>();
        let granted = wanted.min(most.saturating_sub(others).saturating_sub(own));
        self.set_users(incarnation, &[(user, own + granted)]);
        Some(granted)
    }

    pub(super) fn set_users(&mut self, incarnation: &Incarnation, counts: &[(Subject, u32)]) {
        let users = self.users.entry(incarnation.clone()).or_default();
        for (user, count) in counts {
            if *count > 0 { _ = users.insert(*user, *count) } else { _ = users.remove(user) }
        }
        if users.is_empty() {
            self.users.remove(incarnation);
        }
    }

    pub(super) fn bury(&mut self, incarnation: &Incarnation, farewell: Farewell) {
        match farewell {
            Farewell::Clean => {
                self.lives.remove(incarnation.as_str());
                self.rooms.remove(incarnation);
                self.users.remove(incarnation);
            }
            Farewell::InHaste => {
                if let Some(lease) = self.lives.get_mut(incarnation.as_str()) {
                    lease.note = None;
                    lease.until = Instant::now();
                }
            }
        }
    }
}
