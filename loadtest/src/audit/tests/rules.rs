//! Each rule by itself.

use std::collections::BTreeMap;

use roomcast_protocol::{Mode, Recovery};

use super::super::check::check;
use super::super::log::Log;
use super::super::{Audit, Seat, merge};
use super::world::{MEMBERS, ROOM, RUN, layout, place, stamp, term};
use crate::audit::{AuditReport, Finding, Share};
use crate::clock::Clock;
use crate::payload::Stamp;

const ALONE: Share = Share { index: 0, of: 1 };

fn audit(mode: Mode) -> Audit {
    Audit::new(RUN, layout(mode, true, ALONE), None, Clock::start())
}

/// Seats of the first `count` members, joined before the first message.
fn seats(audit: &Audit, count: u32) -> Vec<Seat> {
    let seat = |member| {
        let mut seat = Seat::new(ROOM * MEMBERS + member, ROOM);
        seat.joined(audit, Recovery::Fresh, None, None, (audit.layout.mode == Mode::Durable).then_some(0));
        seat
    };
    (0..count).map(seat).collect()
}

/// `seat` gets these (number, seq) of member 0.
fn give(audit: &Audit, seat: &mut Seat, messages: &[(u32, u64)]) {
    for (number, seq) in messages {
        let (stamp, place) = (stamp(0, *number), place(0, *seq));
        audit.verify(ROOM, &stamp, Some(&place));
        seat.received(audit, &stamp, Some(&place));
    }
}

/// The same of an ephemeral room.
fn tell(audit: &Audit, seat: &mut Seat, numbers: &[u32]) {
    for number in numbers {
        let stamp = stamp(0, *number);
        audit.verify(ROOM, &stamp, None);
        seat.received(audit, &stamp, None);
    }
}

fn finished(audit: &Audit, mut seats: Vec<Seat>) -> AuditReport {
    for seat in &mut seats {
        seat.conclude(audit);
    }
    audit.report()
}

fn only(finding: Finding, count: u64) -> BTreeMap<Finding, u64> {
    BTreeMap::from([(finding, count)])
}

#[test]
fn a_hole_is_lost_and_one_that_is_filled_is_reordered() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 1);
    give(&audit, &mut seats[0], &[(1, 1), (4, 4)]);
    assert_eq!(audit.findings(), only(Finding::Lost, 2));
    give(&audit, &mut seats[0], &[(3, 3)]);
    assert_eq!(audit.findings(), BTreeMap::from([(Finding::Lost, 1), (Finding::Reordered, 1)]));
    give(&audit, &mut seats[0], &[(3, 3), (5, 5)]);
    let found = finished(&audit, seats).findings;
    assert_eq!(found, BTreeMap::from([(Finding::Lost, 1), (Finding::Reordered, 1), (Finding::Duplicated, 1)]));
}

#[test]
fn what_others_got_or_an_ack_promised_is_owed_at_the_end() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 3);
    give(&audit, &mut seats[0], &[(1, 1), (2, 2)]);
    give(&audit, &mut seats[1], &[(1, 1)]);
    seats[2].away(&audit);
    audit.published(ROOM * MEMBERS, ROOM, 3, 0);
    seats[0].acked(&audit, 3, Some(&place(0, 3)), false);
    assert!(!seats[0].is_caught_up(&audit) && seats[2].is_caught_up(&audit));
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.absent_members, report.acked), (only(Finding::Lost, 3), 1, 1));
    assert!(report.examples[0].text.contains("seq 3 is stored"), "{:?}", report.examples);
}

#[test]
fn an_ack_must_name_the_place_where_others_see_the_message() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 1);
    audit.published(ROOM * MEMBERS, ROOM, 2, 0);
    seats[0].acked(&audit, 2, Some(&place(0, 1)), false);
    give(&audit, &mut seats[0], &[(1, 1), (2, 2)]);
    assert_eq!(finished(&audit, seats).findings, only(Finding::Reordered, 1));
}

#[test]
fn a_number_may_stand_behind_later_ones_only_if_it_was_retried_or_given_up() {
    for (excuse, expected) in [(None, only(Finding::Reordered, 1)), (Some(()), BTreeMap::new())] {
        let audit = audit(Mode::Durable);
        let mut seats = seats(&audit, 1);
        give(&audit, &mut seats[0], &[(2, 1), (1, 2), (3, 3)]);
        if excuse.is_some() {
            audit.abandoned(ROOM * MEMBERS, ROOM, 1);
        }
        assert_eq!(finished(&audit, seats).findings, expected);
    }
}

#[test]
fn a_message_of_another_room_counts_once_whoever_gets_it() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 2);
    let wrong = Stamp { room: ROOM + 1, publisher: (ROOM + 1) * MEMBERS, ..stamp(0, 1) };
    for seat in &mut seats {
        audit.verify(ROOM, &wrong, Some(&place(0, 1)));
        seat.received(&audit, &wrong, Some(&place(0, 1)));
    }
    assert_eq!(finished(&audit, seats).findings, only(Finding::WrongRoom, 1));
}

#[test]
fn messages_that_a_client_was_told_are_missing_are_not_lost() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 2);
    give(&audit, &mut seats[0], &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    give(&audit, &mut seats[1], &[(1, 1)]);
    seats[1].away(&audit);
    assert_eq!(seats[1].since(), Some(place(0, 1)));
    seats[1].joined(&audit, Recovery::Gap, None, Some(&term(0)), Some(4));
    seats[1].replayed(&audit, &stamp(0, 4), Some(&place(0, 4)));
    give(&audit, &mut seats[1], &[(5, 5)]);
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.told_missing), (BTreeMap::new(), 2));
    assert_eq!(report.recoveries, BTreeMap::from([("fresh".to_owned(), 2), ("gap".to_owned(), 1)]));
}

#[test]
fn a_break_must_be_told_unless_the_new_term_goes_on() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 2);
    for seat in &mut seats {
        give(&audit, seat, &[(1, 1), (2, 2)]);
        audit.verify(ROOM, &stamp(0, 3), Some(&place(1, 3)));
        seat.received(&audit, &stamp(0, 3), Some(&place(1, 3)));
    }
    assert_eq!(audit.findings(), BTreeMap::new());
    seats[0].reset(&audit, Recovery::Diverged, Some(&term(2)), 1);
    for seat in &mut seats {
        audit.verify(ROOM, &stamp(0, 4), Some(&place(2, 2)));
        seat.received(&audit, &stamp(0, 4), Some(&place(2, 2)));
    }
    assert_eq!(finished(&audit, seats).findings, only(Finding::SilentBreak, 1));
}

#[test]
fn a_room_that_goes_back_within_its_term_disputes_no_places() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 1);
    give(&audit, &mut seats[0], &[(1, 1), (2, 2), (3, 3)]);
    seats[0].reset(&audit, Recovery::Diverged, Some(&term(0)), 1);
    give(&audit, &mut seats[0], &[(4, 2), (5, 3), (6, 4)]);
    assert_eq!(finished(&audit, seats).findings, BTreeMap::new());
}

#[test]
fn ephemeral_holes_are_lost_unless_given_up_and_late_ones_reordered() {
    let audit = audit(Mode::Ephemeral);
    let mut seats = seats(&audit, 2);
    for number in 1..=8 {
        audit.published(ROOM * MEMBERS, ROOM, number, 0);
    }
    tell(&audit, &mut seats[0], &[1, 2, 5, 4, 6, 6]);
    tell(&audit, &mut seats[1], &[1, 2, 4, 5, 6]);
    for number in [1, 2, 4, 5, 6, 8] {
        seats[0].acked(&audit, number, None, false);
    }
    audit.abandoned(ROOM * MEMBERS, ROOM, 3);
    audit.abandoned(ROOM * MEMBERS, ROOM, 7);
    let found = finished(&audit, seats).findings;
    assert_eq!(found, BTreeMap::from([(Finding::Lost, 2), (Finding::Reordered, 1), (Finding::Duplicated, 1)]));
}

#[test]
fn ephemeral_messages_that_pass_while_a_client_is_away_are_not_owed() {
    let audit = audit(Mode::Ephemeral);
    let mut seats = seats(&audit, 3);
    audit.published(ROOM * MEMBERS, ROOM, 1, 0);
    seats[0].acked(&audit, 1, None, false);
    tell(&audit, &mut seats[0], &[1, 2, 3, 4, 5, 6]);
    tell(&audit, &mut seats[1], &[1]);
    seats[1].away(&audit);
    seats[1].joined(&audit, Recovery::Fresh, None, None, None);
    tell(&audit, &mut seats[1], &[4, 6]);
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.missed_away), (only(Finding::Lost, 7), 2), "6 of the one that got nothing");
}

#[test]
fn processes_together_know_the_end_and_the_excuses() {
    let shares = [Share { index: 0, of: 2 }, Share { index: 1, of: 2 }];
    for mode in [Mode::Durable, Mode::Ephemeral] {
        let audits = shares.map(|share| Audit::new(RUN, layout(mode, true, share), None, Clock::start()));
        let mut reports = Vec::new();
        for (audit, numbers) in audits.iter().zip([vec![1, 3], vec![1]]) {
            let mut seats = seats(audit, 1);
            if mode == Mode::Durable {
                let messages: Vec<_> = numbers.iter().map(|number| (*number, u64::from((*number).min(2)))).collect();
                give(audit, &mut seats[0], &messages);
            } else {
                seats[0].received(audit, &stamp(0, 1), None);
                tell(audit, &mut seats[0], &numbers[1..]);
            }
            reports.push(finished(audit, seats));
        }
        audits[1].abandoned(ROOM * MEMBERS, ROOM, 2);
        reports[1].rooms = audits[1].report().rooms;
        let merged = merge(&reports);
        assert_eq!(merged.findings, only(Finding::Lost, 1), "{mode:?}: {merged:#?}");
        assert_eq!(merge(&[merged.clone(), AuditReport::default()]), merged);
        let json = serde_json::to_string(&merged).expect("plain data");
        assert_eq!(serde_json::from_str::<AuditReport>(&json).expect("what was written"), merged);
    }
}

#[test]
fn an_idle_seat_is_small() {
    assert!(size_of::<Seat>() <= 72, "{}", size_of::<Seat>());
}

#[test]
fn acked_messages_that_a_room_lost_are_counted_and_are_no_finding() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 2);
    for number in 1..=6 {
        audit.published(ROOM * MEMBERS, ROOM, number, 0);
        seats[0].acked(&audit, number, Some(&place(0, u64::from(number))), false);
    }
    // The sixth was acked and reached nobody: the old term ended before it, without a word to who did not see it.
    for seat in &mut seats {
        give(&audit, seat, &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    }
    seats[0].reset(&audit, Recovery::Diverged, Some(&term(0)), 3);
    seats[1].away(&audit);
    seats[1].joined(&audit, Recovery::Diverged, Some(3), Some(&term(1)), Some(3));
    audit.published(ROOM * MEMBERS, ROOM, 7, 0);
    seats[0].acked(&audit, 7, Some(&place(1, 4)), false);
    for seat in &mut seats {
        audit.verify(ROOM, &stamp(0, 7), Some(&place(1, 4)));
        seat.received(&audit, &stamp(0, 7), Some(&place(1, 4)));
    }
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.acked, report.lost_acked), (BTreeMap::new(), 7, 3));
}

#[test]
fn an_acked_message_that_nobody_saw_is_lost_when_its_seq_is_given_out_again() {
    let audit = audit(Mode::Durable);
    let mut seats = seats(&audit, 1);
    for number in 1..=3 {
        audit.published(ROOM * MEMBERS, ROOM, number, 0);
        seats[0].acked(&audit, number, Some(&place(0, u64::from(number))), false);
    }
    give(&audit, &mut seats[0], &[(1, 1), (2, 2)]);
    audit.published(ROOM * MEMBERS, ROOM, 4, 0);
    seats[0].acked(&audit, 4, Some(&place(1, 3)), false);
    audit.verify(ROOM, &stamp(0, 4), Some(&place(1, 3)));
    seats[0].received(&audit, &stamp(0, 4), Some(&place(1, 3)));
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.acked, report.lost_acked), (BTreeMap::new(), 4, 1));
}

#[test]
fn an_ack_of_a_term_not_heard_of_yet_fills_no_hole_of_the_old_one() {
    let audit = Audit::new(RUN, layout(Mode::Durable, false, ALONE), None, Clock::start());
    let mut seats = seats(&audit, 2);
    let (writer, other) = (ROOM * MEMBERS, ROOM * MEMBERS + 1);
    // The writer's first message is at 1, unanswered as yet, and it gets the other one's at 2.
    audit.published(writer, ROOM, 1, 0);
    audit.published(other, ROOM, 1, 0);
    audit.verify(ROOM, &stamp(1, 1), Some(&place(0, 2)));
    seats[0].received(&audit, &stamp(1, 1), Some(&place(0, 2)));
    // All of that is gone. Its second one is stored in the new term, and acked before anybody is told.
    audit.published(writer, ROOM, 2, 0);
    seats[0].acked(&audit, 2, Some(&place(1, 1)), false);
    seats[1].reset(&audit, Recovery::Diverged, Some(&term(1)), 1);
    for (member, seq) in [(0, 2), (1, 3)] {
        audit.published(ROOM * MEMBERS + member, ROOM, 1, 1);
        seats[member as usize].acked(&audit, 1, Some(&place(1, seq)), false);
    }
    seats[0].reset(&audit, Recovery::Diverged, Some(&term(1)), 0);
    for (member, seat, seq) in [(1, 0, 3), (0, 1, 2)] {
        let stamp = Stamp { attempt: 1, ..stamp(member, 1) };
        audit.verify(ROOM, &stamp, Some(&place(1, seq)));
        seats[seat].received(&audit, &stamp, Some(&place(1, seq)));
    }
    let report = finished(&audit, seats);
    assert_eq!((report.findings, report.examples), (BTreeMap::new(), Vec::new()));
}

#[test]
fn who_is_done_before_other_machines_are_told_of_the_last_term_lacks_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, logs) = (Clock::start(), ["0.log", "1.log"].map(|name| folder.path().join(name)));
    let audits = [0, 1].map(|index| {
        let layout = layout(Mode::Durable, true, Share { index, of: 2 });
        let log = Log::create(&logs[index as usize], RUN, layout).expect("a folder that can be written to");
        Audit::new(RUN, layout, Some(log), clock)
    });
    let [mut one, mut other] = [0, 1].map(|member| Seat::new(ROOM * MEMBERS + member, ROOM));
    for (seat, audit) in [(&mut one, &audits[0]), (&mut other, &audits[1])] {
        seat.joined(audit, Recovery::Fresh, None, Some(&term(0)), Some(9));
    }
    // Its clock is ahead: it is done, as the logs have it, while the other one is still told of the term in between.
    one.reset(&audits[0], Recovery::Diverged, Some(&term(2)), 5);
    other.reset(&audits[1], Recovery::Diverged, Some(&term(1)), 3);
    one.conclude(&audits[0]);
    other.reset(&audits[1], Recovery::Gap, Some(&term(2)), 5);
    other.conclude(&audits[1]);
    for audit in &audits {
        audit.flush_log().expect("a file that can be written to");
    }
    assert_eq!(check(&logs).expect("whole logs").findings, BTreeMap::new());
}

#[test]
fn acks_of_terms_that_a_seat_has_not_reached_count_even_if_others_are_past_them() {
    let audit = Audit::new(RUN, layout(Mode::Durable, false, ALONE), None, Clock::start());
    let mut seats = seats(&audit, 1);
    // Its first message goes unanswered, its second is acked; the next term goes on behind both.
    for number in 1..=3 {
        audit.published(ROOM * MEMBERS, ROOM, number, 0);
    }
    seats[0].acked(&audit, 2, Some(&place(0, 2)), false);
    let mut other = Seat::new(ROOM * MEMBERS + 1, ROOM);
    other.joined(&audit, Recovery::Fresh, None, Some(&term(1)), Some(3));
    seats[0].acked(&audit, 3, Some(&place(1, 3)), false);
    audit.published(ROOM * MEMBERS, ROOM, 1, 1);
    seats[0].acked(&audit, 1, Some(&place(0, 1)), true);
    seats.push(other);
    assert_eq!(finished(&audit, seats).findings, BTreeMap::new());
}
