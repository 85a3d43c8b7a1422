//! What a seat keeps beside its last seq: holes it saw, and its own messages that come to it only as acks.

use std::collections::BTreeSet;

use roomcast_protocol::Term;

use super::Place;
use super::tracks::Tracks;

/// Ranges of holes that a seat remembers; older ones stay lost.
const MOST_HOLES: usize = 256;
/// Acks kept until their term is told.
const MOST_EARLY: usize = 1024;
/// Own messages ahead of what the seat got.
const MOST_OWN: usize = 65_536;

/// On the heap and only where needed: most seats never need it.
#[derive(Default)]
pub(super) struct Owed {
    /// First and last seq of each.
    holes: Vec<(u64, u64)>,
    /// Seqs of own messages, acked and not sent back, ahead of the last seq.
    own: BTreeSet<u64>,
    /// Acks of own messages (number, place, duplicate) in a term that the seat has not heard of yet.
    pub(super) early: Vec<(u32, Place, bool)>,
    pub(super) tracks: Tracks,
    /// The term that was left on purpose: the one that is joined after that is no older.
    pub(super) left: Option<Term>,
}

impl Owed {
    /// Remembers a hole; gives the one that is forgotten for it.
    pub(super) fn open(&mut self, first: u64, last: u64) -> Option<(u64, u64)> {
        let oldest = (self.holes.len() >= MOST_HOLES).then(|| self.holes.remove(0));
        self.holes.push((first, last));
        oldest
    }

    /// Closes a hole; false if there was none.
    pub(super) fn close(&mut self, seq: u64) -> bool {
        let Some(at) = self.holes.iter().position(|(first, last)| (*first..=*last).contains(&seq)) else {
            return false;
        };
        let (first, last) = self.holes.swap_remove(at);
        let rest = [(first, seq - 1), (seq + 1, last)];
        self.holes.extend(rest.into_iter().filter(|(first, last)| first <= last));
        true
    }

    /// The holes before the term `next`. Own messages acked in any other term are none.
    pub(super) fn take_holes(&mut self, next: Option<&Term>) -> Vec<(u64, u64)> {
        for at in 0..self.early.len() {
            let place = &self.early[at].1;
            if Some(&place.term) != next {
                self.close(place.seq);
            }
        }
        std::mem::take(&mut self.holes)
    }

    pub(super) fn own(&mut self, seq: u64) {
        self.own.insert(seq);
        if self.own.len() > MOST_OWN {
            self.own.pop_first();
        }
    }

    pub(super) fn early(&mut self, number: u32, place: &Place, duplicate: bool) {
        if self.early.len() < MOST_EARLY {
            self.early.push((number, place.clone(), duplicate));
        }
    }

    /// The last seq, own messages right behind it included.
    pub(super) fn advance(&mut self, mut last: u64) -> u64 {
        while let Some(first) = self.own.first().copied().filter(|first| *first <= last + 1) {
            self.own.pop_first();
            last = last.max(first);
        }
        last
    }

    /// Own messages among these seqs are no holes: gives what is left.
    pub(super) fn without_own(&mut self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut from = first;
        for own in self.own.range(first..=last) {
            if from < *own {
                holes.push((from, *own - 1));
            }
            from = own + 1;
        }
        if from <= last {
            holes.push((from, last));
        }
        holes
    }

    pub(super) fn forget_own(&mut self) {
        self.own.clear();
    }
}
