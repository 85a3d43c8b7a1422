//! Gauges that are asked for at each scrape: an age rises while nothing happens. Made by `register`; must not know whose
//! ages they are.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec};

/// Ages of several things, told apart by labels.
#[derive(Clone)]
pub(super) struct Ages {
    gauges: GaugeVec,
    watched: Arc<Mutex<Vec<(Gauge, Age)>>>,
}

type Age = Box<dyn Fn() -> Duration + Send + Sync>;

impl Ages {
    pub(super) fn new(gauges: GaugeVec) -> Self {
        Self { gauges, watched: Arc::default() }
    }

    /// From now on each scrape asks `age`. It must not wait.
    pub(super) fn watch(&self, labels: &[&str], age: impl Fn() -> Duration + Send + Sync + 'static) {
        let gauge = self.gauges.with_label_values(labels);
        self.watched().push((gauge, Box::new(age)));
    }

    fn watched(&self) -> MutexGuard<'_, Vec<(Gauge, Age)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Ages {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (gauge, age) in &*self.watched() {
            gauge.set(age().as_secs_f64());
        }
        self.gauges.collect()
    }
}

impl fmt::Debug for Ages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gauges.fmt(f)
    }
}
