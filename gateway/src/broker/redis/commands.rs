//! The connection that calls go out on: pipelined, bounded, failing fast while it is down.
//!
//! Used by the broker for everything but subscriptions. One supervising task opens it, loads the scripts, watches it,
//! and opens it again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisResult, cmd};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connection::{Backoff, Endpoint, PING_INTERVAL, PING_TIMEOUT, verdict};
use super::identity;
use super::script::{Script, Scripts};
use crate::broker::stats::Path;
use crate::broker::{BrokerError, BrokerStats};

/// Most calls in flight; more are refused as overloaded.
const MAX_CALLS: usize = 1024;
/// Most bytes of calls in flight. A call over it passes alone.
const MAX_BYTES: usize = 64 << 20;

pub(super) struct Commands {
    shared: Rc<Shared>,
    timeout: Duration,
    supervisor: JoinHandle<()>,
}

struct Shared {
    /// Absent while down. `lost` ends the watch over it.
    open: RefCell<Option<(MultiplexedConnection, Arc<Notify>)>>,
    /// Of the dataset behind the connection, see `identity`.
    identity: RefCell<Arc<str>>,
    calls: Cell<usize>,
    bytes: Cell<usize>,
    stats: BrokerStats,
}

impl Commands {
    pub(super) fn start(endpoint: Endpoint, scripts: Scripts, timeout: Duration, stats: BrokerStats) -> Self {
        let (calls, bytes) = (Cell::new(0), Cell::new(0));
        let shared =
            Rc::new(Shared { open: RefCell::default(), identity: RefCell::new("".into()), calls, bytes, stats });
        let supervisor = tokio::task::spawn_local(supervise(endpoint, scripts, Rc::clone(&shared)));
        Self { shared, timeout, supervisor }
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.open.borrow().is_some()
    }

    /// Runs one command of about `size` bytes.
    pub(super) async fn query<T: FromRedisValue>(&self, command: Cmd, size: usize) -> Result<T, BrokerError> {
        self.run(size, async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Runs some small commands together, not atomically.
    pub(super) async fn query_all<T: FromRedisValue>(&self, pipeline: Pipeline) -> Result<T, BrokerError> {
        self.run(1024, async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Runs a script; `fill` appends the number of keys, keys and arguments.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        size: usize,
        fill: impl Fn(&mut Cmd),
    ) -> Result<T, BrokerError> {
        self.run(size, async |mut connection| {
            let mut by_hash = cmd("EVALSHA");
            by_hash.arg(script.hash());
            fill(&mut by_hash);
            match by_hash.query_async(&mut connection).await {
                // The server forgot it (SCRIPT FLUSH); with its text it runs and is remembered again.
                Err(error) if error.code() == Some("NOSCRIPT") => {
                    let mut by_text = cmd("EVAL");
                    by_text.arg(script.text());
                    fill(&mut by_text);
                    by_text.query_async(&mut connection).await
                }
                result => result,
            }
        })
        .await
    }

    /// What the publish script takes for the dataset's identity.
    pub(super) fn identity(&self) -> Arc<str> {
        Arc::clone(&self.shared.identity.borrow())
    }

    /// Reads the identity again, where scripts may not: on a server that became another's heir it is not what it was.
    pub(super) async fn read_identity(&self) -> Result<Arc<str>, BrokerError> {
        let read = async |mut connection: MultiplexedConnection| identity::read(&mut connection).await;
        let identity = self.run(64, read).await?;
        *self.shared.identity.borrow_mut() = Arc::clone(&identity);
        Ok(identity)
    }

    async fn run<T>(
        &self,
        size: usize,
        call: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, BrokerError> {
        let Some((connection, lost)) = self.shared.open.borrow().clone() else {
            return Err(BrokerError::Unavailable("not connected".into()));
        };
        let _place = Place::take(&self.shared, size)?;
        match timeout(self.timeout, call(connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let (meaning, reconnect) = verdict(&error);
                if reconnect {
                    lost.notify_one();
                }
                Err(meaning)
            }
            // The watch decides whether the connection is dead; its pings share the queue with this call.
            Err(_) => Err(BrokerError::Undecided("timed out".into())),
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// A call's place among those in flight.
struct Place<'a> {
    shared: &'a Shared,
    size: usize,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, size: usize) -> Result<Self, BrokerError> {
        let (calls, bytes) = (shared.calls.get(), shared.bytes.get());
        if calls >= MAX_CALLS || (calls > 0 && bytes + size > MAX_BYTES) {
            return Err(BrokerError::Overloaded);
        }
        shared.calls.set(calls + 1);
        shared.bytes.set(bytes + size);
        Ok(Self { shared, size })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.calls.set(self.shared.calls.get() - 1);
        self.shared.bytes.set(self.shared.bytes.get() - self.size);
    }
}

async fn supervise(endpoint: Endpoint, scripts: Scripts, shared: Rc<Shared>) {
    let mut backoff = Backoff::new();
    let mut opened = false;
    loop {
        let lost = Arc::new(Notify::new());
        match open(&endpoint, &scripts, Arc::clone(&lost)).await {
            Ok((connection, identity)) => {
                if opened {
                    shared.stats.count_reconnect(Path::Publish);
                }
                opened = true;
                tracing::info!("redis: publishing");
                *shared.identity.borrow_mut() = identity;
                *shared.open.borrow_mut() = Some((connection.clone(), Arc::clone(&lost)));
                watch(connection, &lost).await;
                shared.open.borrow_mut().take();
                tracing::warn!("redis: lost the publishing connection");
            }
            Err(error) => tracing::warn!(%error, "redis: cannot connect for publishing"),
        }
        backoff.wait().await;
    }
}

async fn open(
    endpoint: &Endpoint,
    scripts: &Scripts,
    lost: Arc<Notify>,
) -> Result<(MultiplexedConnection, Arc<str>), String> {
    let pushes = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            lost.notify_one();
        }
        Ok::<(), ::redis::aio::SendError>(())
    };
    let connection = endpoint.open(pushes, MAX_CALLS).await?;
    let load = async {
        for script in scripts.all() {
            let mut connection = connection.clone();
            cmd("SCRIPT").arg("LOAD").arg(script.text()).query_async::<String>(&mut connection).await?;
        }
        identity::probe(&mut connection.clone()).await
    };
    match timeout(PING_TIMEOUT, load).await {
        Ok(Ok(identity)) => Ok((connection, identity)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("loading the scripts took too long".into()),
    }
}

/// Returns when the connection is lost, or silent for too long.
async fn watch(mut connection: MultiplexedConnection, lost: &Notify) {
    let pings = async {
        loop {
            sleep(PING_INTERVAL).await;
            if !matches!(timeout(PING_TIMEOUT, cmd("PING").query_async::<()>(&mut connection)).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = lost.notified() => {}
        () = pings => {}
    }
}
