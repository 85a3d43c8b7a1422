//! Where a room's order stands in the terms that its stream tells of, and where a client that comes back does.
//!
//! This is log matching as in Raft and Kafka's leader epochs: (term, seq) is part of the room's order exactly if the
//! term is known and has not ended before seq. Used by the sequencer, by repairs and by resumes.

use roomcast_protocol::{Recovery, Since, Term};

use super::{Sequencer, Step};
use crate::broker::History;

/// Terms remembered that are not the room's: a storm comes with one or two.
const MOST_RULED_OUT: usize = 8;

/// What a read of the stream says about what was delivered before it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hub) enum Ground {
    /// All of it still stands: what was read continues it.
    Firm,
    /// Something of it does not, and the order went back; or it changed during the read. Read again.
    Shifted,
    /// The broker has nothing at all of this room: expired, or lost.
    Bare,
}

/// Where (term, seq) stands in a room's order.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hub) enum Place {
    /// It is part of it.
    Within,
    /// The term ended here, before it; or it is the present one, and this is its last seq so far.
    Beyond(u64),
    /// The term is not known.
    Unknown,
}

impl Sequencer {
    /// Starts at the room's present top.
    pub(in crate::hub) fn start(&mut self, history: History) {
        self.term = history.term;
        self.last = history.top;
        self.ended = history.boundaries;
    }

    /// Looks at what was read from (`asked`, `asked_last`) on, before any of its messages is taken. At most `keep` of
    /// them follow where nothing is left to continue from.
    pub(in crate::hub) fn stand_on(
        &mut self,
        (asked, asked_last): &(Option<Term>, u64),
        history: &History,
        keep: u64,
        steps: &mut Vec<Step>,
    ) -> Ground {
        if self.term != *asked || self.last < *asked_last {
            return Ground::Shifted;
        }
        let Some(present) = &history.term else {
            return if self.term.is_some() { Ground::Bare } else { Ground::Firm };
        };
        self.ended.clone_from(&history.boundaries);
        let Some(term) = self.term.clone() else { return Ground::Firm };
        if term == *present {
            if history.top >= *asked_last {
                return Ground::Firm;
            }
            return self.go_back(Recovery::Diverged, Some(term), history.top, steps);
        }
        // What is held of a term that ended may be of what was lost; what was not is in the stream.
        self.forget_held();
        match self.ended.iter().find(|ended| ended.term == term).map(|ended| ended.end) {
            Some(end) if end >= self.last => Ground::Firm,
            Some(end) => self.go_back(Recovery::Diverged, Some(term), end, steps),
            None => {
                let oldest = history.first.max(history.start).max(1) - 1;
                let seq = history.top.saturating_sub(keep).max(oldest).min(history.top);
                let term = self.term_at(seq).unwrap_or(present).clone();
                self.go_back(Recovery::UnknownTerm, Some(term), seq, steps)
            }
        }
    }

    /// Begins anew in a room of which the broker has lost everything.
    pub(in crate::hub) fn start_over(&mut self, steps: &mut Vec<Step>) {
        self.ended.clear();
        self.go_back(Recovery::UnknownTerm, None, 0, steps);
    }

    fn go_back(&mut self, reason: Recovery, term: Option<Term>, seq: u64, steps: &mut Vec<Step>) -> Ground {
        self.forget_held();
        self.ruled_out.clear();
        (self.term, self.last) = (term.clone(), seq);
        steps.push(Step::Reset { reason, term, seq });
        Ground::Shifted
    }

    /// The ended term that `seq` belongs to, as far back as terms are known; none if that is the present one.
    fn term_at(&self, seq: u64) -> Option<&Term> {
        self.ended.iter().find(|ended| seq <= ended.end).map(|ended| &ended.term)
    }

    /// The position that a client has which has everything up to `seq`.
    pub(in crate::hub) fn position(&self, seq: u64) -> Option<Since> {
        let term = self.term_at(seq).or(self.term.as_ref())?.clone();
        Some(Since { term, seq })
    }

    /// Remembers that the stream was read and does not know `term`. It never will, but for a change of the present one.
    pub(in crate::hub) fn rule_out(&mut self, term: &Term) {
        if self.is_final(&Place::Unknown, term) {
            return;
        }
        if self.ruled_out.len() >= MOST_RULED_OUT {
            self.ruled_out.remove(0);
        }
        self.ruled_out.push(term.clone());
    }

    /// Whether another read of the stream cannot change what was said of a position in `term`.
    pub(in crate::hub) fn is_final(&self, place: &Place, term: &Term) -> bool {
        match place {
            Place::Within => false,
            Place::Beyond(_) => self.term.as_ref() != Some(term),
            Place::Unknown => self.ruled_out.contains(term),
        }
    }

    /// Where a client that comes back stands.
    pub(in crate::hub) fn place(&self, since: &Since) -> Place {
        let end = if self.term.as_ref() == Some(&since.term) {
            self.last
        } else if let Some(ended) = self.ended.iter().find(|ended| ended.term == since.term) {
            // Of terms that ended since, not all may have been delivered yet.
            ended.end
        } else {
            return Place::Unknown;
        };
        if since.seq <= end { Place::Within } else { Place::Beyond(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run, told};
    use super::*;
    use crate::broker::{Boundary, Sequenced};

    fn term(name: &str) -> Term {
        Term::new(name).expect("valid")
    }

    /// A room whose terms ended there, and whose present one reaches up to `top`.
    fn stream(ended: &[(&str, u64)], present: &str, top: u64) -> History {
        let mut start = 1;
        let boundary = |&(name, end): &(&str, u64)| Boundary {
            term: term(name),
            start: std::mem::replace(&mut start, end + 1),
            end,
        };
        let boundaries = ended.iter().map(boundary).collect();
        History { term: Some(term(present)), start, boundaries, first: 1, top, messages: Vec::new() }
    }

    fn at(name: &str, last: u64) -> (Sequencer, Vec<Step>) {
        let mut sequencer = Sequencer::default();
        sequencer.start(History { term: Some(term(name)), top: last, ..History::default() });
        (sequencer, Vec::new())
    }

    fn look(sequencer: &mut Sequencer, history: &History, steps: &mut Vec<Step>) -> Ground {
        let asked = (sequencer.term().cloned(), sequencer.last());
        sequencer.stand_on(&asked, history, 5, steps)
    }

    fn read(name: &str, first: u64, count: usize) -> impl Iterator<Item = Sequenced> {
        let run = run(name, first, count);
        (first..).zip(run.records).map(move |(seq, record)| Sequenced { term: run.term.clone(), seq, ts: 0, record })
    }

    #[test]
    fn a_new_term_right_behind_is_not_taken_before_the_stream_was_asked() {
        let (mut sequencer, mut steps) = at("a", 3);
        let offered = sequencer.offer(run("b", 4, 1), &mut steps);
        assert!(offered.strange && offered.gap && steps.is_empty(), "{offered:?}");
        assert_eq!(look(&mut sequencer, &stream(&[("a", 3)], "b", 4), &mut steps), Ground::Firm);
        read("b", 4, 1).for_each(|message| sequencer.take_read(message, &mut steps));
        assert_eq!(told(&steps), ["b4"], "nothing was lost, so not a word");
        // What the old term's messages are, when they come late.
        assert!(!sequencer.offer(run("a", 3, 1), &mut steps).strange);
        // But not these: they are of what was lost, or of a dataset that came back.
        assert!(sequencer.offer(run("a", 4, 1), &mut steps).strange);
    }

    #[test]
    fn what_was_lost_is_told_with_the_place_to_go_back_to() {
        let (mut sequencer, mut steps) = at("a", 10);
        let history = stream(&[("a", 8), ("b", 9)], "c", 12);
        assert_eq!(look(&mut sequencer, &history, &mut steps), Ground::Shifted);
        assert_eq!((told(&steps), sequencer.last()), (vec!["Diverged a8".to_owned()], 8));
        assert_eq!(look(&mut sequencer, &history, &mut steps), Ground::Firm);
        read("b", 9, 1).chain(read("c", 10, 3)).for_each(|message| sequencer.take_read(message, &mut steps));
        assert_eq!(told(&steps)[1..], ["b9", "c10", "c11", "c12"]);
    }

    #[test]
    fn the_rest_of_an_old_term_comes_before_the_new_one() {
        let (mut sequencer, mut steps) = at("a", 5);
        sequencer.offer(run("a", 7, 4), &mut steps);
        assert_eq!(look(&mut sequencer, &stream(&[("a", 8)], "b", 9), &mut steps), Ground::Firm);
        read("a", 6, 3).chain(read("b", 9, 1)).for_each(|message| sequencer.take_read(message, &mut steps));
        assert_eq!(told(&steps), ["a6", "a7", "a8", "b9"], "9 and 10 of the old term were lost");
    }

    #[test]
    fn a_shorter_stream_of_the_same_term_went_back() {
        let (mut sequencer, mut steps) = at("a", 10);
        assert_eq!(look(&mut sequencer, &stream(&[], "a", 8), &mut steps), Ground::Shifted);
        assert_eq!(told(&steps), ["Diverged a8"]);
        // Unless it only seems so, because it was read before the last was stored.
        let (mut sequencer, mut steps) = at("a", 10);
        let asked = (sequencer.term().cloned(), 10);
        sequencer.offer(run("a", 11, 1), &mut steps);
        assert_eq!(sequencer.stand_on(&asked, &stream(&[], "a", 10), 5, &mut steps), Ground::Firm);
        assert_eq!(told(&steps), ["a11"]);
    }

    #[test]
    fn a_room_of_unknown_terms_starts_over_near_its_top() {
        for (history, expected) in [
            (stream(&[], "c", 3), "UnknownTerm c0"),
            (stream(&[("b", 300)], "c", 302), "UnknownTerm b300"),
            (stream(&[("b", 300)], "c", 400), "UnknownTerm c395"),
        ] {
            let (mut sequencer, mut steps) = at("a", 10);
            assert_eq!(look(&mut sequencer, &history, &mut steps), Ground::Shifted);
            assert_eq!(told(&steps), [expected]);
            assert_eq!(look(&mut sequencer, &history, &mut steps), Ground::Firm, "{expected}");
        }
        let (mut sequencer, mut steps) = at("a", 10);
        assert_eq!(look(&mut sequencer, &History::default(), &mut steps), Ground::Bare);
        sequencer.start_over(&mut steps);
        sequencer.offer(run("c", 1, 1), &mut steps);
        assert_eq!(told(&steps), ["UnknownTerm 0", "c1"]);
    }

    #[test]
    fn who_comes_back_stands_by_term_and_seq() {
        let mut sequencer = Sequencer::default();
        sequencer.start(stream(&[("a", 8), ("b", 9)], "c", 12));
        let place = |name: &str, seq| sequencer.place(&Since { term: term(name), seq });
        assert_eq!((place("a", 8), place("a", 9)), (Place::Within, Place::Beyond(8)));
        assert_eq!((place("b", 9), place("b", 10)), (Place::Within, Place::Beyond(9)));
        assert_eq!((place("c", 12), place("c", 13)), (Place::Within, Place::Beyond(12)));
        assert_eq!(place("d", 1), Place::Unknown);
        let position = |seq| sequencer.position(seq).map(|since| format!("{}{}", since.term, since.seq));
        assert_eq!([8, 9, 10].map(position), ["a8", "b9", "c10"].map(|text| Some(text.to_owned())));
    }
}
