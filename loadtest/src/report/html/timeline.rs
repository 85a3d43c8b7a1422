//! The run over time: plots one below the other on one axis, and the table of what happened. Called by the page.

use std::ops::RangeInclusive;

use maud::{Markup, html};

use super::columns::{Column, Columns};
use super::figure::{Figure, Number, Shared};
use super::{load_seconds, millis, servers};
use crate::record::Count;
use crate::report::plot::{Ink, Line, Scale, Unit, Upright};
use crate::report::words;
use crate::report::{Happening, HappeningKind, Report};

/// Most events in the table; a longer list is no overview.
const MOST_EVENTS: usize = 100;
/// Events closer than this share of the width share a number's place: with one digit, with more.
const CLOSE: [f64; 2] = [0.028, 0.06];
/// On a phone they would still cover each other.
const NEAR: f64 = 0.08;

/// Plots and events; nothing if the run left neither.
pub fn section(report: &Report) -> Markup {
    let columns = Columns::new(report);
    let origin = origin_s(report);
    let shared = shared(report, &columns, origin);
    let times: Vec<String> = columns.middles().map(|at| words::duration((at - origin).floor())).collect();
    html! {
        @if !columns.all.is_empty() {
            section aria-labelledby="over-time" {
                h2 #over-time { "Over time" }
                div.plots.dense[columns.all.len() > 200 || report.events.len() > 20] data-x=(times.join("|")) {
                    @for figure in figures(report, &columns) { (figure.render(&shared)) }
                }
            }
        }
        @if !report.events.is_empty() { (events(report, origin)) }
    }
}

/// What time counts from: the load, or the run if it never came to that. Seconds since the Unix epoch.
fn origin_s(report: &Report) -> f64 {
    let run = &report.run;
    (if run.load_started_ms > 0 { run.load_started_ms } else { run.started_ms }) as f64 / 1000.0
}

fn shared(report: &Report, columns: &Columns, origin: f64) -> Shared {
    let x = Scale::time(columns.first_s as f64 - origin, columns.end_s() - origin);
    let xs = columns.middles().map(|at| x.place(at - origin)).collect();
    let mut uprights = Vec::new();
    let close = CLOSE[usize::from(report.events.len() > 9)];
    let mut groups: Vec<(f64, bool, RangeInclusive<usize>)> = Vec::new();
    for (index, event) in report.events.iter().take(MOST_EVENTS).enumerate() {
        let second = event.at_ms as f64 / 1000.0 - origin;
        if !x.contains(second) {
            continue;
        }
        let (at, bad) = (x.place(second), is_bad(event.kind));
        uprights.push(Upright { at, ink: if bad { Ink::Alarm } else { Ink::Event } });
        match groups.last_mut() {
            Some((from, any_bad, range)) if at - *from < close => {
                *any_bad |= bad;
                *range = *range.start()..=index + 1;
            }
            _ => groups.push((at, bad, index + 1..=index + 1)),
        }
    }
    Shared { x, xs, uprights, numbers: numbers(groups) }
}

fn numbers(groups: Vec<(f64, bool, RangeInclusive<usize>)>) -> Vec<Number> {
    let mut shown = f64::NEG_INFINITY;
    let number = |(at, bad, range): (f64, bool, RangeInclusive<usize>)| {
        let (first, last) = range.into_inner();
        let text = if first == last { first.to_string() } else { format!("{first}\u{2013}{last}") };
        let near = at - shown < NEAR;
        if !near {
            shown = at;
        }
        Number { at, text, bad, near }
    };
    groups.into_iter().map(number).collect()
}

fn is_bad(kind: HappeningKind) -> bool {
    matches!(kind, HappeningKind::NodeGone | HappeningKind::Finding | HappeningKind::Break | HappeningKind::Lag)
}

fn figures(report: &Report, columns: &Columns) -> Vec<Figure> {
    let mut figures = vec![received(report, columns), published(report, columns)];
    figures.extend(latency(columns));
    figures.push(connections(columns));
    figures.push(errors(report, columns));
    figures.extend(lag(columns));
    figures.extend(servers::figures(report, columns));
    figures
}

/// A line of something that is counted, per second.
fn per_second(columns: &Columns, name: &str, ink: Ink, of: impl Fn(&Column) -> u64) -> Line {
    let values = columns.values(|column| Some(of(column) as f64 / column.seconds));
    Line { name: name.to_owned(), overall: String::new(), ink, values, area: false }
}

/// Received apart from sent: where each message reaches many, one axis would lay what was sent on the ground.
fn received(report: &Report, columns: &Columns) -> Figure {
    let line = messages(report, columns, "received", Ink::Series(1), Count::Received);
    rates("received", "Received", 150, vec![Line { area: true, ..line }])
}

fn published(report: &Report, columns: &Columns) -> Figure {
    let sent = messages(report, columns, "sent", Ink::Series(2), Count::Sent);
    let acked = messages(report, columns, "acked", Ink::Series(3), Count::Acked);
    rates("published", "Published", 120, vec![sent, acked])
}

/// With the same mean as the key figures.
fn messages(report: &Report, columns: &Columns, name: &str, ink: Ink, what: Count) -> Line {
    let mean = load_seconds(report).map(|seconds| report.count(what) as f64 / seconds);
    let overall = mean.map_or_else(String::new, |mean| format!("\u{2300} {}", words::rate(mean)));
    Line { overall, ..per_second(columns, name, ink, |column| column.count(what)) }
}

fn rates(id: &'static str, title: &'static str, height_px: u32, lines: Vec<Line>) -> Figure {
    let y = Scale::linear(most(&lines), Unit::PerSecond);
    let words = "messages per second".to_owned();
    Figure { id, title, words, unit: Unit::PerSecond, y, lines, height_px, rising: false }
}

fn latency(columns: &Columns) -> Option<Figure> {
    let line = |name: &str, ink, index: usize| {
        let values = columns.values(|column| column.delivery.map(|at| at[index] as f64));
        Line { name: name.to_owned(), overall: String::new(), ink, values, area: false }
    };
    let mut lines =
        vec![line("max", Ink::Series(4), 2), line("p99", Ink::Series(2), 1), line("p50", Ink::Series(1), 0)];
    lines.iter().any(|line| line.values.iter().any(Option::is_some)).then(|| {
        for line in &mut lines {
            line.overall = format!("\u{2264} {}", words::latency(most(std::slice::from_ref(line))));
        }
        let y = fit(&lines, Unit::Microseconds);
        let words = if y.is_log() { "from when a message was due, log scale" } else { "from when a message was due" };
        let (id, title, words) = ("latency", "Delivery", words.to_owned());
        Figure { id, title, words, unit: Unit::Microseconds, y, lines, height_px: 190, rising: false }
    })
}

fn connections(columns: &Columns) -> Figure {
    let values = columns.values(|column| Some(column.connections as f64));
    let mut line = Line { name: "open".to_owned(), overall: String::new(), ink: Ink::Series(1), values, area: true };
    let most = most(std::slice::from_ref(&line));
    line.overall = format!("\u{2264} {}", words::amount(most));
    Figure {
        id: "connections",
        title: "Connections",
        words: "open at the end of each second".to_owned(),
        unit: Unit::Amount,
        y: Scale::linear(most, Unit::Amount),
        lines: vec![line],
        height_px: 120,
        rising: false,
    }
}

fn errors(report: &Report, columns: &Columns) -> Figure {
    let kinds: [(&str, Ink, &[Count]); 3] = [
        ("errors", Ink::Series(5), &[Count::PublishErrors, Count::OtherErrors, Count::ConnectFailed, Count::Abandoned]),
        ("disconnects", Ink::Series(4), &[Count::Disconnected]),
        ("dropped by us", Ink::Series(6), &[Count::Dropped]),
    ];
    let lines: Vec<Line> = kinds
        .into_iter()
        .filter(|(name, ..)| *name != "dropped by us" || report.count(Count::Dropped) > 0)
        .map(|(name, ink, counts)| {
            let sum = |column: &Column| counts.iter().fold(0u64, |sum, what| sum.saturating_add(column.count(*what)));
            let total = columns.all.iter().fold(0u64, |total, column| total.saturating_add(sum(column)));
            Line { overall: format!("{} in all", words::amount(total as f64)), ..per_second(columns, name, ink, sum) }
        })
        .collect();
    Figure {
        id: "errors",
        title: "Errors and disconnects",
        words: "per second".to_owned(),
        unit: Unit::PerSecond,
        y: Scale::linear(most(&lines), Unit::PerSecond),
        lines,
        height_px: 120,
        rising: false,
    }
}

fn lag(columns: &Columns) -> Option<Figure> {
    let values = columns.values(|column| column.lag.map(|us| us as f64));
    values.iter().any(Option::is_some).then(|| {
        let mut line =
            Line { name: "p99".to_owned(), overall: String::new(), ink: Ink::Series(7), values, area: false };
        line.overall = format!("\u{2264} {}", words::latency(most(std::slice::from_ref(&line))));
        let lines = vec![line];
        let y = fit(&lines, Unit::Microseconds);
        let words = "how late the load tester itself was".to_owned();
        Figure {
            id: "lag",
            title: "Generator lag",
            words,
            unit: Unit::Microseconds,
            y,
            lines,
            height_px: 110,
            rising: false,
        }
    })
}

fn fit(lines: &[Line], unit: Unit) -> Scale {
    Scale::fit(lines.iter().flat_map(|line| line.values.iter().flatten().copied()), unit)
}

pub fn most(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(0.0, f64::max)
}

pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

fn events(report: &Report, origin: f64) -> Markup {
    let more = report.events.len().saturating_sub(MOST_EVENTS);
    html! {
        section aria-labelledby="events" {
            h2 #events { "What happened" }
            div.scroll { table.events {
                thead { tr { th.n scope="col" { "No." } th.n scope="col" { "Time" } th scope="col" { "Kind" } th scope="col" { "In words" } } }
                tbody {
                    @for (index, event) in report.events.iter().take(MOST_EVENTS).enumerate() {
                        (row(index + 1, event, origin))
                    }
                }
            } }
            @if more > 0 { p.note { "And " (words::grouped(more as u64)) " more, which the JSON report has." } }
        }
    }
}

fn row(number: usize, event: &Happening, origin: f64) -> Markup {
    let second = event.at_ms as f64 / 1000.0 - origin;
    html! {
        tr class=[is_bad(event.kind).then_some("bad")] {
            th.n scope="row" { span.badge { (number) } }
            td.n title=(millis(event.at_ms)) { (words::duration(second)) }
            td { (kind(event.kind)) }
            td { (event.text) }
        }
    }
}

fn kind(kind: HappeningKind) -> &'static str {
    match kind {
        HappeningKind::Phase => "phase",
        HappeningKind::NodeGone => "node gone",
        HappeningKind::Drain => "drain",
        HappeningKind::Reconnected => "back",
        HappeningKind::Storm => "storm",
        HappeningKind::Break => "break",
        HappeningKind::Finding => "finding",
        HappeningKind::Lag => "generator lag",
        HappeningKind::Scrape => "scrape",
    }
}
