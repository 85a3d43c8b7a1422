//! What a run is to do, checked and complete. Made by the command line, carried out by the engine; does nothing itself.

mod sizes;
mod target;
mod token;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use roomcast_protocol::{Mode, RoomName};

use crate::report::Threshold;

pub use crate::audit::Share;
pub use sizes::Sizes;
pub use target::{Target, TargetError};
pub use token::{Mint, Token};

/// A whole run of one process.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `fanout`, `chat`, `idle`, `storm`, `churn` or `soak`.
    pub scenario: &'static str,
    /// Random, or given so that the processes of one run share it. Part of room names, ids and payloads.
    pub run: u32,
    /// Which part of the run is this process's.
    pub share: Share,
    /// When connecting begins, common to all processes; none: now.
    pub start_at: Option<SystemTime>,
    /// Nodes or load balancers; clients spread over them evenly.
    pub targets: Vec<Target>,
    /// Local addresses, used in turn; empty: the system chooses.
    pub sources: Vec<IpAddr>,
    /// Certificates (PEM) to trust beside the public ones.
    pub ca: Option<PathBuf>,
    /// How clients prove who they are.
    pub token: Token,
    /// Rooms of the run, over all processes.
    pub rooms: u32,
    /// Members of each room, over all processes; each is one connection.
    pub members: u32,
    /// The first so many members of each room publish.
    pub publishers: u32,
    /// Messages per second and room, shared evenly by its publishers. 0: nobody publishes.
    pub rate: f64,
    /// What `joined.mode` must say.
    pub mode: Mode,
    /// Rooms are named `<prefix>-<run>-<index>`.
    pub room_prefix: String,
    /// Sizes of `data`.
    pub sizes: Sizes,
    /// Whether publishers get their own messages.
    pub echo: bool,
    /// New connections per second of the whole run.
    pub connect_rate: f64,
    /// Longest wait for a connection, and for the answer to a join.
    pub connect_timeout: Duration,
    /// From the start to the first publish; none: as soon as all are in (only with one process).
    pub ramp: Option<Duration>,
    /// How long messages are published, or connections held.
    pub duration: Duration,
    /// Longest wait, at the end, for what is still on its way.
    pub settle: Duration,
    /// Waves of lost connections.
    pub storm: Option<Storm>,
    /// Leaving and joining again.
    pub churn: Option<Churn>,
    /// Waits between attempts to reconnect: full jitter between 0 and a bound that doubles from `base` to `most`.
    pub backoff: Backoff,
    /// Threads.
    pub workers: usize,
    /// The run is not valid if the 99th percentile of the generator's own lag is above this.
    pub max_lag: Duration,
    /// `/metrics` of nodes to read once a second.
    pub scrape: Vec<String>,
    /// Where the audit's log goes.
    pub log: Option<PathBuf>,
    /// Beside those that every run has.
    pub thresholds: Vec<Threshold>,
    /// The command line, as the report shows it; without secrets.
    pub command: String,
}

/// A share of all connections is dropped at once and comes back at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Storm {
    /// 0 to 1.
    pub share: f64,
    /// From the first publish.
    pub first: Duration,
    /// Further waves.
    pub every: Option<Duration>,
}

impl Storm {
    /// When the waves come, from the first publish.
    pub fn waves(self, duration: Duration) -> impl Iterator<Item = Duration> {
        let next = move |at: &Duration| self.every.filter(|every| !every.is_zero()).map(|every| *at + every);
        std::iter::successors(Some(self.first), next).take_while(move |at| *at < duration)
    }

    /// Whether a wave takes this client: the same in all processes, and other clients each time.
    pub fn hits(self, client: u32, wave: u32) -> bool {
        let mixed = (u64::from(client) << 32 | u64::from(wave)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 11;
        (mixed as f64) < self.share * (1u64 << 53) as f64
    }
}

/// Members that do not publish leave their room and join it again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// Leaves per second of the whole run; as many joins.
    pub rate: f64,
    /// How long a member stays away.
    pub away: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub most: Duration,
}

impl Plan {
    /// Clients of the whole run.
    pub fn clients(&self) -> u32 {
        self.rooms * self.members
    }

    /// The name of the room with this index.
    ///
    /// None only for a prefix that does not fit, which the command line refuses.
    pub fn room_name(&self, room: u32) -> Option<RoomName> {
        RoomName::new(&format!("{}-{:08x}-{room}", self.room_prefix, self.run)).ok()
    }
}

#[cfg(test)]
impl Plan {
    /// A small plan to change.
    pub fn sample() -> Self {
        Self {
            scenario: "chat",
            run: 0xabcd_0123,
            share: Share { index: 0, of: 1 },
            start_at: None,
            targets: Vec::new(),
            sources: Vec::new(),
            ca: None,
            token: Token::None,
            rooms: 2,
            members: 4,
            publishers: 4,
            rate: 1.0,
            mode: Mode::Durable,
            room_prefix: "lt".to_owned(),
            sizes: Sizes(vec![(128, 1)]),
            echo: true,
            connect_rate: 1000.0,
            connect_timeout: Duration::from_secs(5),
            ramp: None,
            duration: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            storm: None,
            churn: None,
            backoff: Backoff { base: Duration::from_millis(100), most: Duration::from_secs(5) },
            workers: 1,
            max_lag: Duration::from_millis(100),
            scrape: Vec::new(),
            log: None,
            thresholds: Vec::new(),
            command: String::new(),
        }
    }
}
