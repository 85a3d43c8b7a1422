//! Options of the load itself.

use std::time::Duration;

use roomcast_protocol::Mode;

use super::refusal::{Refusal, usage};
use super::values::{Publishers, duration, mode, positive_duration, positive_rate, publishers, rate, share};
use crate::plan::{self, Sizes};

/// Who is there and what they say.
pub(super) struct Crowd {
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub rate: f64,
    pub sizes: Sizes,
    pub echo: bool,
    pub settle: Duration,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadOptions {
    /// Rooms of the whole run
    #[arg(long, value_name = "N", required = false)]
    rooms: u32,
    /// Members of each room, each with its own connection
    #[arg(long, value_name = "N", required = false)]
    members: u32,
    /// Members of each room that publish: a number, or all
    #[arg(long, value_name = "N", required = false, value_parser = publishers)]
    publishers: Publishers,
    /// Messages per second in each room, from its publishers together
    #[arg(long, value_name = "PER_SECOND", required = false, value_parser = rate)]
    rate: f64,
    /// Bytes of a message's data: 128, 4k, or sizes with weights such as 128:70,1k:25,16k:5
    #[arg(long, value_name = "BYTES", default_value = "128")]
    size: Sizes,
    /// Publishers do not get their own messages
    #[arg(long)]
    no_echo: bool,
    /// Longest wait, at the end, for what is still on its way
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    settle: Duration,
}

impl LoadOptions {
    pub fn crowd(&self) -> Crowd {
        Crowd {
            rooms: self.rooms,
            members: self.members,
            publishers: match self.publishers {
                Publishers::All => self.members,
                Publishers::First(number) => number,
            },
            rate: self.rate,
            sizes: self.size.clone(),
            echo: !self.no_echo,
            settle: self.settle,
        }
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct IdleOptions {
    /// Connections of the whole run
    #[arg(long, value_name = "N", required = false)]
    connections: u32,
    /// Of them in each room
    #[arg(long, value_name = "N", required = false)]
    members: u32,
}

impl IdleOptions {
    pub fn crowd(&self) -> Result<Crowd, Refusal> {
        let (connections, members) = (self.connections, self.members);
        if connections == 0 || members == 0 || !connections.is_multiple_of(members) {
            return Err(usage(format!(
                "--connections {connections} must be a multiple of --members {members}, and neither 0"
            )));
        }
        Ok(Crowd {
            rooms: connections / members,
            members,
            publishers: 0,
            rate: 0.0,
            sizes: Sizes(vec![(128, 1)]),
            echo: true,
            settle: Duration::ZERO,
        })
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct RoomOptions {
    /// durable or ephemeral. The cluster decides by a room's name: this is what it must say; --prefix makes it so
    #[arg(long, default_value = "durable", value_parser = mode)]
    pub mode: Mode,
    /// Rooms are named <prefix>-<run>-<number>
    #[arg(long, default_value = "loadtest")]
    pub prefix: String,
    /// How long the load lasts, from when all are connected
    #[arg(long, value_name = "DURATION", required = false, value_parser = positive_duration)]
    pub duration: Duration,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Lost connections")]
pub(super) struct StormOptions {
    /// Share of all connections that break at once
    #[arg(long, value_name = "PERCENT", required = false, value_parser = share)]
    dropped: f64,
    /// When, from the first publish
    #[arg(long, value_name = "DURATION", required = false, value_parser = duration)]
    first: Duration,
    /// Again and again after this long
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    every: Option<Duration>,
}

impl StormOptions {
    /// None if nothing is to break.
    pub fn storm(&self) -> Option<plan::Storm> {
        (self.dropped > 0.0).then_some(plan::Storm { share: self.dropped, first: self.first, every: self.every })
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Coming and going")]
pub(super) struct ChurnOptions {
    /// Members that leave their room each second, of the whole run; those that publish stay
    #[arg(long, value_name = "PER_SECOND", required = false, value_parser = positive_rate)]
    leaves: f64,
    /// How long they stay away
    #[arg(long, value_name = "DURATION", required = false, value_parser = duration)]
    away: Duration,
}

impl ChurnOptions {
    pub fn churn(&self) -> plan::Churn {
        plan::Churn { rate: self.leaves, away: self.away }
    }
}
