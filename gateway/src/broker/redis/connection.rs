//! How a connection to Redis is opened, how long to wait before the next attempt, and what an error means.
//!
//! Used by `commands` and `subscription`, and by what finds the servers.

use std::path::Path;
use std::time::Duration;

use ::redis::aio::{AsyncPushSender, MultiplexedConnection};
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError,
    TlsCertificates,
};
use tokio::time::{Instant, sleep, timeout};

use super::RedisOptions;
use super::sentinel::Sentinels;
use crate::broker::BrokerError;

/// How often an idle connection is asked for a sign of life.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may owe an answer: with the interval, a dead one is found within 5 s.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Where to connect: one address, or whatever the sentinels say at the time; with credentials and trust.
#[derive(Clone)]
pub(super) struct Endpoint {
    place: Place,
    /// For the log: an address, or what sentinels call the master.
    name: String,
    connect_timeout: Duration,
}

#[derive(Clone)]
enum Place {
    Fixed(Client),
    Sentinels(Sentinels),
}

impl Endpoint {
    /// One server at a fixed address, given by its URL.
    pub(super) fn fixed(url: &str, options: &RedisOptions) -> Result<Self, BrokerError> {
        let client = client(url, options.ca_pem.as_deref())?;
        let name = client.get_connection_info().addr().to_string();
        Ok(Self { place: Place::Fixed(client), name, connect_timeout: options.connect_timeout })
    }

    /// The server that the sentinels call the master.
    pub(super) fn watched(sentinels: Sentinels, options: &RedisOptions) -> Self {
        let name = sentinels.master().to_owned();
        Self { place: Place::Sentinels(sentinels), name, connect_timeout: options.connect_timeout }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens a connection whose pushes (and its end) go to `pushes`, with room for `queue` calls not yet written.
    ///
    /// The multiplexed connection with RESP3 is trusted for acknowledged subscriptions: redis 1.8.1 completes
    /// `subscribe` only after one confirmation per channel (`RequestKind::SubscribeLike`), ends it on a server error,
    /// and tells the push sender when the connection ends (`PushKind::Disconnection`). Its push sender is called in
    /// place, so nothing is queued in between, which `get_async_pubsub` cannot offer: its channel is unbounded.
    pub(super) async fn open(
        &self,
        pushes: impl AsyncPushSender,
        queue: usize,
    ) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(queue)
            .set_push_sender(pushes);
        match &self.place {
            Place::Fixed(client) => connect(client, &config, self.connect_timeout).await,
            Place::Sentinels(sentinels) => sentinels.connect(&config).await,
        }
    }

    /// Resolves when [`Endpoint::open`] would now lead to another server than the last time.
    pub(super) async fn moved(&self) {
        match &self.place {
            Place::Fixed(_) => std::future::pending().await,
            Place::Sentinels(sentinels) => sentinels.replaced().await,
        }
    }
}

/// A client that checks the server's certificate with exactly the given authority, if the URL asks for TLS.
pub(super) fn client(url: &str, ca_pem: Option<&Path>) -> Result<Client, BrokerError> {
    let bad = |what: &str| BrokerError::Misconfigured(format!("redis: {what}"));
    let info = settled(url.into_connection_info().map_err(|error| bad(&error.to_string()))?);
    let client = match (info.addr(), ca_pem) {
        (ConnectionAddr::TcpTls { insecure: true, .. }, _) => {
            return Err(bad("#insecure is not supported; give the certificate authority"));
        }
        (ConnectionAddr::TcpTls { .. }, ca_pem) => {
            // Exactly one cryptography library, whatever features others switch on. An error: it is installed.
            _ = rustls::crypto::ring::default_provider().install_default();
            let root_cert = match ca_pem {
                None => None,
                Some(path) => Some(std::fs::read(path).map_err(|error| bad(&format!("{}: {error}", path.display())))?),
            };
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
        (_, Some(_)) => return Err(bad("a certificate authority needs a rediss:// URL")),
        (_, None) => Client::open(info),
    };
    client.map_err(|error| bad(&error.to_string()))
}

/// Opens a connection within `limit`.
pub(super) async fn connect(
    client: &Client,
    config: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<MultiplexedConnection, String> {
    // The crate's own timeout does not cover name resolution on every path.
    match timeout(limit, client.get_multiplexed_async_connection_with_config(config)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("connecting took too long".into()),
    }
}

fn settled(info: ConnectionInfo) -> ConnectionInfo {
    // No CLIENT SETINFO: servers before 7.2 don't know it, and an ACL user would need the right.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    info.set_redis_settings(redis).set_tcp_settings(TcpSettings::default().set_nodelay(true))
}

/// Waiting times between attempts: 50 ms doubling to 500 ms, each drawn from its upper half. So short because rooms are to
/// be caught up 2 s after Redis is back, and an attempt that meets silence takes a second of that.
pub(super) struct Backoff {
    ceiling: Duration,
    last: Instant,
    /// What went wrong since the last success, each once.
    told: Vec<String>,
}

impl Backoff {
    const LEAST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_millis(500);
    const MOST_TOLD: usize = 8;
    /// A connection that lasted so long was a success.
    const STEADY: Duration = Duration::from_secs(4);

    pub(super) fn new() -> Self {
        Self { ceiling: Self::LEAST, last: Instant::now(), told: Vec::new() }
    }

    /// Whether an error is news in this outage: the log is not told the same twice a second.
    pub(super) fn is_news(&mut self, error: &str) -> bool {
        let is_news = self.told.len() < Self::MOST_TOLD && !self.told.iter().any(|told| told == error);
        if is_news {
            self.told.push(error.to_owned());
        }
        is_news
    }

    /// How long a connection lasted: after a steady one, the same trouble is news again.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time > Self::STEADY {
            self.told.clear();
        }
    }

    /// Waits before the next attempt; after a success not for long.
    pub(super) async fn wait(&mut self) {
        if self.last.elapsed() > Self::STEADY {
            self.ceiling = Self::LEAST;
        }
        sleep(rand::random_range(self.ceiling / 2..=self.ceiling)).await;
        self.ceiling = (self.ceiling * 2).min(Self::MOST);
        self.last = Instant::now();
    }
}

/// What an error of a call means.
pub(super) struct Verdict {
    /// For the caller.
    pub(super) meaning: BrokerError,
    /// Whether the connection should be made anew.
    pub(super) reconnect: bool,
    /// Whether the server is not the one to write to: the address must be resolved again, for both connections.
    pub(super) moved: bool,
}

pub(super) fn verdict(error: &RedisError) -> Verdict {
    let text = error.to_string();
    let keep = |meaning| Verdict { meaning, reconnect: false, moved: false };
    let Some(code) = error.code() else {
        // Not an answer: the connection broke, or what came was no RESP.
        return Verdict { meaning: BrokerError::Undecided(text), reconnect: true, moved: false };
    };
    // Redis 6 quotes what a script's command answered, behind an ERR or the line of the script.
    let quotes = code == "ERR" || code.starts_with('@');
    let is = |wanted: &str| code == wanted || (quotes && text.contains(&format!("-{wanted} ")));
    if is("OOM") {
        return keep(BrokerError::StorageFull);
    }
    if is("MISCONF") || is("NOREPLICAS") {
        return keep(BrokerError::NoWrites(text));
    }
    let moved = is("READONLY");
    if moved || is("LOADING") || is("MASTERDOWN") {
        return Verdict { meaning: BrokerError::Unavailable(text), reconnect: true, moved };
    }
    if ["BUSY", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"].into_iter().any(is) {
        return keep(BrokerError::Unavailable(text));
    }
    keep(BrokerError::Rejected(text))
}
