//! Makes metrics and writes down what it made. Called by `metrics` only; must not know single metrics.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::ages::Ages;
use super::metrics::Row;

const NAMESPACE: &str = "roomcast";

#[derive(Default)]
pub(super) struct Registrar {
    registry: Registry,
    rows: Vec<Row>,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn bounded(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(bounds.to_vec())
}

/// Names and buckets are constants of this crate, and a test registers them all.
#[allow(clippy::expect_used)]
fn valid<T>(made: prometheus::Result<T>) -> T {
    made.expect("a well-formed metric with a name of its own")
}

impl Registrar {
    pub(super) fn add<C: Collector + 'static>(&mut self, collector: C, kind: &'static str) {
        for desc in collector.desc() {
            let (name, help) = (desc.fq_name.clone(), desc.help.clone());
            // The process collector mixes kinds; by convention the name tells.
            let kind = if name.ends_with("_total") { "counter" } else { kind };
            self.rows.push(Row { name, kind, labels: desc.variable_labels.clone(), help });
        }
        valid(self.registry.register(Box::new(collector)));
    }

    pub(super) fn finish(self) -> (Registry, Vec<Row>) {
        (self.registry, self.rows)
    }

    fn added<C: Collector + Clone + 'static>(&mut self, made: prometheus::Result<C>, kind: &'static str) -> C {
        let collector = valid(made);
        self.add(collector.clone(), kind);
        collector
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.added(IntCounter::with_opts(opts(name, help)), "counter")
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.added(IntCounterVec::new(opts(name, help), labels), "counter")
    }

    /// A counter for each of `values`, at zero: a rate over a series that begins with its first event misses that event.
    pub(super) fn counters_of(&mut self, name: &str, help: &str, (label, values): (&str, &[&str])) -> IntCounterVec {
        let counters = self.counters(name, help, &[label]);
        for value in values {
            counters.with_label_values(&[value]);
        }
        counters
    }

    pub(super) fn seconds_by(&mut self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.added(CounterVec::new(opts(name, help), labels), "counter")
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.added(IntGauge::with_opts(opts(name, help)), "gauge")
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.added(IntGaugeVec::new(opts(name, help), labels), "gauge")
    }

    /// Gauges that are asked for at each scrape.
    pub(super) fn ages(&mut self, name: &str, help: &str, labels: &[&str]) -> Ages {
        self.added(GaugeVec::new(opts(name, help), labels).map(Ages::new), "gauge")
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.added(Histogram::with_opts(bounded(name, help, bounds)), "histogram")
    }

    pub(super) fn histograms(&mut self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        self.added(HistogramVec::new(bounded(name, help, bounds), labels), "histogram")
    }
}
