//! Medians, tables for the eye, JSON for the file.
//!
//! Used by every benchmark. Must not know what the figures mean.

use std::time::Duration;

use serde_json::{Value, json};

/// Several readings of one figure.
#[derive(Debug, Default, Clone)]
pub struct Readings(Vec<f64>);

impl Readings {
    pub fn push(&mut self, reading: f64) {
        self.0.push(reading);
        self.0.sort_by(f64::total_cmp);
    }

    /// 0 without readings.
    pub fn median(&self) -> f64 {
        let at = |index: usize| self.0.get(index).copied().unwrap_or_default();
        f64::midpoint(at(self.0.len().saturating_sub(1) / 2), at(self.0.len() / 2))
    }

    /// Median with its range, each through `show`.
    pub fn show(&self, show: impl Fn(f64) -> String) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(&low), Some(&high)) if self.0.len() > 1 => {
                format!("{} ({}-{})", show(self.median()), show(low), show(high))
            }
            (Some(&only), _) => show(only),
            _ => "-".into(),
        }
    }

    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "all": self.0 })
    }
}

/// 1234567 as 1.23M.
pub fn count(number: f64) -> String {
    match number {
        million if million >= 1e6 => format!("{:.2}M", million / 1e6),
        thousand if thousand >= 1e4 => format!("{:.0}k", thousand / 1e3),
        small => format!("{small:.0}"),
    }
}

/// Two places behind the point.
pub fn ratio(number: f64) -> String {
    format!("{number:.2}")
}

/// One place behind the point.
pub fn tenth(number: f64) -> String {
    format!("{number:.1}")
}

/// Bytes as KiB.
pub fn kib(bytes: f64) -> String {
    format!("{:.2} KiB", bytes / 1024.0)
}

/// The share of one core.
pub fn percent(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}

/// The value below which `share` of the sorted values lie; 0 without values.
pub fn quantile(sorted: &[u64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default() as f64
}

/// A table with a header.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: impl Into<String>, header: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let cell_width = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let width = |column| self.rows.iter().map(|row| cell_width(row, column)).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!("\n## {}\n", self.title);
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, width)| format!("{:width$}", row.get(column).map_or("", String::as_str)))
                .collect();
            println!("| {} |", cells.join(" | "));
            if index == 0 {
                println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
            }
        }
    }
}
