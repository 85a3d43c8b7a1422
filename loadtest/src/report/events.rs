//! The timeline: events in words, folded and bounded.
//!
//! Called by the collector and the merge. A cluster in trouble makes thousands of events; the first and the last of each
//! kind tell the story, and the number between them is said.

use std::collections::{BTreeMap, VecDeque};

use super::{Happening, HappeningKind};

/// Of each kind, so many from the beginning and as many from the end are kept.
const KEPT: usize = 30;
/// Equal events within this time of the first are one, ms.
const FOLD_MS: u64 = 2000;

/// Collects events in the order of time.
#[derive(Default)]
pub struct Events(BTreeMap<HappeningKind, Kind>);

#[derive(Default)]
struct Kind {
    first: Vec<Folded>,
    last: VecDeque<Folded>,
    /// Those between: how many, and when the newest of them was.
    dropped: u64,
    dropped_ms: u64,
}

struct Folded {
    event: Happening,
    times: u64,
}

impl Events {
    pub fn add(&mut self, event: Happening) {
        let Folded { event, times } = Folded::from_event(event);
        let kind = self.0.entry(event.kind).or_default();
        let newest = kind.last.back_mut().or(kind.first.last_mut());
        if let Some(newest) = newest
            && newest.event.text == event.text
            && event.at_ms.abs_diff(newest.event.at_ms) <= FOLD_MS
        {
            newest.times = newest.times.saturating_add(times);
            return;
        }
        let folded = Folded { event, times };
        if kind.first.len() < KEPT {
            kind.first.push(folded);
            return;
        }
        kind.last.push_back(folded);
        if kind.last.len() > KEPT
            && let Some(gone) = kind.last.pop_front()
        {
            kind.dropped = kind.dropped.saturating_add(gone.times);
            kind.dropped_ms = gone.event.at_ms;
        }
    }

    /// Oldest first.
    pub fn finish(self) -> Vec<Happening> {
        let mut events = Vec::new();
        for (kind, of_kind) in self.0 {
            if of_kind.dropped > 0 {
                let text = format!("{} more like these are left out", of_kind.dropped);
                events.push(Happening { at_ms: of_kind.dropped_ms, kind, text });
            }
            events.extend(of_kind.first.into_iter().chain(of_kind.last).map(Folded::into_event));
        }
        events.sort();
        events
    }
}

impl Folded {
    /// A merge is given events that were folded before.
    fn from_event(event: Happening) -> Self {
        let folded = event.text.strip_suffix(" times)").and_then(|text| text.rsplit_once(" ("));
        match folded.and_then(|(text, times)| Some((text.to_owned(), times.parse().ok()?))) {
            Some((text, times)) => Self { event: Happening { text, ..event }, times },
            None => Self { event, times: 1 },
        }
    }

    fn into_event(self) -> Happening {
        // A phase that several processes enter together is still one phase.
        if self.times == 1 || self.event.kind == HappeningKind::Phase {
            return self.event;
        }
        let text = format!("{} ({} times)", self.event.text, self.times);
        Happening { text, ..self.event }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, kind: HappeningKind, text: &str) -> Happening {
        Happening { at_ms, kind, text: text.to_owned() }
    }

    #[test]
    fn a_burst_of_equal_events_is_one() {
        let mut events = Events::default();
        for at_ms in [1000, 1500, 2900, 9000] {
            events.add(event(at_ms, HappeningKind::Break, "reset of a room"));
        }
        let texts: Vec<_> = events.finish().into_iter().map(|event| (event.at_ms, event.text)).collect();
        assert_eq!(texts, [(1000, "reset of a room (3 times)".to_owned()), (9000, "reset of a room".to_owned())]);
    }

    #[test]
    fn what_was_folded_folds_on() {
        let mut events = Events::default();
        events.add(event(1000, HappeningKind::Break, "reset (3 times)"));
        events.add(event(1001, HappeningKind::Break, "reset"));
        events.add(event(1002, HappeningKind::Drain, "node (x times)"));
        let texts: Vec<_> = events.finish().into_iter().map(|event| event.text).collect();
        assert_eq!(texts, ["reset (4 times)", "node (x times)"]);
    }

    #[test]
    fn many_events_leave_the_first_the_last_and_a_number() {
        let mut events = Events::default();
        events.add(event(0, HappeningKind::Phase, "connecting"));
        for index in 0..5000 {
            events.add(event(index, HappeningKind::NodeGone, &format!("node {index}")));
        }
        let events = events.finish();
        assert_eq!(events.len(), 1 + 2 * KEPT + 1);
        assert!(events.is_sorted());
        assert_eq!(events.last().unwrap().text, "node 4999");
        assert!(events.iter().any(|event| event.text == "4940 more like these are left out"));
        assert!(events.iter().any(|event| event.kind == HappeningKind::Phase));
    }
}
