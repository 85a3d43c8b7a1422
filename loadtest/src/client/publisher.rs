//! What one client publishes: numbers, what has no answer yet, and the frames. Knows no socket.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::payload::{self, Stamp};
use crate::plan::Plan;

/// Publishes without an answer that are kept. Further ones are given up before they are sent.
const MOST_PENDING: usize = 10_000;

/// A publish that is due and has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) number: u32,
    /// Times it was sent.
    pub(super) sent: u8,
    /// It was refused since it was last sent, and waits to be tried again.
    pub(super) refused: bool,
    pub(super) intended_ns: u64,
}

/// One client's publishes, in the order of their numbers. What was never sent stands behind all that was, since nothing
/// is sent before those that were due earlier; so everything is found by halving. With thousands waiting for a node that
/// is back, looking at each for each would stop a thread for tens of milliseconds.
#[derive(Default)]
pub(super) struct Publisher {
    numbers: u32,
    pending: VecDeque<Pending>,
}

impl Publisher {
    /// A publish is due. Gives its number, and false if there is no room to keep it.
    pub(super) fn due(&mut self, intended_ns: u64) -> (u32, bool) {
        self.numbers += 1;
        let fits = self.pending.len() < MOST_PENDING;
        if fits {
            self.pending.push_back(Pending { number: self.numbers, sent: 0, refused: false, intended_ns });
        }
        (self.numbers, fits)
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Pending> {
        let at = self.place(number)?;
        self.pending.get_mut(at)
    }

    /// The first that was never sent.
    pub(super) fn first_unsent(&self) -> Option<u32> {
        let at = self.pending.partition_point(|pending| pending.sent > 0);
        self.pending.get(at).map(|pending| pending.number)
    }

    /// An answer came, or none will.
    pub(super) fn settle(&mut self, number: u32) -> Option<Pending> {
        let at = self.place(number)?;
        self.pending.remove(at)
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.pending.binary_search_by_key(&number, |pending| pending.number).ok()
    }

    /// Everything without an answer, oldest first.
    pub(super) fn pending(&self) -> impl Iterator<Item = Pending> + '_ {
        self.pending.iter().copied()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// What a frame needs beside the stamp.
pub(super) struct Envelope<'a> {
    pub(super) plan: &'a Plan,
    pub(super) room_name: &'a str,
}

/// Writes the `publish` frame of a message into `out`, which is cleared. The `ref` is the number; the id has it in the form
/// that the gateway remembers for each publisher at once.
pub(super) fn write_frame(envelope: &Envelope<'_>, stamp: &Stamp, out: &mut Vec<u8>) {
    let Stamp { run, publisher, number, .. } = *stamp;
    out.clear();
    let mut head = String::with_capacity(192);
    let _ = write!(
        head,
        r#"{{"type":"publish","room":"{}","id":"{run:08x}-{publisher}#{number}","ref":{number},"#,
        envelope.room_name
    );
    if !envelope.plan.echo {
        head.push_str(r#""echo":false,"#);
    }
    head.push_str(r#""data":"#);
    out.extend_from_slice(head.as_bytes());
    payload::write(stamp, envelope.plan.sizes.of(publisher, number), out);
    out.push(b'}');
}

/// Publisher and number out of a message's id, if it is of this run.
pub(super) fn read_id(run: u32, id: &str) -> Option<(u32, u32)> {
    let mut parts = id.split(['-', '#']);
    let (of, publisher, number) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && u32::from_str_radix(of, 16) == Ok(run))
        .then(|| Some((publisher.parse().ok()?, number.parse().ok()?)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_keep_their_order_and_are_bounded() {
        let mut publisher = Publisher::default();
        for at in 0..MOST_PENDING as u64 {
            assert!(publisher.due(at).1);
        }
        assert_eq!(publisher.due(1), (MOST_PENDING as u32 + 1, false));
        assert_eq!(publisher.settle(2).map(|pending| pending.intended_ns), Some(1));
        assert_eq!(publisher.settle(2), None);
        assert_eq!(publisher.pending().take(2).map(|pending| pending.number).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_was_never_sent_is_behind_what_was() {
        let mut publisher = Publisher::default();
        assert_eq!(publisher.first_unsent(), None);
        for at in 0..6 {
            publisher.due(at);
        }
        for number in 1..=5 {
            assert_eq!(publisher.first_unsent(), Some(number));
            publisher.get(number).expect("it is there").sent = 1;
            if number % 2 == 1 {
                assert_eq!(publisher.settle(number).map(|pending| pending.number), Some(number));
            }
        }
        assert_eq!(publisher.first_unsent(), Some(6));
        assert!(publisher.get(3).is_none() && publisher.get(7).is_none());
        assert_eq!(publisher.pending().map(|pending| pending.number).collect::<Vec<_>>(), [2, 4, 6]);
    }

    #[test]
    fn an_id_tells_who_published_what() {
        assert_eq!(read_id(0xbeef, "0000beef-7#9"), Some((7, 9)));
        for other in ["0000beee-7#9", "0000beef-7", "0000beef-7#9#1", "0000beef-x#9", ""] {
            assert_eq!(read_id(0xbeef, other), None, "{other}");
        }
    }
}
