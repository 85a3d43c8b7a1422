//! Reports of several processes as one, and reports as files.
//!
//! Called by `loadtest merge` and by whoever writes a report. Everything adds: nothing is averaged, and the thresholds
//! are evaluated again over the whole.

use std::path::Path;

use super::Report;

/// Merges the reports of all processes of one run. Processes that are missing make it invalid.
pub fn merge(reports: Vec<Report>) -> anyhow::Result<Report> {
    let _ = reports;
    anyhow::bail!("not yet")
}

/// As [`merge`], with processes missing on purpose.
pub fn merge_partial(reports: Vec<Report>) -> anyhow::Result<Report> {
    let _ = reports;
    anyhow::bail!("not yet")
}

/// Reads a report that [`write`] wrote.
pub fn read(path: &Path) -> anyhow::Result<Report> {
    let _ = path;
    anyhow::bail!("not yet")
}

/// Writes a report as JSON.
pub fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let _ = (path, report);
    anyhow::bail!("not yet")
}
