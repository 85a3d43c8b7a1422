//! The run over time, in bounded memory however long it lasts.
//!
//! Called by the collector once a second for each thread, and by the merge. Rows stand at whole multiples of the
//! interval since the epoch, so the rows of several processes fall on each other.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::histogram::Damaged;
use super::{Compressed, Row, Series};
use crate::record::{Count, Interval, Latency};

/// Most rows; one more doubles the interval.
pub const MOST_ROWS: u64 = 1200;
/// The newest rows stay open: threads do not hand in a second all at once.
const OPEN: usize = 3;

/// Builds a [`Series`].
pub struct SeriesBuilder {
    interval_s: u64,
    /// By beginning. Compressed; a row of a busy second takes some KB.
    sealed: BTreeMap<u64, Row>,
    open: BTreeMap<u64, OpenRow>,
}

#[derive(Default)]
struct OpenRow {
    connections: u64,
    counts: BTreeMap<Count, u64>,
    latencies: BTreeMap<Latency, Histogram<u64>>,
}

impl Default for SeriesBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SeriesBuilder {
    pub fn new() -> Self {
        Self { interval_s: 1, sealed: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Adds what happened at `at_s`, with so many connections open at its end.
    pub fn add(&mut self, at_s: u64, connections: u64, interval: &Interval) {
        let at_s = self.make_room(at_s);
        let row = self.open_row(at_s);
        row.connections = connections;
        for what in Count::ALL {
            add_count(&mut row.counts, what, interval.count(what));
        }
        for what in Latency::ALL {
            add_histogram(&mut row.latencies, what, interval.latency(what));
        }
        self.seal(OPEN);
    }

    /// The finished series. Seconds in which nothing was handed in have rows too, with the connections of the row
    /// before.
    pub fn finish(mut self) -> Series {
        self.seal(0);
        let mut rows: Vec<Row> = Vec::with_capacity(self.sealed.len());
        for row in self.sealed.into_values() {
            while let Some(before) = rows.last().filter(|before| before.at_s + self.interval_s < row.at_s) {
                let (at_s, connections) = (before.at_s + self.interval_s, before.connections);
                rows.push(Row { at_s, connections, ..Row::default() });
            }
            rows.push(row);
        }
        Series { interval_s: self.interval_s, rows }
    }

    /// Aligns, after doubling the interval until the row fits.
    fn make_room(&mut self, at_s: u64) -> u64 {
        let ends = [&mut self.sealed.keys() as &mut dyn DoubleEndedIterator<Item = &u64>, &mut self.open.keys()];
        let (mut first, mut last) = (at_s, at_s);
        for keys in ends {
            first = keys.next().map_or(first, |key| first.min(*key));
            last = keys.next_back().map_or(last, |key| last.max(*key));
        }
        while last / self.interval_s - first / self.interval_s >= MOST_ROWS {
            self.double();
        }
        at_s / self.interval_s * self.interval_s
    }

    fn double(&mut self) {
        self.seal(0);
        self.interval_s *= 2;
        let rows = std::mem::take(&mut self.sealed);
        let mut sums = BTreeMap::new();
        gather(&mut sums, rows.values(), self.interval_s);
        // Own rows can be read, so none is lost.
        self.sealed = sums.into_iter().filter_map(|(at_s, sum)| Some((at_s, sum.finish(at_s).ok()?))).collect();
    }

    fn open_row(&mut self, at_s: u64) -> &mut OpenRow {
        let sealed = &mut self.sealed;
        self.open.entry(at_s).or_insert_with(|| sealed.remove(&at_s).map(OpenRow::reopen).unwrap_or_default())
    }

    fn seal(&mut self, keep: usize) {
        while self.open.len() > keep {
            if let Some((at_s, row)) = self.open.pop_first() {
                self.sealed.insert(at_s, row.seal(at_s));
            }
        }
    }
}

impl OpenRow {
    fn seal(self, at_s: u64) -> Row {
        let latencies = self.latencies.iter().map(|(what, histogram)| (*what, Compressed::encode(histogram)));
        Row { at_s, connections: self.connections, latencies: latencies.collect(), counts: self.counts }
    }

    fn reopen(row: Row) -> Self {
        // Our own text, so it can be read.
        let latencies = row.latencies.iter().filter_map(|(what, text)| Some((*what, text.decode().ok()?)));
        Self { connections: row.connections, latencies: latencies.collect(), counts: row.counts }
    }
}

/// Adds series of processes row by row: everything adds, connections too.
pub fn merge(parts: &[Series]) -> Result<Series, Damaged> {
    let mut interval_s = parts.iter().map(|part| part.interval_s).max().unwrap_or(1).max(1);
    let beginnings = || parts.iter().flat_map(|part| part.rows.iter().map(|row| row.at_s));
    let (first, last) = (beginnings().min().unwrap_or(0), beginnings().max().unwrap_or(0));
    while last / interval_s - first / interval_s >= MOST_ROWS {
        interval_s = interval_s.saturating_mul(2);
    }
    let mut sums = BTreeMap::new();
    for part in parts {
        gather(&mut sums, &part.rows, interval_s);
    }
    let rows = sums.into_iter().map(|(at_s, sum)| sum.finish(at_s));
    Ok(Series { interval_s, rows: rows.collect::<Result<_, _>>()? })
}

/// What falls into one row. Histograms are decoded only when all are known, each once.
#[derive(Default)]
struct Sum<'a> {
    connections: u64,
    counts: BTreeMap<Count, u64>,
    latencies: BTreeMap<Latency, Vec<&'a Compressed>>,
}

/// Adds the rows of one process. Of those that fall together the last says how many connections there are.
fn gather<'a>(sums: &mut BTreeMap<u64, Sum<'a>>, rows: impl IntoIterator<Item = &'a Row>, interval_s: u64) {
    let mut connections = BTreeMap::new();
    for row in rows {
        let at_s = row.at_s / interval_s * interval_s;
        connections.insert(at_s, row.connections);
        let sum = sums.entry(at_s).or_default();
        for (what, by) in &row.counts {
            add_count(&mut sum.counts, *what, *by);
        }
        for (what, text) in &row.latencies {
            sum.latencies.entry(*what).or_default().push(text);
        }
    }
    for (at_s, open) in connections {
        let sum = sums.entry(at_s).or_default();
        sum.connections = sum.connections.saturating_add(open);
    }
}

impl Sum<'_> {
    fn finish(self, at_s: u64) -> Result<Row, Damaged> {
        let latencies = self.latencies.into_iter().map(|(what, texts)| Ok((what, Compressed::sum(&texts)?)));
        Ok(Row {
            at_s,
            connections: self.connections,
            counts: self.counts,
            latencies: latencies.collect::<Result<_, _>>()?,
        })
    }
}

pub(super) fn add_count(counts: &mut BTreeMap<Count, u64>, what: Count, by: u64) {
    if by > 0 {
        let count = counts.entry(what).or_default();
        *count = count.saturating_add(by);
    }
}

pub(super) fn add_histogram(into: &mut BTreeMap<Latency, Histogram<u64>>, what: Latency, from: &Histogram<u64>) {
    if !from.is_empty() {
        let sum = into.entry(what).or_insert_with(crate::record::histogram);
        // Same bounds everywhere, so adding cannot fail.
        let added = sum.add(from);
        debug_assert!(added.is_ok(), "histograms of one shape: {added:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many of everything.
    fn interval(number: u64) -> Interval {
        let mut interval = Interval::new();
        interval.counts[Count::Sent as usize] = number;
        for us in 0..number {
            interval.latencies[Latency::Ack as usize].saturating_record(100 * us + 1);
        }
        interval
    }

    fn built(seconds: impl Iterator<Item = u64>) -> Series {
        let mut builder = SeriesBuilder::new();
        for at_s in seconds {
            builder.add(at_s, at_s, &interval(1));
        }
        builder.finish()
    }

    fn sent(series: &Series) -> u64 {
        series.rows.iter().map(|row| row.counts.get(&Count::Sent).copied().unwrap_or_default()).sum()
    }

    fn acks(series: &Series) -> u64 {
        series
            .rows
            .iter()
            .filter_map(|row| row.latencies.get(&Latency::Ack))
            .map(|text| text.decode().unwrap().len())
            .sum()
    }

    #[test]
    fn threads_add_up_in_a_row_even_when_they_are_late() {
        let mut builder = SeriesBuilder::new();
        for at_s in 100..110 {
            builder.add(at_s, 5, &interval(1));
            builder.add(at_s, 7, &interval(2));
        }
        builder.add(101, 9, &interval(4));
        let series = builder.finish();
        assert_eq!(series.rows.len(), 10);
        assert_eq!((series.rows[1].counts[&Count::Sent], series.rows[1].connections), (7, 9));
        assert_eq!(series.rows[1].latencies[&Latency::Ack].decode().unwrap().len(), 7);
        assert_eq!(series.rows[2].counts[&Count::Sent], 3);
        assert!(!series.rows[2].counts.contains_key(&Count::Acked), "zeros are left out");
        assert!(!series.rows[2].latencies.contains_key(&Latency::Join), "empty ones are left out");
    }

    #[test]
    fn a_long_run_doubles_the_interval_and_loses_nothing() {
        let series = built(1001..1001 + 3 * MOST_ROWS);
        assert_eq!(series.interval_s, 4);
        assert!(series.rows.len() as u64 <= MOST_ROWS);
        assert!(series.rows.iter().all(|row| row.at_s % 4 == 0));
        assert!(series.rows.windows(2).all(|pair| pair[1].at_s == pair[0].at_s + 4));
        assert_eq!((sent(&series), acks(&series)), (3 * MOST_ROWS, 3 * MOST_ROWS));
        assert_eq!(series.rows[1].connections, series.rows[1].at_s + 3, "those of the last second");
    }

    #[test]
    fn silent_seconds_have_rows_with_the_connections_before() {
        let series = built([10, 14].into_iter());
        let rows: Vec<_> = series.rows.iter().map(|row| (row.at_s, row.connections)).collect();
        assert_eq!(rows, [(10, 10), (11, 10), (12, 10), (13, 10), (14, 14)]);
    }

    #[test]
    fn a_clock_that_jumps_costs_detail_and_not_memory() {
        let series = built([0, 5, u64::MAX / 2, 7, u64::MAX].into_iter());
        assert!(series.rows.len() as u64 <= MOST_ROWS);
        assert_eq!(sent(&series), 5);
    }

    #[test]
    fn series_of_different_intervals_merge_at_the_coarsest() {
        let long = built(0..MOST_ROWS + 100);
        let short = built(500..510);
        assert_eq!((long.interval_s, short.interval_s), (2, 1));
        let merged = merge(&[short, long]).unwrap();
        assert_eq!(merged.interval_s, 2);
        assert_eq!((sent(&merged), acks(&merged)), (MOST_ROWS + 110, MOST_ROWS + 110));
        let row = merged.rows.iter().find(|row| row.at_s == 502).unwrap();
        assert_eq!(row.connections, 503 + 503);
    }

    #[test]
    fn merging_fits_what_is_far_apart_and_survives_nonsense() {
        let apart = merge(&[built(0..10), built(5000..5010)]).unwrap();
        assert_eq!(apart.interval_s, 8);
        assert_eq!(merge(&[]).unwrap().rows, []);
        let row = |at_s| Row { at_s, ..Row::default() };
        let strange = Series { interval_s: 0, rows: vec![row(u64::MAX), row(3), row(0), row(3)] };
        assert!(merge(&[strange]).unwrap().rows.len() as u64 <= MOST_ROWS);
        let damaged = BTreeMap::from([(Latency::Ack, Compressed("?".to_owned()))]);
        let damaged = Series { interval_s: 1, rows: vec![Row { latencies: damaged, ..row(1) }] };
        assert_eq!(merge(&[damaged.clone(), damaged]), Err(Damaged::NotBase64));
    }
}
