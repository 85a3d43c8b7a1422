//! The last few seconds, for those who watch.
//!
//! Called by the collector. What it says is a snapshot of plain figures that the display draws.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::Finding;
use crate::record::{Count, Interval, Latency, histogram};

/// Seconds that are looked back on.
const WINDOW: usize = 5;

/// How a run is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Open now.
    pub connections: u64,
    /// Since the beginning.
    pub totals: BTreeMap<Count, u64>,
    /// Over the last whole seconds.
    pub per_second: BTreeMap<Count, f64>,
    /// Over the last seconds; none when there were none. `delivery` is to the same node and across nodes.
    pub delivery: Option<Percentiles>,
    pub ack: Option<Percentiles>,
    /// The generator's own.
    pub lag: Option<Percentiles>,
    pub findings: BTreeMap<Finding, u64>,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    pub p50_us: u64,
    pub p99_us: u64,
}

impl Live {
    pub fn total(&self, what: Count) -> u64 {
        self.totals.get(&what).copied().unwrap_or_default()
    }

    pub fn rate(&self, what: Count) -> f64 {
        self.per_second.get(&what).copied().unwrap_or_default()
    }

    /// Everything that went wrong and is no finding of the audit.
    pub fn errors(&self) -> u64 {
        [Count::ConnectFailed, Count::Disconnected, Count::PublishErrors, Count::Abandoned, Count::OtherErrors]
            .into_iter()
            .fold(0, |sum, what| sum.saturating_add(self.total(what)))
    }

    /// Everything that the audit found.
    pub fn violations(&self) -> u64 {
        self.findings.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The last [`WINDOW`] seconds.
#[derive(Default)]
pub(super) struct Recent(BTreeMap<u64, Second>);

struct Second {
    counts: [u64; Count::ALL.len()],
    delivery: Histogram<u64>,
    ack: Histogram<u64>,
    lag: Histogram<u64>,
}

impl Recent {
    pub(super) fn add(&mut self, at_s: u64, interval: &Interval) {
        self.0.entry(at_s).or_insert_with(Second::new).add(interval);
        while self.0.len() > WINDOW {
            self.0.pop_first();
        }
    }

    pub(super) fn live(
        &self,
        connections: u64,
        totals: &BTreeMap<Count, u64>,
        findings: &BTreeMap<Finding, u64>,
    ) -> Live {
        Live {
            connections,
            totals: totals.clone(),
            per_second: self.rates(),
            delivery: self.percentiles(|second| &second.delivery),
            ack: self.percentiles(|second| &second.ack),
            lag: self.percentiles(|second| &second.lag),
            findings: findings.clone(),
        }
    }

    /// The newest second may not have been handed in by every thread yet, so it counts only while it is the only one.
    fn rates(&self) -> BTreeMap<Count, f64> {
        let newest = self.0.keys().next_back().copied().unwrap_or_default();
        let whole: Vec<&Second> = self.0.iter().filter(|(at, _)| **at != newest).map(|(_, second)| second).collect();
        let seconds = if whole.is_empty() { self.0.values().collect() } else { whole };
        let mut rates = BTreeMap::new();
        for what in Count::ALL {
            let sum = seconds.iter().fold(0_u64, |sum, second| sum.saturating_add(second.counts[what as usize]));
            if sum > 0 {
                rates.insert(what, sum as f64 / seconds.len() as f64);
            }
        }
        rates
    }

    fn percentiles(&self, of: impl Fn(&Second) -> &Histogram<u64>) -> Option<Percentiles> {
        let mut sum = histogram();
        for second in self.0.values() {
            add(&mut sum, of(second));
        }
        let at = |quantile| sum.value_at_quantile(quantile);
        (!sum.is_empty()).then(|| Percentiles { p50_us: at(0.5), p99_us: at(0.99) })
    }
}

impl Second {
    fn new() -> Self {
        Self { counts: [0; Count::ALL.len()], delivery: histogram(), ack: histogram(), lag: histogram() }
    }

    fn add(&mut self, interval: &Interval) {
        for (sum, by) in self.counts.iter_mut().zip(&interval.counts) {
            *sum = sum.saturating_add(*by);
        }
        add(&mut self.delivery, interval.latency(Latency::DeliverySame));
        add(&mut self.delivery, interval.latency(Latency::DeliveryCross));
        add(&mut self.ack, interval.latency(Latency::Ack));
        add(&mut self.lag, interval.latency(Latency::Lag));
    }
}

fn add(sum: &mut Histogram<u64>, more: &Histogram<u64>) {
    // Same bounds everywhere, so adding cannot fail.
    let added = sum.add(more);
    debug_assert!(added.is_ok(), "histograms of one shape: {added:?}");
}
