//! What the machine allows one process: files and ports. Called by the app before a run; raises what it may.

use std::collections::HashMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refusal::{Refusal, usage};
use crate::plan::Plan;

/// Files beside the connections: listeners, logs, runtimes, scrapes.
const OTHER_FILES: u64 = 64;
/// Where Linux says which ports it gives to connections.
const PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's own range, 32768 to 60999.
const PORTS: u32 = 28_232;

/// Raises the limit of open files if that is needed, and refuses what cannot work. Wants a plan with its targets; those
/// of an `embedded` gateway have both ends of each connection here.
pub fn make_room(plan: &Plan, embedded: bool) -> Result<(), Refusal> {
    let here = here(plan).count() as u64;
    let needed = here * if embedded { 2 } else { 1 } + OTHER_FILES;
    files(plan, needed, allow(needed)).map_err(usage)?;
    ports(plan, ports_of(&std::fs::read_to_string(PORTS_FILE).unwrap_or_default())).map_err(usage)
}

/// Clients of this process: room and member.
fn here(plan: &Plan) -> impl Iterator<Item = (u32, u32)> {
    let (index, of) = (plan.share.index, plan.share.of.max(1));
    (0..plan.rooms)
        .flat_map(|room| (0..plan.members).map(move |member| (room, member)))
        .filter(move |(room, member)| (u64::from(*room) + u64::from(*member)) % u64::from(of) == u64::from(index))
}

/// Files that may be open once the limit was raised as far as needed and possible.
fn allow(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= needed {
        return now;
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed.min(most)), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() { needed.min(most) } else { now }
}

fn files(plan: &Plan, needed: u64, allowed: u64) -> Result<(), String> {
    if needed <= allowed {
        return Ok(());
    }
    let connections = u64::from(plan.clients());
    let per_process = allowed.saturating_sub(OTHER_FILES);
    if per_process == 0 {
        return Err(format!("this process may open only {allowed} files: raise the limit (ulimit -Hn)"));
    }
    let processes = connections.div_ceil(per_process);
    Err(format!(
        "this process needs {needed} open files and may have {allowed}: raise the hard limit (ulimit -Hn {needed}), or \
         split the run over {processes} processes: give each --processes {processes}, --process 0 to {}, and the same \
         --run and --start-at",
        processes - 1
    ))
}

fn ports_of(range: &str) -> u32 {
    let mut bounds = range.split_whitespace().map(str::parse::<u32>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high && high < 65_536 => high - low + 1,
        _ => PORTS,
    }
}

/// Connections from one address to another differ by their port only.
fn ports(plan: &Plan, most: u32) -> Result<(), String> {
    let sources = plan.sources.len().max(1);
    if plan.targets.is_empty() || u64::from(plan.clients()) <= u64::from(most) {
        return Ok(());
    }
    // As clients choose them.
    let mut pairs: HashMap<_, u32> = HashMap::new();
    for (room, member) in here(plan) {
        let index = (room * plan.members + member) as usize;
        let target = &plan.targets[(room as usize + member as usize) % plan.targets.len()];
        let address = target.addresses.get(index % target.addresses.len().max(1));
        *pairs.entry((index % sources, address)).or_default() += 1;
    }
    let fullest = pairs.into_iter().max_by_key(|(_, connections)| *connections);
    match fullest {
        Some(((_, Some(address)), connections)) if connections > most => Err(format!(
            "{connections} connections from one local address to {address} are more than the {most} ports there are: give \
             {} --source addresses, such as --source 127.0.0.2-127.0.0.9 for a server on this machine",
            (connections as usize * sources).div_ceil(most as usize)
        )),
        _ => Ok(()),
    }
}
