//! Open files: each connection is one. Called once by `start`, before anything is bound; raises what the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the clients' connections: listeners, runtimes, Redis, scrapes.
const OTHER_FILES: u64 = 128;
/// The same for each worker: its runtime, its listener, two connections to each of some masters.
const FILES_PER_WORKER: u64 = 32;

/// Open files, as limits have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// As many as this process may have.
    pub allowed: u64,
    /// As many as it needs.
    pub needed: u64,
}

/// Raises the soft limit of open files as far as `max_connections` needs and the hard limit allows, and says in the log
/// what is missing then: beyond it connections wait in the kernel, unanswered.
pub(super) fn make_room(max_connections: usize, workers: usize) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted = needed(max_connections, workers).min(most);
    let mut allowed = limit.current.unwrap_or(u64::MAX);
    if allowed < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            allowed = wanted;
        }
    }
    let needed = needed(max_connections, workers);
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "max-connections ({max_connections}) needs more open files than this process may have: raise the hard limit \
             (ulimit -Hn, LimitNOFILE) or lower max-connections"
        );
    }
}

/// What would be missing on a machine like this one, if something would.
pub fn shortage(max_connections: usize, workers: usize) -> Option<Shortage> {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let needed = needed(max_connections, workers);
    (allowed < needed).then_some(Shortage { allowed, needed })
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
