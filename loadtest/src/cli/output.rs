//! Options of what becomes of the result.

use std::path::{Path, PathBuf};

use super::refusal::{Refusal, usage};
use super::values::threshold;
use crate::report::Threshold;

/// Where the report goes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Results")]
pub struct Output {
    /// Write the report as JSON, for `loadtest merge` and other programs
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Say nothing but errors: no progress, no summary
    #[arg(long, short)]
    pub quiet: bool,
}

impl Output {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        writable("--json", self.json.as_deref())?;
        writable("--html", self.html.as_deref())
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Results")]
pub(super) struct RunOutput {
    /// Write what every client saw, for `loadtest check`. Grows with every message
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// A condition that the run must meet, such as 'delivery.p99<50ms' or 'lost==0'; may be repeated
    #[arg(long = "assert", value_name = "CONDITION", value_parser = threshold)]
    pub thresholds: Vec<Threshold>,
}

/// A run of hours must not end with a directory that does not exist.
pub(super) fn writable(option: &str, path: Option<&Path>) -> Result<(), Refusal> {
    let Some(path) = path else { return Ok(()) };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(usage(format!("{option} {}: this is a directory", path.display())));
    }
    if !directory.is_dir() {
        return Err(usage(format!("{option} {}: there is no directory {}", path.display(), directory.display())));
    }
    Ok(())
}
