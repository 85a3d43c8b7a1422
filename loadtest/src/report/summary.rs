//! The text at the end of a run, for a terminal of 100 columns. The last line is the verdict.
//!
//! Called by whoever ends a run and by `loadtest merge`. Says nothing that is not in the report.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::words::{bytes, duration, grouped, latency, printable, rate, short};
use super::{AuditReport, Finding, Report, Verdict};
use crate::record::{Count, Latency};

/// Reasons shown of each kind.
const REASONS: usize = 5;
/// Examples of findings shown.
const EXAMPLES: usize = 5;
const LABEL: usize = 14;

/// Writes what people read first.
pub fn summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    title(report, out)?;
    traffic(report, out)?;
    latencies(report, out)?;
    audit_summary(&report.audit, out)?;
    errors(report, out)?;
    generator(report, out)?;
    servers(report, out)?;
    thresholds(report, out)?;
    verdict(report, out)
}

fn line(out: &mut dyn Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {label:<LABEL$}{text}")
}

fn title(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    let interrupted = if run.interrupted { ", interrupted" } else { "" };
    writeln!(out)?;
    let (scenario, rooms) = (printable(&run.scenario), printable(&run.mode));
    writeln!(out, "{scenario}, {rooms} rooms, run {}{interrupted}", printable(&run.id))?;
    writeln!(out)?;
    let targets: Vec<String> = run.targets.iter().take(4).map(|target| printable(target)).collect();
    let more = match run.targets.len().saturating_sub(4) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    line(out, "targets", &format!("{}{more}", targets.join("  ")))?;
    let publishers = match run.publishers {
        0 => "nobody publishes".to_owned(),
        1 => "1 publisher each".to_owned(),
        all if all == run.members => "all publish".to_owned(),
        some => format!("{some} publishers each"),
    };
    let (rooms, members) = (counted(u64::from(run.rooms), "room"), counted(u64::from(run.members), "member"));
    line(out, "rooms", &format!("{rooms} of {members}, {publishers}"))?;
    line(out, "time", &times(report))?;
    if run.processes > 1 {
        let missing = report.missing_words();
        line(
            out,
            "processes",
            &missing.unwrap_or_else(|| format!("{} of {}", report.generators.len(), run.processes)),
        )?;
    }
    Ok(())
}

fn times(report: &Report) -> String {
    let run = &report.run;
    let length = |from: u64, to: u64| duration(to.saturating_sub(from) as f64 / 1000.0);
    let all = length(run.started_ms, run.finished_ms);
    if run.load_started_ms == 0 {
        return format!("{all}, and the load never began");
    }
    let connecting = length(run.started_ms, run.load_started_ms);
    let load = length(run.load_started_ms, run.load_ended_ms);
    format!("{load} of load, after {connecting} of connecting; {all} in all")
}

fn traffic(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let count = |what| report.count(what);
    let most = report.series.rows.iter().map(|row| row.connections).max().unwrap_or_default();
    // What was wanted is the whole run's.
    let whole = report.missing_processes() == 0;
    let wanted = if whole { format!(", of {} wanted", grouped(u64::from(report.run.clients))) } else { String::new() };
    let ended = [
        (Count::ConnectFailed, "failed attempts"),
        (Count::Disconnected, "lost"),
        (Count::Dropped, "dropped on purpose"),
    ];
    line(out, "connections", &format!("{} at most{wanted}{}", grouped(most), also(report, "; ", &ended)))?;
    if count(Count::Left) > 0 {
        line(out, "rooms joined", &format!("{}, left {}", grouped(count(Count::Joined)), grouped(count(Count::Left))))?;
    }
    if count(Count::Due) == 0 && count(Count::Received) == 0 {
        return Ok(());
    }
    messages(report, whole, out)
}

/// Counts that are not 0, each after a separator.
fn also(report: &Report, separator: &str, counts: &[(Count, &str)]) -> String {
    let some = counts.iter().filter(|(what, _)| report.count(*what) > 0);
    let words: Vec<String> =
        some.map(|(what, words)| format!("{separator}{} {words}", grouped(report.count(*what)))).collect();
    words.concat()
}

fn messages(report: &Report, whole: bool, out: &mut dyn Write) -> io::Result<()> {
    let count = |what| report.count(what);
    let seconds = report.load_seconds();
    let each_second = |what| match seconds {
        seconds if seconds > 0.0 => format!(" ({})", rate(report.count(what) as f64 / seconds)),
        _ => String::new(),
    };
    let wanted = match report.run.rate * f64::from(report.run.rooms) {
        wanted if whole && wanted > 0.0 => format!(", {} wanted", rate(wanted)),
        _ => String::new(),
    };
    let answers = [
        (Count::AckedDuplicate, "acked as duplicate"),
        (Count::Retried, "retries"),
        (Count::PublishErrors, "errors"),
        (Count::Abandoned, "given up"),
    ];
    let (sent, acked) = (grouped(count(Count::Sent)), grouped(count(Count::Acked)));
    let answers = also(report, ", ", &answers);
    line(out, "sent", &format!("{sent}{}{wanted}; {acked} acked{answers}", each_second(Count::Sent)))?;
    let others = [(Count::Replayed, "replayed on joining"), (Count::Foreign, "of somebody else's")];
    let received = grouped(count(Count::Received));
    line(out, "received", &format!("{received}{}{}", each_second(Count::Received), also(report, ", ", &others)))?;
    line(
        out,
        "bytes",
        &format!("{} in, {} out", bytes(count(Count::BytesIn) as f64), bytes(count(Count::BytesOut) as f64)),
    )
}

fn latencies(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.latencies.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<21}{:>10}{:>10}{:>10}{:>10}{:>10}{:>14}",
        "latency", "p50", "p90", "p99", "p99.9", "max", "count"
    )?;
    for (what, name) in [
        (Latency::Connect, "connect"),
        (Latency::Join, "join"),
        (Latency::Ack, "ack"),
        (Latency::DeliverySame, "delivery, same node"),
        (Latency::DeliveryCross, "delivery, across"),
        (Latency::Resume, "resume"),
        (Latency::Lag, "generator's lag"),
    ] {
        let histogram = report.histogram(&[what]);
        if histogram.is_empty() {
            continue;
        }
        write!(out, "  {name:<19}")?;
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            write!(out, "{:>10}", latency(histogram.value_at_quantile(quantile) as f64))?;
        }
        writeln!(out, "{:>14}", grouped(histogram.len()))?;
    }
    if report.count(Count::ClockSkew) > 0 {
        let skewed = grouped(report.count(Count::ClockSkew));
        writeln!(out, "  {skewed} deliveries seemed to arrive before they were due: the machines' clocks differ")?;
    }
    Ok(())
}

/// The part of the summary that tells what an audit found.
pub fn audit_summary(audit: &AuditReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "audit of {} deliveries", grouped(audit.checked))?;
    let findings = Finding::ALL.map(|finding| {
        let count = audit.findings.get(&finding).copied().unwrap_or_default();
        format!("{} {}", grouped(count), finding.name().replace('_', " "))
    });
    line(out, "found", &findings.join(", "))?;
    if !audit.recoveries.is_empty() {
        line(out, "joins", &listed(&audit.recoveries))?;
    }
    if !audit.resets.is_empty() {
        line(out, "resets", &listed(&audit.resets))?;
    }
    for (label, count, words) in [
        ("told missing", audit.told_missing, "messages that clients were told they cannot have"),
        ("acked, lost", audit.lost_acked, "acked messages that Redis lost, as clients were told"),
        ("missed away", audit.missed_away, "messages passed while a client was away (ephemeral rooms)"),
        ("undecided", audit.undecided, "publishes neither acked, nor refused, nor seen"),
        ("absent", audit.absent_members, "members not in their room at the end: what they lack is not counted"),
        ("not compared", audit.unchecked_order, "deliveries too old to hold against the order that others saw"),
    ] {
        if count > 0 {
            line(out, label, &format!("{} {words}", grouped(count)))?;
        }
    }
    for example in audit.examples.iter().take(EXAMPLES) {
        line(out, example.finding.name(), &printable(&example.text))?;
    }
    match audit.examples.len().saturating_sub(EXAMPLES) {
        0 => Ok(()),
        more => line(out, "", &format!("... {more} more examples in the report (--json, --html)")),
    }
}

fn errors(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let kinds = [
        ("connecting", &report.connect_failures),
        ("disconnects", &report.closes),
        ("publishing", &report.publish_errors),
    ];
    let other = report.count(Count::OtherErrors);
    if other == 0 && kinds.iter().all(|(_, reasons)| reasons.is_empty()) {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "errors")?;
    for (label, reasons) in kinds {
        if !reasons.is_empty() {
            line(out, label, &listed(reasons))?;
        }
    }
    if other > 0 {
        line(out, "other", &format!("{} error frames and frames that could not be read", grouped(other)))?;
    }
    Ok(())
}

/// Processes of one machine share its cores.
fn cores(report: &Report) -> u64 {
    let machines: BTreeMap<&str, u32> =
        report.generators.iter().map(|generator| (generator.host.as_str(), generator.cores)).collect();
    machines.into_values().map(u64::from).sum()
}

fn generator(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{}", if report.generators.len() == 1 { "generator" } else { "generators" })?;
    let sum = |of: fn(&super::Generator) -> f64| report.generators.iter().map(of).sum::<f64>();
    let cpu = sum(|generator| generator.load_cpu_seconds);
    let seconds = report.load_seconds();
    let share = match seconds {
        seconds if seconds > 0.0 => format!(", {} of {} cores", short(cpu / seconds), cores(report)),
        _ => String::new(),
    };
    let each = match report.count(Count::Received) {
        0 => String::new(),
        received => format!(", {} s per million messages received", short(cpu / received as f64 * 1e6)),
    };
    line(out, "cpu", &format!("{} s under load{share}{each}", short(cpu)))?;
    let peak = bytes(sum(|generator| generator.peak_resident_bytes as f64));
    let connections = sum(|generator| generator.connections as f64);
    let grown = sum(|generator| generator.resident_connected_bytes as f64)
        - sum(|generator| generator.resident_before_bytes as f64);
    let each = if connections > 0.0 && grown > 0.0 {
        format!(", {} per idle connection", bytes(grown / connections))
    } else {
        String::new()
    };
    line(out, "memory", &format!("{peak} at most{each}"))?;
    let lag = report.histogram(&[Latency::Lag]);
    if !lag.is_empty() {
        let p99 = latency(lag.value_at_quantile(0.99) as f64);
        line(out, "lag", &format!("p99 {p99}, of {} allowed", latency(report.run.max_lag_ms * 1000.0)))?;
    }
    Ok(())
}

/// What the scraped nodes said of themselves while the load lasted.
fn servers(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.servers.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "servers")?;
    let load = report.run.load_started_ms / 1000..=report.run.load_ended_ms / 1000;
    for server in &report.servers {
        let samples: Vec<_> = server.samples.iter().filter(|sample| load.contains(&sample.at_s)).collect();
        let Some(memory) = samples.iter().map(|sample| sample.resident_bytes).max() else {
            line(out, "", &format!("{}: nothing could be read", printable(&server.name)))?;
            continue;
        };
        let cpu = samples.iter().map(|sample| sample.cpu).sum::<f64>() / samples.len() as f64;
        let connections = samples.iter().map(|sample| sample.connections).max().unwrap_or_default();
        line(
            out,
            "",
            &format!(
                "{}: {} cores, {}, {} connections",
                printable(&server.name),
                short(cpu),
                bytes(memory as f64),
                grouped(connections)
            ),
        )?;
    }
    Ok(())
}

fn thresholds(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "thresholds")?;
    let width = report.thresholds.iter().map(|result| result.text.chars().count()).max().unwrap_or_default().min(50);
    for result in &report.thresholds {
        let mark = if result.passed { "pass" } else { "FAIL" };
        let measured = result.measured.as_deref().unwrap_or("not measured");
        writeln!(out, "  {mark}  {:<width$}  {}", printable(&result.text), printable(measured))?;
    }
    Ok(())
}

fn verdict(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    match report.verdict {
        Verdict::Passed => writeln!(out, "passed"),
        other => {
            let shown: Vec<String> = report.because.iter().take(REASONS).map(|why| printable(why)).collect();
            let more = match report.because.len().saturating_sub(REASONS) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            writeln!(out, "{}: {}{more}", other.name(), shown.join("; "))
        }
    }
}

/// The most frequent first.
fn listed(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = reasons.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let shown: Vec<String> = sorted
        .iter()
        .take(REASONS)
        .map(|(reason, count)| format!("{} {}", grouped(**count), printable(reason)))
        .collect();
    match sorted.len().saturating_sub(REASONS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
