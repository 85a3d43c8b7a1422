//! Token buckets: how fast a client may publish, and how often it may be wrong.

use std::time::Instant;

/// Tokens that refill by the clock. 16 bytes and no timer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    tokens: f32,
    /// Milliseconds since the worker's start at which `tokens` was right.
    at: u32,
    burst: f32,
    per_second: f32,
}

/// Milliseconds since `start`; wraps after 49 days, which costs an idle client nothing but a refill.
pub(super) fn millis_since(start: Instant) -> u32 {
    start.elapsed().as_millis() as u32
}

impl Budget {
    /// A full bucket of `burst` tokens that gains `per_second`. No rate at all means no limit.
    pub(super) fn new(per_second: u32, burst: u32, now: u32) -> Self {
        let burst = burst.max(1) as f32;
        Self { tokens: burst, at: now, burst, per_second: per_second as f32 }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: u32) -> bool {
        if self.per_second <= 0.0 {
            return true;
        }
        let gained = now.wrapping_sub(self.at) as f32 / 1000.0 * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut budget = Budget::new(10, 3, 0);
        assert_eq!((0..5).filter(|_| budget.take(0)).count(), 3);
        assert!(!budget.take(99));
        assert!(budget.take(100) && !budget.take(100));
        assert_eq!((0..100).filter(|_| budget.take(1_000_000)).count(), 3, "never more than the burst");
    }

    #[test]
    fn no_rate_is_no_limit_and_time_may_wrap() {
        let mut unlimited = Budget::new(0, 1, 0);
        assert!((0..1000).all(|_| unlimited.take(0)));
        let mut late = Budget::new(1, 1, u32::MAX - 10);
        assert!(late.take(u32::MAX - 5) && !late.take(10) && late.take(1100));
    }
}
