//! What a broker tells of itself without being asked: that its state is worth another look, and that its data may have
//! gone back in time.
//!
//! Stirred by the broker, watched by the hub. Of one worker; the count is atomic only because connections tell from
//! where things must be `Send`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// See the module.
#[derive(Default)]
pub struct Signs {
    stirred: Notify,
    upheavals: AtomicU64,
}

impl Signs {
    /// Resolves at the next change of [`super::Broker::trouble`] or of the count of upheavals; sometimes for nothing.
    /// Begins to count when it is made, not when it is awaited.
    pub fn next(&self) -> Notified<'_> {
        self.stirred.notified()
    }

    /// How often another dataset than before stood behind a connection: restored, emptied, or another server's. What was
    /// told to the one before may be unknown to it.
    pub fn upheavals(&self) -> u64 {
        self.upheavals.load(Relaxed)
    }

    pub(super) fn stir(&self) {
        self.stirred.notify_waiters();
    }

    pub(super) fn upheaval(&self) {
        self.upheavals.fetch_add(1, Relaxed);
        self.stir();
    }
}
