//! Options to plan. Called by the parent for every scenario alike.

use std::time::SystemTime;

use super::load::{ChurnOptions, Crowd, StormOptions};
use super::refusal::{Refusal, usage};
use super::{Common, Run, check, output};
use crate::plan::{Churn, Plan, Storm};
use crate::scenario::Scenario;

/// What the options of a scenario amount to.
pub(super) struct Parts {
    scenario: &'static Scenario,
    crowd: Crowd,
    common: Common,
    storm: Option<Storm>,
    churn: Option<Churn>,
}

impl Parts {
    pub fn new(scenario: &'static Scenario, crowd: Crowd, common: Common) -> Self {
        Self { scenario, crowd, common, storm: None, churn: None }
    }

    pub fn with(self, storm: Option<StormOptions>, churn: Option<ChurnOptions>) -> Self {
        Self { storm: storm.and_then(|options| options.storm()), churn: churn.map(|options| options.churn()), ..self }
    }

    /// Checks everything, and resolves the targets last: it may take long.
    pub fn into_run(self, command: String, now: SystemTime) -> Result<Run, Refusal> {
        let Self { scenario, crowd, common, storm, churn } = self;
        let Common { target, rooms, process, output, run_output } = common;
        let run = process.run();
        let clients = crowd.rooms.checked_mul(crowd.members).ok_or_else(|| usage(check::TOO_MANY))?;
        let mut plan = Plan {
            scenario: scenario.name,
            run,
            share: process.share()?,
            start_at: process.start_at,
            targets: Vec::new(),
            sources: target.sources(),
            ca: target.ca.clone(),
            token: target.token(run)?,
            rooms: crowd.rooms,
            members: crowd.members,
            publishers: crowd.publishers,
            rate: crowd.rate,
            mode: rooms.mode,
            room_prefix: rooms.prefix,
            sizes: crowd.sizes,
            echo: crowd.echo,
            connect_rate: target.connect_rate,
            connect_timeout: target.connect_timeout,
            ramp: process.ramp(clients, target.connect_rate),
            duration: rooms.duration,
            settle: crowd.settle,
            storm,
            churn,
            backoff: target.backoff()?,
            workers: process.workers()?,
            max_lag: process.max_lag,
            scrape: target.scrape.clone(),
            log: run_output.log,
            thresholds: run_output.thresholds,
            command,
        };
        check::check(&plan, target.embedded, now).map_err(usage)?;
        output.check()?;
        output::writable("--log", plan.log.as_deref())?;
        plan.targets = target.targets()?;
        Ok(Run { plan, embedded: target.embedded, output })
    }
}
