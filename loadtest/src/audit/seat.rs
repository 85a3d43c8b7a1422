//! One client's membership in one room, over all its connections.

mod missing;

use roomcast_protocol::{Mode, Recovery, Term};

use super::ledger::{add, recovery_name};
use super::log::{Entry, Kind};
use super::owed::Owed;
use super::{Audit, MOST_SEQ, Place, Source};
use crate::audit::Finding;
use crate::payload::Stamp;

/// Deliveries after which a seat tells how many it checked.
const TELL_EVERY: u16 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not in the room: not yet, not any more, or not at the moment.
    Out,
    Present,
}

/// What one client saw of one room. Owned by the client's thread; checks without locks as long as all is well.
pub struct Seat {
    client: u32,
    room: u32,
    state: State,
    /// What `joined` brings continues what the seat had.
    resumed: bool,
    /// Checked since the audit was told.
    checked: u16,
    /// When it joined, if nobody had published then; else 0.
    quiet_ms: u64,
    term: Option<Term>,
    last: u64,
    /// Where it stood before it was told that messages are missing.
    floor: u64,
    owed: Option<Box<Owed>>,
}

impl Seat {
    pub fn new(client: u32, room: u32) -> Self {
        let (state, term) = (State::Out, None);
        Self { client, room, state, resumed: false, checked: 0, quiet_ms: 0, term, last: 0, floor: 0, owed: None }
    }

    /// What to resume from. None: join without `since`.
    pub fn since(&self) -> Option<Place> {
        self.term.clone().map(|term| Place { term, seq: self.last })
    }

    /// `joined` came. Its messages follow by [`Seat::replayed`]. With `diverged`, `rollback` is up to where what the client
    /// had in its term still stands.
    pub fn joined(
        &mut self,
        audit: &Audit,
        recovery: Recovery,
        rollback: Option<u64>,
        term: Option<&Term>,
        seq: Option<u64>,
    ) {
        let recovery_text = Some(recovery_name(recovery).into());
        let told = Entry { seq, rollback, recovery: recovery_text, ..self.entry(Kind::Joined, term) };
        audit.note(&told);
        audit.ledger.joined(recovery);
        self.state = State::Present;
        if audit.layout.mode == Mode::Ephemeral {
            self.quiet_ms = audit.quiet_ms();
            return;
        }
        let seq = seq.unwrap_or(0).min(MOST_SEQ);
        self.tell_end(audit, recovery, rollback);
        if let Some(term) = term {
            let back = recovery == Recovery::Diverged && self.term.as_ref() == Some(term);
            audit.with_book(self.room, |book, around| book.stands_at(around, term, seq, back));
        }
        self.resumed = recovery == Recovery::Resumed && seq >= self.last;
        if self.resumed {
            // Of a new term right behind, only the name is news.
            if seq == self.last && term.is_some() {
                self.leave_term(audit, term, seq);
                self.term = term.cloned();
            }
            return;
        }
        if recovery == Recovery::Resumed {
            let (room, client, last) = (self.room, self.client, self.last);
            audit.found(Finding::SilentBreak, 1, || {
                format!("room {room}, client {client}: resumed behind seq {last}, but the room stands at {seq}")
            });
        }
        self.rebase(audit, recovery != Recovery::Fresh, term, seq);
    }

    /// A message within `joined`. Verifies it too: no [`Audit::verify`] is needed.
    pub fn replayed(&mut self, audit: &Audit, stamp: &Stamp, place: Option<&Place>) {
        self.note(audit, Kind::Replayed, stamp, place);
        audit.look_at(self.room, stamp, place, Source::Past);
        self.count(audit);
        match place {
            _ if self.resumed => self.take(audit, Some(stamp), place),
            // Told to be missing, and here it is.
            Some(place) if place.seq > self.floor && place.seq <= self.last && self.floor > 0 => {
                audit.ledger.told_missing.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// A `message` frame, after [`Audit::verify`].
    pub fn received(&mut self, audit: &Audit, stamp: &Stamp, place: Option<&Place>) {
        self.note(audit, Kind::Received, stamp, place);
        self.count(audit);
        self.take(audit, Some(stamp), place);
    }

    /// A message came that is not ours or is damaged: its place is taken all the same. Live or within `joined`.
    pub fn foreign(&mut self, audit: &Audit, place: Option<&Place>) {
        if audit.log.is_some() {
            let seq = place.map(|place| place.seq);
            audit.note(&Entry { seq, ..self.entry(Kind::Foreign, place.map(|place| &place.term)) });
        }
        let Some(place) = place.filter(|place| (1..=MOST_SEQ).contains(&place.seq)) else { return };
        let source = if place.seq > self.last { Source::Live } else { Source::Past };
        audit.with_book(self.room, |book, around| book.place(around, place, super::Slot::FOREIGN, source));
        if self.resumed || place.seq > self.last {
            self.take(audit, None, Some(place));
        }
    }

    /// The `ack` of a message of this client's.
    pub fn acked(&mut self, audit: &Audit, number: u32, place: Option<&Place>, duplicate: bool) {
        if audit.log.is_some() {
            let seq = place.map(|place| place.seq);
            let entry = self.entry(Kind::Acked, place.map(|place| &place.term));
            audit.note(&Entry { number, seq, duplicate, ..entry });
        }
        audit.acked(self.client, self.room, number, place, duplicate);
        let Some(place) = place.filter(|place| place.seq <= MOST_SEQ) else { return };
        if audit.layout.echo || self.state == State::Out {
            return;
        }
        // What stands in a term that is over tells nothing of this one, but may be what was missing before it.
        let seat = self.term.as_ref();
        let over = seat != Some(&place.term)
            && audit.with_book(self.room, |book, _| book.is_over(&place.term, seat)).unwrap_or_default();
        if over {
            self.close_hole(place.seq);
        } else {
            self.take_own(number, place, duplicate);
        }
    }

    /// A `reset` frame. Without a term nothing at all is left of the room.
    pub fn reset(&mut self, audit: &Audit, reason: Recovery, term: Option<&Term>, seq: u64) {
        let entry = self.entry(Kind::Reset, term);
        audit.note(&Entry { seq: Some(seq), recovery: Some(recovery_name(reason).into()), ..entry });
        audit.ledger.reset(reason);
        let seq = seq.min(MOST_SEQ);
        self.tell_end(audit, reason, Some(seq));
        if let Some(term) = term {
            let back = reason == Recovery::Diverged && self.term.as_ref() == Some(term);
            audit.with_book(self.room, |book, around| book.stands_at(around, term, seq, back));
        }
        self.rebase(audit, true, term, seq);
        self.floor = 0;
    }

    /// The connection is lost or was dropped. Also between `joined` and the end of its replay.
    pub fn away(&mut self, audit: &Audit) {
        audit.note(&self.entry(Kind::Away, None));
        self.go_out();
    }

    /// Left on purpose: what passes until the next `joined` is not owed.
    pub fn left(&mut self, audit: &Audit) {
        audit.note(&self.entry(Kind::Left, None));
        self.settle_holes(audit, None);
        self.go_out();
        self.last = 0;
        if let Some(term) = self.term.take() {
            self.owed.get_or_insert_default().left = Some(term);
        }
    }

    /// Whether nothing that is known to be stored or accepted in its room is still owed to it. True while not in it.
    pub fn is_caught_up(&self, audit: &Audit) -> bool {
        if self.state == State::Out {
            return true;
        }
        if audit.layout.mode == Mode::Durable {
            let (top, present) =
                audit.with_book(self.room, |book, _| book.stand(self.term.as_ref())).unwrap_or_default();
            return present && self.last >= top || self.omits(audit) && self.last + self.own_tail(audit) >= top;
        }
        let caught_up = audit.with_book(self.room, |book, around| {
            let early = audit.was_quiet(self.quiet_ms);
            let own = around.writer(self.client).filter(|_| !audit.layout.echo);
            let last = |index| self.owed.as_ref().map_or(early.then_some(0), |owed| owed.tracks.last(index, early));
            (0..book.writers.len()).filter(|index| Some(*index) != own).all(|index| {
                let Some(last) = last(index) else { return true };
                let publisher = self.room * audit.layout.members + index as u32;
                let accepted = book.writers[index].accepted;
                accepted.saturating_sub(last) < 65_536
                    && (last + 1..=accepted).all(|number| book.is_unsure(publisher, number))
            })
        });
        caught_up.unwrap_or(true)
    }

    /// End of the run: what is still owed is lost. Nothing may follow.
    pub fn conclude(&mut self, audit: &Audit) {
        audit.note(&self.entry(Kind::Concluded, None));
        self.settle_holes(audit, None);
        add(&audit.ledger.checked, u64::from(self.checked));
        self.checked = 0;
        if self.state == State::Out {
            add(&audit.ledger.absent, 1);
            return;
        }
        self.state = State::Out;
        if audit.layout.mode == Mode::Durable {
            self.enter_own_term();
            let last = self.last + self.own_tail(audit);
            audit.with_book(self.room, |book, _| book.conclude(self.term.as_ref(), last));
            return;
        }
        let early = audit.was_quiet(self.quiet_ms);
        audit.with_book(self.room, |book, around| {
            // A publisher without echo does not get its own.
            let own = around.writer(self.client).filter(|_| !audit.layout.echo);
            for index in (0..audit.layout.publishers as usize).filter(|index| Some(*index) != own) {
                let tracks = self.owed.as_ref().map(|owed| &owed.tracks);
                if let Some(last) = tracks.map_or(early.then_some(0), |tracks| tracks.last(index, early)) {
                    book.writer(index).conclude(last);
                }
            }
        });
    }

    fn go_out(&mut self) {
        (self.state, self.resumed, self.quiet_ms, self.floor) = (State::Out, false, 0, 0);
        if let Some(owed) = &mut self.owed {
            owed.tracks.pause();
            // A resume brings them again.
            owed.forget_own();
        }
    }

    /// The room goes on behind `seq`.
    fn rebase(&mut self, audit: &Audit, told: bool, term: Option<&Term>, seq: u64) {
        if told && seq > self.last {
            add(&audit.ledger.told_missing, seq - self.last);
        }
        self.settle_holes(audit, term);
        if let Some(owed) = &mut self.owed {
            owed.forget_own();
        }
        self.floor = if told { self.last } else { 0 };
        let old = std::mem::replace(&mut self.term, term.cloned()).or_else(|| self.owed.as_mut()?.left.take());
        (self.last, self.resumed) = (seq, false);
        if let (Some(old), Some(term)) = (old.filter(|old| Some(old) != term), term) {
            audit.with_book(self.room, |book, around| book.moved(around, Some(&old), term, seq));
        }
        self.take_early(audit, 0);
    }

    /// What the room still has of this seat's term, as it was told.
    fn tell_end(&self, audit: &Audit, why: Recovery, rollback: Option<u64>) {
        let end = match why {
            Recovery::Diverged => rollback,
            Recovery::UnknownTerm => Some(0),
            _ => None,
        };
        if let Some((term, end)) = self.term.as_ref().zip(end) {
            audit.with_book(self.room, |book, _| book.acks.ended(term, end));
        }
    }

    /// The room goes on behind `seq` in `term`, without a word: another one ended there or before.
    fn leave_term(&self, audit: &Audit, term: Option<&Term>, seq: u64) {
        if let Some(old) = self.term.as_ref().filter(|old| Some(*old) != term) {
            audit.with_book(self.room, |book, _| book.acks.ended(old, seq));
        }
    }

    fn take(&mut self, audit: &Audit, stamp: Option<&Stamp>, place: Option<&Place>) {
        if self.state == State::Out {
            return;
        }
        match (place, audit.layout.mode, stamp) {
            (Some(place), Mode::Durable, _) if place.seq <= MOST_SEQ => self.take_place(audit, place, stamp),
            (None, Mode::Ephemeral, Some(stamp)) => self.take_number(audit, stamp),
            (None, Mode::Ephemeral, None) => {}
            _ => audit.found(Finding::Corrupted, 1, || {
                format!("room {}, client {}: a message with a place that cannot be: {place:?}", self.room, self.client)
            }),
        }
    }

    fn take_place(&mut self, audit: &Audit, place: &Place, stamp: Option<&Stamp>) {
        let next = place.seq == self.last + 1;
        if next && self.term.as_ref() == Some(&place.term) {
            self.last = place.seq;
            if let Some(owed) = &mut self.owed {
                self.last = owed.advance(self.last);
            }
            return;
        }
        let omits = self.omits(audit);
        let (room, client, last) = (self.room, self.client, self.last);
        let continues = match &self.term {
            Some(term) if *term != place.term => next || omits && place.seq > last,
            _ => true,
        };
        if !continues {
            self.settle_holes(audit, Some(&place.term));
            let old = self.term.replace(place.term.clone());
            self.open_holes(audit, last + 1, place.seq - 1);
            self.last = place.seq;
            audit.found(Finding::SilentBreak, 1, || {
                let old = old.as_ref().map_or("", Term::as_str);
                format!(
                    "room {room}, client {client}: term {} seq {} right behind term {old} seq {last}",
                    place.term, place.seq
                )
            });
            return;
        }
        self.leave_term(audit, Some(&place.term), place.seq - 1);
        let old = self.term.replace(place.term.clone());
        if old.as_ref() != Some(&place.term) {
            audit.with_book(room, |book, around| book.moved(around, old.as_ref(), &place.term, place.seq));
            self.take_early(audit, place.seq);
        }
        if place.seq > self.last {
            self.open_holes(audit, self.last + 1, place.seq - 1);
            self.last = place.seq;
            if let Some(owed) = &mut self.owed {
                self.last = owed.advance(self.last);
            }
        } else {
            self.take_old(audit, place, stamp, omits);
        }
    }

    fn count(&mut self, audit: &Audit) {
        self.checked += 1;
        if self.checked == TELL_EVERY {
            add(&audit.ledger.checked, u64::from(TELL_EVERY));
            self.checked = 0;
        }
    }

    fn note(&self, audit: &Audit, kind: Kind, stamp: &Stamp, place: Option<&Place>) {
        if audit.log.is_none() {
            return;
        }
        let (publisher, number, attempt) = (stamp.publisher, stamp.number, stamp.attempt);
        let origin = (stamp.room != self.room).then_some(stamp.room);
        let seq = place.map(|place| place.seq);
        let entry = self.entry(kind, place.map(|place| &place.term));
        audit.note(&Entry { publisher, number, attempt, origin, seq, ..entry });
    }

    fn entry<'a>(&self, kind: Kind, term: Option<&'a Term>) -> Entry<'a> {
        Entry { term: term.map(|term| term.as_str().into()), ..Entry::of(kind, self.client, self.room) }
    }
}
