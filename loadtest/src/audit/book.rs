//! One room as all clients of this process saw it: which message stands at which seq, and each publisher's numbers.
//!
//! Behind a lock, once per distinct message and thread. Publishers' order is checked in the order of seq and not of
//! arrival, since threads see a room at different times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roomcast_protocol::Term;

use super::ledger::{Ledger, add};
use super::numbers::{Met, Numbers};
use super::order::{Order, term_hash};
use super::window::{Slot, Source, Told, Window, Writer};
use super::{Layout, Place};
use crate::audit::{Finding, RoomTally};

/// Terms that a room is remembered to have had before.
const PAST_TERMS: usize = 16;
/// Findings of one room that are remembered, to count each once.
const FLAGGED: usize = 1024;
/// Unanswered publishes of one publisher that are told apart.
const MOST_PENDING: usize = 1024;

#[derive(Default)]
pub(super) struct Book {
    pub(super) term: Option<Term>,
    past: VecDeque<u64>,
    /// The last unknown term of which something was not taken in.
    refused: u64,
    first: u64,
    top: u64,
    /// Up to here two messages may have had a seq: the room went back within its term.
    disputed: u64,
    window: Window,
    order: Order,
    pub(super) writers: Vec<Writer>,
    /// (last seq, seats that got so far) at the end.
    seats: BTreeMap<u64, u64>,
    /// Ephemeral: what seats lack though they got later numbers.
    holes: BTreeMap<(u32, u32), u32>,
    late: BTreeSet<(u32, u32)>,
    unsure: BTreeSet<(u32, u32)>,
    blind: bool,
    flagged: BTreeSet<(u64, u32, u32)>,
    pub(super) acks: super::acks::Acks,
}

/// What a book needs to know of the world around it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) layout: Layout,
    pub(super) room: u32,
}

impl Around<'_> {
    /// Slots of a room's window: 4 million over all rooms.
    fn most_slots(&self) -> usize {
        (4_194_304 / self.layout.rooms.max(1) as usize).clamp(256, 65_536)
    }

    fn most_blocks(&self) -> usize {
        (32_768 / self.layout.rooms.max(1) as usize).clamp(4, 16)
    }

    /// A publisher's place among its room's; none if it publishes elsewhere.
    pub(super) fn writer(&self, publisher: u32) -> Option<usize> {
        let member = publisher.checked_sub(self.room.checked_mul(self.layout.members)?)?;
        (member < self.layout.publishers).then_some(member as usize)
    }
}

impl Book {
    pub(super) fn writer(&mut self, index: usize) -> &mut Writer {
        if index >= self.writers.len() {
            self.writers.resize_with(index + 1, Writer::default);
        }
        &mut self.writers[index]
    }

    /// Whether this finding is one more; each is counted once.
    pub(super) fn flag(&mut self, at: u64, publisher: u32, number: u32) -> bool {
        let new = !self.flagged.contains(&(at, publisher, number));
        if new && self.flagged.len() < FLAGGED {
            self.flagged.insert((at, publisher, number));
        }
        new
    }

    /// Whether what is told of `term` belongs to the room's present; a new term becomes it.
    fn enter(&mut self, around: &Around<'_>, term: &Term, seq: u64, source: Option<Source>) -> bool {
        if self.term.as_ref() == Some(term) {
            return true;
        }
        let hash = term_hash(term.as_str());
        if self.past.contains(&hash) {
            return false;
        }
        if let Some(old) = &self.term {
            // What begins below is a straggler of an earlier term, or was announced by `joined` or `reset`.
            if source == Some(Source::Past) || source.is_some() && seq <= self.top {
                self.refused = hash;
                return false;
            }
            self.past.push_back(term_hash(old.as_str()));
            if self.past.len() > PAST_TERMS {
                self.past.pop_front();
            }
            self.catch_up(around, 0);
            // Only who got the message before it and this one knows that they belong together.
            if source != Some(Source::Live) || seq != self.top + 1 || self.refused == hash {
                self.forget();
            }
        }
        self.term = Some(term.clone());
        (self.first, self.top, self.disputed, self.order) = (seq, seq, 0, Order::default());
        true
    }

    /// `joined` or `reset` told how far the room is, or that it went back so far.
    pub(super) fn stands_at(&mut self, around: &Around<'_>, term: &Term, seq: u64, back: bool) {
        if !self.enter(around, term, seq, None) {
            return;
        }
        if back && seq < self.top {
            // Within its term: other messages get the seqs behind, and old ones may still come.
            self.catch_up(around, 0);
            self.disputed = self.disputed.max(self.top);
            self.top = seq;
            self.forget();
            self.order = Order::default();
        } else {
            self.top = self.top.max(seq);
        }
    }

    /// A seat went from one term to another, which shows which of them is the later one. A term not met before is
    /// taken for the latest; if it is not, its seats go on from there, and that sets it right.
    pub(super) fn moved(&mut self, around: &Around<'_>, from: Option<&Term>, to: &Term, seq: u64) {
        let hash = term_hash(to.as_str());
        if from.is_some() && self.term.as_ref() == from || !self.past.contains(&hash) {
            self.past.retain(|past| *past != hash);
            self.enter(around, to, seq, None);
        }
    }

    /// What was stored behind a break is gone, and its numbers may be stored again.
    fn forget(&mut self) {
        self.window.clear();
        for writer in &mut self.writers {
            writer.numbers = Numbers::default();
        }
    }

    /// A message of ours (or [`Slot::FOREIGN`]) has this place.
    pub(super) fn place(&mut self, around: &Around<'_>, place: &Place, slot: Slot, source: Source) {
        if !self.enter(around, &place.term, place.seq, Some(source)) {
            add(&around.ledger.unchecked_order, 1);
            return;
        }
        let seq = place.seq;
        self.first = self.first.min(seq);
        if seq <= self.disputed {
            // Told apart no more; only what continues is sure to be of the room as it is now.
            self.top += u64::from(seq == self.top + 1);
            add(&around.ledger.unchecked_order, 1);
            return;
        }
        self.top = self.top.max(seq);
        let Self { window, writers, late, .. } = self;
        let mut fallen = Vec::new();
        window.reach(around.most_slots(), seq, |seq, slot| fallen.push((seq, slot)));
        for (seq, slot) in fallen {
            follow(around, window, writers, late, seq, slot);
        }
        match window.tell(seq, slot) {
            Told::New => {
                self.order.add(around.most_blocks(), seq, slot.publisher(), slot.number);
                self.catch_up(around, (around.most_slots() / 4).min(1024) as u64);
            }
            Told::Known => {}
            Told::TooOld => add(&around.ledger.unchecked_order, 1),
            Told::Differs(other) => self.differs(around, seq, slot, other),
        }
    }

    fn differs(&mut self, around: &Around<'_>, seq: u64, slot: Slot, other: Slot) {
        let (publisher, number) = (slot.publisher(), slot.number);
        if let Some(index) = around.writer(other.publisher()).filter(|_| other.is_acked_only()) {
            self.writer(index).numbers.forget(other.number);
        }
        if self.flag(seq, publisher, number) {
            around.ledger.found(Finding::Reordered, 1, || {
                format!(
                    "room {}: seq {seq} is message {number} of publisher {publisher} here, and message {} of publisher \
                     {} {}",
                    around.room,
                    other.number,
                    other.publisher(),
                    if other.is_acked_only() || slot.is_acked_only() { "by its ack" } else { "for another client" },
                )
            });
        }
    }

    /// Checks publishers' order as far as the room's order is known.
    fn catch_up(&mut self, around: &Around<'_>, patience: u64) {
        while let Some((seq, slot)) = self.window.due(patience) {
            follow(around, &self.window, &mut self.writers, &mut self.late, seq, slot);
        }
    }

    /// The message known at `seq`.
    pub(super) fn at(&self, seq: u64) -> Option<Slot> {
        self.window.at(seq)
    }

    /// How many of these seqs a client lacks that does not get its own messages. Seqs of which nothing is known are
    /// excused as long as it has unanswered publishes.
    pub(super) fn lost_of(
        &self,
        client: u32,
        term: Option<&Term>,
        (first, last): (u64, u64),
        excuses: &mut u64,
    ) -> u64 {
        let end = last.min(first.saturating_add(65_535));
        let mut missing = last - end;
        for seq in first..=end {
            match self.window.at(seq).filter(|_| term.is_none() || term == self.term.as_ref()) {
                Some(slot) => missing += u64::from(slot.is_foreign() || slot.publisher() != client),
                None if *excuses > 0 => *excuses -= 1,
                None => missing += 1,
            }
        }
        missing
    }

    /// The last seq known, and whether a seat in `term` has heard of the present one.
    pub(super) fn stand(&self, term: Option<&Term>) -> (u64, bool) {
        (self.top, self.top == 0 || term == self.term.as_ref())
    }

    /// Whether the room had this term before the one a seat is in.
    pub(super) fn is_over(&self, term: &Term, seat: Option<&Term>) -> bool {
        let rank = |term: &Term| {
            let hash = term_hash(term.as_str());
            let past = self.past.iter().position(|past| *past == hash);
            past.or((self.term.as_ref() == Some(term)).then_some(self.past.len()))
        };
        rank(term).zip(seat.and_then(rank)).is_some_and(|(told, seat)| told < seat)
    }

    pub(super) fn top(&self) -> u64 {
        self.top
    }

    /// A seat at the end of the run. One that still is in an earlier term lacks all of the present one.
    pub(super) fn conclude(&mut self, term: Option<&Term>, last: u64) {
        let behind = term.is_some_and(|term| self.past.contains(&term_hash(term.as_str())));
        let last = if behind { last.min(self.first.saturating_sub(1)) } else { last };
        *self.seats.entry(last).or_default() += 1;
    }

    pub(super) fn published(&mut self, ledger: &Ledger, index: usize, publisher: u32, number: u32, attempt: u8) {
        let writer = self.writer(index);
        let seen = writer.numbers.has(number);
        if writer.pending.iter().all(|(pending, _)| *pending != number) {
            writer.pending.push((number, seen));
        }
        let oldest = (writer.pending.len() > MOST_PENDING).then(|| writer.pending.remove(0).0);
        writer.given_up += u64::from(oldest.is_some());
        for number in oldest.into_iter().chain((attempt > 0).then_some(number)) {
            self.doubt(ledger, publisher, number);
        }
    }

    /// This number may be late or missing.
    pub(super) fn doubt(&mut self, ledger: &Ledger, publisher: u32, number: u32) {
        if self.unsure.contains(&(publisher, number)) {
            return;
        }
        if ledger.keep() {
            self.unsure.insert((publisher, number));
        } else {
            self.blind = true;
        }
    }

    pub(super) fn is_unsure(&self, publisher: u32, number: u32) -> bool {
        let mut pending = self.writers.iter().flat_map(|writer| &writer.pending);
        self.blind || self.unsure.contains(&(publisher, number)) || pending.any(|(pending, _)| *pending == number)
    }

    /// A seat got a later number of an ephemeral publisher's and not this one. False: it could not be kept.
    pub(super) fn lack(&mut self, ledger: &Ledger, publisher: u32, number: u32) -> bool {
        if let Some(seats) = self.holes.get_mut(&(publisher, number)) {
            *seats += 1;
            return true;
        }
        let kept = ledger.keep();
        if kept {
            self.holes.insert((publisher, number), 1);
        }
        kept
    }

    /// It came after all. False: nobody was known to lack it.
    pub(super) fn fill(&mut self, publisher: u32, number: u32) -> bool {
        let Some(seats) = self.holes.get_mut(&(publisher, number)) else { return false };
        *seats -= 1;
        if *seats == 0 {
            self.holes.remove(&(publisher, number));
        }
        true
    }

    /// Everything of this room that adds up with other processes'.
    pub(super) fn tally(&mut self, around: &Around<'_>) -> RoomTally {
        self.catch_up(around, 0);
        let mut tally = RoomTally {
            room: around.room,
            term: self.term.as_ref().map_or(0, |term| term_hash(term.as_str())),
            past: self.past.iter().copied().collect(),
            first: self.first,
            top: self.top,
            seats: self.seats.iter().map(|(last, seats)| (*last, *seats)).collect(),
            holes: self.holes.iter().map(|((publisher, number), seats)| (*publisher, *number, *seats)).collect(),
            late: self.late.iter().copied().collect(),
            unsure: self.unsure.iter().copied().collect(),
            blind: self.blind,
            ..RoomTally::default()
        };
        self.order.tell(&mut tally);
        for (member, writer) in (0..).zip(&self.writers) {
            let publisher = around.room * around.layout.members + member;
            tally.unsure.extend(writer.pending.iter().map(|(number, _)| (publisher, *number)));
            let known = writer.accepted.max(writer.numbers.last());
            if self.term.is_none() && (known > 0 || !writer.seats.is_empty()) {
                tally.publishers.push((publisher, known, writer.seats.clone()));
            }
        }
        tally.unsure.sort_unstable();
        tally.unsure.dedup();
        tally
    }

    /// Numbers of a publisher that were stored, if at all, without an answer.
    pub(super) fn unanswered(&self, index: usize) -> u64 {
        self.writers.get(index).map_or(0, |writer| writer.pending.len() as u64 + writer.given_up)
    }

    pub(super) fn given_up(&mut self, ledger: &Ledger, index: usize, publisher: u32, number: u32) {
        let writer = self.writer(index);
        writer.pending.retain(|(pending, _)| *pending != number);
        writer.given_up += 1;
        self.doubt(ledger, publisher, number);
    }

    /// Publishes that nobody answered and nobody got.
    pub(super) fn undecided(&self) -> u64 {
        let unseen = |writer: &Writer| writer.pending.iter().filter(|(_, seen)| !seen).count();
        self.writers.iter().map(|writer| unseen(writer) as u64).sum()
    }
}

/// The next message in the order of seq: its number must be one more than its publisher's before, or a retry.
fn follow(
    around: &Around<'_>,
    window: &Window,
    writers: &mut Vec<Writer>,
    late: &mut BTreeSet<(u32, u32)>,
    seq: u64,
    slot: Slot,
) {
    let (publisher, number) = (slot.publisher(), slot.number);
    let Some(index) = around.writer(publisher).filter(|_| !slot.is_foreign()) else { return };
    if index >= writers.len() {
        writers.resize_with(index + 1, Writer::default);
    }
    let (room, ledger, before) = (around.room, around.ledger, writers[index].numbers.last());
    match writers[index].numbers.meet(number) {
        Met::New { .. } => {}
        Met::Late | Met::TooOld if slot.is_retried() => {}
        Met::Late | Met::TooOld => {
            if !ledger.keep() || !late.insert((publisher, number)) {
                ledger.found(Finding::Reordered, 1, || {
                    format!("room {room}: message {number} of publisher {publisher} stands at seq {seq}, behind its {before}")
                });
            }
        }
        Met::Again => {
            let twin = window.twin(seq, slot);
            let by_ack = slot.is_acked_only() || twin.is_some_and(|(_, twin)| twin.is_acked_only());
            let finding = if by_ack { Finding::Reordered } else { Finding::Duplicated };
            let first = twin.map_or_else(|| "an earlier seq".to_owned(), |(seq, _)| format!("seq {seq}"));
            let how = if by_ack { "by its ack" } else { "already" };
            ledger.found(finding, 1, || {
                format!(
                    "room {room}: message {number} of publisher {publisher} stands at seq {seq}, and {how} at {first}"
                )
            });
        }
    }
}
