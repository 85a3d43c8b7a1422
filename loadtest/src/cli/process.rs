//! Options of this process, and of a run that several processes share.

use std::time::{Duration, SystemTime};

use super::refusal::{Refusal, usage};
use super::values::{duration, instant, positive_duration, run};
use crate::plan::Share;

/// What a ramp adds to the time that connecting takes by its rate.
const MARGIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(next_help_heading = "Processes")]
pub(super) struct ProcessOptions {
    /// Processes that make this run together, on one machine or several
    #[arg(long, value_name = "N", default_value = "1")]
    processes: u32,
    /// Which of them this one is, from 0
    #[arg(long, value_name = "INDEX", default_value = "0")]
    process: u32,
    /// Name of the run, the same for all its processes: 8 hex digits or any text. Random if there is only one
    #[arg(long, value_name = "ID", value_parser = run)]
    run: Option<u32>,
    /// When to begin, the same for all processes: 2030-01-31T12:00:00Z, or seconds since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub start_at: Option<SystemTime>,
    /// From the start to the first publish, the same for all processes. Without it: one process waits until all are in,
    /// several take clients / connect rate + 10 s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ramp: Option<Duration>,
    /// Threads. Without it: one per core
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// The run is not valid if the 99th percentile of the generator's own lag is above this
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = positive_duration)]
    pub max_lag: Duration,
}

impl ProcessOptions {
    pub fn share(&self) -> Result<Share, Refusal> {
        let (index, of) = (self.process, self.processes);
        if index >= of {
            return Err(usage(format!(
                "--process {index} of --processes {of}: processes count from 0, so the last is {}",
                of.saturating_sub(1)
            )));
        }
        if of > 1 && (self.run.is_none() || self.start_at.is_none()) {
            return Err(usage(
                "with several --processes, all need the same --run and --start-at (or LOADTEST_RUN and \
                 LOADTEST_START_AT), so that they are one run",
            ));
        }
        Ok(Share { index, of })
    }

    pub fn run(&self) -> u32 {
        self.run.unwrap_or_else(rand::random)
    }

    /// The same in all processes, for it depends only on what they share.
    pub fn ramp(&self, clients: u32, connect_rate: f64) -> Option<Duration> {
        let connecting = || Duration::try_from_secs_f64((f64::from(clients) / connect_rate).ceil()).ok();
        match self.ramp {
            Some(ramp) => Some(ramp),
            None if self.processes > 1 => connecting().map(|time| time.saturating_add(MARGIN)),
            None => None,
        }
    }

    pub fn workers(&self) -> Result<usize, Refusal> {
        match self.workers {
            Some(0) => Err(usage("--workers 0: it takes at least one thread")),
            Some(workers) => Ok(workers.into()),
            None => Ok(std::thread::available_parallelism().map_or(1, Into::into)),
        }
    }
}
