//! What the books of several processes amount to together.
//!
//! What is lost at the end of a room depends on how far the room got, which no process knows alone. So a report's
//! findings are a base, counted as they happened, and a part that follows from its [`RoomTally`]s. Merging takes that
//! part off each report, adds up base and tallies, and derives it again.

use std::collections::{BTreeMap, BTreeSet};

use super::order;
use crate::audit::{AuditReport, Example, Finding, PublisherTally, RoomTally};

/// Examples in a merged report, and tallies that get a sentence.
const EXAMPLES: usize = 24;
const SENTENCES: usize = 4;

/// What follows from one room's tally.
#[derive(Default)]
struct Verdict {
    lost: u64,
    reordered: u64,
}

impl Verdict {
    fn of(tally: &RoomTally) -> Self {
        let mut lost: u64 = tally.seats.iter().map(|(last, seats)| tally.top.saturating_sub(*last) * seats).sum();
        let unsure: BTreeSet<(u32, u32)> = tally.unsure.iter().copied().collect();
        if tally.blind {
            return Self { lost, reordered: 0 };
        }
        for (publisher, top, seats) in &tally.publishers {
            for (last, seats) in seats.iter().filter(|(last, _)| last < top) {
                let excused = unsure.range((*publisher, last + 1)..=(*publisher, *top)).count() as u64;
                lost += (u64::from(top - last) - excused) * u64::from(*seats);
            }
        }
        let holes = tally.holes.iter().filter(|(publisher, number, _)| !unsure.contains(&(*publisher, *number)));
        lost += holes.map(|(_, _, seats)| u64::from(*seats)).sum::<u64>();
        Self { lost, reordered: tally.late.iter().filter(|late| !unsure.contains(late)).count() as u64 }
    }
}

/// Adds what follows from the tallies.
pub(super) fn settled(mut report: AuditReport) -> AuditReport {
    let mut sentences = 0;
    for tally in &report.rooms {
        let verdict = Verdict::of(tally);
        for (finding, count) in [(Finding::Lost, verdict.lost), (Finding::Reordered, verdict.reordered)] {
            if count == 0 {
                continue;
            }
            *report.findings.entry(finding).or_default() += count;
            if sentences < SENTENCES {
                sentences += 1;
                let at_ms = report.examples.last().map_or(0, |example| example.at_ms);
                let text = sentence(tally, finding, count);
                if report.examples.iter().all(|example| example.text != text) {
                    report.examples.push(Example { finding, at_ms, text });
                }
            }
        }
    }
    let findings = &report.findings;
    report.examples.retain(|example| findings.contains_key(&example.finding));
    report
}

fn sentence(tally: &RoomTally, finding: Finding, count: u64) -> String {
    let room = tally.room;
    if finding == Finding::Reordered {
        let first = tally.late.iter().find(|late| !tally.unsure.contains(late)).copied().unwrap_or_default();
        return format!(
            "room {room}: {count} messages stand behind later ones of their publisher, the first is number {} of \
             publisher {}, published once",
            first.1, first.0
        );
    }
    let (holes, top) = (tally.holes.len(), tally.top);
    match (tally.seats.first(), tally.holes.first()) {
        (Some((last, seats)), _) => {
            format!(
                "room {room}: {count} deliveries missing at the end; seq {top} is stored, {seats} clients got up to {last}"
            )
        }
        (_, Some((publisher, number, seats))) => format!(
            "room {room}: {count} deliveries missing, of them {holes} numbers before later ones; {seats} clients lack \
             message {number} of publisher {publisher}"
        ),
        _ => format!("room {room}: {count} deliveries missing at the end: accepted, and not with every client"),
    }
}

/// Takes off what follows from the tallies.
fn unsettled(report: &AuditReport) -> BTreeMap<Finding, u64> {
    let mut findings = report.findings.clone();
    for verdict in report.rooms.iter().map(Verdict::of) {
        for (finding, count) in [(Finding::Lost, verdict.lost), (Finding::Reordered, verdict.reordered)] {
            if let Some(found) = findings.get_mut(&finding) {
                *found = found.saturating_sub(count);
            }
        }
    }
    findings.retain(|_, count| *count > 0);
    findings
}

/// One report of several processes' reports of the same run. A message that is stored wrongly counts once for each
/// process that saw it.
pub fn merge(reports: &[AuditReport]) -> AuditReport {
    let mut all = AuditReport::default();
    let mut rooms: BTreeMap<u32, RoomTally> = BTreeMap::new();
    for report in reports {
        sum(&mut all.findings, &unsettled(report));
        sum(&mut all.recoveries, &report.recoveries);
        sum(&mut all.resets, &report.resets);
        all.examples.extend(report.examples.iter().cloned());
        all.told_missing += report.told_missing;
        all.missed_away += report.missed_away;
        all.checked += report.checked;
        all.unchecked_order += report.unchecked_order;
        all.acked += report.acked;
        all.undecided += report.undecided;
        all.lost_acked += report.lost_acked;
        all.absent_members += report.absent_members;
        for tally in &report.rooms {
            let Some(known) = rooms.get_mut(&tally.room) else {
                rooms.insert(tally.room, tally.clone());
                continue;
            };
            let differ = join(known, tally);
            if differ > 0 {
                *all.findings.entry(Finding::Reordered).or_default() += differ;
                let text = format!(
                    "room {}: two processes saw different messages within {differ} blocks of {} seqs",
                    tally.room, known.stride
                );
                all.examples.insert(0, Example { finding: Finding::Reordered, at_ms: 0, text });
            }
        }
    }
    all.rooms = rooms.into_values().collect();
    let mut all = settled(all);
    all.examples.truncate(EXAMPLES);
    all
}

fn sum<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, other: &BTreeMap<K, u64>) {
    for (key, count) in other {
        *into.entry(key.clone()).or_default() += count;
    }
}

/// Joins what another process knows of a room; gives how many blocks of its order differ.
fn join(into: &mut RoomTally, other: &RoomTally) -> u64 {
    let mut other = other.clone();
    if into.term == 0 || other.past.contains(&into.term) {
        take_term(into, &mut other);
    } else if other.term == 0 || into.past.contains(&other.term) {
        let mut present = other.clone();
        take_term(&mut present, into);
        other.seats.clone_from(&present.seats);
    } else if into.term != other.term {
        // Which came later is not known, so neither's members can be held against the other's end.
        other.seats.clear();
    }
    let mut differ = 0;
    if into.term == other.term {
        differ = order::join(into, &other);
        (into.first, into.top) = (into.first.min(other.first), into.top.max(other.top));
    }
    into.seats = added(into.seats.iter().chain(&other.seats).copied());
    for past in other.past {
        if !into.past.contains(&past) {
            into.past.push(past);
        }
    }
    join_numbers(into, other.publishers, &other.holes);
    into.late = union(&into.late, &other.late);
    into.unsure = union(&into.unsure, &other.unsure);
    into.blind |= other.blind;
    differ
}

/// `behind` has not heard of the present term: its members lack all of it.
fn take_term(behind: &mut RoomTally, present: &mut RoomTally) {
    if behind.term != 0 {
        let before = present.first.saturating_sub(1);
        behind.seats = added(behind.seats.iter().map(|(last, seats)| ((*last).min(before), *seats)));
    }
    (behind.term, behind.first, behind.top) = (present.term, present.first, present.top);
    (behind.stride, behind.blocks) = (0, Vec::new());
}

fn join_numbers(into: &mut RoomTally, publishers: Vec<PublisherTally>, holes: &[(u32, u32, u32)]) {
    let mut known: BTreeMap<u32, (u32, Vec<(u32, u32)>)> = BTreeMap::new();
    for (publisher, top, seats) in std::mem::take(&mut into.publishers).into_iter().chain(publishers) {
        let entry = known.entry(publisher).or_default();
        entry.0 = entry.0.max(top);
        entry.1.extend(seats);
    }
    let joined = known.into_iter().map(|(publisher, (top, seats))| (publisher, top, added(seats.into_iter())));
    into.publishers = joined.collect();
    let both = into.holes.iter().chain(holes).map(|(publisher, number, seats)| ((*publisher, *number), *seats));
    into.holes = added(both).into_iter().map(|((publisher, number), seats)| (publisher, number, seats)).collect();
}

fn added<K: Ord, N: std::ops::AddAssign + Default>(counts: impl Iterator<Item = (K, N)>) -> Vec<(K, N)> {
    let mut sums: BTreeMap<K, N> = BTreeMap::new();
    for (key, count) in counts {
        *sums.entry(key).or_default() += count;
    }
    sums.into_iter().collect()
}

fn union(one: &[(u32, u32)], other: &[(u32, u32)]) -> Vec<(u32, u32)> {
    one.iter().chain(other).copied().collect::<BTreeSet<_>>().into_iter().collect()
}
