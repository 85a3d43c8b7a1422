//! Where the node is between start and exit, and whether it can serve. Shared by all threads; asked by the admin
//! listener and the handshake, moved by app and the workers. It must not know what makes anyone ready.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

/// A step of the node's life. They are passed in this order, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Workers are starting; nobody is served.
    Starting,
    /// Clients are served.
    Running,
    /// Clients are served as before, but the node is not ready: whoever sends clients here has time to notice.
    Leaving,
    /// New clients are refused, present ones are sent away.
    Draining,
    /// Nothing is served any more.
    Stopped,
}

impl Stage {
    /// The stage in a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What stands between the node and serving clients well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Not in [`Stage::Running`].
    Stage(Stage),
    /// So many workers of so many have a broker that is up.
    Broker {
        /// Workers whose broker is up.
        up: usize,
        /// Workers there are.
        workers: usize,
        /// What is wrong with the others, each reason once.
        reasons: Vec<&'static str>,
    },
}

/// The node's life. Clones are the same life; a clone costs one atomic.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stage: watch::Sender<Stage>,
    workers: usize,
    brokers_up: AtomicUsize,
    left_at: OnceLock<Instant>,
    hurried: AtomicBool,
    /// What is wrong, and for how many workers.
    troubles: Mutex<BTreeMap<&'static str, usize>>,
}

/// One worker's word on its broker: down until told otherwise, and down again when dropped, so that a worker that dies
/// takes the node out of rotation.
#[derive(Debug)]
pub struct BrokerFlag {
    shared: Arc<Shared>,
    /// None before the first word.
    told: Option<Result<(), &'static str>>,
}

impl Lifecycle {
    /// A node that starts with `workers` workers.
    pub fn new(workers: usize) -> Self {
        let (stage, _) = watch::channel(Stage::Starting);
        Self(Arc::new(Shared {
            stage,
            workers,
            brokers_up: AtomicUsize::new(0),
            left_at: OnceLock::new(),
            hurried: AtomicBool::new(false),
            troubles: Mutex::default(),
        }))
    }

    /// The present stage. Takes a read lock for a moment: ask per connection, not per message.
    pub fn stage(&self) -> Stage {
        *self.0.stage.borrow()
    }

    /// Goes on to `stage`. False, and nothing happens, if the node is there or beyond.
    pub fn advance(&self, stage: Stage) -> bool {
        if stage >= Stage::Leaving {
            self.0.left_at.get_or_init(Instant::now);
        }
        self.0.stage.send_if_modified(|present| {
            let later = stage > *present;
            if later {
                *present = stage;
            }
            later
        })
    }

    /// Goes on to [`Stage::Draining`] without time to lose: the node cannot serve as it should any more.
    pub fn fail(&self) {
        self.0.hurried.store(true, Ordering::Relaxed);
        self.advance(Stage::Draining);
    }

    /// Whether clients must be sent away at once rather than one after the other.
    pub fn is_hurried(&self) -> bool {
        self.0.hurried.load(Ordering::Relaxed)
    }

    /// When the node began to leave: the time that it has to end runs from here.
    pub fn left_at(&self) -> Option<Instant> {
        self.0.left_at.get().copied()
    }

    /// Whether the node is leaving or draining.
    pub fn is_on_its_way_out(&self) -> bool {
        matches!(self.stage(), Stage::Leaving | Stage::Draining)
    }

    /// Returns once the node is at `stage` or beyond. Cancel-safe.
    pub async fn reached(&self, stage: Stage) {
        let mut changes = self.0.stage.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changes.wait_for(|present| *present >= stage).await;
    }

    /// A worker's flag; each worker takes one and keeps it.
    pub fn broker_flag(&self) -> BrokerFlag {
        BrokerFlag { shared: Arc::clone(&self.0), told: None }
    }

    /// True while every worker's broker is up.
    pub fn is_broker_up(&self) -> bool {
        self.0.brokers_up.load(Ordering::Relaxed) >= self.0.workers
    }

    /// What is missing to be ready; empty when the node is.
    pub fn missing(&self) -> Vec<Missing> {
        let stage = self.stage();
        let up = self.0.brokers_up.load(Ordering::Relaxed);
        let workers = self.0.workers;
        let stage = (stage != Stage::Running).then_some(Missing::Stage(stage));
        let broker = (up < workers).then(|| Missing::Broker {
            up,
            workers,
            reasons: self.0.troubles().keys().copied().collect(),
        });
        stage.into_iter().chain(broker).collect()
    }

    /// True while the node runs and every worker's broker is up.
    pub fn is_ready(&self) -> bool {
        self.stage() == Stage::Running && self.is_broker_up()
    }
}

impl Shared {
    fn troubles(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokerFlag {
    /// Tells that this worker's broker is up, or what is wrong with it; telling the same twice does nothing.
    pub fn set(&mut self, state: Result<(), &'static str>) {
        self.tell(Some(state));
    }

    fn tell(&mut self, state: Option<Result<(), &'static str>>) {
        let before = std::mem::replace(&mut self.told, state);
        if before == state {
            return;
        }
        let mut troubles = self.shared.troubles();
        match before {
            Some(Ok(())) => _ = self.shared.brokers_up.fetch_sub(1, Ordering::Relaxed),
            Some(Err(reason)) => {
                let workers = troubles.get(reason).copied().unwrap_or_default();
                if workers > 1 {
                    troubles.insert(reason, workers - 1)
                } else {
                    troubles.remove(reason)
                };
            }
            None => {}
        }
        match state {
            Some(Ok(())) => _ = self.shared.brokers_up.fetch_add(1, Ordering::Relaxed),
            Some(Err(reason)) => *troubles.entry(reason).or_default() += 1,
            None => {}
        }
    }
}

impl Drop for BrokerFlag {
    fn drop(&mut self) {
        self.tell(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_go_forward() {
        let life = Lifecycle::new(1);
        assert_eq!((life.stage(), life.left_at()), (Stage::Starting, None));
        assert!(life.advance(Stage::Leaving));
        let left_at = life.left_at();
        assert!(left_at.is_some() && life.is_on_its_way_out() && !life.is_ready());
        assert!(
            life.advance(Stage::Draining) && life.left_at() == left_at,
            "one time to end, from the first signal on"
        );
        assert!(!life.advance(Stage::Running), "a drain is not taken back");
        assert!(!life.advance(Stage::Draining), "the second signal changes nothing");
        assert_eq!(life.stage(), Stage::Draining);
        assert!(!life.is_hurried());
        life.fail();
        assert!(life.is_hurried());
    }

    #[test]
    fn ready_needs_running_and_every_broker() {
        let life = Lifecycle::new(2);
        let (mut first, mut second) = (life.broker_flag(), life.broker_flag());
        life.advance(Stage::Running);
        first.set(Ok(()));
        first.set(Ok(()));
        let missing = |reasons: &[&'static str]| [Missing::Broker { up: 1, workers: 2, reasons: reasons.to_vec() }];
        assert_eq!(life.missing(), missing(&[]));
        second.set(Err("deaf"));
        second.set(Err("away"));
        assert_eq!(life.missing(), missing(&["away"]));
        second.set(Ok(()));
        assert!(life.is_ready() && life.missing().is_empty());
        drop(first);
        assert!(!life.is_ready(), "a worker that is gone is not up");
        let _third = life.broker_flag();
        life.advance(Stage::Draining);
        assert_eq!(life.missing().first(), Some(&Missing::Stage(Stage::Draining)));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_stage_or_beyond() {
        let life = Lifecycle::new(1);
        let waiter = tokio::spawn({
            let life = life.clone();
            async move { life.reached(Stage::Draining).await }
        });
        life.advance(Stage::Running);
        life.advance(Stage::Stopped);
        waiter.await.expect("no panic");
        life.reached(Stage::Running).await;
    }
}
