//! What merging shows: parts give the whole, and what does not belong together is refused.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::record::{Count, Interval, Reason};
use crate::report::sample::{Story, sample};
use crate::report::{AuditReport, Collector, HappeningKind, Sample};

/// The sample as process `index` of `of` made it.
fn part(index: u32, of: u32) -> Report {
    static SAMPLE: LazyLock<Report> = LazyLock::new(|| sample(Story::Passed));
    let mut report = SAMPLE.clone();
    report.run.processes = of;
    report.generators[0].index = index;
    report
}

fn refused(reports: Vec<Report>) -> String {
    format!("{:#}", merge(reports).unwrap_err())
}

#[test]
fn what_does_not_belong_together_is_refused() {
    assert_eq!(refused(Vec::new()), "nothing to merge");
    assert_eq!(refused(vec![part(0, 2), part(0, 2)]), "process 0 is in two of the reports");
    assert_eq!(refused(vec![part(0, 2), part(2, 2)]), "process 2 cannot be: the run has 2, counted from 0");
    let mut other = part(1, 2);
    other.run.id = "other".to_owned();
    assert_eq!(refused(vec![part(0, 2), other]), "reports of different runs: \"5eed0042\" and \"other\"");
    let mut other = part(1, 2);
    other.run.rooms = 7;
    let error = refused(vec![part(0, 2), other]);
    assert_eq!(error, "the processes were started with different numbers of rooms: 200 and 7");
    let mut other = part(1, 2);
    other.latencies.insert(Latency::Ack, Compressed("!".to_owned()));
    assert_eq!(refused(vec![part(0, 2), other]), "the latency \"ack\": a histogram is not base64");
    let mut other = part(1, 2);
    other.thresholds[0].text = "future.p99<1".to_owned();
    assert!(refused(vec![part(0, 2), other]).contains("the report's threshold \"future.p99<1\": unknown figure"));
}

#[test]
fn missing_processes_make_a_merge_invalid_unless_wanted() {
    let merged = merge(vec![part(3, 4), part(1, 4)]).unwrap();
    assert_eq!(merged.verdict, Verdict::Invalid);
    assert_eq!(merged.because[0], "2 of 4 processes are missing: 0, 2");
    let indexes: Vec<_> = merged.generators.iter().map(|generator| generator.index).collect();
    assert_eq!(indexes, [1, 3]);
    let partial = merge_partial(vec![part(3, 4), part(1, 4)]).unwrap();
    assert_eq!(partial.verdict, Verdict::Passed, "{:?}", partial.because);
    assert_eq!(partial.missing_words().unwrap(), "2 of 4 processes are missing: 0, 2");
}

#[test]
fn a_merge_can_be_merged_with_the_rest() {
    let some = merge(vec![part(0, 3), part(2, 3)]).unwrap();
    let all = merge(vec![some, part(1, 3)]).unwrap();
    assert_eq!(all.verdict, Verdict::Passed, "{:?}", all.because);
    assert_eq!(all, merge(vec![part(2, 3), part(1, 3), part(0, 3)]).unwrap());
}

#[test]
fn one_process_alone_is_the_run_when_there_is_no_other() {
    let merged = merge(vec![part(0, 1)]).unwrap();
    assert_eq!(merged, Report { scope: Scope::Whole, ..part(0, 1) });
}

#[test]
fn a_users_threshold_replaces_the_default_of_every_process() {
    let mut lenient = part(0, 2);
    lenient.conclude(&["lost<=10".parse().unwrap()]);
    let merged = merge(vec![lenient, part(1, 2)]).unwrap();
    let lost: Vec<_> = merged.thresholds.iter().filter(|result| result.text.starts_with("lost")).collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].text, "lost<=10");
}

#[test]
fn thresholds_are_held_against_the_whole() {
    let users = ["received.rate>=100k/s".parse().unwrap()];
    let parts = Vec::from([0, 1].map(|index| {
        let mut part = part(index, 2);
        part.conclude(&users);
        part
    }));
    assert!(parts.iter().all(|part| part.verdict == Verdict::Failed));
    assert_eq!(merge(parts).unwrap().verdict, Verdict::Passed);
}

#[test]
fn problems_say_whose_they_are() {
    let mut slow = part(1, 2);
    slow.problems.push("the disk is full".to_owned());
    let merged = merge(vec![part(0, 2), slow]).unwrap();
    assert_eq!((merged.verdict, merged.because[0].as_str()), (Verdict::Invalid, "process 1: the disk is full"));
}

/// One thread's second of one process.
#[derive(Debug, Clone)]
struct Piece {
    second: u64,
    counts: Vec<(usize, u64)>,
    latencies: Vec<(usize, u64)>,
    reason: u8,
}

const SECONDS: u64 = 6;

fn piece() -> impl Strategy<Value = Piece> {
    (
        0..SECONDS,
        prop::collection::vec((0..Count::ALL.len(), 1..5000_u64), 0..6),
        prop::collection::vec((0..Latency::ALL.len(), 0..5_000_000_000_u64), 0..12),
        0..5_u8,
    )
        .prop_map(|(second, counts, latencies, reason)| Piece { second, counts, latencies, reason })
}

impl Piece {
    fn interval(&self) -> Interval {
        let mut interval = Interval::new();
        for (what, by) in &self.counts {
            interval.counts[*what] += by;
        }
        for (what, us) in &self.latencies {
            interval.latencies[*what].saturating_record(*us);
        }
        interval.reasons[Reason::Close as usize].add(&format!("reason {}", self.reason), 1);
        interval
    }
}

fn collected(index: u32, processes: u32, connections: u64, pieces: &[Piece]) -> Report {
    let mut collector = Collector::new();
    collector.connections(connections);
    for second in 0..SECONDS {
        collector.interval(1000 + second, &Interval::new());
        for piece in pieces.iter().filter(|piece| piece.second == second) {
            collector.interval(1000 + second, &piece.interval());
        }
        collector.sample("node", Sample { at_s: 1000 + second, cpu: 0.5, resident_bytes: 1, connections: 2 });
    }
    collector.event(Happening { at_ms: 1_000_000, kind: HappeningKind::Phase, text: "load".to_owned() });
    let template = part(index, processes);
    let users = ["ack.p99<1s", "received.rate>=100"].map(|text| text.parse().unwrap());
    collector.finish(template.run, template.generators[0].clone(), AuditReport::default(), &users)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_merge_of_parts_is_the_whole(parts in prop::collection::vec(prop::collection::vec(piece(), 0..8), 1..4)) {
        let processes = parts.len() as u32;
        let reports = parts.iter().zip(0..).map(|(pieces, index)| {
            collected(index, processes, 10 * u64::from(index + 1), pieces)
        });
        let merged = merge(reports.collect()).unwrap();
        let connections = (1..=u64::from(processes)).map(|part| 10 * part).sum();
        let whole = collected(0, processes, connections, &parts.concat());
        prop_assert_eq!(&merged.counts, &whole.counts);
        prop_assert_eq!(&merged.closes, &whole.closes);
        prop_assert_eq!(&merged.latencies, &whole.latencies);
        prop_assert_eq!(&merged.series, &whole.series);
        prop_assert_eq!(&merged.events, &whole.events);
        prop_assert_eq!(&merged.servers, &whole.servers);
        prop_assert_eq!(&merged.thresholds, &whole.thresholds);
        prop_assert_eq!(merged.verdict, whole.verdict);
    }
}
