//! Sending a worker's clients away: one after the other, evenly over the window, so that the other nodes see a stream
//! and not a storm.
//!
//! Run by the worker once the node drains. How one session ends is the session's business.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;

use super::DRAIN_LOOK;
use crate::config::Settings;
use crate::hub::{Peer, Stop};
use crate::lifecycle::Lifecycle;
use crate::server::Admission;
use crate::session::Floor;

/// Clients go in groups at least this far apart: their leaves of a room travel to the broker together.
const GROUPS: Duration = Duration::from_millis(50);
/// Clients a second that one worker sends away at least: where there are few, nobody gains by waiting for the window.
const SLOWEST: f64 = 20.0;
/// What is kept of the time to exit for the last answers of both listeners and the last spans, if the settings leave as
/// much.
const RESERVE: Duration = Duration::from_secs(4);

/// When clients go.
struct Pace {
    end: Instant,
    last: Instant,
    /// Clients whose time has come, and a part of the next one.
    credit: f64,
}

impl Pace {
    fn new(start: Instant, window: Duration) -> Self {
        Self { end: start + window, last: start, credit: 0.0 }
    }

    /// How many of the `left` clients are to go now. Each time as if those that are still here were to be spread over
    /// what is still left of the window: who goes by himself makes the others go slower, not earlier.
    fn due(&mut self, now: Instant, left: usize) -> usize {
        let passed = now.saturating_duration_since(self.last);
        let ahead = self.end.saturating_duration_since(self.last);
        if ahead <= passed {
            return left;
        }
        if passed < GROUPS {
            return 0;
        }
        self.last = now;
        self.credit += (left as f64 / ahead.as_secs_f64()).max(SLOWEST) * passed.as_secs_f64();
        let due = self.credit as usize;
        self.credit -= due as f64;
        due.min(left)
    }
}

/// Clients in the order in which they go, which is random: neighbours in rooms and in age are not sent away together.
#[derive(Default)]
struct Queue(Vec<Weak<Peer>>);

impl Queue {
    /// Sends `count` clients away. Fewer only if there are no more.
    fn send_away(&mut self, floor: &Floor, count: usize) {
        let mut refilled = false;
        let mut sent = 0;
        while sent < count {
            match self.0.pop() {
                Some(peer) => {
                    let present = peer.upgrade().filter(|peer| !peer.is_closing() && peer.stop().is_none());
                    if let Some(peer) = present {
                        peer.request_stop(Stop::Draining);
                        sent += 1;
                    }
                }
                // Handshakes that were under way when the drain began have come behind the others.
                None if !refilled => {
                    refilled = true;
                    self.fill(floor);
                }
                None => return,
            }
        }
    }

    fn fill(&mut self, floor: &Floor) {
        floor.shard.visit_peers(|peer| {
            if peer.stop().is_none() {
                self.0.push(Rc::downgrade(peer));
            }
        });
        self.0.shuffle(&mut rand::rng());
    }
}

/// Sends every client away and waits, for as long as the node may take, until they are gone and the broker knows. False
/// if they were not in time.
pub(super) async fn drain(floor: &Floor, settings: &Settings, lifecycle: &Lifecycle, admission: &Admission) -> bool {
    let start = Instant::now();
    let spare = settings.shutdown_timeout.saturating_sub(settings.drain_delay + settings.drain_window);
    let patience = settings.shutdown_timeout.saturating_sub(RESERVE.min(spare / 2));
    let limit = lifecycle.left_at().unwrap_or(start) + patience;
    let all_gone = async {
        let mut pace = Pace::new(start, settings.drain_window);
        let mut queue = Queue::default();
        loop {
            if lifecycle.is_hurried() {
                pace.end = start;
            }
            let due = pace.due(Instant::now(), floor.shard.peer_count());
            queue.send_away(floor, due);
            // Who has been let in and is no session yet has a place already.
            let nobody_left = floor.sessions() == 0 && admission.connections() == 0;
            if floor.shard.agree(nobody_left && floor.shard.is_settled()) {
                break;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let settled = tokio::time::timeout_at(limit.into(), all_gone).await.is_ok();
    if !settled {
        tracing::warn!(sessions = floor.sessions(), "not everything was done in time");
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a drain of `clients` over `window`, looked at every 10 ms. Gives how many went in each 100 ms.
    fn course(clients: usize, window: Duration, leaving_too: impl Fn(usize) -> usize) -> Vec<usize> {
        let start = Instant::now();
        let mut pace = Pace::new(start, window);
        let mut left = clients;
        let mut course = Vec::new();
        for look in 0..10_000 {
            let went = pace.due(start + DRAIN_LOOK * look, left);
            left = left.saturating_sub(went + leaving_too(look as usize));
            let slot = look as usize / 10;
            course.resize(slot + 1, 0);
            course[slot] += went;
            if left == 0 {
                break;
            }
        }
        course
    }

    #[test]
    fn a_window_is_used_evenly() {
        let course = course(10_000, Duration::from_secs(10), |_| 0);
        assert_eq!(course.iter().sum::<usize>(), 10_000);
        assert!((99..=101).contains(&course.len()), "{} tenths of a second", course.len());
        assert!(course[1..99].iter().all(|went| (95..=105).contains(went)), "{course:?}");
        assert!(course[99..].iter().sum::<usize>() <= 155, "no burst at the end: {course:?}");
    }

    #[test]
    fn who_goes_by_himself_is_not_waited_for() {
        let half_go = course(1000, Duration::from_secs(10), |look| usize::from(look % 2 == 0));
        assert!(half_go.len() <= 101 && half_go.iter().sum::<usize>() <= 700, "{half_go:?}");
    }

    #[test]
    fn few_do_not_wait_for_the_window() {
        let course = course(10, Duration::from_mins(1), |_| 0);
        assert!(course.len() <= 6, "ten clients at 20 a second: {course:?}");
    }

    #[test]
    fn no_window_is_at_once() {
        assert_eq!(course(500, Duration::ZERO, |_| 0), [500]);
    }
}
