//! The ids that a room of the memory broker remembers: plain ones, and the numbers of those who count. The same rules
//! as over Redis, where `producers.lua` has them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_protocol::Term;

use crate::broker::ids::{Key, RANGES, RESULTS};
use crate::broker::{Outcome, Record, Subject};

/// Most plain ids remembered per room; those not used for longest are forgotten first. Over Redis its memory limit bounds
/// them.
const MAX_IDS: usize = 1 << 16;
/// Most producers remembered per room, each with up to 256 results.
const MAX_PRODUCERS: usize = 1 << 12;

#[derive(Clone)]
pub(super) struct Ids {
    plain: Expiring<Option<(Term, u64)>>,
    producers: Expiring<Producer>,
}

impl Default for Ids {
    fn default() -> Self {
        Self { plain: Expiring::new(MAX_IDS), producers: Expiring::new(MAX_PRODUCERS) }
    }
}

impl Ids {
    pub(super) fn is_empty(&self) -> bool {
        self.plain.values.is_empty() && self.producers.values.is_empty()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.plain.expire(now);
        self.producers.expire(now);
    }

    /// What a message is answered that is not new.
    pub(super) fn recall(&self, record: &Record, now: Instant) -> Option<Outcome> {
        match Key::of(&record.id) {
            _ if !record.idempotent => None,
            Key::Plain(id) => {
                let (term, seq) = self.plain.get(&(record.subject, id.into()), now)?.as_ref()?;
                Some(Outcome::Duplicate { term: term.clone(), seq: *seq })
            }
            Key::Numbered { producer, number } => {
                self.producers.get(&(record.subject, producer.into()), now)?.recall(number)
            }
        }
    }

    /// A message was stored that [`Ids::recall`] did not know.
    pub(super) fn remember(&mut self, record: &Record, term: &Term, seq: u64, now: Instant, window: Duration) {
        let until = now + window;
        match Key::of(&record.id) {
            _ if !record.idempotent => {}
            Key::Plain(id) => *self.plain.extend((record.subject, id.into()), now, until) = Some((term.clone(), seq)),
            Key::Numbered { producer, number } => {
                let producer = self.producers.extend((record.subject, producer.into()), now, until);
                producer.take(number, term, seq);
            }
        }
    }

    /// Forgets what was stored behind a seq, if that is not long ago.
    #[cfg(test)]
    pub(super) fn forget_behind(&mut self, top: u64) {
        self.plain.values.retain(|_, (_, first)| first.as_ref().is_some_and(|(_, seq)| *seq <= top));
        self.producers.values.retain(|_, (_, producer)| producer.results.iter().all(|(_, _, seq)| *seq <= top));
    }
}

/// One who counts.
#[derive(Clone, Default)]
struct Producer {
    /// Number, term and seq of the last that were stored, in that order.
    results: VecDeque<(u64, Term, u64)>,
    /// The first and the last of each run of numbers that were stored, ascending. All from `floor` on are here.
    ranges: Vec<(u64, u64)>,
    /// Below it only what is still in a range or a result is known.
    floor: u64,
}

impl Producer {
    fn recall(&self, number: u64) -> Option<Outcome> {
        if self.ranges.last().is_none_or(|(_, last)| number > *last) {
            return None;
        }
        let result = self.results.iter().rev().find(|(known, ..)| *known == number);
        if let Some((_, term, seq)) = result {
            return Some(Outcome::Duplicate { term: term.clone(), seq: *seq });
        }
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        match self.ranges.get(at) {
            Some((first, _)) if *first <= number => Some(Outcome::Known),
            _ => (number < self.floor).then_some(Outcome::Stale),
        }
    }

    fn take(&mut self, number: u64, term: &Term, seq: u64) {
        if self.results.len() >= RESULTS {
            self.results.pop_front();
        }
        self.results.push_back((number, term.clone(), seq));
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        let joins_before = at > 0 && self.ranges[at - 1].1 + 1 == number;
        let joins_behind = self.ranges.get(at).is_some_and(|(first, _)| *first == number + 1);
        match (joins_before, joins_behind) {
            (true, true) => self.ranges[at - 1].1 = self.ranges.remove(at).1,
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        if self.ranges.len() > RANGES {
            let (_, last) = self.ranges.remove(0);
            self.floor = self.floor.max(last + 1);
        }
    }
}

type Owned = (Subject, Arc<str>);

/// What is kept for a time, and at most so much of it.
#[derive(Clone)]
struct Expiring<V> {
    most: usize,
    values: HashMap<Owned, (Instant, V)>,
    /// One entry for each value, about in the order in which they end. A value may be kept for longer than that says.
    forget: VecDeque<(Instant, Owned)>,
}

impl<V: Default> Expiring<V> {
    fn new(most: usize) -> Self {
        Self { most, values: HashMap::new(), forget: VecDeque::new() }
    }

    fn get(&self, key: &Owned, now: Instant) -> Option<&V> {
        self.values.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value)
    }

    /// The value, or a new one, kept until then.
    fn extend(&mut self, key: Owned, now: Instant, until: Instant) -> &mut V {
        if !self.values.contains_key(&key) {
            if self.values.len() >= self.most {
                self.forget_oldest();
            }
            self.forget.push_back((until, key.clone()));
        }
        let (kept, value) = self.values.entry(key).or_insert_with(|| (until, V::default()));
        if *kept <= now {
            *value = V::default();
        }
        *kept = until;
        value
    }

    /// Forgets one: who was used since its entry was made gets another, behind all that are there.
    fn forget_oldest(&mut self) {
        // After one round every entry is as late as its value.
        for _ in 0..=self.forget.len() {
            let Some((noted, key)) = self.forget.pop_front() else { return };
            match self.values.get(&key) {
                Some((until, _)) if *until > noted => self.forget.push_back((*until, key)),
                Some(_) => {
                    self.values.remove(&key);
                    return;
                }
                None => {}
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.forget.pop_front_if(|(until, _)| *until <= now) {
            match self.values.get(&key) {
                Some((until, _)) if *until > now => self.forget.push_back((*until, key)),
                _ => drop(self.values.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(name: &str) -> Owned {
        (Subject::NOBODY, name.into())
    }

    #[test]
    fn who_goes_on_is_not_forgotten_for_who_comes() {
        let now = Instant::now();
        let at = |second| now + Duration::from_secs(second);
        let mut kept: Expiring<u64> = Expiring::new(4);
        *kept.extend(owned("busy"), now, at(60)) = 7;
        for second in 1..100 {
            kept.extend(owned(&second.to_string()), now, at(60 + second));
            assert_eq!(*kept.extend(owned("busy"), now, at(60 + second)), 7, "after {second}");
            assert!(kept.values.len() <= 4 && kept.forget.len() == kept.values.len(), "{}", kept.forget.len());
        }
        // Of those who said nothing more, the newest are there.
        assert!(["98", "99"].iter().all(|name| kept.get(&owned(name), now).is_some()));
    }

    #[test]
    fn one_is_forgotten_also_when_all_were_used() {
        let now = Instant::now();
        let mut kept: Expiring<u64> = Expiring::new(3);
        for until in [60, 70] {
            for name in ["a", "b", "c"] {
                kept.extend(owned(name), now, now + Duration::from_secs(until));
            }
        }
        kept.extend(owned("d"), now, now + Duration::from_secs(70));
        assert_eq!((kept.values.len(), kept.forget.len()), (3, 3));
        assert!(kept.get(&owned("a"), now).is_none() && kept.get(&owned("d"), now).is_some());
    }
}
