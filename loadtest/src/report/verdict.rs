//! Whether a run passed, and why not. Called when a report is complete: by the collector and the merge.
//!
//! Invalid beats failed beats passed: figures that say nothing about the cluster can neither pass nor fail it.

use std::collections::BTreeSet;

use hdrhistogram::Histogram;

use super::words;
use super::{Compressed, Finding, Report, Scope, Threshold, Verdict};
use crate::record::{Count, Latency, histogram};

impl Report {
    /// Evaluates the user's thresholds and those that every run has, and sets the verdict.
    pub fn conclude(&mut self, users: &[Threshold]) {
        self.thresholds = Threshold::with_defaults(users).iter().map(|threshold| threshold.evaluate(self)).collect();
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

    /// Processes of the run whose reports are not in here.
    pub fn missing_processes(&self) -> Vec<u32> {
        let here: BTreeSet<u32> = self.generators.iter().map(|generator| generator.index).collect();
        (0..self.run.processes).filter(|index| !here.contains(index)).collect()
    }

    fn invalid(&self) -> Vec<String> {
        let mut why = Vec::new();
        if self.count(Count::Connected) == 0 {
            let most = self.connect_failures.iter().max_by_key(|(_, count)| **count);
            let most = most.map(|(reason, _)| format!(" ({reason})")).unwrap_or_default();
            why.push(format!("not one connection was made{most}"));
        } else if self.run.load_started_ms == 0 {
            let how = if self.run.interrupted { "interrupted before the load began" } else { "the load never began" };
            why.push(how.to_owned());
        } else if self.count(Count::Due) > 0 && self.count(Count::Acked) == 0 && self.count(Count::Received) == 0 {
            let most = self.publish_errors.iter().max_by_key(|(_, count)| **count);
            let most = most.map(|(code, _)| format!(" (error {code})")).unwrap_or_default();
            why.push(format!("no message came through: none was acked, none received{most}"));
        }
        let lag = self.histogram(&[Latency::Lag]);
        let lag_us = lag.value_at_quantile(0.99) as f64;
        if !lag.is_empty() && lag_us > self.run.max_lag_ms * 1000.0 {
            let most = words::micros(self.run.max_lag_ms * 1000.0);
            why.push(format!("the generator lagged: p99 {}, allowed {most}", words::micros(lag_us)));
        }
        let missing = self.missing_processes();
        if self.scope == Scope::Whole && !missing.is_empty() {
            why.push(missing_words(&missing, self.run.processes));
        }
        why.extend(self.problems.iter().cloned());
        why
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

/// Such as `2 of 5 processes are missing: 1 and 4`.
pub(super) fn missing_words(missing: &[u32], of: u32) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = missing.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if missing.len() > SHOWN { ", ..." } else { "" };
    let are = if missing.len() == 1 { "is" } else { "are" };
    format!("{} of {of} processes {are} missing: {}{more}", missing.len(), shown.join(", "))
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
