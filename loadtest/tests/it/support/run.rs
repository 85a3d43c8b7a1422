//! Runs of the load tester: arguments in, exit code, report and words out.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use hdrhistogram::Histogram;
use roomcast_loadtest::{
    record::{Count, Latency, histogram},
    report::{Finding, HappeningKind, Report},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Gateway, within};

/// A run to be made.
pub struct Loadtest {
    args: Vec<String>,
    dir: Arc<TempDir>,
}

/// A run under way; killed when dropped.
pub struct Running {
    child: Child,
    dir: Arc<TempDir>,
}

/// What came of a run.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What `--json` wrote.
    pub report: Option<Report>,
    /// Holds what the run wrote.
    dir: Arc<TempDir>,
}

impl Loadtest {
    /// `loadtest <args>` and nothing more.
    pub fn plain(args: &[&str]) -> Self {
        Self { args: args.iter().map(ToString::to_string).collect(), dir: Arc::new(tempfile::tempdir().unwrap()) }
    }

    /// A scenario against `nodes`, with a report. A generator that is slow, as any program is beside other tests, is no
    /// reason to fail.
    pub fn against(nodes: &[Gateway], scenario: &str, args: &[&str]) -> Self {
        Self::at(nodes.iter().map(Gateway::target), scenario, args)
    }

    /// The same against these URLs.
    pub fn at(targets: impl Iterator<Item = String>, scenario: &str, args: &[&str]) -> Self {
        let run = Self::plain(&[scenario]).with(&["--json", "report.json", "--max-lag", "1m"]).with(args);
        targets.fold(run, |run, target| run.with(&["--target", &target]))
    }

    /// The same with more arguments.
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Starts it in a directory of its own.
    pub fn start(self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(&self.args).current_dir(self.dir.path()).kill_on_drop(true).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap(), dir: self.dir }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Outcome {
        self.start().ended().await
    }
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Outcome {
        let Self { child, dir } = self;
        let Output { status, stdout, stderr } =
            within("the load tester to end", child.wait_with_output()).await.unwrap();
        let words = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let report = std::fs::read(dir.path().join("report.json")).ok();
        let report = report.map(|json| serde_json::from_slice(&json).expect("a report"));
        let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"));
        Outcome { code, stdout: words(stdout), stderr: words(stderr), report, dir }
    }
}

impl Outcome {
    /// Fails with all that was said unless the exit code is `code`.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout ---\n{}--- stderr ---\n{}---", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// A file that the run wrote.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn report(&self) -> &Report {
        self.report.as_ref().unwrap_or_else(|| panic!("no report\n{}{}", self.stdout, self.stderr))
    }

    pub fn count(&self, what: Count) -> u64 {
        self.report().counts.get(&what).copied().unwrap_or(0)
    }

    pub fn found(&self, what: Finding) -> u64 {
        self.report().audit.findings.get(&what).copied().unwrap_or(0)
    }

    /// The names of all findings there were.
    pub fn findings(&self) -> Vec<&'static str> {
        Finding::ALL.into_iter().filter(|what| self.found(*what) > 0).map(Finding::name).collect()
    }

    /// Fails unless the audit was at work and found nothing.
    pub fn is_clean(&self) -> &Self {
        let audit = &self.report().audit;
        assert!(audit.checked > 0, "nothing was checked\n{}", self.stdout);
        assert_eq!(self.findings(), [""; 0], "{:#?}", audit.examples);
        self
    }

    pub fn latency(&self, what: Latency) -> Histogram<u64> {
        self.report().latencies.get(&what).map_or_else(histogram, |text| text.decode().expect("a histogram"))
    }

    pub fn happened(&self, kind: HappeningKind) -> usize {
        self.report().events.iter().filter(|event| event.kind == kind).count()
    }
}

/// `path` as an argument.
pub fn argument(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
