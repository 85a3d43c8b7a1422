//! Counters of the audit, and the first few findings in words. Called by all its parts, from all threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roomcast_protocol::Recovery;

use crate::audit::{AuditReport, Example, Finding};

/// Sentences kept of each finding.
const EXAMPLES: usize = 4;
/// Numbers (holes, late or unsure ones) that a process keeps until the end of the run.
const MOST_KEPT: usize = 65_536;

pub(super) const RECOVERIES: [(Recovery, &str); 5] = [
    (Recovery::Fresh, "fresh"),
    (Recovery::Resumed, "resumed"),
    (Recovery::Gap, "gap"),
    (Recovery::Diverged, "diverged"),
    (Recovery::UnknownTerm, "unknown_term"),
];

pub(super) fn recovery_name(recovery: Recovery) -> &'static str {
    RECOVERIES.iter().find(|(known, _)| *known == recovery).map_or("fresh", |(_, name)| name)
}

/// Takes the lock also after a panic elsewhere: counters stay usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct Ledger {
    findings: [AtomicU64; Finding::ALL.len()],
    examples: Mutex<Vec<Example>>,
    recoveries: [AtomicU64; RECOVERIES.len()],
    resets: [AtomicU64; RECOVERIES.len()],
    kept: AtomicUsize,
    /// ms since the Unix epoch, for examples.
    pub(super) now_ms: AtomicU64,
    pub(super) told_missing: AtomicU64,
    pub(super) missed_away: AtomicU64,
    pub(super) checked: AtomicU64,
    pub(super) unchecked_order: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) absent: AtomicU64,
}

/// Adds; all the audit's counters are sums that nobody orders anything by.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

impl Ledger {
    pub(super) fn found(&self, finding: Finding, count: u64, text: impl FnOnce() -> String) {
        add(&self.findings[finding as usize], count);
        let mut examples = lock(&self.examples);
        if examples.iter().filter(|example| example.finding == finding).count() < EXAMPLES {
            examples.push(Example { finding, at_ms: self.now_ms.load(Relaxed), text: text() });
        }
    }

    /// What was missing came after all.
    pub(super) fn take_back(&self, finding: Finding, count: u64) {
        self.findings[finding as usize].fetch_sub(count, Relaxed);
    }

    /// Whether one more number may be kept.
    pub(super) fn keep(&self) -> bool {
        self.kept.fetch_update(Relaxed, Relaxed, |kept| (kept < MOST_KEPT).then_some(kept + 1)).is_ok()
    }

    pub(super) fn joined(&self, recovery: Recovery) {
        add(&self.recoveries[recovery as usize], 1);
    }

    pub(super) fn reset(&self, reason: Recovery) {
        add(&self.resets[reason as usize], 1);
    }

    pub(super) fn findings(&self) -> BTreeMap<Finding, u64> {
        let counts = Finding::ALL.map(|finding| (finding, self.findings[finding as usize].load(Relaxed)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// All but the rooms.
    pub(super) fn report(&self) -> AuditReport {
        let named = |counts: &[AtomicU64; RECOVERIES.len()]| {
            let counts = RECOVERIES.iter().map(|(known, name)| (*name, counts[*known as usize].load(Relaxed)));
            counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
        };
        AuditReport {
            findings: self.findings(),
            examples: lock(&self.examples).clone(),
            recoveries: named(&self.recoveries),
            resets: named(&self.resets),
            told_missing: self.told_missing.load(Relaxed),
            missed_away: self.missed_away.load(Relaxed),
            checked: self.checked.load(Relaxed),
            unchecked_order: self.unchecked_order.load(Relaxed),
            acked: self.acked.load(Relaxed),
            undecided: 0,
            lost_acked: 0,
            absent_members: self.absent.load(Relaxed),
            rooms: Vec::new(),
        }
    }
}
