//! Finds the master that a group of sentinels watches. Used for every connection that is opened in this topology.
//!
//! Nobody is trusted alone: all sentinels are asked at once, the address that most of them name is the only one tried,
//! and the server there must call itself a master. So neither a sentinel that was cut off nor an old master that came
//! back leads astray. They are asked again every second: an old master that is being replaced goes on to acknowledge
//! what will be lost, and every moment with it counts.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Value, cmd};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::RedisOptions;
use super::connection::{client, connect};
use crate::broker::BrokerError;
use crate::config::RedisUrl;

/// How often the sentinels are asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most candidates that are tried in one attempt.
const MAX_CANDIDATES: usize = 4;

/// The sentinels of one master, as one connection's supervision sees them.
#[derive(Clone)]
pub(super) struct Sentinels {
    council: Rc<Council>,
    /// Asks them again and again; ends with the last copy.
    _looking: Rc<Looking>,
    /// Makes the URLs of the servers they name.
    url: RedisUrl,
    options: RedisOptions,
    /// Where the last connection of this copy leads.
    current: RefCell<Option<Address>>,
}

/// Where a server listens.
type Address = (String, u16);

struct Looking(JoinHandle<()>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sentinels {
    pub(super) fn new(
        sentinels: &[String],
        master: &str,
        url: &RedisUrl,
        options: &RedisOptions,
    ) -> Result<Self, BrokerError> {
        let all: Vec<Client> =
            sentinels.iter().map(|url| client(url, options.ca_pem.as_deref())).collect::<Result<_, _>>()?;
        let council = Rc::new(Council {
            lines: RefCell::new(vec![None; all.len()]),
            all,
            master: master.to_owned(),
            limit: options.connect_timeout,
            agreed: watch::Sender::new(None),
        });
        let asked = Rc::clone(&council);
        let looking = tokio::task::spawn_local(async move {
            loop {
                sleep(LOOK_INTERVAL).await;
                asked.votes().await;
            }
        });
        let (url, options, current) = (url.clone(), options.clone(), RefCell::default());
        Ok(Self { council, _looking: Rc::new(Looking(looking)), url, options, current })
    }

    /// What the sentinels call the master.
    pub(super) fn master(&self) -> &str {
        &self.council.master
    }

    /// Opens a connection to the master.
    pub(super) async fn connect(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
        let mut why = format!("no sentinel answers for master {:?}", self.council.master);
        for (host, port) in self.council.candidates().await {
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

    /// Resolves when most sentinels name another server than the one of the last connection. That it turned into a
    /// replica while they don't is for `commands` to find.
    pub(super) async fn replaced(&self) {
        let mut agreed = self.council.agreed.subscribe();
        let is_other = |named: &Option<Address>| named.is_some() && *named != *self.current.borrow();
        // An error is the end of the time: the council lives as long as we do.
        _ = agreed.wait_for(is_other).await;
    }
}

/// The sentinels themselves, for all connections of a worker.
struct Council {
    all: Vec<Client>,
    /// Kept connections to them.
    lines: RefCell<Vec<Option<MultiplexedConnection>>>,
    /// What they call the master.
    master: String,
    /// How long connecting and answering may take.
    limit: Duration,
    /// The last address that more than half of them named.
    agreed: watch::Sender<Option<Address>>,
}

impl Council {
    /// What to try: what most of them name, or everything that someone names.
    async fn candidates(&self) -> Vec<Address> {
        let votes = self.votes().await;
        let most = if votes.first().is_some_and(|(_, count)| self.is_majority(*count)) { 1 } else { MAX_CANDIDATES };
        votes.into_iter().take(most).map(|(address, _)| address).collect()
    }

    fn is_majority(&self, votes: usize) -> bool {
        votes * 2 > self.all.len()
    }

    /// Asks all sentinels at once, without waiting for the rest when more than half agree. The most named comes first.
    async fn votes(&self) -> Vec<(Address, usize)> {
        let mut asked = JoinSet::new();
        for (at, sentinel) in self.all.iter().enumerate() {
            let line = self.lines.borrow()[at].clone();
            let (sentinel, master, limit) = (sentinel.clone(), self.master.clone(), self.limit);
            asked.spawn(async move { (at, ask(line, sentinel, master, limit).await) });
        }
        let mut votes: Vec<(Address, usize)> = Vec::new();
        while let Some(Ok((at, answer))) = asked.join_next().await {
            let (line, address) = answer.unzip();
            self.lines.borrow_mut()[at] = line;
            let Some(address) = address.flatten() else { continue };
            match votes.iter_mut().find(|(named, _)| *named == address) {
                Some((_, count)) => *count += 1,
                None => votes.push((address, 1)),
            }
            votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            if self.is_majority(votes[0].1) {
                let named = Some(votes[0].0.clone());
                self.agreed.send_if_modified(|agreed| {
                    let changes = *agreed != named;
                    *agreed = named;
                    changes
                });
                break;
            }
        }
        votes
    }
}

/// What one sentinel says, if it does in time, and the connection to it.
async fn ask(
    line: Option<MultiplexedConnection>,
    sentinel: Client,
    master: String,
    limit: Duration,
) -> Option<(MultiplexedConnection, Option<Address>)> {
    let mut line = match line {
        Some(line) => line,
        None => connect(&sentinel, &AsyncConnectionConfig::new(), limit)
            .await
            .inspect_err(|error| tracing::debug!(%error, "redis: a sentinel does not answer"))
            .ok()?,
    };
    match master_of(&mut line, &master, limit).await {
        Ok(Some(address)) => Some((line, Some(address))),
        Ok(None) => {
            tracing::debug!("redis: a sentinel does not know the master by this name");
            Some((line, None))
        }
        Err(error) => {
            tracing::debug!(%error, "redis: a sentinel does not say where the master is");
            None
        }
    }
}

/// Where a sentinel says that the master is; nothing if it knows none of that name.
pub(super) async fn master_of(
    line: &mut MultiplexedConnection,
    master: &str,
    limit: Duration,
) -> Result<Option<Address>, String> {
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = timeout(limit, question.query_async(line)).await.map_err(|_| "silent")?;
    answer.map_err(|error| error.to_string())
}

async fn is_master(connection: &mut MultiplexedConnection) -> bool {
    let role: Result<Vec<Value>, _> = cmd("ROLE").query_async(connection).await;
    matches!(role.ok().as_deref(), Some([Value::BulkString(role), ..]) if role == b"master")
}
