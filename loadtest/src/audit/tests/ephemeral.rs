//! Random histories of an ephemeral room: no seq, each client in a publisher's order, losses only where given up.

use proptest::prelude::*;
use roomcast_protocol::{Mode, Recovery};

use super::super::check::check;
use super::super::log::Log;
use super::super::{Audit, Seat, merge};
use super::world::{MEMBERS, ROOM, RUN, layout, stamp};
use crate::audit::{Finding, Share};
use crate::clock::Clock;

/// One publisher, and members at different points of its messages.
struct Room {
    audits: Vec<Audit>,
    seats: Vec<Seat>,
    /// None: away.
    cursors: Vec<Option<usize>>,
    /// What got through.
    sent: Vec<u32>,
    number: u32,
}

impl Room {
    fn audit(&self, member: usize) -> &Audit {
        &self.audits[(ROOM as usize + member) % self.audits.len()]
    }

    fn act(&mut self, what: u8, member: usize) {
        match what % 8 {
            0..=2 => {
                self.number += 1;
                self.audit(0).published(ROOM * MEMBERS, ROOM, self.number, 0);
                if what >= 32 {
                    self.sent.push(self.number);
                    let audit = (ROOM as usize) % self.audits.len();
                    self.seats[0].acked(&self.audits[audit], self.number, None, false);
                } else {
                    self.audit(0).abandoned(ROOM * MEMBERS, ROOM, self.number);
                }
            }
            3..=5 => self.deliver(member, usize::from(what / 8)),
            6 => {
                if self.cursors[member].take().is_some() {
                    let audit = (ROOM as usize + member) % self.audits.len();
                    self.seats[member].away(&self.audits[audit]);
                }
            }
            _ => self.come(member),
        }
    }

    fn come(&mut self, member: usize) {
        if self.cursors[member].is_none() {
            self.cursors[member] = Some(self.sent.len());
            let audit = (ROOM as usize + member) % self.audits.len();
            self.seats[member].joined(&self.audits[audit], Recovery::Fresh, None, None, None);
        }
    }

    fn deliver(&mut self, member: usize, many: usize) {
        let Some(cursor) = self.cursors[member] else { return };
        let end = (cursor.saturating_add(many)).min(self.sent.len());
        let audit = (ROOM as usize + member) % self.audits.len();
        for number in &self.sent[cursor..end] {
            self.audits[audit].verify(ROOM, &stamp(0, *number), None);
            self.seats[member].received(&self.audits[audit], &stamp(0, *number), None);
        }
        self.cursors[member] = Some(end);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_right_is_no_finding_and_a_dropped_one_is_lost(
        actions in prop::collection::vec((any::<u8>(), 0..MEMBERS as usize), 0..120),
        processes in 1u32..3,
        drop: bool,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<_> = (0..processes).map(|index| folder.path().join(index.to_string())).collect();
        let audits = (0..processes).map(|index| {
            let layout = layout(Mode::Ephemeral, true, Share { index, of: processes });
            let log = Log::create(&paths[index as usize], RUN, layout).expect("a folder that can be written to");
            Audit::new(RUN, layout, Some(log), Clock::start())
        });
        let seats = (0..MEMBERS).map(|member| Seat::new(ROOM * MEMBERS + member, ROOM)).collect();
        let members = MEMBERS as usize;
        let mut room = Room { audits: audits.collect(), seats, cursors: vec![None; members], sent: Vec::new(), number: 0 };
        (0..members).for_each(|member| room.come(member));
        for (what, member) in actions {
            room.act(what, member);
        }
        (0..members).for_each(|member| { room.come(member); room.deliver(member, usize::MAX); });
        if drop {
            // One message that everybody gets, one that member 1 does not, and one more.
            for lost in [false, true, false] {
                room.act(32, 0);
                if lost {
                    room.cursors[1] = room.cursors[1].map(|cursor| cursor + 1);
                }
                (0..members).for_each(|member| room.deliver(member, usize::MAX));
            }
        }
        for member in 0..members {
            let audit = (ROOM as usize + member) % room.audits.len();
            prop_assert!(room.seats[member].is_caught_up(&room.audits[audit]));
            room.seats[member].conclude(&room.audits[audit]);
        }
        room.audits.iter().for_each(|audit| audit.flush_log().expect("a file that can be written to"));
        let reports: Vec<_> = room.audits.iter().map(Audit::report).collect();
        for report in [merge(&reports), check(&paths).expect("a whole log")] {
            let lost = report.findings.get(&Finding::Lost).copied().unwrap_or_default();
            prop_assert_eq!((lost, report.findings.len()), (u64::from(drop), usize::from(drop)), "{:#?}", report);
        }
    }
}
