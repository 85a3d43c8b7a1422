//! Latencies of the whole run: by percentile as curves, and as a table. Called by the page.

use hdrhistogram::Histogram;
use maud::{Markup, html};

use super::figure::{Figure, Shared};
use crate::record::Latency;
use crate::report::Report;
use crate::report::plot::{Ink, Line, Scale, Unit};
use crate::report::words;

/// Points of a curve for each nine.
const POINTS_PER_NINE: u32 = 40;

pub fn section(report: &Report) -> Markup {
    let measured: Vec<(Latency, Histogram<u64>)> = Latency::ALL
        .into_iter()
        .filter_map(|what| Some((what, report.latencies.get(&what)?.decode().ok()?)))
        .filter(|(_, all)| !all.is_empty())
        .collect();
    html! {
        @if !measured.is_empty() {
            section aria-labelledby="latencies" {
                h2 #latencies { "Latency" }
                (curves(&measured))
                (table(&measured))
                p.note {
                    "Counted from the moment that was intended: waiting in the load tester or behind a server that \
                     stood still counts."
                }
            }
        }
    }
}

fn curves(measured: &[(Latency, Histogram<u64>)]) -> Markup {
    let most_samples = measured.iter().map(|(_, all)| all.len()).max().unwrap_or(1);
    let nines = ((most_samples as f64).log10().ceil() as u32).clamp(2, 6);
    let x = Scale::nines(nines);
    let at: Vec<f64> =
        (0..=nines * POINTS_PER_NINE).map(|point| f64::from(point) / f64::from(POINTS_PER_NINE)).collect();
    let lines: Vec<Line> = measured
        .iter()
        .map(|(what, all)| Line {
            name: words(*what).to_owned(),
            overall: format!("\u{2264} {}", words::latency(all.max() as f64)),
            ink: ink(*what),
            values: at.iter().map(|nines| quantile(all, *nines)).collect(),
            area: false,
        })
        .collect();
    let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let least = values.clone().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let y = Scale::log(if least.is_finite() { least } else { 1.0 }, values.fold(1.0, f64::max), Unit::Microseconds);
    let read = at.iter().map(|nines| percentile(*nines)).collect::<Vec<_>>().join("|");
    let shared = Shared { xs: at.iter().map(|nines| x.place(*nines)).collect(), x, uprights: vec![], numbers: vec![] };
    let figure = Figure {
        id: "percentiles",
        title: "By percentile",
        words: "how long the fastest so many percent took at most, both scales logarithmic".to_owned(),
        unit: Unit::Microseconds,
        y,
        lines,
        height_px: 270,
        rising: true,
    };
    html! { div.plots data-ends="1" data-x=(read) { (figure.render(&shared)) } }
}

/// The value at so many nines; none where there are too few samples to say.
fn quantile(all: &Histogram<u64>, nines: f64) -> Option<f64> {
    let known = nines <= (all.len() as f64).log10();
    known.then(|| all.value_at_quantile(1.0 - 10f64.powf(-nines)).max(1) as f64)
}

fn percentile(nines: f64) -> String {
    let decimals = if nines < 2.0 { 1 } else { nines as usize };
    format!("p{:.decimals$}", 100.0 - 10f64.powf(2.0 - nines))
}

fn table(measured: &[(Latency, Histogram<u64>)]) -> Markup {
    let columns = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    html! {
        div.scroll { table.latencies {
            thead { tr {
                th scope="col" { "From when it was due to" }
                @for (name, _) in columns { th.n scope="col" { (name) } }
                th.n scope="col" { "Count" }
            } }
            tbody {
                @for (what, all) in measured {
                    tr {
                        th scope="row" { span.swatch.(ink(*what).class()) {} (words(*what)) small { (meaning(*what)) } }
                        @for (_, quantile) in columns {
                            td.n { (words::latency(all.value_at_quantile(quantile) as f64)) }
                        }
                        td.n { (words::grouped(all.len())) }
                    }
                }
            }
        } }
    }
}

/// Each kind has its colour wherever it is measured.
fn ink(what: Latency) -> Ink {
    match what {
        Latency::DeliverySame => Ink::Series(1),
        Latency::DeliveryCross => Ink::Series(2),
        Latency::Ack => Ink::Series(3),
        Latency::Resume => Ink::Series(4),
        Latency::Connect => Ink::Series(6),
        Latency::Join => Ink::Series(8),
        Latency::Lag => Ink::Series(7),
    }
}

fn words(what: Latency) -> &'static str {
    match what {
        Latency::Connect => "connect",
        Latency::Join => "join",
        Latency::Ack => "ack",
        Latency::DeliverySame => "same node",
        Latency::DeliveryCross => "across nodes",
        Latency::Resume => "resume",
        Latency::Lag => "generator lag",
    }
}

fn meaning(what: Latency) -> &'static str {
    match what {
        Latency::Connect => "welcome",
        Latency::Join => "joined",
        Latency::Ack => "the message is stored",
        Latency::DeliverySame => "delivery to a member on the publisher's node",
        Latency::DeliveryCross => "delivery to a member on another node",
        Latency::Resume => "joined again, after a connection was lost",
        Latency::Lag => "the load tester's own action",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_that_few_samples_cannot_show_is_not_drawn() {
        let mut few = crate::record::histogram();
        (1..=100).for_each(|us| few.record(us).unwrap());
        assert_eq!(quantile(&few, 1.0), Some(90.0));
        assert!(quantile(&few, 2.0).is_some());
        assert!(quantile(&few, 2.1).is_none());
        assert_eq!(percentile(3.0), "p99.900");
        assert_eq!(percentile(0.0), "p0.0");
    }
}
