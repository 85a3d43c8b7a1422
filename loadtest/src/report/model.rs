//! The report as it is written (`--json`), merged and drawn. Plain data.
//!
//! Merging adds counters and histograms; nothing is averaged, so that a report of N processes equals that of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::audit::{AuditReport, Example, Finding, PublisherTally, RoomTally};
use crate::record::{Count, Latency};

/// Raised when a report cannot be read by an older reader.
pub const VERSION: u32 = 1;

/// One run, of one process or merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub version: u32,
    pub scope: Scope,
    pub run: RunInfo,
    /// The machines that made the load; one entry per process.
    pub generators: Vec<Generator>,
    /// Totals.
    pub counts: BTreeMap<Count, u64>,
    /// `error` codes of publishes, and how often.
    pub publish_errors: BTreeMap<String, u64>,
    /// Why connections ended against our will: close code and reason, or `lost`.
    pub closes: BTreeMap<String, u64>,
    /// Why attempts to connect failed, in a few words.
    pub connect_failures: BTreeMap<String, u64>,
    /// Whole run, microseconds; absent when empty.
    pub latencies: BTreeMap<Latency, Compressed>,
    pub series: Series,
    /// Oldest first.
    pub events: Vec<Happening>,
    /// What was scraped, by node.
    pub servers: Vec<Server>,
    pub audit: AuditReport,
    /// What the engine ran into that makes the figures meaningless, in words.
    pub problems: Vec<String>,
    pub thresholds: Vec<ThresholdResult>,
    pub verdict: Verdict,
    /// Why the verdict is not `passed`, most telling first, in words.
    pub because: Vec<String>,
}

/// What a report stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// What one process of the run saw.
    Process,
    /// Merged, and all processes must be in it.
    Whole,
    /// Merged, and processes may be missing: somebody wanted it so.
    Partial,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunInfo {
    pub id: String,
    pub scenario: String,
    /// Of each process.
    pub commands: Vec<String>,
    pub targets: Vec<String>,
    /// Connecting began, ms since the Unix epoch.
    pub started_ms: u64,
    /// Publishing (or holding) began and ended, ms since the Unix epoch; 0 if it never came to that.
    pub load_started_ms: u64,
    pub load_ended_ms: u64,
    pub finished_ms: u64,
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub clients: u32,
    pub rate: f64,
    /// `durable` or `ephemeral`.
    pub mode: String,
    /// Processes the run was made for; `generators` has those whose reports are in here.
    pub processes: u32,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
    /// The 99th percentile of the generator's own lag must not be above this, ms.
    pub max_lag_ms: f64,
}

/// A process that made load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    pub index: u32,
    pub host: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub version: String,
    /// User and system time of this process, seconds.
    pub cpu_seconds: f64,
    /// Of it while the load lasted.
    pub load_cpu_seconds: f64,
    pub peak_resident_bytes: u64,
    /// Resident set before the first connection, and with all of them idle; bytes.
    pub resident_before_bytes: u64,
    pub resident_connected_bytes: u64,
    /// Connections when that was read.
    pub connections: u64,
}

/// An HDR histogram of microseconds: V2, deflated, base64. Any HDR tool reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressed(pub String);

/// The run over time. Rows are aligned to whole multiples of `interval_s` since the Unix epoch, so that series of
/// several processes add row by row; the interval doubles when there are too many rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// 1, 2, 4, ... seconds.
    pub interval_s: u64,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Beginning, seconds since the Unix epoch.
    pub at_s: u64,
    /// Open connections at its end, over all processes.
    pub connections: u64,
    /// What happened in it; zeros are left out.
    pub counts: BTreeMap<Count, u64>,
    /// Empty ones are left out.
    pub latencies: BTreeMap<Latency, Compressed>,
}

/// Something worth a mark on the time axis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// ms since the Unix epoch.
    pub at_ms: u64,
    pub kind: HappeningKind,
    /// A sentence for people.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HappeningKind {
    /// A phase of the run: connecting, load, settling.
    Phase,
    /// Many connections to one node ended within a second.
    NodeGone,
    /// A node asked its clients to reconnect.
    Drain,
    /// Many clients came back.
    Reconnected,
    /// A storm that we made.
    Storm,
    /// Resets and unsuccessful resumes.
    Break,
    /// The first finding of a kind.
    Finding,
    /// The generator fell behind.
    Lag,
    /// A scrape failed, or works again.
    Scrape,
}

/// One node's own words, once per interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The scraped address.
    pub name: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub at_s: u64,
    /// Cores in use since the sample before.
    pub cpu: f64,
    pub resident_bytes: u64,
    pub connections: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThresholdResult {
    /// As written.
    pub text: String,
    /// What was measured, with its unit; none when the run did not measure it, which fails.
    pub measured: Option<String>,
    pub passed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// A threshold failed; the audit's are thresholds.
    Failed,
    /// The cluster was out of reach, or the generator too slow: the figures say nothing about the cluster.
    Invalid,
}
