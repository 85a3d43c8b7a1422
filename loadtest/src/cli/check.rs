//! What the options must be to each other. Called when the plan is made; its words name options.

use std::time::SystemTime;

use humantime::format_duration;

use crate::plan::{Churn, Plan};

/// Of a whole run.
const MOST_CLIENTS: u32 = 10_000_000;
pub(super) const TOO_MANY: &str = "rooms x members are more than 10,000,000 connections";

/// The first thing that is wrong.
pub(super) fn check(plan: &Plan, embedded: bool, now: SystemTime) -> Result<(), String> {
    crowd(plan)?;
    processes(plan, embedded, now)?;
    if let Some(storm) = plan.storm
        && storm.first >= plan.duration
    {
        return Err(format!(
            "--first {} is not within --duration {}: no connection would break",
            format_duration(storm.first),
            format_duration(plan.duration)
        ));
    }
    if let Some(churn) = plan.churn {
        leaving(plan, churn)?;
    }
    if let Some(path) = &plan.ca {
        std::fs::File::open(path).map_err(|error| format!("--ca {}: {error}", path.display()))?;
    }
    Ok(())
}

fn crowd(plan: &Plan) -> Result<(), String> {
    if plan.rooms == 0 || plan.members == 0 {
        return Err("--rooms and --members must be at least 1".to_owned());
    }
    if plan.clients() > MOST_CLIENTS {
        return Err(TOO_MANY.to_owned());
    }
    if plan.publishers > plan.members {
        return Err(format!("--publishers {} are more than --members {}", plan.publishers, plan.members));
    }
    if plan.rate > 0.0 && plan.publishers == 0 {
        return Err(format!("--rate {} needs --publishers of at least 1", plan.rate));
    }
    if plan.room_name(plan.rooms - 1).is_none() {
        return Err(format!(
            "--prefix {:?}: <prefix>-<run>-<number> must be 1 to 128 of the characters A-Z a-z 0-9 _ . ~ -",
            plan.room_prefix
        ));
    }
    Ok(())
}

fn processes(plan: &Plan, embedded: bool, now: SystemTime) -> Result<(), String> {
    if embedded && plan.share.of > 1 {
        return Err("--self is for one process; with several --processes give a --target".to_owned());
    }
    if plan.share.of > plan.clients() {
        return Err(format!("--processes {} are more than the run's {} connections", plan.share.of, plan.clients()));
    }
    // Too late to be in when the others begin to publish.
    let late = plan.start_at.and_then(|start| now.duration_since(start).ok());
    if let Some(late) = late
        && late >= plan.ramp.unwrap_or_default()
        && !late.is_zero()
    {
        return Err(format!("--start-at was {} s ago", late.as_secs()));
    }
    Ok(())
}

fn leaving(plan: &Plan, churn: Churn) -> Result<(), String> {
    let quiet = plan.rooms * (plan.members - plan.publishers);
    let away = churn.rate * churn.away.as_secs_f64();
    if quiet == 0 {
        return Err("members that publish do not leave: --publishers must be less than --members".to_owned());
    }
    if away > f64::from(quiet) {
        return Err(format!(
            "--leaves {} for --away {} would have {away:.0} members away at once, but only {quiet} do not publish",
            churn.rate,
            format_duration(churn.away)
        ));
    }
    Ok(())
}
