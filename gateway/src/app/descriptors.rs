//! Open files: each connection is one. Called once by `start`, before anything is bound; raises what the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the clients' connections: listeners, runtimes, Redis, scrapes.
const OTHER_FILES: u64 = 128;
/// The same for each worker: its runtime, its listener, two connections to each of some masters.
const FILES_PER_WORKER: u64 = 32;

/// Raises the soft limit of open files as far as `max_connections` needs and the hard limit allows, and says in the log
/// what is missing then: beyond it connections wait in the kernel, unanswered.
pub(super) fn make_room(max_connections: usize, workers: usize) {
    let needed = needed(max_connections, workers);
    let limit = getrlimit(Resource::Nofile);
    let (now, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let mut allowed = now;
    if now < needed {
        let raised = Rlimit { current: Some(needed.min(most)), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            allowed = needed.min(most);
        }
    }
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "max-connections ({max_connections}) needs more open files than this process may have: raise the hard limit \
             (ulimit -Hn, LimitNOFILE) or lower max-connections"
        );
    }
}

fn needed(max_connections: usize, workers: usize) -> u64 {
    let workers = u64::try_from(workers).unwrap_or(u64::MAX);
    let connections = u64::try_from(max_connections).unwrap_or(u64::MAX);
    connections.saturating_add(OTHER_FILES).saturating_add(workers.saturating_mul(FILES_PER_WORKER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_grows_with_connections_and_workers_and_never_overflows() {
        assert_eq!(needed(20_000, 2), 20_192);
        assert_eq!(needed(usize::MAX, usize::MAX), u64::MAX);
    }
}
