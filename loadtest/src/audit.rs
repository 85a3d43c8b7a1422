//! What a cluster owes its clients, checked while the run goes on, in bounded memory.
//!
//! The same checks serve a running load test and the checker of logs (`loadtest check`): both turn what clients saw
//! into calls of [`Audit`] and [`Seat`]. Called by clients; knows neither sockets nor clocks.

mod acks;
mod around;
mod book;
pub mod check;
mod layout;
mod ledger;
pub mod log;
mod model;
mod numbers;
mod order;
mod owed;
mod seat;
mod tally;
#[cfg(test)]
mod tests;
mod tracks;
mod window;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use roomcast_protocol::Term;

use crate::clock::Clock;
use crate::payload::Stamp;

use around::Around;
use book::Book;
use ledger::{Ledger, add, lock};
use log::{Entry, Kind};
use window::{Slot, Source};

pub use layout::{Layout, Share};
pub use model::{AuditReport, Example, Finding, PublisherTally, RoomTally};
pub use seat::Seat;
pub use tally::merge;

/// Seqs above this are no seqs.
const MOST_SEQ: u64 = 1 << 53;
/// Publishers above this are none of ours.
const MOST_PUBLISHERS: u32 = 1 << 30;
/// Numbers of one hole that are told apart.
const MOST_HOLE: u32 = 65_536;
/// How far the clocks of a run's processes may be apart, ms.
const SLACK_MS: u64 = 1000;

/// A message's place in a durable room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub term: Term,
    pub seq: u64,
}

/// What all clients of a process saw, held against each other. Shared by its threads.
pub struct Audit {
    run: u32,
    layout: Layout,
    log: Option<log::Log>,
    clock: Clock,
    /// The time of what a log tells; 0: the clock's.
    played_ns: AtomicU64,
    /// When this process first published or got a message, ms since the Unix epoch; 0 before.
    begun_ms: AtomicU64,
    ledger: Ledger,
    books: Vec<Mutex<Book>>,
}

impl Audit {
    pub fn new(run: u32, layout: Layout, log: Option<log::Log>, clock: Clock) -> Self {
        let books = (0..layout.rooms).map(|_| Mutex::default()).collect();
        let ledger = Ledger::default();
        Self { run, layout, log, clock, played_ns: AtomicU64::new(0), begun_ms: AtomicU64::new(0), ledger, books }
    }

    /// A message that came live in `room`. Once per distinct frame and thread, before any [`Seat::received`] of it;
    /// more often does no harm.
    pub fn verify(&self, room: u32, stamp: &Stamp, place: Option<&Place>) {
        self.look_at(room, stamp, place, Source::Live);
    }

    /// A payload or frame is damaged, or came from a room that the client is not in: `what` says so in words.
    /// If it has a place, [`Seat::foreign`] must follow, so that it does not count as lost too.
    pub fn corrupted(&self, client: u32, room: u32, what: &str) {
        self.note(&Entry { what: Some(what.into()), ..Entry::of(Kind::Corrupted, client, room) });
        self.found(Finding::Corrupted, 1, || format!("room {room}, client {client}: {what}"));
    }

    /// A message that came to a client in `room`, which it was not published to and does not name.
    pub fn misplaced(&self, client: u32, room: u32, stamp: &Stamp) {
        let Stamp { publisher, number, attempt, .. } = *stamp;
        let origin = Some(stamp.room);
        self.note(&Entry { publisher, number, attempt, origin, ..Entry::of(Kind::Misplaced, client, room) });
        self.verify(room, stamp, None);
    }

    /// About to be written to the socket: to be called before.
    pub fn published(&self, publisher: u32, room: u32, number: u32, attempt: u8) {
        self.note(&Entry { number, attempt, ..Entry::of(Kind::Published, publisher, room) });
        self.begin();
        self.with_writer(publisher, room, |book, index| {
            book.published(&self.ledger, index, publisher, number, attempt);
        });
    }

    /// The publisher gave up on this one: refused for good, or (ephemeral) the connection broke before its ack. It
    /// may be missing, or be seen after all. What is still to be retried is none of this.
    pub fn abandoned(&self, publisher: u32, room: u32, number: u32) {
        self.note(&Entry { number, ..Entry::of(Kind::Abandoned, publisher, room) });
        self.with_writer(publisher, room, |book, index| {
            book.given_up(&self.ledger, index, publisher, number);
        });
    }

    /// What was found so far, but for what is still on its way. Cheap enough for once a second.
    pub fn findings(&self) -> BTreeMap<Finding, u64> {
        self.now_ms();
        self.ledger.findings()
    }

    /// Everything. At the end, after every seat's [`Seat::conclude`].
    pub fn report(&self) -> AuditReport {
        self.now_ms();
        let (mut undecided, mut lost_acked) = (0, 0);
        let mut rooms = Vec::with_capacity(self.books.len());
        for (room, book) in (0..).zip(&self.books) {
            let mut book = lock(book);
            let tally = book.tally(&self.around(room));
            undecided += book.undecided();
            lost_acked += book.acks.lost(book.term.as_ref());
            if tally != (RoomTally { room, ..RoomTally::default() }) {
                rooms.push(tally);
            }
        }
        tally::settled(AuditReport { lost_acked, undecided, rooms, ..self.ledger.report() })
    }

    /// Writes what is left of the log.
    ///
    /// # Errors
    /// Of any write of the log so far.
    pub fn flush_log(&self) -> anyhow::Result<()> {
        self.log.as_ref().map_or(Ok(()), log::Log::flush)
    }

    fn look_at(&self, room: u32, stamp: &Stamp, place: Option<&Place>, source: Source) {
        if stamp.run != self.run {
            return;
        }
        self.begin();
        let sane = stamp.number > 0 && stamp.number < u32::MAX && stamp.publisher < MOST_PUBLISHERS;
        if !sane || place.is_some_and(|place| place.seq == 0 || place.seq > MOST_SEQ) {
            self.found(Finding::Corrupted, 1, || format!("room {room}: numbers that cannot be: {stamp:?} {place:?}"));
            return;
        }
        self.with_book(room, |book, around| {
            self.look_at_room(book, around, stamp);
            let Some(index) = around.writer(stamp.publisher).filter(|_| stamp.room == room) else {
                if let Some(place) = place {
                    book.place(around, place, Slot::FOREIGN, source);
                }
                return;
            };
            for (_, seen) in book.writer(index).pending.iter_mut().filter(|(number, _)| *number == stamp.number) {
                *seen = true;
            }
            match place {
                Some(place) => {
                    let slot = Slot::seen(stamp.publisher, stamp.number, stamp.attempt > 0);
                    book.place(around, place, slot, source);
                }
                None => drop(book.writer(index).numbers.meet(stamp.number)),
            }
        });
    }

    fn look_at_room(&self, book: &mut Book, around: &Around<'_>, stamp: &Stamp) {
        let (room, publisher, number) = (around.room, stamp.publisher, stamp.number);
        let ours = stamp.room == room && around.writer(publisher).is_some();
        if !ours && book.flag(u64::MAX, publisher, number) {
            let meant = stamp.room;
            self.found(Finding::WrongRoom, 1, || {
                format!("room {room}: message {number} of publisher {publisher} was published to room {meant}")
            });
        }
    }

    /// An ack; from the publisher's seat, which has logged it.
    fn acked(&self, publisher: u32, room: u32, number: u32, place: Option<&Place>, duplicate: bool) {
        self.with_writer(publisher, room, |book, index| {
            let writer = book.writer(index);
            let pending = writer.pending.len();
            writer.pending.retain(|(pending, _)| *pending != number);
            if writer.pending.len() < pending || number > writer.accepted {
                add(&self.ledger.acked, 1);
            }
            writer.accepted = writer.accepted.max(number);
            if let Some(place) = place.filter(|place| (1..=MOST_SEQ).contains(&place.seq)) {
                let slot = Slot::acked(publisher, number, duplicate);
                let source = if duplicate { Source::Past } else { Source::Ack };
                book.acks.acked(&place.term, place.seq);
                book.place(&self.around(room), place, slot, source);
            }
        });
    }

    /// A seat got number `first + lacking` of a publisher without the ones from `first` on.
    fn lacking(&self, client: u32, room: u32, publisher: u32, first: u32, lacking: u32) {
        let kept = self.with_book(room, |book, _| {
            let mut numbers = first..first.saturating_add(lacking.min(MOST_HOLE));
            numbers.by_ref().take_while(|number| book.lack(&self.ledger, publisher, *number)).count()
        });
        let lost = u64::from(lacking) - kept.unwrap_or(0) as u64;
        if lost > 0 {
            self.found(Finding::Lost, lost, || {
                format!(
                    "room {room}, client {client}: {lost} messages of publisher {publisher} from number {first} on; so many \
                     are missing that it is not looked up whether they were given up"
                )
            });
        }
    }

    /// Publishes of a client that were stored, if at all, without an answer.
    fn unanswered(&self, publisher: u32, room: u32) -> u64 {
        let count =
            |book: &mut Book, around: &Around<'_>| around.writer(publisher).map_or(0, |index| book.unanswered(index));
        self.with_book(room, count).unwrap_or(0)
    }

    fn with_book<T>(&self, room: u32, act: impl FnOnce(&mut Book, &Around<'_>) -> T) -> Option<T> {
        let mut book = lock(self.books.get(room as usize)?);
        Some(act(&mut book, &self.around(room)))
    }

    fn with_writer(&self, publisher: u32, room: u32, act: impl FnOnce(&mut Book, usize)) {
        self.with_book(room, |book, around| {
            if let Some(index) = around.writer(publisher) {
                act(book, index);
            }
        });
    }

    fn around(&self, room: u32) -> Around<'_> {
        Around { ledger: &self.ledger, layout: self.layout, room }
    }

    fn found(&self, finding: Finding, count: u64, text: impl FnOnce() -> String) {
        self.now_ms();
        self.ledger.found(finding, count, text);
    }

    fn note(&self, entry: &Entry<'_>) {
        if let Some(log) = &self.log {
            log.write(&self.clock, entry);
        }
    }

    fn now_ms(&self) -> u64 {
        let played = self.played_ns.load(Relaxed);
        let now = if played == 0 { self.clock.now_ns() } else { played } / 1_000_000;
        self.ledger.now_ms.store(now, Relaxed);
        now
    }

    /// Somebody published or got a message.
    fn begin(&self) {
        if self.begun_ms.load(Relaxed) == 0 {
            let _ = self.begun_ms.compare_exchange(0, self.now_ms().max(1), Relaxed, Relaxed);
        }
    }

    /// Now, if nobody has published yet as far as this process knows; else 0.
    fn quiet_ms(&self) -> u64 {
        if self.begun_ms.load(Relaxed) == 0 { self.now_ms() } else { 0 }
    }

    /// Whether a seat that joined at a [`Audit::quiet_ms`] was there before all publishes.
    fn was_quiet(&self, joined_ms: u64) -> bool {
        let begun = self.begun_ms.load(Relaxed);
        if self.layout.share.of == 1 {
            return joined_ms > 0 && (begun == 0 || joined_ms <= begun);
        }
        // Other processes may have begun a little earlier.
        joined_ms > 0 && joined_ms + SLACK_MS <= begun
    }
}
