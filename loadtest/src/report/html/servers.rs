//! What the nodes said of themselves: CPU and memory over time. Called by the plots over time.

use super::columns::Columns;
use super::figure::Figure;
use super::timeline::{mean, most};
use crate::report::plot::{Ink, Line, Scale, Unit};
use crate::report::words;
use crate::report::{Report, Sample};

/// With more nodes than this the extremes and the middle stand for all: nobody tells nine lines apart.
const MOST_LINES: usize = 6;

/// None unless something was scraped.
pub fn figures(report: &Report, columns: &Columns) -> Vec<Figure> {
    if report.servers.iter().all(|server| server.samples.is_empty()) {
        return Vec::new();
    }
    let mut cpu = lines(report, columns, |sample| if sample.cpu.is_finite() { sample.cpu.max(0.0) } else { 0.0 });
    for line in &mut cpu {
        line.overall = format!("\u{2300} {}", words::short(mean(line.values.iter().flatten().copied())));
    }
    let mut memory = lines(report, columns, |sample| sample.resident_bytes as f64);
    for line in &mut memory {
        line.overall = format!("\u{2264} {}", words::bytes(most(std::slice::from_ref(line))));
    }
    vec![
        Figure {
            id: "cpu",
            title: "Server CPU",
            words: "cores in use, by node".to_owned(),
            unit: Unit::Cores,
            y: Scale::linear(most(&cpu), Unit::Cores),
            lines: cpu,
            height_px: 130,
            rising: false,
        },
        Figure {
            id: "memory",
            title: "Server memory",
            words: "resident, by node".to_owned(),
            unit: Unit::Bytes,
            y: Scale::linear(most(&memory), Unit::Bytes),
            lines: memory,
            height_px: 130,
            rising: false,
        },
    ]
}

fn lines(report: &Report, columns: &Columns, of: impl Fn(&Sample) -> f64) -> Vec<Line> {
    let line = |name: String, index: usize, values| Line {
        name,
        overall: String::new(),
        ink: Ink::series(index),
        values,
        area: false,
    };
    let nodes: Vec<Vec<Option<f64>>> =
        report.servers.iter().map(|server| by_column(&server.samples, columns, &of)).collect();
    if nodes.len() <= MOST_LINES {
        let named = report.servers.iter().zip(nodes).enumerate();
        return named.map(|(index, (server, values))| line(short_name(&server.name), index, values)).collect();
    }
    let names = ["most of all", "median node", "least of all"];
    let mut folded = [Vec::new(), Vec::new(), Vec::new()];
    for column in 0..columns.all.len() {
        let mut values: Vec<f64> = nodes.iter().filter_map(|node| node.get(column).copied().flatten()).collect();
        values.sort_by(f64::total_cmp);
        folded[0].push(values.last().copied());
        folded[1].push(values.get(values.len() / 2).copied());
        folded[2].push(values.first().copied());
    }
    names
        .into_iter()
        .zip(folded)
        .enumerate()
        .map(|(index, (name, values))| line(name.to_owned(), index, values))
        .collect()
}

/// The mean of a node's samples in each column. Samples may be further apart than columns are wide: a hole of few
/// columns is filled, so that a line does not fall to pieces.
fn by_column(samples: &[Sample], columns: &Columns, of: impl Fn(&Sample) -> f64) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0u32); columns.all.len()];
    for sample in samples {
        if let Some(index) = columns.index(sample.at_s) {
            sums[index].0 += of(sample);
            sums[index].1 += 1;
        }
    }
    let mut values: Vec<Option<f64>> =
        sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect();
    let mut last: Option<(usize, f64)> = None;
    for index in 0..values.len() {
        if let Some(value) = values[index] {
            if let Some((from, before)) = last
                && (2..=4).contains(&(index - from))
            {
                values[from + 1..index].fill(Some(f64::midpoint(before, value)));
            }
            last = Some((index, value));
        }
    }
    values
}

/// `http://10.0.0.1:9090/metrics` is `10.0.0.1:9090`, and no longer than a label may be.
fn short_name(name: &str) -> String {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    let name = name.split('/').next().unwrap_or(name);
    if name.chars().count() <= 24 {
        return name.to_owned();
    }
    let cut: String = name.chars().take(23).collect();
    format!("{cut}\u{2026}")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::report::Server;

    #[test]
    fn a_node_that_is_gone_leaves_a_hole() {
        let report = sample::killed();
        let figures = figures(&report, &Columns::new(&report));
        assert_eq!(figures.len(), 2);
        assert_eq!(figures[0].lines[1].values.iter().filter(|value| value.is_none()).count(), 14);
    }

    #[test]
    fn many_nodes_become_three_lines() {
        let mut report = sample::killed();
        let samples = report.servers[0].samples.clone();
        report.servers = (0..40).map(|n| Server { name: format!("node {n}"), samples: samples.clone() }).collect();
        assert_eq!(figures(&report, &Columns::new(&report))[0].lines.len(), 3);
    }

    #[test]
    fn names_are_short() {
        assert_eq!(short_name("http://10.0.0.1:9090/metrics"), "10.0.0.1:9090");
        assert_eq!(short_name("a-very-long-name-of-a-node.example.net").chars().count(), 24);
    }
}
