//! What one room or one user may take of the cluster as a whole: a rate of publishes, and a number of connections.
//!
//! Called by the hub, which takes allowances ahead and counts this node's connections. Both brokers count the same way;
//! [`Meter`] is the arithmetic of it, and what a node goes by alone while its broker is away.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use roomcast_protocol::RoomName;

use super::{BrokerError, Incarnation, Subject};
use crate::config::Rate;

/// What keeps a rate from counting a message short for the sake of a rounding error.
const EPSILON: f64 = 1e-6;
/// Meters that a table holds before it looks for those that nobody needs.
const LEAST_SWEEP: usize = 1024;

/// Who or what a rate is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// A room, whoever publishes.
    Room(RoomName),
    /// A user, wherever they publish.
    User(Subject),
}

/// What was taken out of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How many of those wanted.
    pub granted: u32,
    /// If not all: until there is another one. Nobody else may be given it, but somebody else may be faster.
    pub retry_after: Duration,
}

/// A node's wish to have more connections of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub user: Subject,
    /// How many this incarnation has already.
    pub own: u32,
    /// How many more it wants. At least one.
    pub wanted: u32,
    /// How many there may be in the cluster.
    pub most: u32,
}

/// Limits that hold over all nodes. Part of every [`Broker`](super::Broker), and bound by the same words.
#[async_trait(?Send)]
pub trait Quotas {
    /// Takes up to `wanted` out of a bucket that holds `rate.burst` and gains `rate.per_second`, by the broker's clock.
    /// A bucket nobody took from for long is full. When the clock goes back the bucket gains nothing until it has
    /// caught up with at most what it lacked; when the broker's data does, it may be fuller than it should be.
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError>;

    /// Counts connections of a user, as many of those wanted as fit: those of all incarnations whose lease runs are
    /// never more than `most`. Returns how many fit. [`BrokerError::Unavailable`] if this incarnation has no lease.
    async fn claim(&self, incarnation: &Incarnation, claim: Claim) -> Result<u32, BrokerError>;

    /// Sets how many connections users have through an incarnation, whatever it was before. At most
    /// [`MAX_PAGE`](super::MAX_PAGE).
    async fn set_users(&self, incarnation: &Incarnation, counts: &[(Subject, u32)]) -> Result<(), BrokerError>;
}

/// A bucket as its debt: what was taken and has not come back yet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Meter {
    debt: f64,
    /// When it was that, µs of whatever clock.
    at_us: u64,
}

impl Meter {
    fn debt_at(self, rate: Rate, now_us: u64) -> f64 {
        let gained = now_us.saturating_sub(self.at_us) as f64 * f64::from(rate.per_second) / 1e6;
        (self.debt.min(f64::from(rate.burst)) - gained).max(0.0)
    }

    /// Takes up to `wanted` at `now_us`.
    pub fn take(&mut self, rate: Rate, wanted: u32, now_us: u64) -> Taken {
        let debt = self.debt_at(rate, now_us);
        let room = (f64::from(rate.burst) - debt + EPSILON).floor().max(0.0);
        let granted = wanted.min(room as u32);
        if granted > 0 {
            *self = Self { debt: debt + f64::from(granted), at_us: now_us };
        }
        let lacks = debt + f64::from(granted) + 1.0 - f64::from(rate.burst);
        let retry_us = (lacks.max(0.0) * 1e6 / f64::from(rate.per_second.max(1))).ceil() as u64;
        let retry_after = if granted < wanted { Duration::from_micros(retry_us) } else { Duration::ZERO };
        Taken { granted, retry_after }
    }

    /// Whether it is as good as new.
    fn is_full(self, rate: Rate, now_us: u64) -> bool {
        self.debt_at(rate, now_us) <= 0.0
    }
}

/// Meters by bucket. Those that are full are forgotten.
#[derive(Debug, Default)]
pub struct Meters {
    meters: HashMap<Bucket, (Meter, Rate), foldhash::fast::RandomState>,
    sweep_at: usize,
}

impl Meters {
    /// As [`Meter::take`], of a bucket.
    pub fn take(&mut self, bucket: &Bucket, rate: Rate, wanted: u32, now_us: u64) -> Taken {
        if self.meters.len() >= self.sweep_at.max(LEAST_SWEEP) {
            self.meters.retain(|_, (meter, rate)| !meter.is_full(*rate, now_us));
            // So that each sweep pays for as many entries as were made since the last one.
            self.sweep_at = self.meters.len() * 2;
        }
        let mut meter = self.meters.get(bucket).map(|(meter, _)| *meter).unwrap_or_default();
        let taken = meter.take(rate, wanted, now_us);
        if taken.granted > 0 {
            self.meters.insert(bucket.clone(), (meter, rate));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts in whole millionths of a token, and up instead of down.
    struct Model {
        tokens: u128,
        at_us: u64,
    }

    impl Model {
        fn take(&mut self, rate: Rate, wanted: u32, now_us: u64) -> u32 {
            const ONE: u128 = 1_000_000;
            let gained = u128::from(now_us.saturating_sub(self.at_us)) * u128::from(rate.per_second);
            self.tokens = (self.tokens + gained).min(u128::from(rate.burst) * ONE);
            self.at_us = self.at_us.max(now_us);
            let granted = u128::from(wanted).min(self.tokens / ONE);
            self.tokens -= granted * ONE;
            granted as u32
        }
    }

    proptest! {
        #[test]
        fn meters_agree_with_a_model(
            per_second in 1_u32..=1_000_000,
            burst in 1_u32..=10_000,
            steps in prop::collection::vec((0_u64..2_000_000, 1_u32..200), 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let (mut now_us, mut meters) = (1_700_000_000_000_000, Meters::default());
            let mut model = Model { tokens: u128::from(burst) * 1_000_000, at_us: now_us };
            let bucket = Bucket::User(Subject::of("ann"));
            for (pause, wanted) in steps {
                now_us += pause / u64::from(per_second).max(1);
                let taken = meters.take(&bucket, rate, wanted, now_us);
                // A rounding error may make it one sooner, never one more in sum.
                let expected = model.take(rate, wanted, now_us);
                if taken.granted == expected + 1 {
                    prop_assert!(model.tokens >= 1_000_000 - 10);
                    model.tokens = 0;
                } else {
                    prop_assert_eq!(taken.granted, expected);
                }
                prop_assert_eq!(taken.granted < wanted, !taken.retry_after.is_zero());
                if taken.granted < wanted {
                    let mut later = Meters::default();
                    later.meters.clone_from(&meters.meters);
                    let at = now_us + taken.retry_after.as_micros() as u64;
                    prop_assert!(later.take(&bucket, rate, 1, at).granted == 1, "there is one when it was said to be");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let rate = Rate { per_second: 10, burst: 5 };
        let mut meter = Meter::default();
        assert_eq!(meter.take(rate, 9, 1_000_000_000).granted, 5);
        assert_eq!(meter.take(rate, 1, 1_000).granted, 0);
        // Another rate than before, and a debt that is more than it allows.
        assert_eq!(meter.take(Rate { per_second: 10, burst: 1 }, 1, 1_000_100_000).granted, 1);
    }

    #[test]
    fn full_meters_are_forgotten() {
        let (rate, mut meters) = (Rate { per_second: 1000, burst: 1 }, Meters::default());
        for user in 0..100_000_u64 {
            meters.take(&Bucket::User(Subject::of(&user.to_string())), rate, 1, 1_000_000 + user * 10);
        }
        assert!(meters.meters.len() <= 2 * LEAST_SWEEP, "{} for about 100 that owe something", meters.meters.len());
    }
}
