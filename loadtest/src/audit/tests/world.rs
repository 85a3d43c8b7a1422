//! A small cluster as the audit sees it: one durable room, its members, and everything that may rightly happen.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use roomcast_protocol::{Mode, Recovery, Term};

use super::super::log::Log;
use super::super::{Audit, Layout, Place, Seat};
use crate::audit::{AuditReport, Share};
use crate::clock::Clock;
use crate::payload::Stamp;

pub(super) const RUN: u32 = 7;
pub(super) const MEMBERS: u32 = 4;
pub(super) const ROOM: u32 = 1;

pub(super) fn layout(mode: Mode, echo: bool, share: Share) -> Layout {
    Layout { rooms: 3, members: MEMBERS, publishers: 2, mode, echo, share }
}

pub(super) fn term(index: u32) -> Term {
    Term::new(&format!("t{index}")).expect("valid")
}

pub(super) fn place(term_index: u32, seq: u64) -> Place {
    Place { term: term(term_index), seq }
}

/// Message `number` of the room's `member`.
pub(super) fn stamp(member: u32, number: u32) -> Stamp {
    Stamp { run: RUN, room: ROOM, publisher: ROOM * MEMBERS + member, number, attempt: 0, node: 0, intended_ns: 0 }
}

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Drop,
    Twice,
    Swap,
    WrongRoom,
    Corrupt,
    /// One client gets two messages in each other's place.
    OtherOrder,
    /// The node stores a message twice.
    StoredTwice,
    /// A new term elsewhere without `reset`.
    SilentBreak,
}

#[derive(Clone)]
struct Stored {
    term: u32,
    stamp: Stamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Out,
    In,
}

struct Member {
    seat: Seat,
    presence: Presence,
    /// Seqs up to here were delivered.
    cursor: u64,
    /// Breaks that it was told of.
    breaks: u32,
    /// Seqs up to here come by replay: own messages too.
    replay: u64,
}

pub(super) struct World {
    pub(super) audits: Vec<Audit>,
    pub(super) logs: Vec<PathBuf>,
    members: Vec<Member>,
    stored: Vec<Stored>,
    term: u32,
    breaks: u32,
    /// Where the last break was.
    floor: u64,
    numbers: [u32; 2],
    /// Acks under way: (member, number, seq, duplicate).
    acks: VecDeque<(u32, u32, u64, bool)>,
    /// To be retried: (member, number).
    undecided: VecDeque<(u32, u32)>,
    echo: bool,
    /// Nothing is given up: without echo, that would excuse a loss.
    pub(super) patient: bool,
    pub(super) fault: Option<Fault>,
    pub(super) faulted: bool,
}

impl World {
    pub(super) fn new(processes: u32, echo: bool, logs: Option<&Path>) -> Self {
        let (clock, mut paths) = (Clock::start(), Vec::new());
        let audits = (0..processes).map(|index| {
            let layout = layout(Mode::Durable, echo, Share { index, of: processes });
            let log = logs.map(|folder| {
                paths.push(folder.join(format!("{index}.log")));
                Log::create(&paths[index as usize], RUN, layout).expect("a folder that can be written to")
            });
            Audit::new(RUN, layout, log, clock)
        });
        let audits = audits.collect();
        let seat = |member| Seat::new(ROOM * MEMBERS + member, ROOM);
        let members = (0..MEMBERS).map(|member| Member {
            seat: seat(member),
            presence: Presence::Out,
            cursor: 0,
            breaks: 0,
            replay: 0,
        });
        Self {
            audits,
            logs: paths,
            members: members.collect(),
            stored: Vec::new(),
            term: 0,
            breaks: 0,
            floor: 0,
            numbers: [0; 2],
            acks: VecDeque::new(),
            undecided: VecDeque::new(),
            echo,
            patient: false,
            fault: None,
            faulted: false,
        }
    }

    fn audit(&self, member: u32) -> usize {
        ((ROOM + member) % self.audits.len() as u32) as usize
    }

    fn top(&self) -> u64 {
        self.stored.len() as u64
    }

    fn place_of(&self, seq: u64) -> Place {
        place(self.stored[seq as usize - 1].term, seq)
    }

    /// Something happens. Any numbers will do.
    pub(super) fn act(&mut self, what: u8, who: u32, much: u8) {
        let (member, publisher) = (who % MEMBERS, who % 2);
        let may_break = self.fault.is_none();
        // Without echo, who only has acks to go by cannot follow several new terms at once.
        let may_renew = may_break && (self.echo || self.term == 0);
        match what % 16 {
            0..=3 => self.publish(publisher, much),
            4..=6 => self.deliver(member, usize::from(much % 8)),
            7 => self.deliver(member, usize::MAX),
            8 => self.ack(usize::from(much)),
            9 => self.retry(),
            10 | 11 if may_break => self.go(member, much.is_multiple_of(4)),
            12 if may_break => self.come(member, much),
            13 if may_break && self.echo && much.is_multiple_of(2) => self.term += 1,
            14 if may_renew => self.break_off(u64::from(much % 4)),
            _ => self.come(member, 0),
        }
    }

    fn publish(&mut self, member: u32, fate: u8) {
        self.numbers[member as usize] += 1;
        let number = self.numbers[member as usize];
        let stamp = stamp(member, number);
        let audit = &self.audits[self.audit(member)];
        audit.published(stamp.publisher, ROOM, number, 0);
        match fate % 16 {
            0 if !self.patient => audit.abandoned(stamp.publisher, ROOM, number),
            1 => self.undecided.push_back((member, number)),
            2 => {
                self.store(stamp);
                self.undecided.push_back((member, number));
            }
            _ => {
                self.store(stamp);
                self.acks.push_back((member, number, self.top(), false));
                if self.fault == Some(Fault::StoredTwice) && !self.faulted {
                    self.faulted = true;
                    self.store(stamp);
                }
            }
        }
    }

    fn store(&mut self, stamp: Stamp) {
        self.stored.push(Stored { term: self.term, stamp });
    }

    fn ack(&mut self, many: usize) {
        for _ in 0..many {
            let Some((member, number, seq, duplicate)) = self.acks.pop_front() else { return };
            if self.members[member as usize].presence == Presence::Out {
                // It went down with the connection.
                self.undecided.push_back((member, number));
                continue;
            }
            let (place, audit) = (self.place_of(seq), self.audit(member));
            let seat = &mut self.members[member as usize].seat;
            seat.acked(&self.audits[audit], number, Some(&place), duplicate);
        }
    }

    fn retry(&mut self) {
        let Some((member, number)) = self.undecided.pop_front() else { return };
        let stamp = Stamp { attempt: 1, ..stamp(member, number) };
        self.audits[self.audit(member)].published(stamp.publisher, ROOM, number, 1);
        let known =
            self.stored.iter().position(|old| (old.stamp.publisher, old.stamp.number) == (stamp.publisher, number));
        if known.is_none() {
            self.store(stamp);
        }
        let seq = known.map_or(self.top(), |at| at as u64 + 1);
        self.acks.push_back((member, number, seq, known.is_some()));
    }

    /// The broker loses its newest messages; what is not acked yet is retried.
    fn break_off(&mut self, many: u64) {
        self.ack(usize::MAX);
        // Two breaks that look like none together are more than a node can tell. And without echo, an ack may be the
        // only news of a message that is gone before its node had it.
        for member in 0..MEMBERS {
            if !self.echo || self.members[member as usize].breaks != self.breaks {
                self.deliver(member, usize::MAX);
            }
        }
        self.floor = self.top() - many.min(self.top());
        self.stored.truncate(self.floor as usize);
        self.term += 1;
        self.breaks += 1;
        // The new term is known once it has a message.
        self.publish(0, 3);
    }

    fn go(&mut self, member: u32, on_purpose: bool) {
        let audit = self.audit(member);
        let one = &mut self.members[member as usize];
        if one.presence == Presence::In {
            one.presence = Presence::Out;
            let audit = &self.audits[audit];
            if on_purpose { one.seat.left(audit) } else { one.seat.away(audit) }
        }
    }

    fn come(&mut self, member: u32, much: u8) {
        let (audit, top) = (self.audit(member), self.top());
        let audit = &self.audits[audit];
        let breaks = self.breaks;
        let term_now = self.stored.last().map(|stored| term(stored.term));
        let one = &mut self.members[member as usize];
        if one.presence == Presence::In {
            return;
        }
        one.presence = Presence::In;
        let since = one.seat.since();
        let recovery = match &since {
            None => Recovery::Fresh,
            Some(since) if Some(&since.term) != term_now.as_ref() || one.breaks != breaks => Recovery::UnknownTerm,
            Some(_) if much.is_multiple_of(5) => Recovery::Gap,
            Some(_) => Recovery::Resumed,
        };
        one.breaks = breaks;
        let step = u64::from(much % 7);
        one.seat.joined(audit, recovery, None, term_now.as_ref(), Some(top));
        let first = match (recovery, &since) {
            (Recovery::Resumed, Some(since)) => since.seq,
            _ => top - step.min(top),
        };
        let end = if recovery == Recovery::Resumed { (first + step).min(top) } else { top };
        for seq in first + 1..=end {
            let stored = &self.stored[seq as usize - 1];
            one.seat.replayed(audit, &stored.stamp, Some(&place(stored.term, seq)));
        }
        (one.cursor, one.replay) = (end, top);
    }

    pub(super) fn deliver(&mut self, member: u32, many: usize) {
        let (audit, top) = (self.audit(member), self.top());
        for _ in 0..many {
            let one = &mut self.members[member as usize];
            if one.presence == Presence::Out {
                return;
            }
            if one.breaks != self.breaks {
                one.breaks = self.breaks;
                if one.cursor != self.floor {
                    let reason = if one.cursor < self.floor { Recovery::Gap } else { Recovery::Diverged };
                    one.seat.reset(
                        &self.audits[audit],
                        reason,
                        Some(&term(self.stored[self.floor as usize].term)),
                        self.floor,
                    );
                    (one.cursor, one.replay) = (self.floor, 0);
                }
            }
            if one.cursor >= top {
                return;
            }
            one.cursor += 1;
            let seq = one.cursor;
            let own = self.stored[seq as usize - 1].stamp.publisher == ROOM * MEMBERS + member;
            if own && !self.echo && seq > one.replay {
                continue;
            }
            self.hand(member, seq);
        }
    }

    fn hand(&mut self, member: u32, seq: u64) {
        let audit = &self.audits[self.audit(member)];
        let (stamp, place) = (self.stored[seq as usize - 1].stamp, self.place_of(seq));
        let one = &mut self.members[member as usize];
        let mut give = |stamp: &Stamp, place: &Place| {
            audit.verify(ROOM, stamp, Some(place));
            one.seat.received(audit, stamp, Some(place));
        };
        let next = self.stored.get(seq as usize).map(|next| (next.stamp, self::place(next.term, seq + 1)));
        let fault = self.fault.filter(|_| !self.faulted);
        self.faulted |= fault.is_some_and(|fault| fault != Fault::StoredTwice);
        match (fault, next) {
            (None | Some(Fault::StoredTwice), _) => give(&stamp, &place),
            (Some(Fault::Drop), _) => {}
            (Some(Fault::Twice), _) => {
                give(&stamp, &place);
                give(&stamp, &place);
            }
            (Some(Fault::WrongRoom), _) => {
                give(&Stamp { room: ROOM + 1, publisher: (ROOM + 1) * MEMBERS, ..stamp }, &place);
            }
            (Some(Fault::Corrupt), _) => {
                audit.corrupted(ROOM * MEMBERS + member, ROOM, "checksum");
                one.seat.foreign(audit, Some(&place));
            }
            (Some(Fault::SilentBreak), _) => give(&stamp, &self::place(99, seq + 5)),
            (Some(Fault::Swap), Some((after, behind))) => {
                give(&after, &behind);
                give(&stamp, &place);
                one.cursor += 1;
            }
            (Some(Fault::OtherOrder), Some((after, behind))) => {
                give(&after, &place);
                give(&stamp, &behind);
                one.cursor += 1;
            }
            (Some(Fault::Swap | Fault::OtherOrder), None) => {
                self.faulted = false;
                give(&stamp, &place);
            }
        }
    }

    /// Everybody is there and gets everything.
    pub(super) fn settle(&mut self) {
        for member in 0..MEMBERS {
            self.come(member, 0);
        }
        while !self.undecided.is_empty() {
            self.retry();
        }
        self.ack(usize::MAX);
        for member in 0..MEMBERS {
            self.deliver(member, usize::MAX);
        }
    }

    pub(super) fn caught_up(&self) -> bool {
        (0..MEMBERS).all(|member| self.members[member as usize].seat.is_caught_up(&self.audits[self.audit(member)]))
    }

    pub(super) fn reports(&mut self) -> Vec<AuditReport> {
        for member in 0..MEMBERS {
            let audit = self.audit(member);
            self.members[member as usize].seat.conclude(&self.audits[audit]);
        }
        self.audits.iter().for_each(|audit| audit.flush_log().expect("a file that can be written to"));
        self.audits.iter().map(Audit::report).collect()
    }
}
