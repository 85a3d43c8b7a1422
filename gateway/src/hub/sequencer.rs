//! Puts a durable room's messages in order: each seq once, none skipped without a word.
//!
//! Messages come from three sides: this node's own publishes as the broker answers them, the bus, and reads of the
//! stream. Whichever brings the next due seq first is delivered; the others are dropped by seq.

use std::collections::BTreeMap;

use roomcast_protocol::{Recovery, Term};

use crate::broker::{Record, Sequenced};

/// Most messages held back behind a gap; what comes beyond is read from the stream again.
const MOST_HELD: usize = 1024;
/// The same in bytes of data.
const MOST_HELD_BYTES: usize = 4 * 1024 * 1024;
/// Terms remembered so that stragglers of an ended term are known.
const PAST_TERMS: usize = 4;

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
    Reset { reason: Recovery, term: Term, seq: u64 },
}

/// What an offered run amounted to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    /// Messages that had been delivered before.
    pub(super) repeated: usize,
    /// True if a gap stands before held messages.
    pub(super) gap: bool,
}

/// The order of one room.
#[derive(Default)]
pub(super) struct Sequencer {
    term: Option<Term>,
    past: Vec<Term>,
    last: u64,
    held: BTreeMap<u64, (Sequenced, bool)>,
    held_bytes: usize,
    /// Something was not even held back: only the stream has it.
    missed: bool,
}

impl Sequencer {
    /// Starts at the room's present top.
    pub(super) fn start(&mut self, term: Option<Term>, top: u64) {
        self.term = term;
        self.last = top;
    }

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
        if self.past.contains(&run.term) {
            return Offered { repeated: run.records.len(), gap: self.has_gap() };
        }
        if self.term.as_ref() != Some(&run.term) {
            self.change_term(&run, steps);
        }
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
        Offered { repeated, gap: self.has_gap() }
    }

    /// Gives up on the seqs up to `seq`: they are not to be had. Members are told.
    pub(super) fn skip_to(&mut self, seq: u64, steps: &mut Vec<Step>) {
        let Some(term) = self.term.clone().filter(|_| seq > self.last) else { return };
        self.last = seq;
        let rest = self.held.split_off(&(seq + 1));
        self.held_bytes = rest.values().map(|(message, _)| message.record.data.len()).sum();
        self.held = rest;
        steps.push(Step::Reset { reason: Recovery::Gap, term, seq });
        self.release(steps);
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

    /// The room's history broke off: the broker lost its metadata. Seqs of the new term continue what survived there,
    /// so only a new term that begins right behind the last message delivered here needs no `reset`.
    fn change_term(&mut self, run: &Run, steps: &mut Vec<Step>) {
        let before = run.first_seq.saturating_sub(1);
        if let Some(old) = self.term.replace(run.term.clone()) {
            self.past.push(old);
            if self.past.len() > PAST_TERMS {
                self.past.remove(0);
            }
            let reason = if before < self.last { Recovery::Diverged } else { Recovery::Gap };
            if before != self.last {
                steps.push(Step::Reset { reason, term: run.term.clone(), seq: before });
            }
            self.last = before;
            self.held.clear();
            (self.held_bytes, self.missed) = (0, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use roomcast_protocol::ClientId;

    fn run(term: &str, first_seq: u64, count: usize) -> Run {
        let record = Record {
            id: "i".into(),
            idempotent: false,
            from: ClientId::random(),
            name: "n".into(),
            echo: true,
            accepted_at_us: 0,
            trace: None,
            data: Bytes::from_static(b"1"),
        };
        let term = Term::new(term).expect("valid");
        Run { term, first_seq, ts: 0, records: vec![record; count], own: false }
    }

    fn told(steps: &[Step]) -> Vec<String> {
        let tell = |step: &Step| match step {
            Step::Message(message, _) => format!("{}{}", message.term, message.seq),
            Step::Reset { reason, term, seq } => format!("{reason:?} {term}{seq}"),
        };
        steps.iter().map(tell).collect()
    }

    #[test]
    fn every_order_of_arrival_gives_the_same_order() {
        for order in [[1, 3, 5], [5, 3, 1], [3, 5, 1], [5, 1, 3]] {
            let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
            sequencer.start(Some(Term::new("a").expect("valid")), 0);
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
        assert_eq!(sequencer.offer(run("a", 1, 3), &mut steps), Offered { repeated: 2, gap: false });
        assert_eq!(told(&steps), ["a1", "a2", "a3"]);
    }

    #[test]
    fn a_gap_holds_back_until_it_is_filled_or_given_up() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.start(Some(Term::new("a").expect("valid")), 4);
        assert_eq!(sequencer.offer(run("a", 7, 1), &mut steps), Offered { repeated: 0, gap: true });
        assert!(steps.is_empty());
        assert_eq!(sequencer.first_held(), Some(7));
        sequencer.skip_to(6, &mut steps);
        assert_eq!(told(&steps), ["Gap a6", "a7"]);
    }

    #[test]
    fn a_new_term_resets_unless_it_continues_and_stragglers_are_dropped() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.offer(run("a", 1, 3), &mut steps);
        sequencer.offer(run("b", 4, 1), &mut steps);
        sequencer.offer(run("c", 3, 1), &mut steps);
        sequencer.offer(run("a", 4, 1), &mut steps);
        sequencer.offer(run("d", 9, 1), &mut steps);
        assert_eq!(told(&steps), ["a1", "a2", "a3", "b4", "Diverged c2", "c3", "Gap d8", "d9"]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut sequencer, mut steps) = (Sequencer::default(), Vec::new());
        sequencer.start(Some(Term::new("a").expect("valid")), 0);
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
