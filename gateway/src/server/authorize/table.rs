//! What was asked lately, and what is being asked. Used by the parent; knows questions only by their keys.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Verdict;

/// Of a question: a hash, so that no token lies here.
pub(super) type Key = [u8; 32];
/// What a call ends with.
pub(super) type Answer = watch::Receiver<Option<Verdict>>;

/// Answers kept. Beyond, the oldest go.
const MOST_ANSWERS: usize = 10_000;

#[derive(Default)]
pub(super) struct Table(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    known: HashMap<Key, (Verdict, Instant)>,
    /// With the time at which each was begun.
    asked: HashMap<Key, (Answer, Instant)>,
    /// In the order in which they came; what was renewed stands there twice, and counts with its last time.
    order: VecDeque<(Key, Instant)>,
}

pub(super) enum Found {
    /// An answer that still holds.
    Known(Verdict),
    /// A call that is under way, and since when.
    Asked(Answer, Instant),
    /// There is none, and none may begin.
    Full,
}

impl Table {
    /// The answer to a question, or the call for it, which `begin` makes if there is none.
    pub(super) fn find(&self, key: Key, now: Instant, begin: impl FnOnce() -> Option<Answer>) -> Found {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((verdict, until)) = entries.known.get(&key)
            && now < *until
        {
            return Found::Known(verdict.clone());
        }
        // One whose task went away without a word is no call any more.
        if let Some((answer, since)) = entries.asked.get(&key).filter(|(answer, _)| answer.has_changed().is_ok()) {
            return Found::Asked(answer.clone(), *since);
        }
        match begin() {
            Some(answer) => {
                entries.asked.insert(key, (answer.clone(), now));
                Found::Asked(answer, now)
            }
            None => Found::Full,
        }
    }

    /// A call ended; its answer holds for a while, or not at all.
    pub(super) fn settle(&self, key: Key, verdict: &Verdict, holds: Duration) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.asked.remove(&key);
        let now = Instant::now();
        if holds.is_zero() {
            entries.known.remove(&key);
            return;
        }
        // So far ahead that it cannot be said is as good as a day.
        let until = now.checked_add(holds).unwrap_or(now + Duration::from_hours(24));
        entries.known.insert(key, (verdict.clone(), until));
        entries.order.push_back((key, until));
        while let Some(&(oldest, until)) = entries.order.front() {
            if until > now && entries.order.len() <= MOST_ANSWERS {
                break;
            }
            entries.order.pop_front();
            if entries.known.get(&oldest).is_some_and(|(_, last)| *last == until) {
                entries.known.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let entries = self.0.lock().expect("whole");
        (entries.known.len(), entries.asked.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn answers_are_bounded_and_the_oldest_go() {
        let table = Table::default();
        for number in 0..MOST_ANSWERS as u32 + 50 {
            table.settle(key(number), &Verdict::Failed, Duration::from_mins(1));
        }
        // The same again and again takes no more room.
        for _ in 0..2 * MOST_ANSWERS {
            table.settle(key(7_000_000), &Verdict::Failed, Duration::from_mins(1));
        }
        assert!(table.len().0 <= MOST_ANSWERS);
        assert!(table.0.lock().expect("whole").order.len() <= MOST_ANSWERS);
        assert!(matches!(table.find(key(7_000_000), Instant::now(), || None), Found::Known(_)));
        assert!(matches!(table.find(key(0), Instant::now(), || None), Found::Full));
    }

    #[test]
    fn an_answer_holds_for_its_time() {
        let table = Table::default();
        table.settle(key(1), &Verdict::Failed, Duration::from_secs(10));
        table.settle(key(2), &Verdict::Failed, Duration::ZERO);
        let soon = Instant::now() + Duration::from_secs(9);
        assert!(matches!(table.find(key(1), soon, || None), Found::Known(_)));
        assert!(matches!(table.find(key(1), soon + Duration::from_secs(2), || None), Found::Full));
        assert!(matches!(table.find(key(2), Instant::now(), || None), Found::Full));
    }

    #[test]
    fn a_call_is_shared_until_it_ends_or_dies() {
        let table = Table::default();
        let (told, answer) = watch::channel(None);
        let (begun, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        for (now, answer) in [(begun, Some(answer)), (later, None)] {
            assert!(matches!(table.find(key(1), now, || answer), Found::Asked(_, since) if since == begun));
        }
        drop(told);
        assert!(matches!(table.find(key(1), Instant::now(), || None), Found::Full));
        table.settle(key(1), &Verdict::Failed, Duration::ZERO);
        assert_eq!(table.len(), (0, 0));
    }
}
