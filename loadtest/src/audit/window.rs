//! The last messages of a durable room by seq, bounded. Called by the room's book.

use std::collections::VecDeque;

use super::numbers::Numbers;

/// What is known of one seq.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slot {
    bits: u32,
    /// 0: nothing is known.
    pub(super) number: u32,
}

/// Only an ack told of it so far.
const ACKED_ONLY: u32 = 1 << 31;
/// A retry: it may stand behind later numbers.
const RETRIED: u32 = 1 << 30;

impl Slot {
    /// Taken by what is not ours or was damaged.
    pub(super) const FOREIGN: Self = Self { bits: 0, number: u32::MAX };

    pub(super) fn seen(publisher: u32, number: u32, retried: bool) -> Self {
        Self { bits: publisher & !(ACKED_ONLY | RETRIED) | if retried { RETRIED } else { 0 }, number }
    }

    pub(super) fn acked(publisher: u32, number: u32, retried: bool) -> Self {
        let seen = Self::seen(publisher, number, retried);
        Self { bits: seen.bits | ACKED_ONLY, ..seen }
    }

    pub(super) fn publisher(self) -> u32 {
        self.bits & !(ACKED_ONLY | RETRIED)
    }

    pub(super) fn is_retried(self) -> bool {
        self.bits & RETRIED != 0
    }

    pub(super) fn is_acked_only(self) -> bool {
        self.bits & ACKED_ONLY != 0
    }

    pub(super) fn is_foreign(self) -> bool {
        self == Self::FOREIGN
    }

    pub(super) fn is_empty(self) -> bool {
        self.number == 0
    }

    pub(super) fn is_same_message(self, other: Self) -> bool {
        self.number == other.number && self.publisher() == other.publisher() && !self.is_foreign()
    }

    /// Both tell of the same message.
    fn joined_with(self, other: Self) -> Self {
        let bits = self.publisher() | (self.bits | other.bits) & RETRIED | self.bits & other.bits & ACKED_ONLY;
        Self { bits, ..self }
    }
}

/// What became of a place that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    New,
    Known,
    /// Another message was told to stand there.
    Differs(Slot),
    TooOld,
}

#[derive(Default)]
pub(super) struct Window {
    /// Seq of the first slot; 0 before the first.
    base: u64,
    slots: VecDeque<Slot>,
    /// What is before it was handed out by [`Window::due`], or passed over.
    front: u64,
}

impl Window {
    /// Makes room for `seq`: slots that fall out are handed out first.
    pub(super) fn reach(&mut self, most: usize, seq: u64, mut out: impl FnMut(u64, Slot)) {
        let most = most as u64;
        if self.base == 0 {
            self.base = if seq <= most { 1 } else { seq - most / 4 };
            self.front = self.base;
        }
        while seq >= self.base + most {
            let Some(slot) = self.slots.pop_front() else {
                self.base = seq - most / 4;
                break;
            };
            if self.base >= self.front && !slot.is_empty() {
                out(self.base, slot);
            }
            self.base += 1;
        }
        self.front = self.front.max(self.base);
    }

    /// Takes in that `slot` is at `seq`, which must have been reached.
    pub(super) fn tell(&mut self, seq: u64, slot: Slot) -> Told {
        let Some(at) = seq.checked_sub(self.base) else { return Told::TooOld };
        let at = at as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Slot::default());
        }
        let known = &mut self.slots[at];
        if known.is_empty() || known.is_foreign() {
            let late = !known.is_foreign() && seq < self.front;
            *known = slot;
            return if late || slot.is_foreign() { Told::Known } else { Told::New };
        }
        if slot.is_foreign() {
            return Told::Known;
        }
        if known.is_same_message(slot) {
            *known = known.joined_with(slot);
            return Told::Known;
        }
        let other = *known;
        if known.is_acked_only() {
            *known = slot;
        }
        Told::Differs(other)
    }

    pub(super) fn at(&self, seq: u64) -> Option<Slot> {
        let at = seq.checked_sub(self.base)?;
        self.slots.get(at as usize).copied().filter(|slot| !slot.is_empty())
    }

    /// The next slot in the order of seq. With holes before it only once they are `patience` old.
    pub(super) fn due(&mut self, patience: u64) -> Option<(u64, Slot)> {
        let end = self.base + self.slots.len() as u64;
        while self.front < end {
            let slot = self.slots[(self.front - self.base) as usize];
            if slot.is_empty() && end - self.front <= patience {
                return None;
            }
            self.front += 1;
            if !slot.is_empty() {
                return Some((self.front - 1, slot));
            }
        }
        None
    }

    /// Another seq before `seq` with the same message.
    pub(super) fn twin(&self, seq: u64, slot: Slot) -> Option<(u64, Slot)> {
        let same = (self.base..seq).zip(&self.slots).filter(|(_, known)| known.is_same_message(slot));
        same.last().map(|(seq, known)| (seq, *known))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A publisher as its room's book knows it.
#[derive(Default)]
pub(super) struct Writer {
    /// Numbers met, durable: in the order of seq.
    pub(super) numbers: Numbers,
    /// Last number accepted (acked).
    pub(super) accepted: u32,
    /// Published and not answered yet, and whether somebody got it.
    pub(super) pending: Vec<(u32, bool)>,
    /// How many were given up.
    pub(super) given_up: u64,
    /// Ephemeral: (last number, seats that got so far) at the end.
    pub(super) seats: Vec<(u32, u32)>,
}

impl Writer {
    /// A seat at the end of the run.
    pub(super) fn conclude(&mut self, last: u32) {
        match self.seats.iter_mut().find(|(known, _)| *known == last) {
            Some((_, seats)) => *seats += 1,
            None => self.seats.push((last, 1)),
        }
    }
}
