//! The frames this thread has read lately. A message is byte for byte the same for all members of its room, on all
//! nodes; so it is parsed, and held against what others saw, once per thread and not once per member.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;

use crate::audit::Place;
use crate::payload::Stamp;

const SLOTS: usize = 4096;
/// Longer frames are parsed each time: keeping them would cost more memory than parsing costs time.
const MOST_BYTES: usize = 4096;

/// What a `message` frame says.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Index in the run; none: no room of the run.
    pub(super) room: Option<u32>,
    /// None: not one of this run's.
    pub(super) stamp: Option<Stamp>,
    pub(super) place: Option<Place>,
}

#[derive(Clone)]
struct Slot {
    bytes: Vec<u8>,
    known: Known,
}

pub(super) struct Memo {
    hasher: FixedState,
    slots: Vec<Option<Slot>>,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { hasher: FixedState::default(), slots: vec![None; SLOTS] }
    }

    /// What these bytes say: remembered, or found out by `parse`. None if that fails.
    pub(super) fn get(&mut self, bytes: &[u8], parse: impl FnOnce(&[u8]) -> Option<Known>) -> Option<&Known> {
        let at = self.hasher.hash_one(bytes) as usize % SLOTS;
        let slot = &mut self.slots[at];
        if slot.as_ref().is_none_or(|slot| slot.bytes != bytes) {
            let known = parse(bytes)?;
            let mut kept = slot.take().map(|slot| slot.bytes).unwrap_or_default();
            kept.clear();
            // What is too long is remembered under no bytes, which no frame has.
            kept.extend_from_slice(if bytes.len() <= MOST_BYTES { bytes } else { &[] });
            *slot = Some(Slot { bytes: kept, known });
        }
        slot.as_ref().map(|slot| &slot.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_parsed_once_and_a_long_one_each_time() {
        let mut memo = Memo::new();
        let mut parsed = 0;
        let mut ask = |bytes: &[u8]| {
            memo.get(bytes, |bytes| {
                parsed += 1;
                Some(Known { room: Some(bytes.len() as u32), stamp: None, place: None })
            })
            .and_then(|known| known.room)
        };
        let long = vec![b'x'; MOST_BYTES + 1];
        for _ in 0..3 {
            assert_eq!(ask(b"one"), Some(3));
            assert_eq!(ask(b"four"), Some(4));
            assert_eq!(ask(&long), Some(4097));
        }
        assert_eq!(parsed, 5);
    }

    #[test]
    fn what_cannot_be_parsed_is_not_remembered() {
        let mut memo = Memo::new();
        assert!(memo.get(b"bad", |_| None).is_none());
        assert!(memo.get(b"bad", |_| Some(Known { room: None, stamp: None, place: None })).is_some());
    }
}
