//! Shedding: a node that has far more clients than the mean of its cluster sends some of them away, slowly.
//!
//! Run by each worker for its own clients, if it is switched on. What the cluster looks like is known from the beats of
//! all nodes, so it is a few seconds old; the margin and the rate keep that from mattering. A node that died or drains is
//! counted for a while with the clients that it no longer has, so that the mean is too low: only an excess that outlasts
//! that is one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::seq::IteratorRandom as _;

use crate::hub::{Peer, Stop};
use crate::lifecycle::Lifecycle;
use crate::session::Floor;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Clients above the mean that are never worth a reconnect.
const LEAST: u64 = 10;

/// How many of `own` clients are too many, for a node among `nodes` that have `total` together.
fn excess(own: u64, nodes: u64, total: u64, above_percent: u64) -> u64 {
    if nodes < 2 {
        return 0;
    }
    let mean = total.div_ceil(nodes);
    own.saturating_sub(mean + (mean * above_percent / 100).max(LEAST))
}

/// Sheds for ever.
pub(super) async fn rebalance(floor: Rc<Floor>, lifecycle: Lifecycle) {
    let (rate, above) = (floor.settings.rebalance_rate, floor.settings.rebalance_above);
    let patience = floor.settings.lease_expiry + floor.settings.drain_window;
    let mut credit = 0.0;
    let mut since: Option<Instant> = None;
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let count = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        let (sockets, cluster) = (&floor.totals.sockets, &floor.totals.cluster);
        let own = count(sockets.connections.get());
        let excess = excess(own, count(cluster.nodes.get()), count(cluster.connections.get()), u64::from(above));
        // Without its broker a node does not know what the others have.
        if excess == 0 || !lifecycle.is_ready() {
            (credit, since) = (0.0, None);
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() < patience {
            continue;
        }
        let share = floor.shard.peer_count() as f64 / own as f64;
        credit += (f64::from(rate) * LOOK.as_secs_f64()).min(excess as f64) * share;
        let count = credit as usize;
        credit -= count as f64;
        shed(&floor, count);
    }
}

fn shed(floor: &Floor, count: usize) {
    if count == 0 {
        return;
    }
    let mut staying: Vec<Rc<Peer>> = Vec::with_capacity(floor.shard.peer_count());
    floor.shard.visit_peers(|peer| {
        if peer.stop().is_none() && !peer.is_closing() {
            staying.push(Rc::clone(peer));
        }
    });
    for peer in staying.iter().sample(&mut rand::rng(), count) {
        peer.request_stop(Stop::Rebalanced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_above_the_mean_is_too_many() {
        assert_eq!(excess(1200, 2, 2000, 20), 0, "within the margin");
        assert_eq!(excess(1201, 2, 2000, 20), 1);
        assert_eq!(excess(2000, 2, 2000, 20), 800);
        assert_eq!(excess(14, 3, 14, 20), 0, "few are left alone");
        assert_eq!(excess(5000, 1, 5000, 20), 0, "nobody else could take them");
        assert_eq!(excess(5000, 0, 0, 20), 0, "nothing is known yet");
    }
}
