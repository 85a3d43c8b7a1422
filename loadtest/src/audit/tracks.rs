//! One seat of an ephemeral room: which numbers of each publisher it got. There is no seq to go by.

use super::numbers::{Met, Numbers};

/// What a seat knows of one publisher.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Track {
    numbers: Numbers,
    /// False: what came before the next message is not owed.
    known: bool,
}

/// What a message was to the seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The next, behind so many that did not come.
    New { first: u32, lacking: u32 },
    /// The first since the seat was away, behind so many that passed meanwhile.
    Back { missed: u32 },
    /// Behind later ones.
    Late,
    /// Once more.
    Again,
    /// Late, or once more: too long ago to tell.
    TooOld,
}

/// A seat's publishers, by their place among the room's.
#[derive(Default)]
pub(super) struct Tracks(Vec<Track>);

impl Tracks {
    /// `early`: the seat was there before all publishes.
    pub(super) fn step(&mut self, index: usize, number: u32, early: bool) -> Step {
        if index >= self.0.len() {
            self.0.resize(index + 1, Track::default());
        }
        let track = &mut self.0[index];
        if !track.known && !early {
            let (before, first) = (track.numbers.last(), number.saturating_sub(1));
            track.known = true;
            track.numbers = Numbers::since(first);
            track.numbers.meet(number);
            return Step::Back { missed: if before == 0 { 0 } else { first.saturating_sub(before) } };
        }
        track.known = true;
        let first = track.numbers.last().saturating_add(1);
        match track.numbers.meet(number) {
            Met::New { skipped } => Step::New { first, lacking: skipped },
            Met::Late => Step::Late,
            Met::Again => Step::Again,
            Met::TooOld => Step::TooOld,
        }
    }

    /// What passes from now on is not owed.
    pub(super) fn pause(&mut self) {
        for track in &mut self.0 {
            track.known = false;
        }
    }

    /// The last number that the seat got, and since which it is owed all; none if it is owed nothing known.
    pub(super) fn last(&self, index: usize, early: bool) -> Option<u32> {
        match self.0.get(index) {
            Some(track) if track.known || early => Some(track.numbers.last()),
            None if early => Some(0),
            _ => None,
        }
    }
}
