//! Time as nanoseconds since the Unix epoch that never goes back. Called by everything that measures.
//!
//! Processes of one run agree on it as well as their machines' clocks do: what is measured between two machines
//! includes the difference of their clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system clock as it stood once, and the monotonic clock since.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    anchor_ns: u64,
}

impl Clock {
    /// Reads both clocks.
    pub fn start() -> Self {
        let anchor_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Self { anchor: Instant::now(), anchor_ns }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now_ns(&self) -> u64 {
        self.anchor_ns + self.anchor.elapsed().as_nanos() as u64
    }

    /// The instant at which this clock shows `ns`; the anchor for what lies before it.
    pub fn instant(&self, ns: u64) -> Instant {
        self.anchor + Duration::from_nanos(ns.saturating_sub(self.anchor_ns))
    }
}
