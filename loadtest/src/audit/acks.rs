//! Which acked messages a room has lost: acks by their places, held against where terms ended.
//!
//! Called by the room's book. What Redis acked and no longer has is no fault of the nodes, but nobody should have to
//! guess how much it was. Knows neither clients nor messages.

use std::collections::{BTreeMap, VecDeque};

use roomcast_protocol::Term;

use super::order::term_hash;

/// Terms of a room that are remembered, the newest.
const MOST_TERMS: usize = 16;
/// Ranges of seqs that are remembered of a term; a process that publishes alone needs one. What was acked before them is
/// counted only if all of its term is lost.
const MOST_RANGES: usize = 256;

/// What was acked in one term.
#[derive(Default)]
struct Acked {
    /// The term's hash.
    name: u64,
    /// First and last seq of each.
    ranges: BTreeMap<u64, u64>,
    /// How many were acked before them.
    older: u64,
    /// The last seq of the term that the room still has, as was told last.
    end: Option<u64>,
}

#[derive(Default)]
pub(super) struct Acks {
    terms: VecDeque<Acked>,
    /// Of terms that are remembered no more.
    lost: u64,
}

impl Acks {
    /// A message was acked there. More often does no harm.
    pub(super) fn acked(&mut self, term: &Term, seq: u64) {
        self.of(term).insert(seq);
    }

    /// The room was told to have nothing of `term` behind `seq`: 0 if nothing at all.
    pub(super) fn ended(&mut self, term: &Term, seq: u64) {
        // What was said last holds: a dataset that was gone may be back.
        self.of(term).end = Some(seq);
    }

    /// Acked messages that the room does not have any more.
    pub(super) fn lost(&self, present: Option<&Term>) -> u64 {
        // Acked late, by a server that was the room's no longer.
        let present = present.map(|term| term_hash(term.as_str()));
        let over = self.terms.iter().filter(|term| Some(term.name) != present);
        self.lost + over.filter_map(|term| Some(term.behind(term.end?))).sum::<u64>()
    }

    fn of(&mut self, term: &Term) -> &mut Acked {
        let name = term_hash(term.as_str());
        let at = self.terms.iter().position(|term| term.name == name).unwrap_or_else(|| {
            if let Some(oldest) = (self.terms.len() >= MOST_TERMS).then(|| self.terms.pop_front()).flatten() {
                self.lost += oldest.end.map_or(0, |end| oldest.behind(end));
            }
            self.terms.push_back(Acked { name, ..Acked::default() });
            self.terms.len() - 1
        });
        &mut self.terms[at]
    }
}

impl Acked {
    fn insert(&mut self, seq: u64) {
        let before = self.ranges.range(..=seq).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((_, last)) if seq <= last => return,
            Some((first, last)) if seq == last + 1 => first,
            _ => seq,
        };
        let last = self.ranges.remove(&(seq + 1)).unwrap_or(seq);
        self.ranges.insert(first, last);
        if self.ranges.len() > MOST_RANGES
            && let Some((first, last)) = self.ranges.pop_first()
        {
            self.older += last - first + 1;
        }
    }

    /// How many were acked behind `seq`.
    fn behind(&self, seq: u64) -> u64 {
        let all = self.ranges.iter().map(|(first, last)| (last + 1).saturating_sub((seq + 1).max(*first)));
        all.sum::<u64>() + if seq == 0 { self.older } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: usize) -> Term {
        Term::new(&format!("t{number}")).expect("valid")
    }

    fn acked(number: usize, seqs: impl IntoIterator<Item = u64>) -> Acks {
        let mut acks = Acks::default();
        seqs.into_iter().for_each(|seq| acks.acked(&term(number), seq));
        acks
    }

    #[test]
    fn what_was_acked_behind_the_end_of_a_term_is_lost_once() {
        let mut acks = acked(1, [1, 2, 4, 3, 3, 7, 9, 8]);
        assert_eq!(acks.terms[0].ranges, BTreeMap::from([(1, 4), (7, 9)]));
        assert_eq!(acks.lost(Some(&term(1))), 0);
        for _ in 0..20 {
            acks.ended(&term(1), 3);
        }
        assert_eq!(acks.lost(Some(&term(2))), 4);
        acks.ended(&term(1), 1);
        assert_eq!(acks.lost(Some(&term(2))), 6);
    }

    #[test]
    fn what_comes_back_with_an_earlier_dataset_is_not_lost() {
        let mut acks = acked(1, 1..=5);
        acks.ended(&term(1), 0);
        assert_eq!(acks.lost(Some(&term(2))), 5);
        acks.ended(&term(1), 4);
        assert_eq!(acks.lost(Some(&term(3))), 1);
    }

    #[test]
    fn a_late_ack_of_a_term_that_is_over_is_lost_and_one_of_the_present_is_not() {
        let mut acks = acked(1, 1..=5);
        acks.ended(&term(1), 5);
        acks.acked(&term(1), 6);
        acks.acked(&term(2), 6);
        assert_eq!((acks.lost(Some(&term(2))), acks.lost(Some(&term(1)))), (1, 0));
    }

    #[test]
    fn all_of_a_term_that_nobody_knows_any_more_is_lost() {
        let mut acks = acked(1, (1..=1000).map(|number| number * 2));
        assert_eq!((acks.terms[0].ranges.len(), acks.terms[0].older), (MOST_RANGES, 1000 - MOST_RANGES as u64));
        acks.ended(&term(1), 0);
        assert_eq!(acks.lost(Some(&term(2))), 1000);
        acks.ended(&term(1), 0);
        assert_eq!(acks.lost(None), 1000);
    }

    #[test]
    fn what_a_forgotten_term_had_lost_stays_lost() {
        let mut acks = acked(1, 1..=10);
        acks.ended(&term(1), 4);
        acks.acked(&term(1), 11);
        for number in 2..=MOST_TERMS + 1 {
            acks.acked(&term(number), 1);
        }
        assert_eq!((acks.terms.len(), acks.lost(None)), (MOST_TERMS, 7));
    }
}
