//! Reports of several processes as one.
//!
//! Called by `loadtest merge`. Everything adds: nothing is averaged, and the thresholds are evaluated again over the
//! whole, so a run split over processes gives the figures of one that was not.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context as _, bail, ensure};

use super::events::Events;
use super::samples::Samples;
use super::series;
use super::{Compressed, Generator, Happening, Report, RunInfo, Scope, Server, Threshold, VERSION, Verdict};
use crate::audit;
use crate::record::Latency;

/// Merges the reports of all processes of one run, in any order. Processes that are missing make it invalid.
///
/// # Errors
/// Reports of different runs, the same process twice, damaged histograms. Which file is at fault is the caller's to say.
pub fn merge(reports: Vec<Report>) -> anyhow::Result<Report> {
    merge_as(Scope::Whole, reports)
}

/// As [`merge`], with processes missing on purpose.
pub fn merge_partial(reports: Vec<Report>) -> anyhow::Result<Report> {
    merge_as(Scope::Partial, reports)
}

fn merge_as(scope: Scope, mut reports: Vec<Report>) -> anyhow::Result<Report> {
    reports.sort_by_key(|report| report.generators.iter().map(|generator| generator.index).min());
    let Some(first) = reports.first() else { bail!("nothing to merge") };
    for other in &reports[1..] {
        same_run(&first.run, &other.run)?;
    }
    let run = run(&reports, &first.run);
    let generators = generators(&reports, run.processes)?;
    let users = thresholds(&reports)?;
    let series: Vec<_> = reports.iter_mut().map(|report| std::mem::take(&mut report.series)).collect();
    let audits: Vec<_> = reports.iter_mut().map(|report| std::mem::take(&mut report.audit)).collect();
    let mut report = Report {
        version: VERSION,
        scope,
        run,
        generators,
        counts: sums(reports.iter().map(|report| &report.counts)),
        publish_errors: sums(reports.iter().map(|report| &report.publish_errors)),
        closes: sums(reports.iter().map(|report| &report.closes)),
        connect_failures: sums(reports.iter().map(|report| &report.connect_failures)),
        latencies: latencies(&reports)?,
        series: series::merge(&series).context("the series")?,
        events: events(&reports),
        servers: servers(&reports),
        audit: audit::merge(&audits),
        problems: problems(&reports),
        thresholds: Vec::new(),
        verdict: Verdict::Passed,
        because: Vec::new(),
    };
    report.conclude(&users);
    Ok(report)
}

/// Everything that all processes of a run must have been started with.
fn same_run(a: &RunInfo, b: &RunInfo) -> anyhow::Result<()> {
    fn same<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> anyhow::Result<()> {
        ensure!(a == b, "the processes were started with different {what}: {a:?} and {b:?}");
        Ok(())
    }
    ensure!(a.id == b.id, "reports of different runs: {:?} and {:?}", a.id, b.id);
    same("scenarios", &a.scenario, &b.scenario)?;
    same("numbers of processes", &a.processes, &b.processes)?;
    same("numbers of rooms", &a.rooms, &b.rooms)?;
    same("numbers of members", &a.members, &b.members)?;
    same("numbers of publishers", &a.publishers, &b.publishers)?;
    same("rates", &a.rate, &b.rate)?;
    same("modes", &a.mode, &b.mode)
}

fn run(reports: &[Report], first: &RunInfo) -> RunInfo {
    let runs = || reports.iter().map(|report| &report.run);
    let mut targets: Vec<String> = Vec::new();
    for target in runs().flat_map(|run| &run.targets) {
        if !targets.contains(target) {
            targets.push(target.clone());
        }
    }
    RunInfo {
        commands: runs().flat_map(|run| run.commands.iter().cloned()).collect(),
        targets,
        started_ms: runs().map(|run| run.started_ms).min().unwrap_or_default(),
        load_started_ms: runs().map(|run| run.load_started_ms).filter(|ms| *ms > 0).min().unwrap_or_default(),
        load_ended_ms: runs().map(|run| run.load_ended_ms).max().unwrap_or_default(),
        finished_ms: runs().map(|run| run.finished_ms).max().unwrap_or_default(),
        interrupted: runs().any(|run| run.interrupted),
        max_lag_ms: runs().map(|run| run.max_lag_ms).fold(f64::INFINITY, f64::min),
        ..first.clone()
    }
}

fn generators(reports: &[Report], processes: u32) -> anyhow::Result<Vec<Generator>> {
    let mut generators: BTreeMap<u32, Generator> = BTreeMap::new();
    for generator in reports.iter().flat_map(|report| &report.generators) {
        let index = generator.index;
        ensure!(index < processes, "process {index} cannot be: the run has {processes}, counted from 0");
        let twice = generators.insert(index, generator.clone()).is_some();
        ensure!(!twice, "process {index} is in two of the reports");
    }
    Ok(generators.into_values().collect())
}

/// The users', each once. Defaults are left out, for a user's word must replace them in all.
fn thresholds(reports: &[Report]) -> anyhow::Result<Vec<Threshold>> {
    let scenario = reports.first().map_or("", |report| report.run.scenario.as_str());
    let defaults = Threshold::defaults(scenario);
    let mut users: Vec<Threshold> = Vec::new();
    for result in reports.iter().flat_map(|report| &report.thresholds) {
        let text = &result.text;
        let threshold: Threshold = text.parse().with_context(|| format!("the report's threshold {text:?}"))?;
        if !defaults.contains(&threshold) && !users.contains(&threshold) {
            users.push(threshold);
        }
    }
    Ok(users)
}

fn latencies(reports: &[Report]) -> anyhow::Result<BTreeMap<Latency, Compressed>> {
    let mut sums = BTreeMap::new();
    for what in Latency::ALL {
        let parts: Vec<&Compressed> = reports.iter().filter_map(|report| report.latencies.get(&what)).collect();
        if !parts.is_empty() {
            sums.insert(what, Compressed::sum(&parts).with_context(|| format!("the latency {:?}", what.name()))?);
        }
    }
    Ok(sums)
}

fn events(reports: &[Report]) -> Vec<Happening> {
    let mut all: Vec<Happening> = reports.iter().flat_map(|report| report.events.iter().cloned()).collect();
    all.sort();
    let mut events = Events::default();
    for event in all {
        events.add(event);
    }
    events.finish()
}

fn servers(reports: &[Report]) -> Vec<Server> {
    let mut samples = Samples::default();
    for server in reports.iter().flat_map(|report| &report.servers) {
        for sample in &server.samples {
            samples.add(&server.name, *sample);
        }
    }
    samples.finish()
}

fn problems(reports: &[Report]) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    for report in reports {
        for problem in &report.problems {
            let index = report.generators.first().map_or(0, |generator| generator.index);
            // A merged report says already whose problem it is.
            let text = match report.scope {
                Scope::Process => format!("process {index}: {problem}"),
                Scope::Whole | Scope::Partial => problem.clone(),
            };
            problems.push(text);
        }
    }
    problems
}

fn sums<'a, K: Ord + Clone + 'a>(maps: impl Iterator<Item = &'a BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    let mut sums: BTreeMap<K, u64> = BTreeMap::new();
    for (key, count) in maps.flatten() {
        let sum = sums.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    sums
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
