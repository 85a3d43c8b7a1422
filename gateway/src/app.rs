//! Puts the parts of a node together and runs it.
//!
//! Called by main with settings that were checked; tests call it with port 0. Listeners are bound before any thread
//! starts, so that a port in use is an error of [`start`], not of a running node.

pub mod descriptors;
mod farewell;
mod idle;
mod outward;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use foldhash::fast::RandomState;

use crate::access::Access;
use crate::broker::{Memory, RedisOptions};
use crate::config::{Fault, Settings};
use crate::events::{Events, Webhooks};
use crate::hub::Post;
use crate::lifecycle::{Lifecycle, Stage};
use crate::outbound::Outbound;
use crate::server::api::Gate;
use crate::server::{Admission, AdmissionLimits, HandshakeRules, OriginPolicy, admin, listen};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{TraceOptions, Tracing};
use crate::worker::{self, BrokerChoice, Seed, WorkerError};

/// What is kept of the time to exit for what comes behind the last webhook.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where operators look.
    pub admin_address: SocketAddr,
    lifecycle: Lifecycle,
    workers: Vec<JoinHandle<Result<(), WorkerError>>>,
    admin: tokio::task::JoinHandle<std::io::Result<()>>,
    farewell: tokio::task::JoinHandle<()>,
    tracing: Tracing,
    webhooks: Webhooks,
    longest: Duration,
}

/// Binds both listeners and starts the workers. Must be called on a tokio runtime, which serves the admin listener.
///
/// # Errors
/// When an address cannot be bound or a setting turns out to be unusable.
pub fn start(settings: Settings) -> Result<Node> {
    let settings = Arc::new(settings);
    warn_of_sabotage(&settings);
    descriptors::make_room(settings.max_connections, settings.workers);
    let metrics = Metrics::new();
    tell_limits(&settings, &metrics);
    let tracing = start_tracing(&settings, &metrics)?;
    let lifecycle = Lifecycle::new(settings.workers);
    let outbound = outbound(&settings)?;
    let access = start_access(&settings, &metrics, &lifecycle, &outbound)?;
    let first = listen(settings.listen)
        .with_context(|| format!("--listen (ROOMCAST_LISTEN): cannot bind {}", settings.listen))?;
    let address = first.local_addr()?;
    let admin_listener = std::net::TcpListener::bind(settings.admin_listen)
        .with_context(|| format!("--admin-listen (ROOMCAST_ADMIN_LISTEN): cannot bind {}", settings.admin_listen))?;
    let admin_address = admin_listener.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..settings.workers {
        listeners.push(listen(address)?);
    }
    let admission = Admission::new(AdmissionLimits {
        max_connections: settings.max_connections,
        max_connections_per_address: settings.max_connections_per_address,
        connect_rate: settings.connect_rate,
    });
    let (rules, (events, webhooks)) = outward::start(&settings, &metrics, handshake_rules(&settings)?, outbound);
    let told = (&events, &rules);
    let workers = start_workers(&settings, &metrics, &lifecycle, &access, &tracing, told, (&admission, listeners))?;
    let admin = tokio::spawn(admin::serve(
        admin_listener,
        Arc::clone(&metrics),
        lifecycle.clone(),
        settings.node_id.clone(),
        {
            let lifecycle = lifecycle.clone();
            async move { lifecycle.reached(Stage::Stopped).await }
        },
    ));
    if !settings.idle_exit.is_zero() {
        tokio::spawn(idle::watch(settings.idle_exit, Arc::clone(&metrics), lifecycle.clone(), admission));
    }
    let farewell = tokio::spawn(farewell::tell(Arc::clone(&settings), metrics, lifecycle.clone()));
    lifecycle.advance(Stage::Running);
    let longest = settings.shutdown_timeout;
    Ok(Node { address, admin_address, lifecycle, workers, admin, farewell, tracing, webhooks, longest })
}

/// Reads the keys that tokens are checked with, and begins to fetch those that are published.
fn start_access(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    lifecycle: &Lifecycle,
    outbound: &Outbound,
) -> Result<Arc<Access>> {
    let access = Arc::new(Access::new(settings, metrics).context("--jwt-public-key (ROOMCAST_JWT_PUBLIC_KEY)")?);
    if access.is_open() && settings.outward.authorize_url.is_none() {
        tracing::warn!(
            "ACCESS IS OPEN: everyone who reaches this node may join, read and publish in every room. \
             Set ROOMCAST_JWT_SECRET and ROOMCAST_JWT_AUDIENCE (or another key, see docs/auth.md) to close it"
        );
    }
    if access.has_published_keys() {
        let keep = Arc::clone(&access).keep_keys(outbound.clone(), settings.jwks_refresh);
        let lifecycle = lifecycle.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keep => {}
                () = lifecycle.reached(Stage::Stopped) => {}
            }
        });
    }
    Ok(access)
}

/// What the load is compared with: alerts cannot read settings.
fn tell_limits(settings: &Settings, metrics: &Metrics) {
    let signed = |limit| i64::try_from(limit).unwrap_or(i64::MAX);
    metrics.sockets.connections_limit.set(signed(settings.max_connections));
    metrics.sockets.connect_rate_limit.set(settings.connect_rate.into());
}

fn warn_of_sabotage(settings: &Settings) {
    if !settings.sabotage.is_empty() {
        let faults: Vec<String> = settings.sabotage.iter().map(ToString::to_string).collect();
        tracing::warn!("SABOTAGE is on: {}. This node breaks its promises on purpose", faults.join(", "));
    }
}

fn start_tracing(settings: &Settings, metrics: &Metrics) -> Result<Tracing> {
    let Some(endpoint) = settings.otlp_endpoint.clone() else { return Ok(Tracing::off()) };
    let node_id = settings.node_id.to_string();
    let options = TraceOptions { endpoint, sample_ratio: settings.otlp_sample_ratio, node_id };
    Ok(Tracing::start(&options, metrics.node.spans_dropped.clone())?)
}

fn start_workers(
    settings: &Arc<Settings>,
    metrics: &Arc<Metrics>,
    lifecycle: &Lifecycle,
    access: &Arc<Access>,
    tracing: &Tracing,
    (events, rules): (&Events, &HandshakeRules),
    (admission, listeners): (&Arc<Admission>, Vec<std::net::TcpListener>),
) -> Result<Vec<JoinHandle<Result<(), WorkerError>>>> {
    let (post, inboxes) = Post::new(settings.workers);
    let hasher = RandomState::default();
    let gate = Gate::new(settings);
    let broker = broker_choice(settings);
    let start_one = |(index, (listener, inbox))| {
        let seed = Seed {
            index,
            listener,
            inbox,
            post: post.clone(),
            hasher: hasher.clone(),
            settings: Arc::clone(settings),
            broker: broker.clone(),
            metrics: Arc::clone(metrics),
            lifecycle: lifecycle.clone(),
            admission: Arc::clone(admission),
            starting: admission.visit(),
            access: Arc::clone(access),
            gate: Arc::clone(&gate),
            rules: rules.clone(),
            tracing: tracing.clone(),
            events: events.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        let end = End(lifecycle.clone());
        let life = move || {
            let _end = end;
            worker::run(seed)
        };
        thread.spawn(life).context("cannot start a worker thread")
    };
    listeners.into_iter().zip(inboxes).enumerate().map(start_one).collect()
}

/// Held by each worker thread. One worker less means a part of the rooms is deaf: however it ends, the whole node goes.
struct End(Lifecycle);

impl Drop for End {
    fn drop(&mut self) {
        self.0.fail();
    }
}

fn handshake_rules(settings: &Settings) -> Result<HandshakeRules> {
    Ok(HandshakeRules {
        origins: OriginPolicy::new(&settings.allowed_origins)
            .context("--allowed-origins (ROOMCAST_ALLOWED_ORIGINS)")?,
        trusted_proxies: settings.trusted_proxies.clone(),
        header_read_timeout: settings.header_read_timeout,
        max_headers: settings.max_headers,
        max_header_bytes: settings.max_header_bytes,
        rooms_per_connection: settings.rooms_per_connection,
        echo: settings.echo,
        authorizer: None,
    })
}

fn broker_choice(settings: &Settings) -> BrokerChoice {
    redis_options(settings).map_or_else(|| BrokerChoice::Memory(Memory::new()), BrokerChoice::Redis)
}

/// How a node with these settings speaks to Redis, if it does.
pub fn redis_options(settings: &Settings) -> Option<RedisOptions> {
    let url = settings.redis_with_passwords()?;
    Some(RedisOptions {
        ca_pem: settings.redis_ca.clone(),
        prefix: settings.redis_prefix.clone(),
        timeout: settings.redis_timeout,
        connect_timeout: settings.redis_connect_timeout,
        keep_echo: settings.sabotage.contains(&Fault::KeepEcho),
        no_terms: settings.sabotage.contains(&Fault::NoTerms),
        ..RedisOptions::new(url.as_str(), settings.node_id.clone())
    })
}

/// What a node with these settings calls others with, on the runtime that it is called from.
pub fn outbound(settings: &Settings) -> Result<Outbound> {
    Outbound::new(settings.outbound_ca.as_deref()).context("--outbound-ca (ROOMCAST_OUTBOUND_CA)")
}

impl Node {
    /// The node's life, for whoever wants to end it.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Waits until the node has drained, which begins when its life reaches [`Stage::Draining`] or a worker dies.
    ///
    /// # Errors
    /// The first worker's that failed.
    pub async fn finished(self) -> Result<()> {
        let workers = self.workers;
        let outcome = tokio::task::spawn_blocking(move || {
            let mut outcome = Ok(());
            for worker in workers {
                let result = match worker.join() {
                    Ok(result) => result.map_err(anyhow::Error::from),
                    Err(_) => Err(anyhow::anyhow!("a worker thread panicked")),
                };
                outcome = outcome.and(result);
            }
            outcome
        })
        .await?;
        // All of its events are in the queues now.
        let left_at = self.lifecycle.left_at().unwrap_or_else(Instant::now);
        self.webhooks.flush(left_at + self.longest.saturating_sub(LAST_MOMENT)).await;
        self.lifecycle.advance(Stage::Stopped);
        let _ = self.farewell.await;
        let _ = self.admin.await;
        self.tracing.shutdown().await;
        outcome
    }
}
