//! The last messages of a live room, kept as JSON so that joins and short resumes cost the broker nothing.

use std::collections::VecDeque;

use bytes::Bytes;

/// Most bytes kept for one room, whatever the count allows.
const MOST_BYTES: usize = 256 * 1024;

/// A bounded run of consecutive messages that ends at the room's present top.
pub(super) struct Recent {
    messages: VecDeque<(u64, Bytes)>,
    bytes: usize,
    most: usize,
    /// More are kept while clients come back in numbers.
    is_deep: bool,
}

/// Most messages kept while clients come back in numbers; the bound in bytes stays.
pub(super) const MOST_DEEP: usize = 1024;

impl Recent {
    /// Keeps at most `most` messages.
    pub(super) fn new(most: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, most, is_deep: false }
    }

    /// Appends the message with that seq; older ones leave as the bounds demand.
    pub(super) fn push(&mut self, seq: u64, json: Bytes) {
        self.bytes += json.len();
        self.messages.push_back((seq, json));
        self.trim();
    }

    fn trim(&mut self) {
        let most = if self.is_deep { self.most.max(MOST_DEEP) } else { self.most };
        while self.messages.len() > most || self.bytes > MOST_BYTES {
            match self.messages.pop_front() {
                Some((_, gone)) => self.bytes -= gone.len(),
                None => break,
            }
        }
    }

    /// Keeps more than usual, and takes in older messages, oldest first, that end right before the first one kept or,
    /// where none is, at `top`. What does not fit, or does not connect, is not taken.
    pub(super) fn deepen(&mut self, top: u64, older: impl DoubleEndedIterator<Item = (u64, Bytes)>) {
        self.is_deep = true;
        for (seq, json) in older.rev() {
            let next = self.messages.front().map_or(top + 1, |(first, _)| *first);
            if seq >= next {
                continue;
            }
            let fits = self.messages.len() < self.most.max(MOST_DEEP) && self.bytes + json.len() <= MOST_BYTES;
            if seq + 1 != next || !fits {
                break;
            }
            self.bytes += json.len();
            self.messages.push_front((seq, json));
        }
    }

    /// Keeps as little as usual again.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.is_deep) {
            self.trim();
            self.messages.shrink_to_fit();
        }
    }

    /// Whether it was deepened, so that what is missing does not fit.
    pub(super) fn is_deep(&self) -> bool {
        self.is_deep
    }

    /// The first seq kept.
    pub(super) fn first(&self) -> Option<u64> {
        self.messages.front().map(|(first, _)| *first)
    }

    /// How many messages of the usual size here all that is kept may hold, at most as many as are kept when deep.
    pub(super) fn capacity(&self) -> usize {
        let usual = self.bytes.checked_div(self.messages.len()).unwrap_or(512).max(1);
        (MOST_BYTES / usual).clamp(16, MOST_DEEP)
    }

    /// Forgets everything: what follows does not continue it.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        (self.bytes, self.is_deep) = (0, false);
    }

    /// The newest messages, oldest first: no more than are kept usually.
    pub(super) fn newest(&self) -> impl Iterator<Item = &[u8]> {
        let skip = self.messages.len().saturating_sub(self.most);
        self.messages.range(skip..).map(|(_, json)| &**json)
    }

    /// The messages behind `seq`, if none of them is missing here.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &[u8]>> {
        let first = self.messages.front().map(|(first, _)| *first)?;
        (first <= seq + 1).then(|| {
            let skip = self.messages.partition_point(|(own, _)| *own <= seq);
            self.messages.range(skip..).map(|(_, json)| &**json)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(most: usize, count: u64, size: usize) -> Recent {
        let mut recent = Recent::new(most);
        for seq in 1..=count {
            recent.push(seq, Bytes::from(vec![b'0' + (seq % 10) as u8; size]));
        }
        recent
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        assert_eq!(kept(3, 10, 1).newest().collect::<Vec<_>>(), [b"8", b"9", b"0"]);
        assert!(kept(1000, 50, 100 * 1024).bytes <= MOST_BYTES);
        assert_eq!(kept(0, 5, 1).newest().count(), 0);
    }

    #[test]
    fn older_messages_are_taken_while_they_connect_and_fit() {
        let older = |range: std::ops::RangeInclusive<u64>, size: usize| {
            range.map(move |seq| (seq, Bytes::from(vec![b'x'; size])))
        };
        let mut recent = kept(3, 10, 1);
        recent.deepen(10, older(1..=9, 1));
        assert_eq!((recent.first(), recent.messages.len(), recent.bytes), (Some(1), 10, 10));
        recent.push(11, Bytes::from_static(b"x"));
        assert_eq!(recent.after(0).expect("covered").count(), 11);
        recent.settle();
        assert_eq!((recent.first(), recent.bytes), (Some(9), 3));
        // Nothing that does not connect, and no more than the bound.
        recent.deepen(11, older(1..=7, 1));
        assert_eq!(recent.first(), Some(9));
        let mut recent = kept(3, 100, 1024);
        recent.deepen(100, older(0..=97, MOST_BYTES / 10));
        assert!(recent.bytes <= MOST_BYTES && recent.first() == Some(89), "{:?}", recent.first());
        let mut recent = Recent::new(0);
        recent.deepen(5, older(3..=5, 1));
        assert_eq!(recent.after(2).expect("covered").count(), 3);
    }

    #[test]
    fn after_is_whole_or_nothing() {
        let recent = kept(3, 10, 1);
        assert_eq!(recent.after(7).expect("covered").count(), 3);
        assert_eq!(recent.after(9).expect("covered").count(), 1);
        assert_eq!(recent.after(10).expect("covered").count(), 0);
        assert!(recent.after(6).is_none());
        assert!(Recent::new(3).after(0).is_none());
    }
}
