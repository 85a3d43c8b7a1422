//! The run over time, in bounded memory however long it lasts.
//!
//! Called by the collector once a second for each thread, and by the merge. Rows stand at whole multiples of the
//! interval since the epoch, so the rows of several processes fall on each other.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
        for row in std::mem::take(&mut self.sealed).into_values() {
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
        let first = self.sealed.keys().chain(self.open.keys()).min().copied().unwrap_or(at_s).min(at_s);
        let last = self.sealed.keys().chain(self.open.keys()).max().copied().unwrap_or(at_s).max(at_s);
        while last / self.interval_s - first / self.interval_s >= MOST_ROWS {
            self.double();
        }
        at_s / self.interval_s * self.interval_s
    }

    fn double(&mut self) {
        self.seal(0);
        self.interval_s *= 2;
        for row in std::mem::take(&mut self.sealed).into_values() {
            let at_s = row.at_s / self.interval_s * self.interval_s;
            match self.sealed.entry(at_s) {
                Entry::Vacant(entry) => {
                    entry.insert(Row { at_s, ..row });
                }
                Entry::Occupied(mut entry) => {
                    entry.get_mut().connections = row.connections;
                    add_own(entry.get_mut(), &row);
                }
            }
        }
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
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for part in parts {
        for (at_s, row) in coarsen(part, interval_s)? {
            match rows.entry(at_s) {
                Entry::Vacant(entry) => {
                    entry.insert(row);
                }
                Entry::Occupied(mut entry) => {
                    let sum = entry.get_mut();
                    sum.connections = sum.connections.saturating_add(row.connections);
                    add_row(sum, &row)?;
                }
            }
        }
    }
    Ok(Series { interval_s, rows: rows.into_values().collect() })
}

fn coarsen(part: &Series, interval_s: u64) -> Result<BTreeMap<u64, Row>, Damaged> {
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for row in &part.rows {
        let at_s = row.at_s / interval_s * interval_s;
        match rows.entry(at_s) {
            Entry::Vacant(entry) => {
                entry.insert(Row { at_s, ..row.clone() });
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().connections = row.connections;
                add_row(entry.get_mut(), row)?;
            }
        }
    }
    Ok(rows)
}

fn add_row(sum: &mut Row, row: &Row) -> Result<(), Damaged> {
    for (what, by) in &row.counts {
        add_count(&mut sum.counts, *what, *by);
    }
    for (what, text) in &row.latencies {
        match sum.latencies.entry(*what) {
            Entry::Vacant(entry) => {
                entry.insert(text.clone());
            }
            Entry::Occupied(mut entry) => {
                let merged = entry.get().plus(text)?;
                entry.insert(merged);
            }
        }
    }
    Ok(())
}

/// [`add_row`] of rows that this process encoded itself.
fn add_own(sum: &mut Row, row: &Row) {
    let added = add_row(sum, row);
    debug_assert!(added.is_ok(), "own rows can be read: {added:?}");
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
