//! When each publish is due, whatever the cluster does: an open loop. One per thread.
//!
//! What is due late because this thread was busy is carried out late, keeps its intended time, and the delay is
//! recorded as the generator's own lag.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use super::alarm::Alarm;
use crate::client::{Client, Floor};
use crate::plan::Plan;
use crate::record::Latency;

/// How often the lag is probed when nothing is published.
const PROBE_NS: u64 = 10_000_000;
/// Publishes before others get their turn.
const AT_ONCE: usize = 32;
/// How long retries may wait to be seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Publish(usize),
    Retry(usize, u32),
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

/// Publishes what is due from `start_ns` until `end_ns`, then only what must be tried again; for ever.
pub(super) async fn pace(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>, start_ns: u64, end_ns: u64) -> std::io::Result<()> {
    let alarm = Alarm::new()?;
    let mut heap = BinaryHeap::new();
    for (slot, client) in clients.iter().enumerate().filter(|(_, client)| client.publishes()) {
        heap.push(Reverse((start_ns + schedule(&floor.plan, client.room, client.member).1, What::Publish(slot))));
    }
    heap.push(Reverse((start_ns, What::Probe)));
    loop {
        for retry in floor.retries.borrow_mut().drain(..) {
            heap.push(Reverse((retry.at_ns, What::Retry(retry.client, retry.number))));
        }
        let mut carried_out = 0;
        let mut now = floor.clock.now_ns();
        while let Some(Reverse((due, what))) = heap.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            heap.pop();
            if let Some(next) = carry_out(&floor, &clients, due, what, end_ns) {
                heap.push(Reverse((next, what)));
            }
            carried_out += 1;
            if carried_out % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            now = floor.clock.now_ns();
        }
        let next = heap.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        alarm.wait(Duration::from_nanos(next.saturating_sub(now)).min(LONGEST_SLEEP)).await?;
    }
}

/// Gives when it is due again.
fn carry_out(floor: &Floor, clients: &[Rc<Client>], due: u64, what: What, end_ns: u64) -> Option<u64> {
    match what {
        What::Publish(slot) => {
            let client = &clients[slot];
            if due >= end_ns {
                return None;
            }
            floor.recorder.took(Latency::Lag, floor.clock.now_ns().saturating_sub(due));
            client.publish(due);
            Some(due + schedule(&floor.plan, client.room, client.member).0)
        }
        What::Retry(slot, number) => {
            clients[slot].retry(number);
            None
        }
        What::Probe => {
            let now = floor.clock.now_ns();
            if now < end_ns {
                floor.recorder.took(Latency::Lag, now.saturating_sub(due));
            }
            Some(due + PROBE_NS)
        }
    }
}
