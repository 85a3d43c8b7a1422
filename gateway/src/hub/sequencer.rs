//! Puts a durable room's messages in order: each seq once, none skipped without a word.
//!
//! Messages come from three sides: this node's own publishes as the broker answers them, the bus, and reads of the
//! stream. Whichever brings the next due seq first is delivered; the others are dropped by seq.
//!
//! A seq is a place only within its term. Of a term that is new here, nothing is taken from the bus: whether it begins
//! behind the last message delivered or behind an earlier one, which it replaces, only the stream knows (`ground`).

use std::collections::BTreeMap;

use roomcast_protocol::{Recovery, Term};

use crate::broker::{Boundary, Record, Sequenced};

mod ground;

pub(super) use ground::{Ground, Place};

/// Most messages held back behind a gap; what comes beyond is read from the stream again.
const MOST_HELD: usize = 1024;
/// The same in bytes of data.
const MOST_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Messages with consecutive seqs.
pub(super) struct Run {
    pub(super) term: Term,
    pub(super) first_seq: u64,
    pub(super) ts: u64,
    pub(super) records: Vec<Record>,
    /// Published by this node.
    pub(super) own: bool,
}

/// What members must be told, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// The next message.
    Message(Sequenced, bool),
    /// What follows does not continue what came before.
    Reset { reason: Recovery, term: Option<Term>, seq: u64 },
}

/// What an offered run amounted to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    /// Messages that had been delivered before.
    pub(super) repeated: usize,
    /// True if a gap stands before held messages.
    pub(super) gap: bool,
    /// True if it was of a term that is not known here: the stream must be read.
    pub(super) strange: bool,
}

/// The order of one room.
#[derive(Default)]
pub(super) struct Sequencer {
    /// Of the last message delivered.
    term: Option<Term>,
    last: u64,
    /// The terms before, as of the last read.
    ended: Vec<Boundary>,
    /// Terms that the stream did not know when a client came back with them.
    ruled_out: Vec<Term>,
    held: BTreeMap<u64, (Sequenced, bool)>,
    held_bytes: usize,
    /// Something was not even held back: only the stream has it.
    missed: bool,
}

impl Sequencer {
    /// The present term; none before the first message of a room.
    pub(super) fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }

    /// The last seq delivered.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether messages are held back behind a gap, or must be read from the stream.
    pub(super) fn has_gap(&self) -> bool {
        !self.held.is_empty() || self.missed
    }

    /// The stream is being read from [`Sequencer::last`] on: what was missed up to now will be found there.
    pub(super) fn begin_read(&mut self) {
        self.missed = false;
    }

    /// Takes a run in; what became due is appended to `steps`.
    pub(super) fn offer(&mut self, run: Run, steps: &mut Vec<Step>) -> Offered {
        if self.term.as_ref().is_some_and(|term| *term != run.term) {
            return self.offer_strange(&run);
        }
        self.term.get_or_insert_with(|| run.term.clone());
        let mut repeated = 0;
        for (seq, record) in (run.first_seq..).zip(run.records) {
            let message = Sequenced { term: run.term.clone(), seq, ts: run.ts, record };
            if seq <= self.last || self.held.contains_key(&seq) {
                repeated += 1;
            } else if seq == self.last + 1 {
                self.last = seq;
                steps.push(Step::Message(message, run.own));
            } else if self.held.len() < MOST_HELD && self.held_bytes < MOST_HELD_BYTES {
                self.held_bytes += message.record.data.len();
                self.held.insert(seq, (message, run.own));
            } else {
                self.missed = true;
            }
        }
        self.release(steps);
        Offered { repeated, gap: self.has_gap(), strange: false }
    }

    /// A run of another term: left behind by one that ended, or of one that is new here.
    fn offer_strange(&mut self, run: &Run) -> Offered {
        let last = run.first_seq + run.records.len() as u64 - 1;
        let is_behind = |ended: &Boundary| ended.term == run.term && last <= ended.end.min(self.last);
        if self.ended.iter().any(is_behind) {
            return Offered { repeated: run.records.len(), gap: self.has_gap(), strange: false };
        }
        self.missed = true;
        Offered { repeated: 0, gap: true, strange: true }
    }

    /// Takes a message that was read from the stream, in its order; what lies between it and the last is not to be had.
    pub(super) fn take_read(&mut self, message: Sequenced, steps: &mut Vec<Step>) {
        if message.seq <= self.last {
            return;
        }
        if self.term.as_ref() != Some(&message.term) {
            self.forget_held();
            self.ruled_out.clear();
        }
        self.skip_to(message.seq - 1, Some(&message.term), steps);
        if message.seq <= self.last {
            // Held, and let go by the skip.
            return;
        }
        self.drop_held(message.seq);
        (self.term, self.last) = (Some(message.term.clone()), message.seq);
        steps.push(Step::Message(message, false));
        self.release(steps);
    }

    /// Gives up on the seqs up to `seq`, whose term is `term` if that is known: they are not to be had. Members are told.
    pub(super) fn skip_to(&mut self, seq: u64, term: Option<&Term>, steps: &mut Vec<Step>) {
        let Some(term) = term.or(self.term.as_ref()).cloned().filter(|_| seq > self.last) else { return };
        if self.term.as_ref() != Some(&term) {
            self.forget_held();
        }
        (self.term, self.last) = (Some(term.clone()), seq);
        let rest = self.held.split_off(&(seq + 1));
        self.held_bytes = rest.values().map(|(message, _)| message.record.data.len()).sum();
        self.held = rest;
        steps.push(Step::Reset { reason: Recovery::Gap, term: Some(term), seq });
        self.release(steps);
    }

    fn drop_held(&mut self, seq: u64) {
        if let Some((message, _)) = self.held.remove(&seq) {
            self.held_bytes -= message.record.data.len();
        }
    }

    fn forget_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// The first seq held back behind the gap.
    pub(super) fn first_held(&self) -> Option<u64> {
        self.held.keys().next().copied()
    }

    fn release(&mut self, steps: &mut Vec<Step>) {
        while let Some((message, own)) = self.held.remove(&(self.last + 1)) {
            self.last += 1;
            self.held_bytes -= message.record.data.len();
            steps.push(Step::Message(message, own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::History;

    pub(super) fn run(term: &str, first_seq: u64, count: usize) -> Run {
        let record = Record::sample("i", "1");
        let term = Term::new(term).expect("valid");
        Run { term, first_seq, ts: 0, records: vec![record; count], own: false }
    }

    impl Sequencer {
        fn start_at(&mut self, term: &str, top: u64) {
            let term = Some(Term::new(term).expect("valid"));
            self.start(History { term, top, ..History::default() });
        }
    }

    pub(super) fn told(steps: &[Step]) -> Vec<String> {
        let tell = |step: &Step| match step {
            Step::Message(message, _) => format!("{}{}", message.term, message.seq),
            Step::Reset { reason, term, seq } => format!("{reason:?} {}{seq}", term.as_ref().map_or("", Term::as_str)),
        };
        steps.iter().map(tell).collect()
    }

    #[test]
    fn every_order_of_arrival_gives_the_same_order() {
        for order in [[1, 3, 5], [5, 3, 1], [3, 5, 1], [5, 1, 3]] {
            let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
            sequencer.start_at("a", 0);
            for first in order {
                sequencer.offer(run("a", first, 2), &mut steps);
                sequencer.offer(run("a", first, 2), &mut steps);
            }
            assert_eq!(told(&steps), ["a1", "a2", "a3", "a4", "a5", "a6"], "{order:?}");
            assert!(!sequencer.has_gap());
        }
    }

    #[test]
    fn repeats_are_counted_and_dropped() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.offer(run("a", 1, 2), &mut steps);
        assert_eq!(sequencer.offer(run("a", 1, 3), &mut steps), Offered { repeated: 2, ..Offered::default() });
        assert_eq!(told(&steps), ["a1", "a2", "a3"]);
    }

    #[test]
    fn a_gap_holds_back_until_it_is_filled_or_given_up() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.start_at("a", 4);
        assert_eq!(sequencer.offer(run("a", 7, 1), &mut steps), Offered { gap: true, ..Offered::default() });
        assert!(steps.is_empty());
        assert_eq!(sequencer.first_held(), Some(7));
        sequencer.skip_to(6, None, &mut steps);
        assert_eq!(told(&steps), ["Gap a6", "a7"]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.start_at("a", 0);
        sequencer.offer(run("a", 2, MOST_HELD + 500), &mut steps);
        assert_eq!(sequencer.held.len(), MOST_HELD);
        sequencer.offer(run("a", 1, 1), &mut steps);
        assert_eq!((sequencer.held.len(), sequencer.held_bytes, steps.len()), (0, 0, MOST_HELD + 1));
        assert!(sequencer.has_gap(), "what was not held is still to be read");
        sequencer.begin_read();
        assert!(!sequencer.has_gap());
    }

    #[test]
    fn what_is_held_is_bounded_in_bytes() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        let mut large = run("a", 2, 200);
        large.records.iter_mut().for_each(|record| record.data = vec![b'1'; 64 * 1024].into());
        sequencer.offer(large, &mut steps);
        assert_eq!(sequencer.held.len(), MOST_HELD_BYTES / (64 * 1024));
    }
}
