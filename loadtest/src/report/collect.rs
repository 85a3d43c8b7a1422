//! Gathers what the threads recorded, second by second, into a report; shows how the run is doing meanwhile.
//!
//! Owned by the engine's main thread. Memory is bounded however long the run lasts and whatever servers say.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::events::Events;
use super::recent::Recent;
use super::samples::Samples;
use super::series::{SeriesBuilder, add_count, add_histogram};
use super::{
    AuditReport, Compressed, Finding, Generator, Happening, HappeningKind, Live, Report, RunInfo, Sample, Scope,
    Threshold, VERSION, Verdict,
};
use crate::record::{Count, Interval, Latency, Reason, Tally};

/// Problems that are kept.
const MOST_PROBLEMS: usize = 20;

/// Everything of one process's run so far.
#[derive(Default)]
pub struct Collector {
    connections: u64,
    counts: BTreeMap<Count, u64>,
    latencies: BTreeMap<Latency, Histogram<u64>>,
    reasons: [Tally; Reason::COUNT],
    findings: BTreeMap<Finding, u64>,
    series: SeriesBuilder,
    recent: Recent,
    events: Events,
    samples: Samples,
    problems: Vec<String>,
}

impl Collector {
    pub fn new() -> Self {
        Self::default()
    }

    /// Open connections of all threads, from now on.
    pub fn connections(&mut self, open: u64) {
        self.connections = open;
    }

    /// What one thread recorded in the second that began at `at_s` (since the epoch). Hand in empty ones too: the series
    /// has a row for each second.
    pub fn interval(&mut self, at_s: u64, interval: &Interval) {
        for what in Count::ALL {
            add_count(&mut self.counts, what, interval.count(what));
        }
        for what in Latency::ALL {
            add_histogram(&mut self.latencies, what, interval.latency(what));
        }
        for (sum, more) in self.reasons.iter_mut().zip(&interval.reasons) {
            sum.absorb(more);
        }
        self.series.add(at_s, self.connections, interval);
        self.recent.add(at_s, interval);
    }

    pub fn event(&mut self, event: Happening) {
        self.events.add(event);
    }

    /// What a node said of itself.
    pub fn sample(&mut self, node: &str, sample: Sample) {
        self.samples.add(node, sample);
    }

    /// The audit's counts as they stand; the first of each kind becomes an event.
    pub fn findings(&mut self, at_ms: u64, findings: &BTreeMap<Finding, u64>) {
        for (finding, count) in findings {
            if *count > 0 && self.findings.get(finding).copied().unwrap_or_default() == 0 {
                let text = format!("first {}", finding.words());
                self.events.add(Happening { at_ms, kind: HappeningKind::Finding, text });
            }
        }
        self.findings.clone_from(findings);
    }

    /// Something that makes the run's figures meaningless, in words: its verdict will be [`Verdict::Invalid`].
    pub fn problem(&mut self, text: String) {
        if self.problems.len() < MOST_PROBLEMS && !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// The most frequent reason why attempts to connect failed.
    pub fn main_connect_failure(&self) -> Option<String> {
        let reasons = self.reasons[Reason::ConnectFailure as usize].clone().into_map();
        reasons.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason)
    }

    /// How the run is doing.
    pub fn live(&self) -> Live {
        self.recent.live(self.connections, &self.counts, &self.findings)
    }

    /// The report, with its verdict. `thresholds` are the user's; those that every run has come on top.
    pub fn finish(self, run: RunInfo, generator: Generator, audit: AuditReport, thresholds: &[Threshold]) -> Report {
        let [publish_errors, closes, connect_failures] = self.reasons.map(Tally::into_map);
        let latencies = self.latencies.iter().map(|(what, histogram)| (*what, Compressed::encode(histogram)));
        let mut report = Report {
            version: VERSION,
            scope: Scope::Process,
            run,
            generators: vec![generator],
            counts: self.counts,
            publish_errors,
            closes,
            connect_failures,
            latencies: latencies.collect(),
            series: self.series.finish(),
            events: self.events.finish(),
            servers: self.samples.finish(),
            audit,
            problems: self.problems,
            thresholds: Vec::new(),
            verdict: Verdict::Passed,
            because: Vec::new(),
        };
        report.conclude(thresholds);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Percentiles;
    use crate::report::sample::{Story, sample};

    fn interval(received: u64, ack_us: u64) -> Interval {
        let mut interval = Interval::new();
        interval.counts[Count::Received as usize] = received;
        interval.latencies[Latency::Ack as usize].saturating_record(ack_us);
        interval.reasons[Reason::Close as usize].add("1006", 1);
        interval
    }

    fn finish(collector: Collector) -> Report {
        let template = sample(Story::Passed);
        collector.finish(template.run, template.generators[0].clone(), AuditReport::default(), &[])
    }

    #[test]
    fn threads_add_up() {
        let mut collector = Collector::new();
        collector.connections(12);
        for at_s in 50..53 {
            collector.interval(at_s, &interval(10, 100));
            collector.interval(at_s, &interval(1, 900));
        }
        let report = finish(collector);
        assert_eq!(report.count(Count::Received), 33);
        assert_eq!(report.closes, BTreeMap::from([("1006".to_owned(), 6)]));
        assert_eq!(report.histogram(&[Latency::Ack]).len(), 6);
        assert_eq!(report.series.rows.len(), 3);
        assert!(report.series.rows.iter().all(|row| row.connections == 12 && row.counts[&Count::Received] == 11));
        assert!(!report.latencies.contains_key(&Latency::Resume), "empty ones are left out");
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "whole numbers")]
    fn live_is_of_the_last_whole_seconds() {
        let mut collector = Collector::new();
        assert_eq!(collector.live(), Live::default());
        collector.interval(100, &interval(40, 100));
        assert_eq!(collector.live().rate(Count::Received), 40.0, "the only second there is");
        for at_s in 101..110 {
            collector.interval(at_s, &interval(10, 200));
            collector.interval(at_s, &interval(20, 200));
        }
        collector.interval(110, &interval(1, 200));
        collector.connections(3);
        let live = collector.live();
        assert_eq!(live.rate(Count::Received), 30.0, "the newest second is not whole");
        assert_eq!(live.ack, Some(Percentiles { p50_us: 200, p99_us: 200 }), "the slow past is forgotten");
        assert_eq!((live.delivery, live.connections, live.total(Count::Received)), (None, 3, 40 + 9 * 30 + 1));
    }

    #[test]
    fn errors_and_violations_are_sums() {
        let mut collector = Collector::new();
        let mut bad = Interval::new();
        bad.counts[Count::PublishErrors as usize] = 2;
        bad.counts[Count::Disconnected as usize] = 3;
        bad.counts[Count::Dropped as usize] = 50;
        collector.interval(1, &bad);
        collector.findings(1000, &BTreeMap::from([(Finding::Lost, 4), (Finding::Duplicated, 1)]));
        let live = collector.live();
        assert_eq!((live.errors(), live.violations()), (5, 5));
    }

    #[test]
    fn the_first_finding_of_a_kind_is_an_event() {
        let mut collector = Collector::new();
        for (at_ms, lost) in [(1, 0), (2, 3), (3, 5)] {
            collector.findings(at_ms, &BTreeMap::from([(Finding::Lost, lost), (Finding::Reordered, 0)]));
        }
        let events = finish(collector).events;
        assert_eq!(
            events,
            [Happening { at_ms: 2, kind: HappeningKind::Finding, text: "first message lost".to_owned() }]
        );
    }

    #[test]
    fn problems_are_few_and_make_the_run_invalid() {
        let mut collector = Collector::new();
        for index in 0..100 {
            collector.problem(format!("problem {}", index / 2));
        }
        let report = finish(collector);
        assert_eq!(report.problems.len(), MOST_PROBLEMS);
        assert_eq!(report.verdict, Verdict::Invalid);
    }
}
