//! One worker thread: its runtime, its listener, its part of the hub, its way to the broker.
//!
//! Started by app, once per core. Everything made here stays on the thread; what it shares with others came in the
//! [`Seed`].

mod drain;
mod rebalance;

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::broker::{Broker, BrokerError, BrokerStats, Event, Memory, RedisBroker, RedisOptions};
use crate::config::Settings;
use crate::events::Events;
use crate::hub::{Inbox, Parts, Post, Shard};
use crate::lifecycle::{BrokerFlag, Lifecycle, Stage};
use crate::server::api::{Api, Gate};
use crate::server::{Admission, Context, HandshakeOutcome, HandshakeRules, Visit, serve};
use crate::session::{self, Floor};
use crate::telemetry::metrics::{Metrics, WorkerMetrics};
use crate::telemetry::trace::Tracing;

/// Events of the broker that may wait for this worker. Beyond, the subscription is made anew and rooms catch up.
const EVENTS: usize = 8192;
/// How often the broker's state and the thread's load are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a draining worker looks whether it is done, and a starting one whether its broker is there.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Where messages go between nodes.
#[derive(Clone)]
pub enum BrokerChoice {
    /// Nowhere: one node, one store for its workers.
    Memory(Memory),
    /// Redis.
    Redis(RedisOptions),
}

/// What a worker is made of.
pub struct Seed {
    /// Its number, from 0.
    pub index: usize,
    /// Its own listener on the node's address.
    pub listener: TcpListener,
    /// The mail it receives.
    pub inbox: Inbox,
    /// The ways to all workers.
    pub post: Post,
    /// The node's hasher of room names.
    pub hasher: RandomState,
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// Which broker.
    pub broker: BrokerChoice,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The node's life.
    pub lifecycle: Lifecycle,
    /// The node's count of connections.
    pub admission: Arc<Admission>,
    /// Held until this worker serves.
    pub starting: Visit,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Who may use the HTTP API.
    pub gate: Arc<Gate>,
    /// Handshake rules.
    pub rules: HandshakeRules,
    /// Spans.
    pub tracing: Tracing,
    /// Webhooks.
    pub events: Events,
}

/// Why a worker ended early.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The runtime or the listener failed.
    #[error("worker cannot run: {0}")]
    Io(#[from] io::Error),
    /// A task that the worker cannot do without has panicked.
    #[error("worker has lost one of its tasks")]
    Broken,
    /// The broker's settings cannot be used.
    #[error("broker cannot be used: {0}")]
    Broker(#[from] BrokerError),
}

/// Runs a worker on this thread until the node has drained.
///
/// # Errors
/// When the runtime, the listener or the broker cannot be made.
pub fn run(seed: Seed) -> Result<(), WorkerError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let result = runtime.block_on(live(seed));
    runtime.shutdown_background();
    result
}

async fn live(seed: Seed) -> Result<(), WorkerError> {
    let Seed { index, listener, inbox, post, hasher, settings, metrics, lifecycle, tracing, .. } = seed;
    let (events, arriving) = mpsc::channel(EVENTS);
    let broker = make_broker(seed.broker, &settings, events, &metrics)?;
    let local = Rc::new(metrics.local(index));
    let shard = Shard::new(Parts {
        index,
        post,
        hasher,
        node: settings.node_id.clone(),
        settings: Arc::clone(&settings),
        broker: Rc::clone(&broker),
        metrics: Rc::clone(&local),
        totals: Arc::clone(&metrics),
        tracing: tracing.clone(),
        events: seed.events,
    });
    let floor = Floor::new(
        Arc::clone(&settings),
        Rc::clone(&shard),
        (Rc::clone(&local), Arc::clone(&metrics)),
        tracing.clone(),
        lifecycle.clone(),
        seed.access,
    );
    let mut vital = JoinSet::new();
    vital.spawn_local(Rc::clone(&shard).run_turns());
    vital.spawn_local(Rc::clone(&shard).run_inbox(inbox));
    vital.spawn_local(Rc::clone(&shard).run_relay(arriving));
    vital.spawn_local(Rc::clone(&shard).run_clock());
    vital.spawn_local(Rc::clone(&shard).run_lease());
    vital.spawn_local(Rc::clone(&shard).run_sweep());
    vital.spawn_local(session::beat(Rc::clone(&floor)));
    if settings.rebalance_rate > 0 {
        vital.spawn_local(rebalance::rebalance(Rc::clone(&floor), lifecycle.clone()));
    }
    vital.spawn_local(watch(Rc::clone(&broker), lifecycle.broker_flag(), Rc::clone(&local)));
    let (admission, starting) = (seed.admission, seed.starting);
    let api = Api::new(seed.gate, &floor);
    let context = door(&floor, seed.rules, Arc::clone(&admission), api, metrics, tracing);
    let life = async {
        first_contact(&*broker, settings.redis_timeout).await;
        drop(starting);
        let gone = Notify::new();
        // The door stands until everyone is gone: who comes meanwhile is told so, and nobody's connection is reset.
        let leave = async {
            lifecycle.reached(Stage::Draining).await;
            let settled = drain::drain(&floor, &settings, &lifecycle, &admission).await;
            floor.shard.end_lease(settled).await;
            gone.notify_one();
            Ok(())
        };
        tokio::try_join!(serve(listener, context, gone.notified()), leave)?;
        Ok(())
    };
    let result = unless_one_ends(&mut vital, life).await;
    local.flush();
    result
}

/// Runs `life`, but not without one of the tasks that must never end: a worker that no longer delivers, or no longer
/// hears the others, must not go on looking well.
async fn unless_one_ends(
    vital: &mut JoinSet<()>,
    life: impl Future<Output = Result<(), WorkerError>>,
) -> Result<(), WorkerError> {
    tokio::select! {
        result = life => result,
        Some(_) = vital.join_next() => Err(WorkerError::Broken),
    }
}

/// Gives the broker a moment to be there before the first client is: it would be refused its rooms. Clients wait in
/// the kernel's queue meanwhile. A broker that stays away does not keep the node from serving.
async fn first_contact(broker: &dyn Broker, patience: Duration) {
    let up = async {
        while !broker.is_up() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(patience, up).await;
}

fn make_broker(
    choice: BrokerChoice,
    settings: &Settings,
    events: mpsc::Sender<Event>,
    metrics: &Arc<Metrics>,
) -> Result<Rc<dyn Broker>, BrokerError> {
    let stats = BrokerStats::new(metrics);
    Ok(match choice {
        BrokerChoice::Memory(memory) => Rc::new(memory.handle(settings.node_id.clone(), events, stats)),
        BrokerChoice::Redis(options) => Rc::new(RedisBroker::connect(&options, events, stats)?),
    })
}

/// The public door of this worker.
fn door(
    floor: &Rc<Floor>,
    rules: HandshakeRules,
    admission: Arc<Admission>,
    api: Rc<Api>,
    metrics: Arc<Metrics>,
    tracing: Tracing,
) -> Rc<Context> {
    let lifecycle = floor.lifecycle.clone();
    let access = Arc::clone(&floor.access);
    let floor = Rc::clone(floor);
    for outcome in HandshakeOutcome::ALL {
        metrics.sockets.handshakes.with_label_values(&[outcome.label()]);
    }
    Context::new(
        rules,
        admission,
        access,
        Rc::new(move || lifecycle.stage() >= Stage::Draining),
        Rc::new(move |accepted| session::start(&floor, accepted)),
        Rc::new(move |outcome, began| {
            metrics.sockets.handshakes.with_label_values(&[outcome.label()]).inc();
            if let Some(mut span) = tracing.handshake().map(|span| span.since(began)) {
                span.set("roomcast.outcome", outcome.label());
            }
        }),
        Some(api),
    )
}

/// Tells the node whether this worker's broker is up, and how busy the thread is.
async fn watch(broker: Rc<dyn Broker>, mut flag: BrokerFlag, metrics: Rc<WorkerMetrics>) {
    let was = Cell::new(None);
    loop {
        let trouble = broker.trouble();
        flag.set(trouble.map_or(Ok(()), |trouble| Err(trouble.as_str())));
        match (was.replace(Some(trouble)), trouble) {
            (Some(None), Some(trouble)) => {
                tracing::warn!(reason = trouble.as_str(), "broker is away; clients stay connected");
            }
            (Some(Some(_)), None) => tracing::info!("broker is back"),
            _ => {}
        }
        metrics.busy(Handle::current().metrics().worker_total_busy_duration(0));
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_worker() {
        let mut vital = JoinSet::new();
        vital.spawn(std::future::pending());
        vital.spawn(async { panic!("as it would be by a bug") });
        let result = unless_one_ends(&mut vital, std::future::pending()).await;
        assert!(matches!(result, Err(WorkerError::Broken)));
    }
}
