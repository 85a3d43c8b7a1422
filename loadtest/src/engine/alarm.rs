//! A timer that is exact to microseconds: tokio's own rounds up to the next millisecond, which would show in every
//! latency.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One per thread.
pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// Must be made on a runtime.
    #[allow(deprecated, reason = "what took its place is unsafe, for types other than OwnedFd")]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Waits so long. Cancel-safe.
    pub(super) async fn wait(&self, wait: Duration) -> io::Result<()> {
        // Zero would switch the timer off.
        let wait = wait.max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        loop {
            let mut guard = self.0.readable().await?;
            let mut expirations = [0; 8];
            let read =
                guard.try_io(|timer| rustix::io::read(timer.get_ref(), &mut expirations).map_err(io::Error::from));
            // An error is: not yet.
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn waits_at_least_as_long_as_asked_each_time() {
        let alarm = Alarm::new().expect("a timer");
        for wait in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            let begun = Instant::now();
            alarm.wait(wait).await.expect("waited");
            assert!(begun.elapsed() >= wait);
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_shorten_the_next() {
        let alarm = Alarm::new().expect("a timer");
        let _ = tokio::time::timeout(Duration::ZERO, alarm.wait(Duration::from_micros(1))).await;
        std::thread::sleep(Duration::from_millis(1));
        let begun = Instant::now();
        alarm.wait(Duration::from_millis(5)).await.expect("waited");
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }
}
