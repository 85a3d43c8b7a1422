//! Which of a publisher's numbers were met: the last one and a window of those before it.

/// How a number relates to those met before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Greater than all; so many were skipped.
    New { skipped: u32 },
    /// Smaller than one met before, and not met itself.
    Late,
    /// Met before.
    Again,
    /// So much smaller that it cannot be told.
    TooOld,
}

/// 24 bytes; one per publisher, or per seat and publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    last: u32,
    /// Bit i: `last - i` was met.
    met: u64,
}

impl Numbers {
    /// Nothing up to `last` counts as skipped, and nothing of it as met.
    pub(super) fn since(last: u32) -> Self {
        Self { last, met: 0 }
    }

    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn has(&self, number: u32) -> bool {
        number <= self.last && 1u64.checked_shl(self.last - number).is_some_and(|bit| self.met & bit != 0)
    }

    /// It was told wrongly that this one was met.
    pub(super) fn forget(&mut self, number: u32) {
        if !self.has(number) {
            return;
        }
        self.met &= !(1 << (self.last - number));
        let back = self.met.trailing_zeros();
        (self.last, self.met) = match self.met {
            0 => (number.saturating_sub(1), 0),
            met => (self.last - back, met >> back),
        };
    }

    pub(super) fn meet(&mut self, number: u32) -> Met {
        if number > self.last {
            let skipped = number - self.last - 1;
            self.met = self.met.checked_shl(number - self.last).unwrap_or(0) | 1;
            self.last = number;
            return Met::New { skipped };
        }
        let Some(bit) = 1u64.checked_shl(self.last - number) else { return Met::TooOld };
        if self.met & bit != 0 {
            return Met::Again;
        }
        self.met |= bit;
        Met::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_new_late_met_again_or_too_old() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.meet(1), Met::New { skipped: 0 });
        assert_eq!(numbers.meet(4), Met::New { skipped: 2 });
        assert_eq!((numbers.meet(3), numbers.meet(3), numbers.meet(4)), (Met::Late, Met::Again, Met::Again));
        assert!(numbers.has(3) && !numbers.has(2) && !numbers.has(5));
        assert_eq!(numbers.meet(100), Met::New { skipped: 95 });
        assert_eq!((numbers.meet(36), numbers.meet(37)), (Met::TooOld, Met::Late));
        assert_eq!(numbers.meet(u32::MAX), Met::New { skipped: u32::MAX - 101 });
        assert_eq!(numbers.meet(0), Met::TooOld);
        let mut numbers = Numbers::default();
        numbers.forget(3);
        for number in [1, 2, 5] {
            numbers.meet(number);
        }
        numbers.forget(5);
        assert_eq!((numbers.last(), numbers.meet(5), numbers.has(2)), (2, Met::New { skipped: 2 }, true));
        let mut single = Numbers::default();
        single.meet(7);
        single.forget(7);
        assert_eq!((single.last(), single.meet(7)), (6, Met::New { skipped: 0 }));
    }
}
