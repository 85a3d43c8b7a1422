//! What this machine and this process are, for the report: read from /proc.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// CPU seconds of this process so far, user and system.
pub(super) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// A line such as `VmRSS:   1234 kB` of /proc/self/status or /proc/meminfo, in bytes; 0 if it is not there.
fn kilobytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

pub(super) fn resident_bytes() -> u64 {
    kilobytes("/proc/self/status", "VmRSS")
}

pub(super) fn peak_resident_bytes() -> u64 {
    kilobytes("/proc/self/status", "VmHWM")
}

pub(super) fn memory_bytes() -> u64 {
    kilobytes("/proc/meminfo", "MemTotal")
}

fn line_of(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

pub(super) fn host() -> String {
    line_of("/proc/sys/kernel/hostname")
}

pub(super) fn kernel() -> String {
    line_of("/proc/sys/kernel/osrelease")
}

pub(super) fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tells() {
        assert!(resident_bytes() > 1024 * 1024 && peak_resident_bytes() >= 1024 * 1024);
        assert!(memory_bytes() > resident_bytes());
        assert!(!host().is_empty() && !kernel().is_empty() && !cpu_model().is_empty());
        assert!(cpu_seconds() > 0.0);
    }
}
