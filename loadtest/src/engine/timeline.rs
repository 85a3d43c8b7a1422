//! From what threads noted in a second to the few events that a reader of the report wants to see.

use std::collections::BTreeMap;

use crate::client::Notes;
use crate::record::Tally;
use crate::report::{Happening, HappeningKind};

/// Puts the threads' notes of each second together, and tells them when the second is over.
#[derive(Default)]
pub(super) struct Timeline {
    at_s: u64,
    notes: Notes,
    /// Whether the last scrape of each node worked.
    scrapes: BTreeMap<String, bool>,
}

impl Timeline {
    /// Takes one thread's notes; gives the events of the second before, once a new one begins.
    pub(super) fn take(&mut self, at_s: u64, notes: &Notes) -> Vec<Happening> {
        let mut events = Vec::new();
        if at_s > self.at_s {
            events = tell(self.at_s, &std::mem::take(&mut self.notes));
            self.at_s = at_s;
        }
        self.notes.absorb(notes);
        events
    }

    /// Words, when a node's scrapes begin to fail or work again.
    pub(super) fn scraped(&mut self, url: &str, error: Option<&anyhow::Error>) -> Option<String> {
        let worked = self.scrapes.insert(url.to_owned(), error.is_none());
        match (worked, error) {
            (Some(false), None) => Some(format!("{url} answers again")),
            (None | Some(true), Some(error)) => Some(format!("{url} cannot be scraped: {error:#}")),
            _ => None,
        }
    }
}

fn tell(at_s: u64, notes: &Notes) -> Vec<Happening> {
    let mut events = Vec::new();
    let mut tell = |kind, tally: &Tally, words: fn(&str, u64) -> String| {
        for (what, count) in tally.clone().into_map() {
            events.push(Happening { at_ms: (at_s + 1) * 1000, kind, text: words(&what, count) });
        }
    };
    tell(HappeningKind::Drain, &notes.drains, |node, count| format!("{node} asked {count} clients to reconnect"));
    tell(HappeningKind::NodeGone, &notes.gone, |node, count| format!("{node}: {count} connections ended"));
    tell(HappeningKind::Reconnected, &notes.back, |node, count| format!("{count} clients came back, to {node}"));
    tell(HappeningKind::Break, &notes.breaks, |reason, count| format!("{count} clients were told: {reason}"));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_notes_of_a_second_are_one_event() {
        let mut timeline = Timeline::default();
        let mut notes = Notes::default();
        notes.gone.add("n-1", 3);
        assert!(timeline.take(10, &notes).is_empty());
        assert!(timeline.take(10, &notes).is_empty());
        let events = timeline.take(11, &Notes::default());
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].at_ms, events[0].text.as_str()), (11_000, "n-1: 6 connections ended"));
    }

    #[test]
    fn a_scrape_is_told_when_it_changes() {
        let mut timeline = Timeline::default();
        let error = anyhow::anyhow!("no answer");
        assert_eq!(timeline.scraped("u", None), None);
        assert_eq!(timeline.scraped("u", Some(&error)).as_deref(), Some("u cannot be scraped: no answer"));
        assert_eq!(timeline.scraped("u", Some(&error)), None);
        assert_eq!(timeline.scraped("u", None).as_deref(), Some("u answers again"));
    }
}
