//! The connection that calls go out on: pipelined, bounded, failing fast while it is down.
//!
//! Used by the broker for everything but subscriptions. One supervising task opens it, loads the scripts, watches it,
//! and opens it again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value, cmd};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Redirect;
use super::connection::{Backoff, Endpoint, PING_INTERVAL, PING_TIMEOUT, verdict};
use super::fence::Fence;
use super::identity::{self, Identity};
use super::inspect::{self, Said, inspect};
use super::script::{Script, Scripts};
use super::topology::Recipe;
use crate::broker::stats::Path;
use crate::broker::{BrokerError, BrokerStats, Signs};

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
    /// A call was not answered in time, and nothing since: whoever comes now would only wait in vain.
    suspect: Cell<bool>,
    /// Asks for a ping at once.
    hurry: Notify,
    /// The server may drop rooms.
    evicts: Cell<bool>,
    said: Said,
    /// The server's name in the log.
    server: String,
    stats: BrokerStats,
    /// Which dataset was behind the last connection; none before the first.
    dataset: RefCell<Option<Arc<str>>>,
    fence: Fence,
    signs: Arc<Signs>,
    /// Told when the server turned out not to be the master: the other connection is with the wrong one, too.
    moved: Rc<Notify>,
}

impl Commands {
    pub(super) fn start(endpoint: Endpoint, recipe: &Recipe, moved: Rc<Notify>) -> Self {
        let Recipe { options, scripts, stats, .. } = recipe;
        let shared = Rc::new(Shared {
            open: RefCell::default(),
            identity: RefCell::new("".into()),
            calls: Cell::new(0),
            bytes: Cell::new(0),
            suspect: Cell::new(false),
            hurry: Notify::new(),
            evicts: Cell::new(false),
            said: options.said.clone(),
            server: endpoint.name().to_owned(),
            stats: stats.clone(),
            dataset: RefCell::default(),
            fence: Fence::default(),
            signs: Arc::clone(&recipe.signs),
            moved,
        });
        let supervisor = tokio::task::spawn_local(supervise(endpoint, scripts.clone(), Rc::clone(&shared)));
        Self { shared, timeout: options.timeout, supervisor }
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.open.borrow().is_some()
    }

    /// Whether the server is set up to drop rooms.
    pub(super) fn evicts(&self) -> bool {
        self.shared.evicts.get()
    }

    /// Runs a small command beside the bounds: a probe must not fail because others are many. True if it was done.
    pub(super) async fn probe(&self, command: Cmd) -> bool {
        let Some((mut connection, _)) = self.shared.open.borrow().clone() else { return false };
        matches!(timeout(self.timeout, command.query_async::<()>(&mut connection)).await, Ok(Ok(())))
    }

    /// Runs one command of about `size` bytes.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
        size: usize,
        asking: bool,
    ) -> Result<T, Failure> {
        self.run(size, async |mut connection| send(command, asking, &mut connection).await).await
    }

    /// Runs some small commands together, not atomically.
    pub(super) async fn query_all<T: FromRedisValue>(&self, pipeline: &Pipeline, asking: bool) -> Result<T, Failure> {
        self.run(1024, async |mut connection| {
            if !asking {
                return pipeline.query_async(&mut connection).await;
            }
            let mut asked = Pipeline::new();
            for command in pipeline.cmd_iter() {
                asked.cmd("ASKING").ignore().add_command(command.clone());
            }
            asked.query_async(&mut connection).await
        })
        .await
    }

    /// Runs a script; `fill` appends the number of keys, keys and arguments.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        size: usize,
        fill: impl Fn(&mut Cmd),
        asking: bool,
    ) -> Result<T, Failure> {
        self.run(size, async |mut connection| {
            let mut by_hash = cmd("EVALSHA");
            by_hash.arg(script.hash());
            fill(&mut by_hash);
            match send(&by_hash, asking, &mut connection).await {
                // The server forgot it (SCRIPT FLUSH); with its text it runs and is remembered again.
                Err(error) if error.code() == Some("NOSCRIPT") => {
                    let mut by_text = cmd("EVAL");
                    by_text.arg(script.text());
                    fill(&mut by_text);
                    send(&by_text, asking, &mut connection).await
                }
                result => result,
            }
        })
        .await
    }

    /// Runs a script that is given the identity of the dataset behind this connection, and whether that was just read
    /// for this call. It answers with nothing, and does nothing, to have it read.
    pub(super) async fn script_on_dataset(
        &self,
        script: &Script,
        size: usize,
        fill: impl Fn(&mut Cmd, &str, bool),
        asking: bool,
    ) -> Result<Vec<Value>, Failure> {
        let identity = Arc::clone(&self.shared.identity.borrow());
        let reply: Vec<Value> = self.script(script, size, |command| fill(command, &identity, false), asking).await?;
        if !reply.is_empty() {
            return Ok(reply);
        }
        // The room was last written under another identity. Which of the two is out of date?
        let identity = self.read_identity().await?;
        self.script(script, size, |command| fill(command, &identity, true), asking).await
    }

    /// Reads the identity again, where scripts may not: on a server that became another's heir it is not what it was.
    pub(super) async fn read_identity(&self) -> Result<Arc<str>, Failure> {
        let read = async |mut connection: MultiplexedConnection| identity::read(&mut connection).await;
        let identity = self.run(64, read).await?;
        self.shared.stands_on(&identity);
        *self.shared.identity.borrow_mut() = Arc::clone(&identity);
        Ok(identity)
    }

    async fn run<T>(
        &self,
        size: usize,
        call: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Failure> {
        let Some((connection, lost)) = self.shared.open.borrow().clone() else {
            return Err(BrokerError::Unavailable("not connected".into()).into());
        };
        if self.shared.suspect.get() {
            return Err(BrokerError::Unavailable("does not answer".into()).into());
        }
        let _place = Place::take(&self.shared, size)?;
        match timeout(self.timeout, call(connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let verdict = verdict(&error);
                if verdict.reconnect {
                    lost.notify_one();
                }
                if verdict.moved {
                    self.shared.moved.notify_one();
                }
                Err(Failure { meaning: verdict.meaning, redirect: Redirect::of(&error) })
            }
            // The watch decides whether the connection is dead; its pings share the queue with this call. Until one is
            // answered nobody else is made to wait: a publish behind this one would take twice as long to fail.
            Err(_) => {
                self.shared.suspect.set(true);
                self.shared.hurry.notify_one();
                Err(BrokerError::Undecided("timed out".into()).into())
            }
        }
    }
}

/// Why a call has no result, and where it could have one.
pub(super) struct Failure {
    pub(super) meaning: BrokerError,
    /// The call did nothing here.
    pub(super) redirect: Option<Redirect>,
}

impl From<BrokerError> for Failure {
    fn from(meaning: BrokerError) -> Self {
        Self { meaning, redirect: None }
    }
}

/// Sends a command, behind the word that a slot which is only arriving may be used, if it is asked for.
async fn send<T: FromRedisValue>(command: &Cmd, asking: bool, to: &mut MultiplexedConnection) -> RedisResult<T> {
    if !asking {
        return command.query_async(to).await;
    }
    let mut both = Pipeline::new();
    both.cmd("ASKING").ignore().add_command(command.clone());
    let (result,) = both.query_async(to).await?;
    Ok(result)
}

impl Shared {
    /// Notes which dataset answers, and tells if it is another than before.
    fn stands_on(&self, dataset: &Arc<str>) {
        let before = self.dataset.replace(Some(Arc::clone(dataset)));
        if before.is_some_and(|before| before != *dataset) {
            tracing::warn!(server = self.server, "redis: another dataset than before");
            self.signs.upheaval();
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
        match open(&endpoint, &scripts, &shared, Arc::clone(&lost)).await {
            Ok((connection, Identity { for_scripts, dataset })) => {
                if opened {
                    shared.stats.count_reconnect(Path::Publish);
                }
                opened = true;
                let began = Instant::now();
                tracing::info!(server = shared.server, "redis: publishing");
                *shared.identity.borrow_mut() = for_scripts;
                shared.suspect.set(false);
                *shared.open.borrow_mut() = Some((connection.clone(), Arc::clone(&lost)));
                shared.stands_on(&dataset);
                shared.signs.stir();
                tokio::select! {
                    () = lost.notified() => {}
                    () = ping(connection.clone(), &shared) => {}
                    () = look_again(connection, &shared) => {}
                    () = endpoint.moved() => tracing::warn!("redis: the master is another server now"),
                }
                shared.open.borrow_mut().take();
                shared.signs.stir();
                backoff.lasted(began.elapsed());
                tracing::warn!(server = shared.server, "redis: lost the publishing connection");
            }
            Err(error) if backoff.is_news(&error) => {
                tracing::warn!(server = shared.server, %error, "redis: cannot connect for publishing");
            }
            Err(_) => {}
        }
        backoff.wait().await;
    }
}

async fn open(
    endpoint: &Endpoint,
    scripts: &Scripts,
    shared: &Shared,
    lost: Arc<Notify>,
) -> Result<(MultiplexedConnection, Identity), String> {
    let pushes = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            lost.notify_one();
        }
        Ok::<(), ::redis::aio::SendError>(())
    };
    let mut connection = endpoint.open(pushes, MAX_CALLS).await?;
    let prepare = async {
        for script in scripts.all() {
            cmd("SCRIPT").arg("LOAD").arg(script.text()).query_async::<String>(&mut connection).await?;
        }
        if !look(&mut connection, shared).await? {
            return Ok(None);
        }
        let identity = identity::probe(&mut connection.clone()).await?;
        shared.fence.cut_off_former(&mut connection, &identity.dataset).await?;
        Ok::<_, RedisError>(Some(identity))
    };
    match timeout(PING_TIMEOUT, prepare).await {
        Ok(Ok(Some(identity))) => Ok((connection, identity)),
        Ok(Ok(None)) => Err("this server is a replica".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("loading the scripts took too long".into()),
    }
}

/// Inspects the server and notes what it finds. False if it is not the master.
async fn look(connection: &mut MultiplexedConnection, shared: &Shared) -> Result<bool, RedisError> {
    let inspection = inspect(connection).await?;
    if inspection.is_replica() {
        shared.moved.notify_one();
        return Ok(false);
    }
    shared.evicts.set(inspection.evicts());
    inspection.tell(&shared.server, &shared.said);
    Ok(true)
}

/// Looks now and then. Returns when the server is not the master any more.
async fn look_again(mut connection: MultiplexedConnection, shared: &Shared) {
    loop {
        sleep(inspect::INTERVAL).await;
        // An error: the pings know better what to make of it.
        if matches!(look(&mut connection, shared).await, Ok(false)) {
            tracing::warn!("redis: the server is a replica now");
            return;
        }
    }
}

/// Returns when the connection is silent for too long.
async fn ping(mut connection: MultiplexedConnection, shared: &Shared) {
    loop {
        // An error is the end of the time: nobody was in a hurry.
        _ = timeout(PING_INTERVAL, shared.hurry.notified()).await;
        if !matches!(timeout(PING_TIMEOUT, cmd("PING").query_async::<()>(&mut connection)).await, Ok(Ok(()))) {
            return;
        }
        shared.suspect.set(false);
    }
}
