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
    files(plan, embedded, needed, allow(needed)).map_err(usage)?;
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

fn files(plan: &Plan, embedded: bool, needed: u64, allowed: u64) -> Result<(), String> {
    if needed <= allowed {
        return Ok(());
    }
    if embedded {
        return Err(format!(
            "this process needs {needed} open files, two for each connection as --self has both ends, and may have \
             {allowed}: take fewer members, or raise the hard limit (ulimit -Hn {needed})"
        ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("loadtest").chain(line.split_whitespace()).map(std::ffi::OsString::from);
        match parse(words, &|_| None, std::time::UNIX_EPOCH) {
            Ok(Command::Run(run)) => run.plan,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_client_belongs_to_one_process() {
        let line = "chat --rooms 7 --members 5 --processes 3 --run 1 --start-at 2030-01-01T00:00:00Z --process";
        let mut all: Vec<_> =
            (0..3).flat_map(|index| here(&plan(&format!("{line} {index}"))).collect::<Vec<_>>()).collect();
        all.sort_unstable();
        assert_eq!(all.len(), 35);
        all.dedup();
        assert_eq!(all.len(), 35);
    }

    #[test]
    fn too_few_files_say_how_many_processes_it_takes() {
        let plan = plan("idle --connections 10000");
        assert_eq!(files(&plan, false, 10_064, 10_064), Ok(()));
        let words = files(&plan, false, 10_064, 4_096).expect_err("too few");
        assert!(words.contains("give each --processes 3, --process 0 to 2"), "{words}");
        assert!(files(&plan, false, 10_064, 64).is_err());
        assert!(files(&plan, true, 20_064, 4_096).expect_err("too few").contains("both ends"));
    }

    #[test]
    fn too_many_connections_from_one_address_say_how_many_it_takes() {
        let one = "idle --connections 60000 --target 127.0.0.1:8080";
        let words = ports(&plan(one), 28_000).expect_err("too many");
        assert!(words.contains("60000 connections") && words.contains("give 3 --source"), "{words}");
        assert_eq!(ports(&plan(&format!("{one} --source 127.0.0.2-127.0.0.4")), 28_000), Ok(()));
        assert_eq!(ports(&plan(&format!("{one} --target 127.0.0.1:8081 --target 127.0.0.1:8082")), 28_000), Ok(()));
        assert_eq!(ports(&plan("idle --connections 60000 --self"), 28_000), Ok(()), "nothing is known yet");
    }

    #[test]
    fn the_systems_range_of_ports_is_read() {
        assert_eq!(ports_of("1024\t65535\n"), 64_512);
        for odd in ["", "x y", "9 5", "1 99999"] {
            assert_eq!(ports_of(odd), PORTS, "{odd:?}");
        }
    }

    #[test]
    fn a_small_run_needs_nothing() {
        assert!(make_room(&plan("chat --rooms 2"), true).is_ok());
    }
}
