//! Whether a run passed, and why not. Called when a report is complete: by the collector and the merge.
//!
//! Invalid beats failed beats passed: figures that say nothing about the cluster can neither pass nor fail it.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;

use super::words;
use super::{Compressed, Finding, Report, Scope, Threshold, Verdict};
use crate::record::{Count, Latency, histogram};

impl Report {
    /// Evaluates the user's thresholds and those that every run has, and sets the verdict.
    pub fn conclude(&mut self, users: &[Threshold]) {
        self.thresholds = Threshold::with_defaults(&self.run.scenario, users)
            .iter()
            .map(|threshold| threshold.evaluate(self))
            .collect();
        let invalid = self.invalid();
        let failed = self.failed();
        self.verdict = match (invalid.is_empty(), failed.is_empty()) {
            (false, _) => Verdict::Invalid,
            (true, false) => Verdict::Failed,
            (true, true) => Verdict::Passed,
        };
        self.because = invalid.into_iter().chain(failed).collect();
    }

    /// Total of the run.
    pub fn count(&self, what: Count) -> u64 {
        self.counts.get(&what).copied().unwrap_or_default()
    }

    /// Of the whole run, several together. Empty where nothing was measured, or what is there cannot be read: who reads
    /// a file checks that first.
    pub fn histogram(&self, of: &[Latency]) -> Histogram<u64> {
        let mut sum = histogram();
        for part in
            of.iter().filter_map(|what| self.latencies.get(what)).filter_map(|text| Compressed::decode(text).ok())
        {
            // Same bounds everywhere, so adding cannot fail.
            let added = sum.add(part);
            debug_assert!(added.is_ok(), "histograms of one shape: {added:?}");
        }
        sum
    }

    /// How long the load lasted; 0 if it never began.
    pub fn load_seconds(&self) -> f64 {
        match self.run.load_started_ms {
            0 => 0.0,
            started => self.run.load_ended_ms.saturating_sub(started) as f64 / 1000.0,
        }
    }

    /// Everything the audit found.
    pub fn violations(&self) -> u64 {
        let count = |finding| self.audit.findings.get(finding).copied().unwrap_or_default();
        Finding::ALL.iter().fold(0, |sum, finding| sum.saturating_add(count(finding)))
    }

    /// How many processes of the run are not in here.
    pub fn missing_processes(&self) -> u32 {
        self.run.processes.saturating_sub(self.generators.len() as u32)
    }

    /// Such as `2 of 5 processes are missing: 1, 4`; none when all are here, or nobody merged.
    pub fn missing_words(&self) -> Option<String> {
        const SHOWN: usize = 10;
        let count = self.missing_processes();
        if count == 0 || self.scope == Scope::Process {
            return None;
        }
        let here: BTreeSet<u32> = self.generators.iter().map(|generator| generator.index).collect();
        let missing = (0..self.run.processes).filter(|index| !here.contains(index));
        let shown: Vec<String> = missing.take(SHOWN).map(|index| index.to_string()).collect();
        let more = if count as usize > SHOWN { ", ..." } else { "" };
        let are = if count == 1 { "is" } else { "are" };
        Some(format!("{count} of {} processes {are} missing: {}{more}", self.run.processes, shown.join(", ")))
    }

    fn invalid(&self) -> Vec<String> {
        // The engine knows best why it did not get far.
        let mut why = self.problems.clone();
        if why.is_empty() {
            why.extend(self.nothing_happened());
        }
        let lag = self.histogram(&[Latency::Lag]);
        let lag_us = lag.value_at_quantile(0.99) as f64;
        if !lag.is_empty() && lag_us > self.run.max_lag_ms * 1000.0 {
            let most = words::latency(self.run.max_lag_ms * 1000.0);
            why.push(format!("the generator lagged: p99 {}, allowed {most}", words::latency(lag_us)));
        }
        if self.scope == Scope::Whole {
            why.extend(self.missing_words());
        }
        why
    }

    /// Why no figure of the run says anything about the cluster.
    fn nothing_happened(&self) -> Option<String> {
        let most = |reasons: &BTreeMap<String, u64>| {
            let most = reasons.iter().max_by_key(|(_, count)| **count);
            most.map(|(reason, _)| format!(" ({reason})")).unwrap_or_default()
        };
        let silent = self.count(Count::Acked) == 0 && self.count(Count::Received) == 0;
        if self.count(Count::Connected) == 0 {
            Some(format!("not one connection was made{}", most(&self.connect_failures)))
        } else if self.run.load_started_ms == 0 && self.run.interrupted {
            Some("interrupted before the load began".to_owned())
        } else if self.run.load_started_ms == 0 {
            Some("the load never began".to_owned())
        } else if self.count(Count::Due) > 0 && silent {
            Some(format!("no message came through: none was acked, none received{}", most(&self.publish_errors)))
        } else {
            None
        }
    }

    fn failed(&self) -> Vec<String> {
        let failed = self.thresholds.iter().filter(|result| !result.passed);
        failed
            .map(|result| match &result.measured {
                Some(measured) => format!("{} (measured {measured})", result.text),
                None => format!("{} (not measured)", result.text),
            })
            .collect()
    }
}

impl Verdict {
    /// What the program ends with; 2 is bad usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Invalid => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{Story, sample};

    fn concluded(change: impl FnOnce(&mut Report)) -> (Verdict, String) {
        let mut report = sample(Story::Passed);
        change(&mut report);
        report.conclude(&[]);
        (report.verdict, report.because.join("; "))
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(concluded(|_| {}), (Verdict::Passed, String::new()));
    }

    #[test]
    fn a_finding_or_an_absent_member_fails() {
        let failed = |report: &mut Report| {
            report.audit.findings.insert(Finding::Reordered, 2);
            report.audit.absent_members = 1;
        };
        let because = "reordered==0 (measured 2); absent_members==0 (measured 1)".to_owned();
        assert_eq!(concluded(failed), (Verdict::Failed, because));
    }

    #[test]
    fn what_was_not_measured_fails() {
        let mut report = sample(Story::Passed);
        report.latencies.remove(&Latency::Ack);
        report.conclude(&["ack.p99<1s".parse().unwrap()]);
        assert_eq!((report.verdict, report.because), (Verdict::Failed, vec!["ack.p99<1s (not measured)".to_owned()]));
    }

    #[test]
    fn figures_that_say_nothing_are_invalid_whatever_they_are() {
        let lagging = sample(Story::Invalid);
        assert_eq!(lagging.verdict, Verdict::Invalid);
        assert!(lagging.because[0].starts_with("the generator lagged: p99 "), "{:?}", lagging.because);
        let unreachable = |report: &mut Report| {
            report.counts.remove(&Count::Connected);
            report.audit.absent_members = 4000;
        };
        let because = "not one connection was made (connection refused); absent_members==0 (measured 4000)".to_owned();
        assert_eq!(concluded(unreachable), (Verdict::Invalid, because));
        let early = |report: &mut Report| {
            report.run.load_started_ms = 0;
            report.run.interrupted = true;
        };
        assert_eq!(concluded(early), (Verdict::Invalid, "interrupted before the load began".to_owned()));
        let never = |report: &mut Report| report.run.load_started_ms = 0;
        assert_eq!(concluded(never), (Verdict::Invalid, "the load never began".to_owned()));
        let refused = |report: &mut Report| {
            report.counts.remove(&Count::Acked);
            report.counts.remove(&Count::Received);
        };
        let because = "no message came through: none was acked, none received (unavailable)".to_owned();
        assert_eq!(concluded(refused), (Verdict::Invalid, because));
        let problem = |report: &mut Report| report.problems.push("the log's disk is full".to_owned());
        assert_eq!(concluded(problem), (Verdict::Invalid, "the log's disk is full".to_owned()));
    }

    #[test]
    fn one_process_of_several_stands_for_itself() {
        assert_eq!(concluded(|report| report.run.processes = 3).0, Verdict::Passed);
        let whole = |report: &mut Report| {
            report.run.processes = 1000;
            report.scope = Scope::Whole;
        };
        let because = "999 of 1000 processes are missing: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...".to_owned();
        assert_eq!(concluded(whole), (Verdict::Invalid, because));
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        assert_eq!([Verdict::Passed, Verdict::Failed, Verdict::Invalid].map(Verdict::exit_code), [0, 1, 3]);
    }
}
