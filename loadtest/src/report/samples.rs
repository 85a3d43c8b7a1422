//! What nodes said of themselves, thinned as the run gets long.
//!
//! Called by the collector and the merge. Samples fall into slots of `stride` seconds since the epoch.

use std::collections::BTreeMap;

use super::{Sample, Server};

/// Most samples of a node; one more doubles the stride.
const MOST_SAMPLES: usize = 1200;
/// Most nodes; those beyond are not kept.
const MOST_NODES: usize = 256;

/// Collects samples by node.
#[derive(Default)]
pub struct Samples(BTreeMap<String, Node>);

struct Node {
    stride: u64,
    slots: BTreeMap<u64, Slot>,
}

/// Several samples as one.
#[derive(Clone, Copy)]
struct Slot {
    newest: Sample,
    cpu_sum: f64,
    samples: u32,
}

impl Samples {
    /// A second sample of the same node and second is ignored: another process read the same.
    pub fn add(&mut self, node: &str, sample: Sample) {
        if self.0.len() >= MOST_NODES && !self.0.contains_key(node) {
            return;
        }
        let slots = self.0.entry(node.to_owned()).or_insert_with(|| Node { stride: 1, slots: BTreeMap::new() });
        slots.add(sample);
    }

    pub fn finish(self) -> Vec<Server> {
        let server = |(name, node): (String, Node)| Server {
            name,
            samples: node.slots.into_values().map(Slot::into_sample).collect(),
        };
        self.0.into_iter().map(server).collect()
    }
}

impl Node {
    fn add(&mut self, sample: Sample) {
        let slot = Slot { newest: sample, cpu_sum: sample.cpu, samples: 1 };
        let key = sample.at_s / self.stride;
        match self.slots.get_mut(&key) {
            Some(known) if known.newest.at_s == sample.at_s => {}
            Some(known) => known.absorb(slot),
            None => {
                self.slots.insert(key, slot);
            }
        }
        while self.slots.len() > MOST_SAMPLES {
            self.thin();
        }
    }

    fn thin(&mut self) {
        self.stride = self.stride.saturating_mul(2);
        for slot in std::mem::take(&mut self.slots).into_values() {
            self.slots.entry(slot.newest.at_s / self.stride).and_modify(|known| known.absorb(slot)).or_insert(slot);
        }
    }
}

impl Slot {
    fn absorb(&mut self, other: Self) {
        self.cpu_sum += other.cpu_sum;
        self.samples = self.samples.saturating_add(other.samples);
        if other.newest.at_s > self.newest.at_s {
            self.newest = other.newest;
        }
    }

    fn into_sample(self) -> Sample {
        // Few digits survive JSON exactly.
        let cpu = (self.cpu_sum / f64::from(self.samples.max(1)) * 1e4).round() / 1e4;
        Sample { cpu, ..self.newest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, cpu: f64) -> Sample {
        Sample { at_s, cpu, resident_bytes: at_s, connections: at_s }
    }

    #[test]
    fn a_long_run_keeps_the_mean_and_the_newest() {
        let mut samples = Samples::default();
        for at_s in 0..10_000 {
            samples.add("a", sample(at_s, if at_s % 2 == 0 { 1.0 } else { 3.0 }));
        }
        let servers = samples.finish();
        assert!(servers[0].samples.len() <= MOST_SAMPLES);
        assert!(servers[0].samples.iter().all(|sample| (sample.cpu - 2.0).abs() < 1e-9));
        assert_eq!(servers[0].samples.last().unwrap().at_s, 9999);
    }

    #[test]
    fn the_same_second_read_twice_counts_once() {
        let mut samples = Samples::default();
        samples.add("a", sample(7, 1.0));
        samples.add("a", sample(7, 5.0));
        samples.add("b", sample(7, 5.0));
        let servers = samples.finish();
        assert_eq!(servers.len(), 2);
        assert_eq!(servers[0].samples, [sample(7, 1.0)]);
    }

    #[test]
    fn more_nodes_than_anyone_scrapes_are_not_kept() {
        let mut samples = Samples::default();
        for node in 0..1000 {
            samples.add(&node.to_string(), sample(1, 1.0));
        }
        assert_eq!(samples.finish().len(), MOST_NODES);
    }
}
