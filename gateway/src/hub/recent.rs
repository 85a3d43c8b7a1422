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
}

impl Recent {
    /// Keeps at most `most` messages.
    pub(super) fn new(most: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, most }
    }

    /// Appends the message with that seq; older ones leave as the bounds demand.
    pub(super) fn push(&mut self, seq: u64, json: Bytes) {
        self.bytes += json.len();
        self.messages.push_back((seq, json));
        while self.messages.len() > self.most || self.bytes > MOST_BYTES {
            match self.messages.pop_front() {
                Some((_, gone)) => self.bytes -= gone.len(),
                None => break,
            }
        }
    }

    /// Forgets everything: what follows does not continue it.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    /// The messages kept, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.messages.iter().map(|(_, json)| &**json)
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
        assert_eq!(kept(3, 10, 1).all().collect::<Vec<_>>(), [b"8", b"9", b"0"]);
        assert!(kept(1000, 50, 100 * 1024).bytes <= MOST_BYTES);
        assert_eq!(kept(0, 5, 1).all().count(), 0);
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
