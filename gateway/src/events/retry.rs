//! When a call is made again. Pure; called by the sender.

use std::time::Duration;

/// The mean of the first pause is half of it.
const FIRST: Duration = Duration::from_millis(500);
/// The longest that is drawn.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest that a receiver may ask for.
pub(super) const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// What a status says about the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken.
    Taken,
    /// Not now.
    Later,
    /// Never.
    Refused,
}

pub(super) fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        408 | 429 | 500..=599 => Verdict::Later,
        // A redirect, too: it would lead what is signed for one place to another.
        _ => Verdict::Refused,
    }
}

/// The pause behind the try with this number, from 0: anything up to a bound that doubles. `chance` is from 0 to 1.
pub(super) fn pause(tries: u32, chance: f64) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(tries.min(16))).min(LONGEST).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread_fully() {
        assert_eq!(pause(0, 0.0), Duration::ZERO);
        assert_eq!(pause(0, 1.0), FIRST);
        assert_eq!(pause(3, 0.5), Duration::from_secs(2));
        for tries in [6, 30, u32::MAX] {
            assert_eq!(pause(tries, 1.0), LONGEST);
        }
    }

    #[test]
    fn only_some_failures_pass() {
        for (status, expected) in [
            (200, Verdict::Taken),
            (204, Verdict::Taken),
            (302, Verdict::Refused),
            (400, Verdict::Refused),
            (404, Verdict::Refused),
            (408, Verdict::Later),
            (410, Verdict::Refused),
            (429, Verdict::Later),
            (500, Verdict::Later),
            (503, Verdict::Later),
        ] {
            assert_eq!(verdict(status), expected, "{status}");
        }
    }
}
