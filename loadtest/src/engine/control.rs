//! Where the run is: set by the main thread, read by the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

/// What the workers are to do. Phases only go forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Waiting,
    Connecting,
    Load,
    Settling,
    Finished,
}

struct Shared {
    connect_ns: AtomicU64,
    load_start_ns: AtomicU64,
    load_end_ns: AtomicU64,
    unsettled: Vec<AtomicBool>,
}

/// One handle each for the main thread and the workers.
#[derive(Clone)]
pub(super) struct Control {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
}

impl Control {
    pub(super) fn new(workers: usize) -> Self {
        let shared = Shared {
            connect_ns: AtomicU64::new(0),
            load_start_ns: AtomicU64::new(0),
            load_end_ns: AtomicU64::new(u64::MAX),
            unsettled: (0..workers).map(|_| AtomicBool::new(true)).collect(),
        };
        Self { shared: Arc::new(shared), phase: watch::Sender::new(Phase::Waiting) }
    }

    /// Connecting begins at `ns`.
    pub(super) fn connect(&self, ns: u64) {
        self.shared.connect_ns.store(ns, Relaxed);
        self.phase.send_replace(Phase::Connecting);
    }

    /// Publishing begins and ends at these times.
    pub(super) fn load(&self, start_ns: u64, end_ns: u64) {
        self.shared.load_end_ns.store(end_ns, Relaxed);
        self.shared.load_start_ns.store(start_ns, Relaxed);
        self.phase.send_replace(Phase::Load);
    }

    /// Nothing that is due from now on is published.
    pub(super) fn settle(&self, now_ns: u64) {
        self.shared.load_end_ns.fetch_min(now_ns, Relaxed);
        self.phase.send_replace(Phase::Settling);
    }

    pub(super) fn finish(&self) {
        self.phase.send_replace(Phase::Finished);
    }

    /// Resolves when the phase is reached or passed.
    pub(super) async fn reached(&self, phase: Phase) {
        // The sender is in this very handle.
        let _ = self.phase.subscribe().wait_for(|present| *present >= phase).await;
    }

    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    pub(super) fn connect_ns(&self) -> u64 {
        self.shared.connect_ns.load(Relaxed)
    }

    /// None before the load has a time.
    pub(super) fn load_start_ns(&self) -> Option<u64> {
        Some(self.shared.load_start_ns.load(Relaxed)).filter(|ns| *ns > 0)
    }

    pub(super) fn load_end_ns(&self) -> u64 {
        self.shared.load_end_ns.load(Relaxed)
    }

    pub(super) fn set_settled(&self, worker: usize, settled: bool) {
        self.shared.unsettled[worker].store(!settled, Relaxed);
    }

    pub(super) fn all_settled(&self) -> bool {
        self.shared.unsettled.iter().all(|unsettled| !unsettled.load(Relaxed))
    }
}
