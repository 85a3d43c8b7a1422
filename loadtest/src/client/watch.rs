//! Whether the server still keeps its part: it answers in time, and is heard of. Looked at once in a while for all
//! clients of a thread, so that what is received costs no look at a clock: times are looks.

use std::cell::Cell;
use std::time::Duration;

use super::{Client, Presence, State};

/// From one look to the next, at least. A generator that stands still does not look, and blames nobody for it.
pub const LOOK: Duration = Duration::from_secs(1);

/// The looks a thread has taken.
#[derive(Default)]
pub(super) struct Looks(Cell<u32>);

impl Looks {
    /// The look we are in.
    pub(super) fn now(&self) -> u32 {
        self.0.get()
    }

    pub(super) fn next(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }

    /// Whether `time` is over for certain, counted from anywhere within the look `since`.
    fn is_over(&self, since: u32, time: Duration) -> bool {
        let looks = time.as_nanos().div_ceil(LOOK.as_nanos());
        u128::from(self.0.get().wrapping_sub(since)) > looks
    }
}

/// Why we end a connection that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A storm of the plan's.
    Storm,
    NoWelcome,
    NoJoined,
    Silent,
}

impl Cut {
    /// In the words of the report's tables.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Storm => "broken off",
            Self::NoWelcome => "no welcome in time",
            Self::NoJoined => "no joined in time",
            Self::Silent => "nothing heard for two ping intervals",
        }
    }
}

impl Client {
    /// Ends the connection if the server owes an answer for too long, or nothing was heard of it.
    pub fn watch(&self) {
        if self.link.borrow().is_none() {
            return;
        }
        let me = self.me.borrow();
        if let Some(cut) = self.overdue(&me) {
            drop(me);
            self.cut(cut);
        }
    }

    fn overdue(&self, me: &State) -> Option<Cut> {
        let (looks, patience) = (&self.floor.looks, self.floor.plan.connect_timeout);
        if me.awaits_since.is_some_and(|since| looks.is_over(since, patience)) {
            let welcomed = me.node_id.is_some() && me.presence == Presence::Out;
            return Some(if welcomed { Cut::NoJoined } else { Cut::NoWelcome });
        }
        let silence = Duration::from_millis(me.ping_interval_ms.saturating_mul(2));
        (!silence.is_zero() && looks.is_over(self.heard.get(), silence)).then_some(Cut::Silent)
    }

    /// Ends the connection, without a word. Its task does it, and then goes on as after any loss.
    pub(super) fn cut(&self, why: Cut) {
        self.cut.set(Some(why));
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_over_when_it_is_so_wherever_in_the_look_it_began() {
        let looks = Looks(Cell::new(u32::MAX));
        let since = looks.now();
        let over = |time| looks.is_over(since, time);
        looks.next();
        assert!(over(Duration::ZERO) && !over(Duration::from_millis(1)) && !over(LOOK));
        looks.next();
        assert!(over(LOOK) && !over(LOOK + Duration::from_nanos(1)));
        assert!(!over(Duration::MAX));
    }
}
