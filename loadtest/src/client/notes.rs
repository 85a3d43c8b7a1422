//! What happened on a thread in a second, in words that are counted: for tables and the timeline.

use std::collections::BTreeMap;

/// Distinct words of a kind; what comes beyond counts as `other`.
const MOST_WORDS: usize = 64;

/// Drained once a second.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// `error` codes that answered publishes.
    pub publish_errors: BTreeMap<String, u64>,
    /// Why connections ended against our will.
    pub closes: BTreeMap<String, u64>,
    /// Why attempts to connect failed.
    pub connect_failures: BTreeMap<String, u64>,
    /// Connections that ended against our will, by node.
    pub gone: BTreeMap<String, u64>,
    /// `reconnect` frames, by node.
    pub drains: BTreeMap<String, u64>,
    /// Rooms joined again, by node.
    pub back: BTreeMap<String, u64>,
    /// Resets, and joins that could not resume, by reason.
    pub breaks: BTreeMap<String, u64>,
    /// Words of errors that are no answer to a publish.
    pub other_errors: BTreeMap<String, u64>,
}

impl Notes {
    /// Counts one more of `word`.
    pub fn note(map: &mut BTreeMap<String, u64>, word: &str) {
        if let Some(count) = map.get_mut(word) {
            *count += 1;
        } else if map.len() < MOST_WORDS {
            map.insert(word.to_owned(), 1);
        } else {
            *map.entry("other".to_owned()).or_default() += 1;
        }
    }

    /// Each kind's map, for adding up.
    pub fn add(&mut self, other: Self) {
        let mine = [
            &mut self.publish_errors,
            &mut self.closes,
            &mut self.connect_failures,
            &mut self.gone,
            &mut self.drains,
            &mut self.back,
            &mut self.breaks,
            &mut self.other_errors,
        ];
        let theirs = [
            other.publish_errors,
            other.closes,
            other.connect_failures,
            other.gone,
            other.drains,
            other.back,
            other.breaks,
            other.other_errors,
        ];
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            for (word, count) in theirs {
                *mine.entry(word).or_default() += count;
            }
        }
    }
}
