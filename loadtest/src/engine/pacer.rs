//! When each publish is due, whatever the cluster does: an open loop. One per thread.
//!
//! What is carried out late because this thread was busy keeps its intended time, and the delay is recorded as the
//! generator's own lag.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use super::alarm::Alarm;
use super::control::Control;
use crate::client::{Client, Floor, Retry};
use crate::plan::Plan;
use crate::record::Latency;

/// How often the lag is probed, for threads that publish nothing.
const PROBE_NS: u64 = 10_000_000;
/// Publishes before others get their turn.
const AT_ONCE: usize = 32;
/// How long retries, and the beginning of the load, may wait to be seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Publish(usize),
    Retry(Retry),
    Probe,
}

/// Spreads rooms over the interval between two messages, the same in all processes: golden ratio steps.
fn phase(room: u32) -> f64 {
    (f64::from(room) * 0.618_033_988_749_895).fract()
}

/// Nanoseconds between two publishes of one publisher, and from the start to its first.
fn schedule(plan: &Plan, room: u32, member: u32) -> (u64, u64) {
    let room_interval = 1e9 / plan.rate;
    let own_interval = room_interval * f64::from(plan.publishers);
    let first = room_interval * (phase(room) + f64::from(member));
    (own_interval as u64, first as u64)
}

/// The schedule of one thread's clients.
pub(super) struct Pacer {
    floor: Rc<Floor>,
    clients: Rc<[Rc<Client>]>,
    control: Control,
    heap: BinaryHeap<Reverse<(u64, What)>>,
    loaded: bool,
}

impl Pacer {
    pub(super) fn new(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>, control: Control) -> Self {
        Self { floor, clients, control, heap: BinaryHeap::new(), loaded: false }
    }

    /// Publishes what is due while the load lasts, and tries again what was refused; for ever.
    pub(super) async fn run(mut self) -> std::io::Result<()> {
        let alarm = Alarm::new()?;
        loop {
            self.take_in();
            let mut carried_out = 0;
            let mut now = self.floor.clock.now_ns();
            while let Some(Reverse((due, what))) = self.heap.peek().copied().filter(|Reverse((due, _))| *due <= now) {
                self.heap.pop();
                if let Some(next) = self.carry_out(due, what) {
                    self.heap.push(Reverse((next, what)));
                }
                carried_out += 1;
                if carried_out % AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
                now = self.floor.clock.now_ns();
            }
            let next = self.heap.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            alarm.wait(Duration::from_nanos(next.saturating_sub(now)).min(LONGEST_SLEEP)).await?;
        }
    }

    fn take_in(&mut self) {
        let retries = self.floor.retries.take();
        self.heap.extend(retries.into_iter().map(|retry| Reverse((retry.at_ns, What::Retry(retry)))));
        let Some(start_ns) = self.control.load_start_ns().filter(|_| !self.loaded) else { return };
        self.loaded = true;
        for (slot, client) in self.clients.iter().enumerate().filter(|(_, client)| client.publishes()) {
            let (_, first) = schedule(&self.floor.plan, client.room, client.member);
            self.heap.push(Reverse((start_ns + first, What::Publish(slot))));
        }
        self.heap.push(Reverse((start_ns, What::Probe)));
    }

    /// Gives when it is due again.
    fn carry_out(&self, due: u64, what: What) -> Option<u64> {
        let floor = &self.floor;
        if let What::Retry(retry) = what {
            self.clients[retry.client].retry(retry);
            return None;
        }
        if due >= self.control.load_end_ns() {
            return None;
        }
        floor.recorder.took(Latency::Lag, floor.clock.now_ns().saturating_sub(due));
        match what {
            What::Publish(slot) => {
                let client = &self.clients[slot];
                client.publish(due);
                Some(due + schedule(&floor.plan, client.room, client.member).0)
            }
            // Probes that were missed are made up for: each had its time.
            _ => Some(due + PROBE_NS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_of_a_room_take_even_turns() {
        let plan = Plan { rate: 10.0, publishers: 4, ..Plan::sample() };
        let first: Vec<u64> = (0..4).map(|member| schedule(&plan, 3, member).1).collect();
        for pair in first.windows(2) {
            assert!((pair[1] - pair[0]).abs_diff(100_000_000) <= 1);
        }
        assert_eq!(schedule(&plan, 3, 0).0, 400_000_000);
        assert!(first[0] < 100_000_000);
    }
}
