//! A token bucket in one atomic: how fast something may happen, asked by all workers without a lock.
//!
//! Used by its parent and by the API. It keeps no count of tokens but the moment at which the bucket would be full again: each
//! taker moves that moment on by its share of a second, and is refused while it lies more than the burst ahead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SECOND_NS: u64 = 1_000_000_000;
/// How much may be taken at once, as the time in which it comes back.
const BURST_NS: u64 = SECOND_NS;

#[derive(Debug)]
pub(in crate::server) struct Rate {
    start: Instant,
    share_ns: u64,
    /// Nanoseconds after `start`.
    full_at: AtomicU64,
}

impl Rate {
    /// `per_second` from now on, and as many at once. None for 0, which is no limit.
    pub(in crate::server) fn new(per_second: u32, now: Instant) -> Option<Self> {
        let share_ns = SECOND_NS.checked_div(u64::from(per_second))?;
        Some(Self { start: now, share_ns, full_at: AtomicU64::new(0) })
    }

    /// Takes one. False, and nothing is taken, if there is none.
    pub(in crate::server) fn take(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        let next = |full_at: u64| {
            let full_at = full_at.max(now) + self.share_ns;
            (full_at <= now + BURST_NS).then_some(full_at)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let rate = Rate::new(200, start).expect("a limit");
        let taken = |after_ms: u64| {
            let now = start + Duration::from_millis(after_ms);
            (0..1000).take_while(|_| rate.take(now)).count()
        };
        assert_eq!(taken(0), 200);
        assert_eq!(taken(4), 0, "not a whole one yet");
        assert_eq!(taken(100), 20);
        assert_eq!(taken(100), 0);
        assert_eq!(taken(60_000), 200, "a quiet minute saves up no more than a burst");
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Rate::new(0, Instant::now()).is_none());
    }

    #[test]
    fn workers_together_get_no_more_than_the_rate() {
        let start = Instant::now();
        let rate = Rate::new(1000, start).expect("a limit");
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| rate.take(start)).count())).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 1000);
    }
}
