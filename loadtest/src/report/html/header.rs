//! What one reads first: verdict, key figures, thresholds. Called by the page.

use maud::{Markup, html};

use super::{load_seconds, millis, verdict};
use crate::record::{Count, Latency};
use crate::report::words;
use crate::report::{Finding, Report, Verdict};

/// Scenario, verdict with its reason, and what the run was.
pub fn section(report: &Report) -> Markup {
    let run = &report.run;
    html! {
        header {
            p.over { "Roomcast loadtest" }
            h1 {
                (run.scenario) " "
                span.verdict.(verdict(report.verdict)) { span aria-hidden="true" { (sign(report.verdict)) } " " (verdict(report.verdict)) }
            }
            @let reasons = reasons(report);
            @match reasons.as_slice() {
                [one] => p.because { (one) },
                many => ul.because { @for reason in many { li { (reason) } } },
            }
            p.run {
                @for (index, part) in parts(report).iter().enumerate() {
                    @if index > 0 { " · " }
                    span { (part) }
                }
            }
        }
    }
}

fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "\u{2713}",
        Verdict::Failed => "\u{2717}",
        Verdict::Invalid => "!",
    }
}

/// The verdict's reasons, most telling first, and what else one must know before believing a figure.
fn reasons(report: &Report) -> Vec<String> {
    let failed = report.thresholds.iter().filter(|threshold| !threshold.passed).count();
    let all = report.thresholds.len();
    let mut reasons = match report.verdict {
        Verdict::Passed if all == 0 => vec!["No threshold was set.".to_owned()],
        Verdict::Passed => vec![format!("All {all} thresholds were met.")],
        Verdict::Failed if report.because.is_empty() => vec![format!("{failed} of {all} thresholds were not met.")],
        Verdict::Invalid if report.because.is_empty() => {
            vec!["The cluster was out of reach, or the generator too slow.".to_owned()]
        }
        Verdict::Failed | Verdict::Invalid => report.because.iter().map(|reason| sentence(report, reason)).collect(),
    };
    if report.verdict == Verdict::Invalid {
        reasons.push("The figures say nothing about the cluster.".to_owned());
    }
    if report.run.interrupted {
        reasons.push("The run was ended early, by hand.".to_owned());
    }
    let (here, of) = (report.generators.len(), report.run.processes as usize);
    if here < of {
        reasons.push(format!("Only {here} of the run's {of} processes are in this report."));
    }
    reasons
}

/// The report's reasons are written to follow a colon.
fn sentence(report: &Report, reason: &str) -> String {
    if report.thresholds.iter().any(|threshold| reason.starts_with(&threshold.text)) {
        return format!("Not met: {reason}");
    }
    let mut letters = reason.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn parts(report: &Report) -> Vec<String> {
    let run = &report.run;
    let mut parts = vec![
        format!(
            "{} {} × {} {}",
            words::grouped(run.rooms.into()),
            plural(run.rooms, "room"),
            run.members,
            plural(run.members, "member")
        ),
        run.mode.clone(),
    ];
    if run.rate > 0.0 {
        parts.push(format!("{} messages/s per room", words::short(run.rate)));
    }
    match load_seconds(report) {
        Some(seconds) => parts.push(format!("{} of load", words::duration(seconds))),
        None => parts.push("no load".to_owned()),
    }
    parts.push(format!("{} {}", run.targets.len(), plural(run.targets.len() as u32, "target")));
    parts.push(millis(run.started_ms));
    parts
}

fn plural(count: u32, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// The row of key figures.
pub fn figures(report: &Report) -> Markup {
    let per_second = |what| load_seconds(report).map(|seconds| words::rate(report.count(what) as f64 / seconds));
    let delivery = report.histogram(&[Latency::DeliverySame, Latency::DeliveryCross]);
    let at = |quantile| (!delivery.is_empty()).then(|| words::latency(delivery.value_at_quantile(quantile) as f64));
    html! {
        section.tiles aria-label="Key figures" {
            div { h2 { "Load" } dl {
                (tile("clients", Some(words::grouped(report.run.clients.into()))))
                (tile("sent", per_second(Count::Sent)))
                (tile("received", per_second(Count::Received)))
            } }
            div { h2 { "Delivery" } dl {
                (tile("p50", at(0.5)))
                (tile("p99", at(0.99)))
                (tile("max", at(1.0)))
            } }
            div { h2 { "Audit" } dl {
                @for finding in Finding::ALL {
                    @let found = report.audit.findings.get(&finding).copied().unwrap_or_default();
                    @if found > 0 {
                        div.bad { dt { (finding.name().replace('_', " ")) } dd { (words::amount(found as f64)) } }
                    } @else if matches!(finding, Finding::Lost | Finding::Duplicated | Finding::Reordered) {
                        (tile(finding.name(), (report.audit.checked > 0).then(|| "0".to_owned())))
                    }
                }
            } }
        }
    }
}

fn tile(name: &str, value: Option<String>) -> Markup {
    html! { div { dt { (name) } dd { @match value { Some(text) => (text), None => span.none { "\u{2013}" } } } } }
}

pub fn thresholds(report: &Report) -> Markup {
    html! {
        @if !report.thresholds.is_empty() {
            section aria-labelledby="thresholds" {
                h2 #thresholds { "Thresholds" }
                div.scroll { table.narrow {
                    thead { tr { th scope="col" { "Condition" } th.n scope="col" { "Measured" } th scope="col" { "Result" } } }
                    tbody {
                        @for threshold in &report.thresholds {
                            tr class=[(!threshold.passed).then_some("bad")] {
                                th scope="row" { code { (threshold.text) } }
                                td.n { (threshold.measured.as_deref().unwrap_or("not measured")) }
                                td { @if threshold.passed { span.good { "\u{2713} met" } } @else { "\u{2717} not met" } }
                            }
                        }
                    }
                } }
            }
        }
    }
}
