//! What a seat does when a message is not the next: holes, repeats, late ones. Cold: locks and allocates.

use roomcast_protocol::Term;

use super::super::ledger::add;
use super::super::owed::Owed;
use super::super::tracks::Step;
use super::super::{Audit, Place};
use super::Seat;
use crate::audit::Finding;
use crate::payload::Stamp;

impl Seat {
    /// False: there was none.
    pub(super) fn close_hole(&mut self, seq: u64) -> bool {
        self.owed.as_mut().is_some_and(|owed| owed.close(seq))
    }

    /// An own message that does not come back has this place.
    pub(super) fn take_own(&mut self, number: u32, place: &Place, duplicate: bool) {
        if self.term.as_ref() != Some(&place.term) {
            // Whether the new term goes on where the seat stands, or a `reset` will follow, is not known yet.
            self.owed.get_or_insert_default().early(number, place, duplicate);
        } else if !self.close_hole(place.seq) && place.seq > self.last {
            let owed = self.owed.get_or_insert_default();
            owed.own(place.seq);
            self.last = owed.advance(self.last);
        }
    }

    /// The seat is in a new term: acks that came ahead of it count now. So do those in between, of terms that had
    /// nothing for this seat, if it goes on without a break at `next`.
    pub(super) fn take_early(&mut self, audit: &Audit, next: u64) {
        let Some(owed) = &mut self.owed else { return };
        let (early, term) = (std::mem::take(&mut owed.early), self.term.clone());
        let others = early.iter().filter(|(_, place, _)| next > 0 && Some(&place.term) != term.as_ref());
        for (number, place, duplicate) in others {
            if place.seq >= next {
                owed.early(*number, place, *duplicate);
            } else if place.seq > self.last {
                owed.own(place.seq);
            } else {
                owed.close(place.seq);
            }
        }
        for (number, place, duplicate) in early.iter().filter(|(_, place, _)| Some(&place.term) == term.as_ref()) {
            audit.acked(self.client, self.room, *number, Some(place), false);
            self.take_own(*number, place, *duplicate);
        }
    }

    /// End of the run: new terms in which the seat's own messages are the next have brought nothing else.
    pub(super) fn enter_own_term(&mut self) {
        let mut early = self.owed.as_mut().map(|owed| std::mem::take(&mut owed.early)).unwrap_or_default();
        early.sort_by_key(|(_, place, _)| place.seq);
        for (_, place, _) in early {
            if place.seq == self.last + 1 {
                (self.term, self.last) = (Some(place.term), place.seq);
            }
        }
    }

    /// A seq that the seat is past: late, again, or the room went back.
    pub(super) fn take_old(&mut self, audit: &Audit, place: &Place, stamp: Option<&Stamp>, omits: bool) {
        let own = omits && stamp.is_some_and(|stamp| stamp.publisher == self.client);
        let (room, client, seq, last) = (self.room, self.client, place.seq, self.last);
        if self.close_hole(seq) {
            if !omits {
                audit.ledger.take_back(Finding::Lost, 1);
            }
            if !own {
                audit.found(Finding::Reordered, 1, || {
                    format!("room {room}, client {client}: seq {seq} behind seq {last}")
                });
            }
            return;
        }
        let Some(stamp) = stamp.filter(|_| !own) else { return };
        let known = audit.with_book(room, |book, _| book.at(seq)).flatten();
        let other = known.is_some_and(|known| known.number != stamp.number || known.publisher() != stamp.publisher);
        if other {
            self.last = seq;
            audit.found(Finding::SilentBreak, 1, || {
                format!("room {room}, client {client}: seq {seq} behind seq {last}, with another message than before")
            });
            return;
        }
        audit.found(Finding::Duplicated, 1, || {
            let (publisher, number) = (stamp.publisher, stamp.number);
            format!("room {room}, client {client}: seq {seq} again, message {number} of publisher {publisher}")
        });
    }

    /// Does not get its own messages, and learns of them by acks: a hole may be one.
    pub(super) fn omits(&self, audit: &Audit) -> bool {
        !audit.layout.echo && audit.around(self.room).writer(self.client).is_some()
    }

    pub(super) fn open_holes(&mut self, audit: &Audit, first: u64, last: u64) {
        if first > last {
            return;
        }
        let omits = self.omits(audit);
        let owed = self.owed.get_or_insert_default();
        let mut forgotten = Vec::new();
        for (first, last) in owed.without_own(first, last) {
            forgotten.extend(owed.open(first, last));
            if !omits {
                self.lose(audit, first, last);
                return;
            }
        }
        self.settle(audit, forgotten);
    }

    /// Who omits its own messages only now knows which holes were none.
    /// The seat goes on in the term `next`, if in any.
    pub(super) fn settle_holes(&mut self, audit: &Audit, next: Option<&Term>) {
        let Some(owed) = &mut self.owed else { return };
        let holes = owed.take_holes(next);
        if self.omits(audit) {
            self.settle(audit, holes);
        }
    }

    fn settle(&mut self, audit: &Audit, holes: Vec<(u64, u64)>) {
        if holes.is_empty() || !self.omits(audit) {
            return;
        }
        // A message that a break took away may have been stored again, and acked, in the term that follows.
        // A duplicate was not stored again.
        let again = |owed: &Owed| owed.early.iter().filter(|(_, _, duplicate)| !duplicate).count() as u64;
        let again = self.owed.as_deref().map_or(0, again);
        let mut excuses = audit.unanswered(self.client, self.room) + again;
        for (first, last) in holes {
            let term = self.term.as_ref();
            let lost =
                audit.with_book(self.room, |book, _| book.lost_of(self.client, term, (first, last), &mut excuses));
            if let Some(lost) = lost.filter(|lost| *lost > 0) {
                self.lose(audit, last - (lost - 1).min(last - first), last);
            }
        }
    }

    fn lose(&self, audit: &Audit, first: u64, last: u64) {
        audit.found(Finding::Lost, last - first + 1, || {
            let (room, client) = (self.room, self.client);
            format!("room {room}, client {client}: seqs {first} to {last} did not come, and later ones did")
        });
    }

    /// How many seqs behind the last are this client's own, which it does not get.
    pub(super) fn own_tail(&self, audit: &Audit) -> u64 {
        if !self.omits(audit) {
            return 0;
        }
        let mut excuses = audit.unanswered(self.client, self.room);
        let own = audit.with_book(self.room, |book, _| {
            let top = book.top().max(self.last);
            top - self.last - book.lost_of(self.client, None, (self.last + 1, top), &mut excuses)
        });
        own.unwrap_or(0)
    }

    pub(super) fn take_number(&mut self, audit: &Audit, stamp: &Stamp) {
        let (room, client, publisher, number) = (self.room, self.client, stamp.publisher, stamp.number);
        let Some(index) = audit.around(room).writer(publisher).filter(|_| stamp.room == room) else { return };
        let early = self.quiet_ms > 0 && audit.was_quiet(self.quiet_ms);
        match self.owed.get_or_insert_default().tracks.step(index, number, early) {
            Step::New { lacking: 0, .. } => {}
            Step::New { first, lacking } => audit.lacking(client, room, publisher, first, lacking),
            Step::Back { missed } => add(&audit.ledger.missed_away, u64::from(missed)),
            step => {
                let filled = step != Step::Again
                    && audit.with_book(room, |book, _| book.fill(publisher, number)).unwrap_or_default();
                let again = step == Step::Again || step == Step::TooOld && !filled;
                let finding = if again { Finding::Duplicated } else { Finding::Reordered };
                audit.found(finding, 1, || {
                    let how = if again { "again" } else { "behind later ones" };
                    format!("room {room}, client {client}: message {number} of publisher {publisher} came {how}")
                });
            }
        }
    }
}
