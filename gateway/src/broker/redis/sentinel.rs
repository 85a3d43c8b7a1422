//! Finds the master that a group of sentinels watches. Used for every connection that is opened in this topology.
//!
//! Nobody is trusted alone: all sentinels are asked at once, the address that most of them name is tried first, and the
//! server there must call itself a master. So neither a sentinel that was cut off nor an old master that came back
//! leads astray for longer than its own side of the network agrees with it.

use std::cell::RefCell;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::RedisOptions;
use super::connection::{client, connect};
use crate::broker::BrokerError;
use crate::config::RedisUrl;

/// How often the sentinels are asked whether the master is still the one in use.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Most candidates that are tried in one attempt.
const MAX_CANDIDATES: usize = 4;

/// The sentinels of one master.
#[derive(Clone)]
pub(super) struct Sentinels {
    all: Vec<Client>,
    master: String,
    /// Makes the URLs of the servers they name.
    url: RedisUrl,
    options: RedisOptions,
    /// Where the last connection of this copy leads.
    current: RefCell<Option<Address>>,
}

/// Where a server listens.
type Address = (String, u16);

impl Sentinels {
    pub(super) fn new(
        sentinels: &[String],
        master: &str,
        url: &RedisUrl,
        options: &RedisOptions,
    ) -> Result<Self, BrokerError> {
        let sentinels = sentinels.iter().map(|url| client(url, options.ca_pem.as_deref())).collect::<Result<_, _>>()?;
        Ok(Self {
            all: sentinels,
            master: master.to_owned(),
            url: url.clone(),
            options: options.clone(),
            current: RefCell::default(),
        })
    }

    /// Opens a connection to the master.
    pub(super) async fn connect(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
        let candidates = self.candidates().await;
        let mut why = format!("no sentinel answers for master {:?}", self.master);
        for (host, port) in candidates {
            match self.try_master(&host, port, config).await {
                Ok(connection) => {
                    self.current.replace(Some((host, port)));
                    return Ok(connection);
                }
                Err(error) => why = format!("{host}:{port}: {error}"),
            }
        }
        Err(why)
    }

    async fn try_master(
        &self,
        host: &str,
        port: u16,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let server = client(&self.url.server(host, port), self.options.ca_pem.as_deref());
        let server = server.map_err(|error| error.to_string())?;
        let mut connection = connect(&server, config, self.options.connect_timeout).await?;
        match timeout(self.options.connect_timeout, is_master(&mut connection)).await {
            Ok(true) => Ok(connection),
            Ok(false) => Err("not a master, or ROLE is not allowed".into()),
            Err(_) => Err("silent".into()),
        }
    }

    /// Resolves when `connection`, the last one opened, leads to a master no more, or most sentinels name another.
    pub(super) async fn replaced(&self, connection: &MultiplexedConnection) {
        let mut connection = connection.clone();
        loop {
            sleep(LOOK_INTERVAL).await;
            // Silence is for the pings to judge.
            if timeout(LOOK_INTERVAL, is_master(&mut connection)).await == Ok(false) {
                return;
            }
            if let Some(named) = self.agreed().await
                && self.current.borrow().as_ref() != Some(&named)
            {
                return;
            }
        }
    }

    /// The address that more than half of the sentinels name.
    async fn agreed(&self) -> Option<Address> {
        let (address, votes) = self.votes().await.into_iter().next()?;
        (votes * 2 > self.all.len()).then_some(address)
    }

    /// Addresses that sentinels name, the most named first.
    async fn candidates(&self) -> Vec<Address> {
        self.votes().await.into_iter().take(MAX_CANDIDATES).map(|(address, _)| address).collect()
    }

    /// Asks all sentinels at once; does not wait for the rest once more than half agree.
    async fn votes(&self) -> Vec<(Address, usize)> {
        let mut asked = JoinSet::new();
        for sentinel in &self.all {
            asked.spawn(ask(sentinel.clone(), self.master.clone(), self.options.connect_timeout));
        }
        let mut votes: Vec<(Address, usize)> = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let Ok(Some(address)) = answer else { continue };
            match votes.iter_mut().find(|(named, _)| *named == address) {
                Some((_, count)) => *count += 1,
                None => votes.push((address, 1)),
            }
            if votes.iter().any(|(_, count)| count * 2 > self.all.len()) {
                break;
            }
        }
        votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        votes
    }
}

/// What one sentinel says, if it does in time.
async fn ask(sentinel: Client, master: String, limit: Duration) -> Option<Address> {
    let mut connection = connect(&sentinel, &AsyncConnectionConfig::new(), limit)
        .await
        .inspect_err(|error| tracing::debug!(%error, "redis: a sentinel does not answer"))
        .ok()?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match timeout(limit, question.query_async::<Option<(String, u16)>>(&mut connection)).await.ok()? {
        Ok(Some(address)) => Some(address),
        Ok(None) => {
            tracing::warn!("redis: a sentinel does not know the master by this name");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "redis: a sentinel does not say where the master is");
            None
        }
    }
}

async fn is_master(connection: &mut MultiplexedConnection) -> bool {
    let role: Result<Vec<Value>, _> = cmd("ROLE").query_async(connection).await;
    matches!(role.ok().as_deref(), Some([Value::BulkString(role), ..]) if role == b"master")
}
