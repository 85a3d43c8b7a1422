//! The canary: what a worker publishes to a channel of its own and expects to hear. Only its echo shows that the way out
//! through Redis and the way back in both work; pings show that of each connection alone.
//!
//! Used by the broker; the subscription tells it of its connections, and asks it whether to give one up. It must not know
//! rooms.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ::redis::cmd;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::commands::Commands;
use super::topology::Recipe;
use crate::broker::BrokerStats;

/// Between two songs while all is well.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two songs while it is not; also how long an echo may take before it is asked for again.
const STEP: Duration = Duration::from_millis(250);
/// How old the last echo may be for the broker to be up.
const FRESH: Duration = Duration::from_secs(5);
/// How long an echo may be owed by a connection on which nothing else comes in either.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for one on which other things come in: behind a burst of messages an echo may be late.
const MOST_PATIENCE: Duration = Duration::from_secs(10);

/// Most hash tags that are tried. A server with a single slot is found among so many but for a chance of 1 in 10^7.
const MOST_TAGS: u32 = 1 << 18;

/// Sings for as long as it lives.
pub(super) struct Canary {
    nest: Arc<Nest>,
    task: JoinHandle<()>,
}

/// What is known of the echo. Shared with the tasks of the subscription's connections.
pub(super) struct Nest {
    /// Absent until it is known which channels the server has.
    channel: watch::Sender<Option<Arc<str>>>,
    /// What no other worker of any node has.
    random: u64,
    prefix: String,
    /// PUBLISH or SPUBLISH.
    publish: &'static str,
    stats: BrokerStats,
    born: Instant,
    /// Counts connections: an echo on an earlier one says nothing about the present one.
    connection: AtomicU64,
    /// When it was last sung, last heard, and since when an echo is owed, in µs since `born`; 0 for never.
    sung: AtomicU64,
    heard: AtomicU64,
    owed: AtomicU64,
    echo: Notify,
    wake: Notify,
    deaf: Notify,
}

impl Canary {
    pub(super) fn start(nest: Arc<Nest>, commands: Rc<Commands>) -> Self {
        let task = tokio::task::spawn_local(sing(commands, Arc::clone(&nest)));
        Self { nest, task }
    }

    /// Whether it was heard lately.
    pub(super) fn is_fresh(&self) -> bool {
        self.nest.is_fresh()
    }

    pub(super) fn nest(&self) -> &Nest {
        &self.nest
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nest {
    /// With a channel that no other worker of any node has; room channels begin with a brace, so it is none of those.
    /// Where channels belong to slots, it is chosen by [`Nest::perch`].
    pub(super) fn new(recipe: &Recipe) -> Arc<Self> {
        let (random, prefix) = (rand::random::<u64>(), recipe.options.prefix.clone());
        let channel = (!recipe.is_sharded()).then(|| format!("{prefix}:canary:{random:016x}").into());
        Arc::new(Self {
            channel: watch::Sender::new(channel),
            random,
            prefix,
            publish: recipe.publish,
            stats: recipe.stats.clone(),
            born: Instant::now(),
            connection: AtomicU64::new(0),
            sung: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            echo: Notify::new(),
            wake: Notify::new(),
            deaf: Notify::new(),
        })
    }

    /// Chooses a channel by its hash tag, one that `is_here`. The present one stays while it is.
    pub(super) fn perch(&self, is_here: impl Fn(&str) -> bool) {
        let present = self.channel.borrow().clone();
        if present.is_some_and(|channel| channel.split(['{', '}']).nth(1).is_some_and(&is_here)) {
            return;
        }
        let tag = (0..MOST_TAGS).map(|number| format!("{number:x}")).find(|tag| is_here(tag));
        let channel = tag.map(|tag| format!("{}:canary:{{{tag}}}:{:016x}", self.prefix, self.random).into());
        self.channel.send_replace(channel);
    }

    /// Whether there is a channel.
    pub(super) fn is_perched(&self) -> bool {
        self.channel.borrow().is_some()
    }

    /// Its channel, as soon as there is one.
    pub(super) async fn channel(&self) -> Option<Arc<str>> {
        self.channel.subscribe().wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Resolves when its channel is not `channel` any more.
    pub(super) async fn leaves(&self, channel: &str) {
        // An error would be the end of ourselves.
        _ = self.channel.subscribe().wait_for(|present| present.as_deref() != Some(channel)).await;
    }

    /// Another connection: what was heard on the one before counts no more. Returns its number.
    pub(super) fn begin_connection(&self) -> u64 {
        self.heard.store(0, Relaxed);
        self.owed.store(0, Relaxed);
        self.connection.fetch_add(1, Relaxed) + 1
    }

    /// The channel is subscribed to: sing now.
    pub(super) fn listen(&self) {
        self.wake.notify_one();
    }

    /// The canary came in on connection number `connection`.
    pub(super) fn hear(&self, connection: u64) {
        if connection != self.connection.load(Relaxed) {
            return;
        }
        let now = self.now();
        self.stats.canary_took(Duration::from_micros(now.saturating_sub(self.sung.load(Relaxed))));
        self.heard.store(now, Relaxed);
        self.owed.store(0, Relaxed);
        self.echo.notify_one();
    }

    /// Resolves when the present connection hears nothing although Redis takes what is sung.
    pub(super) async fn deaf(&self) {
        self.deaf.notified().await;
    }

    /// Never 0.
    fn now(&self) -> u64 {
        self.born.elapsed().as_micros() as u64 + 1
    }

    fn age(&self, of: &AtomicU64) -> Option<Duration> {
        let then = of.load(Relaxed);
        (then > 0).then(|| Duration::from_micros(self.now().saturating_sub(then)))
    }

    fn is_fresh(&self) -> bool {
        self.age(&self.heard).is_some_and(|age| age <= FRESH)
    }

    /// Redis took what was sung at `sung`; its echo may have been quicker.
    fn owe(&self, sung: u64) {
        if self.heard.load(Relaxed) < sung {
            _ = self.owed.compare_exchange(0, sung, Relaxed, Relaxed);
        }
    }

    /// How long an echo has been owed.
    pub(super) fn overdue(&self) -> Duration {
        self.age(&self.owed).unwrap_or_default()
    }
}

async fn sing(commands: Rc<Commands>, nest: Arc<Nest>) {
    loop {
        let Some(channel) = nest.channel().await else { return };
        let (sung, connection) = (nest.now(), nest.connection.load(Relaxed));
        nest.sung.store(sung, Relaxed);
        let taken = commands.probe(cmd(nest.publish).arg(&*channel).arg("").clone()).await;
        if taken && connection == nest.connection.load(Relaxed) {
            nest.owe(sung);
        }
        _ = timeout(STEP, nest.echo.notified()).await;
        if nest.overdue() > PATIENCE {
            nest.deaf.notify_one();
        }
        let is_well = taken && nest.is_fresh() && nest.overdue().is_zero();
        _ = timeout(if is_well { PERIOD } else { STEP }, nest.wake.notified()).await;
    }
}

/// Whether a connection that owes an echo for so long, and on which nothing at all came in for so long, is deaf.
pub(super) fn is_deaf(overdue: Duration, silent: Duration) -> bool {
    overdue > MOST_PATIENCE || (overdue > PATIENCE && silent > PATIENCE)
}
