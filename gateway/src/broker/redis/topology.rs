//! Which servers there are, and which of them has a room. Used by the broker, whose calls name a tag: the room's name,
//! or [`WHOLE`]. Must not know what is called.

use std::rc::Rc;
use std::sync::Arc;

use ::redis::{Cmd, FromRedisValue, Pipeline, Value};
use roomcast_protocol::RoomName;
use tokio::sync::{Notify, mpsc};

use super::canary::{Canary, Nest};
use super::cluster::Cluster;
use super::commands::{Commands, Failure};
use super::connection::Endpoint;
use super::script::{Script, Scripts};
use super::sentinel::Sentinels;
use super::subscription::{Intake, Subscription, Topic};
use super::{Keys, RedisOptions};
use crate::broker::{BrokerError, BrokerStats, Event, Signs, Trouble};
use crate::config::{RedisTopology, RedisUrl};

/// The tag of what belongs to the cluster as a whole and to no room. No room can have this name.
pub(super) const WHOLE: &str = "!";

/// What it takes to speak to one more server.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) options: RedisOptions,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    /// PUBLISH or SPUBLISH.
    pub(super) publish: &'static str,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stats: BrokerStats,
    /// Told of every connection that is lost: its server may not be the right one any more.
    pub(super) doubt: Arc<Notify>,
    /// For the hub.
    pub(super) signs: Arc<Signs>,
}

impl Recipe {
    /// Whether channels belong to slots.
    pub(super) fn is_sharded(&self) -> bool {
        self.publish == "SPUBLISH"
    }
}

/// The two connections to one server, and the canary that shows that they work together.
pub(super) struct Link {
    pub(super) commands: Rc<Commands>,
    pub(super) subscription: Subscription,
    canary: Canary,
}

impl Link {
    pub(super) fn start(endpoint: Endpoint, recipe: &Recipe) -> Self {
        let (moved, nest) = (Rc::<Notify>::default(), Nest::new(recipe));
        let commands = Rc::new(Commands::start(endpoint.clone(), recipe, Rc::clone(&moved)));
        let intake = Intake::new(recipe, Arc::clone(&nest));
        let subscription = Subscription::start(endpoint, intake, recipe.options.timeout, moved);
        let canary = Canary::start(nest, Rc::clone(&commands));
        Self { commands, subscription, canary }
    }

    /// Where the canary is. Without a place, the server has no room of ours.
    pub(super) fn nest(&self) -> &Nest {
        self.canary.nest()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        let troubles = [
            (!self.commands.is_up(), Trouble::Publishing),
            (!self.subscription.is_up(), Trouble::Subscription),
            (!self.canary.is_fresh(), Trouble::Canary),
            (self.commands.evicts(), Trouble::Eviction),
        ];
        troubles.into_iter().find_map(|(is_so, trouble)| is_so.then_some(trouble))
    }

    pub(super) fn is_up(&self) -> bool {
        self.commands.is_up() && self.subscription.is_up()
    }
}

/// The servers.
pub(super) enum Topology {
    /// One for everything, at an address of its own or named by sentinels.
    One(Link),
    /// Each with a part of the rooms.
    Cluster(Cluster),
}

/// True if rooms are spread over the servers of a cluster: then channels belong to slots as keys do.
pub(super) fn is_sharded(url: &RedisUrl) -> bool {
    matches!(url.topology(), RedisTopology::Cluster { .. })
}

impl Topology {
    /// Starts connecting, and returns at once.
    pub(super) fn start(url: &RedisUrl, recipe: Recipe) -> Result<Self, BrokerError> {
        let options = &recipe.options;
        Ok(match url.topology() {
            RedisTopology::Standalone => Self::One(Link::start(Endpoint::fixed(url.as_str(), options)?, &recipe)),
            RedisTopology::Sentinel { sentinels, master } => {
                let sentinels = Sentinels::new(sentinels, master, url, options)?;
                Self::One(Link::start(Endpoint::watched(sentinels, options), &recipe))
            }
            RedisTopology::Cluster { seeds } => Self::Cluster(Cluster::start(seeds.clone(), url.clone(), recipe)?),
        })
    }

    /// Why not all rooms work.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::One(link) => link.trouble(),
            Self::Cluster(cluster) => cluster.trouble(),
        }
    }

    /// Publishing and subscription, on all servers.
    #[cfg(test)]
    pub(super) fn paths_up(&self) -> (bool, bool) {
        match self {
            Self::One(link) => (link.commands.is_up(), link.subscription.is_up()),
            Self::Cluster(cluster) => cluster.paths_up(),
        }
    }

    /// Runs one command of about `size` bytes.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        tag: &str,
        command: Cmd,
        size: usize,
    ) -> Result<T, BrokerError> {
        self.on(tag, async |commands, asking| commands.query(&command, size, asking).await).await
    }

    /// Runs some small commands together, not atomically. All keys have the tag, or one that [`Topology::together`]
    /// put beside it.
    pub(super) async fn query_all<T: FromRedisValue>(&self, tag: &str, pipeline: Pipeline) -> Result<T, BrokerError> {
        self.on(tag, async |commands, asking| commands.query_all(&pipeline, asking).await).await
    }

    /// Runs a script; `fill` appends the number of keys, keys and arguments.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        tag: &str,
        script: &Script,
        size: usize,
        fill: impl Fn(&mut Cmd),
    ) -> Result<T, BrokerError> {
        self.on(tag, async |commands, asking| commands.script(script, size, &fill, asking).await).await
    }

    /// Runs a script that is told of the dataset behind the connection; see [`Commands::script_on_dataset`].
    pub(super) async fn script_on_dataset(
        &self,
        tag: &str,
        script: &Script,
        size: usize,
        fill: impl Fn(&mut Cmd, &str, bool),
    ) -> Result<Vec<Value>, BrokerError> {
        self.on(tag, async |commands, asking| commands.script_on_dataset(script, size, &fill, asking).await).await
    }

    /// Reads the identity of the dataset as if scripts may not.
    #[cfg(test)]
    pub(super) async fn read_identity(&self) -> Result<(), BrokerError> {
        self.on(WHOLE, async |commands, _| commands.read_identity().await.map(|_| ())).await
    }

    async fn on<T>(
        &self,
        tag: &str,
        call: impl AsyncFn(&Commands, bool) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        match self {
            Self::One(link) => call(&link.commands, false).await.map_err(|failure| failure.meaning),
            Self::Cluster(cluster) => cluster.call(tag, call).await,
        }
    }

    /// The places of rooms in groups, each on one server. Their keys can be read in one [`Topology::query_all`].
    pub(super) fn together(&self, rooms: &[RoomName]) -> Vec<Vec<usize>> {
        match self {
            Self::One(_) => vec![(0..rooms.len()).collect()],
            Self::Cluster(cluster) => cluster.together(rooms),
        }
    }

    pub(super) async fn subscribe(&self, topic: &Topic) -> Result<(), BrokerError> {
        match self {
            Self::One(link) => link.subscription.subscribe(topic).await,
            Self::Cluster(cluster) => cluster.subscribe(topic).await,
        }
    }

    pub(super) fn unsubscribe(&self, topic: &Topic) {
        match self {
            Self::One(link) => link.subscription.unsubscribe(topic),
            Self::Cluster(cluster) => cluster.unsubscribe(topic),
        }
    }
}
