//! The run over time, folded into as many columns as a plot has room for. Called by the plots over time.
//!
//! Counts are added and histograms merged, so that a column says of its minutes what a row says of its second.

use hdrhistogram::Histogram;

use crate::record::{Count, Latency, histogram};
use crate::report::{Compressed, Report, Row};

/// Most columns; a plot is hardly wider in pixels.
const MOST: u64 = 600;

/// Rows folded together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    /// What of it was measured, seconds; 0 if nothing.
    pub seconds: f64,
    pub connections: u64,
    pub counts: [u64; Count::ALL.len()],
    /// 50th and 99th percentile and longest delivery, microseconds.
    pub delivery: Option<[u64; 3]>,
    /// 99th percentile of the generator's lag, microseconds.
    pub lag: Option<u64>,
}

impl Column {
    pub fn count(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }
}

/// All of them, side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Where the first one begins, seconds since the Unix epoch.
    pub first_s: u64,
    /// Width of each, seconds.
    pub width_s: u64,
    pub all: Vec<Column>,
}

impl Columns {
    pub fn new(report: &Report) -> Self {
        let interval = report.series.interval_s.max(1);
        let mut rows: Vec<&Row> = report.series.rows.iter().collect();
        rows.sort_by_key(|row| row.at_s);
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Self { first_s: 0, width_s: 1, all: Vec::new() };
        };
        let span = (last.at_s - first.at_s).saturating_add(interval);
        let width_s = interval.saturating_mul(span.div_ceil(interval).div_ceil(MOST));
        let mut columns = Self { first_s: first.at_s, width_s, all: Vec::new() };
        columns.all.resize(span.div_ceil(width_s) as usize, Column::default());
        let of = |row: &Row| (row.at_s - first.at_s) / width_s;
        for group in rows.chunk_by(|a, b| of(a) == of(b)) {
            if let Some(column) = columns.all.get_mut(of(group[0]) as usize) {
                *column = fold(group, interval);
            }
        }
        columns
    }

    /// The column that this second belongs to.
    pub fn index(&self, at_s: u64) -> Option<usize> {
        let index = at_s.checked_sub(self.first_s)? / self.width_s;
        (index < self.all.len() as u64).then_some(index as usize)
    }

    /// The middle of each, seconds since the Unix epoch.
    pub fn middles(&self) -> impl Iterator<Item = f64> {
        (0..self.all.len()).map(|index| self.first_s as f64 + (index as f64 + 0.5) * self.width_s as f64)
    }

    /// Where the last one ends, seconds since the Unix epoch.
    pub fn end_s(&self) -> f64 {
        self.first_s as f64 + self.all.len() as f64 * self.width_s as f64
    }

    /// One value for each column; none where nothing was measured.
    pub fn values(&self, of: impl Fn(&Column) -> Option<f64>) -> Vec<Option<f64>> {
        self.all.iter().map(|column| if column.seconds > 0.0 { of(column) } else { None }).collect()
    }
}

fn fold(rows: &[&Row], interval: u64) -> Column {
    let mut column = Column { seconds: rows.len() as f64 * interval as f64, ..Column::default() };
    let (mut delivery, mut lag) = (histogram(), histogram());
    for row in rows {
        column.connections = row.connections;
        for (what, count) in &row.counts {
            let sum = &mut column.counts[*what as usize];
            *sum = sum.saturating_add(*count);
        }
        add(&mut delivery, row.latencies.get(&Latency::DeliverySame));
        add(&mut delivery, row.latencies.get(&Latency::DeliveryCross));
        add(&mut lag, row.latencies.get(&Latency::Lag));
    }
    let at = |quantile| delivery.value_at_quantile(quantile);
    column.delivery = (!delivery.is_empty()).then(|| [at(0.5), at(0.99), delivery.max()]);
    column.lag = (!lag.is_empty()).then(|| lag.value_at_quantile(0.99));
    column
}

/// A damaged histogram counts as an empty one: the page is for people, and `merge` refuses the file.
pub fn add(sum: &mut Histogram<u64>, more: Option<&Compressed>) {
    if let Some(more) = more.and_then(|text| text.decode().ok()) {
        let _ = sum.add(more);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn ten_hours_fit_and_nothing_is_left_out() {
        let report = sample::soak();
        let columns = Columns::new(&report);
        assert!(columns.all.len() <= MOST as usize);
        let sum = |what: Count| columns.all.iter().map(|column| column.count(what)).sum::<u64>();
        let rows = report.series.rows.iter().filter_map(|row| row.counts.get(&Count::Received)).sum::<u64>();
        assert_eq!(sum(Count::Received), rows);
    }

    #[test]
    fn rows_from_beyond_time_do_no_harm() {
        let mut report = sample::killed();
        report.series.rows.push(Row { at_s: u64::MAX, ..Row::default() });
        report.series.rows.push(Row { at_s: 0, ..Row::default() });
        report.series.interval_s = u64::MAX;
        assert!(Columns::new(&report).all.len() <= MOST as usize + 1);
        report.series.interval_s = 0;
        assert!(Columns::new(&report).all.len() <= MOST as usize + 1);
    }
}
