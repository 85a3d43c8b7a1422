//! Carries out what the command line asked for. Called by main; returns the exit code.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::audit::check;
use crate::cli::{self, Command, Output, Refusal};
use crate::embedded::Embedded;
use crate::engine::{self, Watcher};
use crate::live::LiveDisplay;
use crate::report::words::printable;
use crate::report::{self, Happening, Live, Report, Threshold};

/// Does it, and gives the exit code.
///
/// # Errors
/// What kept it from being done at all.
pub fn run(command: Command) -> Result<u8> {
    match command {
        Command::Run(run) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load(*run))
        }
        Command::Merge(merge) => join(&merge),
        Command::Check(check) => look(&check),
    }
}

/// The exit code of what [`run`] could not do: 3 when the cluster is out of reach, else 2.
pub fn exit_code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Refusal>().map_or(2, Refusal::exit_code)
}

async fn load(run: cli::Run) -> Result<u8> {
    let cli::Run { mut plan, embedded, output } = run;
    cli::make_room(&plan, embedded)?;
    let embedded = embedded.then(|| Embedded::start(&mut plan)).transpose()?;
    let (interrupt, interrupts) = unbounded_channel();
    tokio::spawn(pass_on_signals(interrupt));
    let clients = engine::own_clients(&plan);
    let report = if output.quiet {
        engine::run(plan, &mut LiveDisplay::lines(Box::new(io::sink()), clients), interrupts).await?
    } else {
        let mut display = LiveDisplay::new(io::stderr().is_terminal(), clients);
        let report = engine::run(plan, &mut display, interrupts).await;
        display.finish();
        report?
    };
    let code = publish(&report, &output)?;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    Ok(code)
}

/// The display knows no engine, and the engine no display.
impl Watcher for LiveDisplay<'_> {
    fn phase(&mut self, name: &str, expected: Option<Duration>) {
        LiveDisplay::phase(self, name, expected);
    }

    fn update(&mut self, live: &Live) {
        LiveDisplay::update(self, live);
    }

    fn note(&mut self, event: &Happening) {
        self.event(event);
    }
}

/// Ctrl-C and SIGTERM, which is how Kubernetes ends a Job, both ask for the report.
async fn pass_on_signals(interrupt: UnboundedSender<()>) -> io::Result<()> {
    let (mut interrupts, mut terminations) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        if interrupt.send(()).is_err() {
            return Ok(());
        }
    }
}

/// Says the report in words, and writes it wherever it is wanted. All of that is tried, whatever fails: the load is
/// over, and nobody can look again.
fn publish(report: &Report, output: &Output) -> Result<u8> {
    let told = tell(report, output.quiet);
    let json = output.json.as_deref().map_or(Ok(()), |path| report::write(path, report).context("--json"));
    let html = output.html.as_deref().map_or(Ok(()), |path| write_page(path, report));
    let failed = [told, json, html].into_iter().filter_map(Result::err).map(|error| format!("{error:#}"));
    let failed: Vec<String> = failed.collect();
    anyhow::ensure!(failed.is_empty(), failed.join("; "));
    Ok(report.verdict.exit_code())
}

/// The summary, to standard output; to the quiet only why the run did not pass.
fn tell(report: &Report, quiet: bool) -> Result<()> {
    if quiet {
        for reason in &report.because {
            writeln!(io::stderr(), "loadtest: {}", printable(reason)).context("standard error")?;
        }
    } else {
        report::summary(report, &mut io::stdout().lock()).context("standard output")?;
    }
    Ok(())
}

fn write_page(path: &Path, report: &Report) -> Result<()> {
    fs::write(path, report::render(report)).with_context(|| format!("--html {}", path.display()))
}

fn join(merge: &cli::Merge) -> Result<u8> {
    let read = |path: &std::path::PathBuf| report::read(path).with_context(|| path.display().to_string());
    let reports = merge.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut whole = if merge.partial { report::merge_partial(reports) } else { report::merge(reports) }?;
    if !merge.thresholds.is_empty() {
        let users: Vec<Threshold> = merge.thresholds.clone();
        whole.conclude(&users);
    }
    publish(&whole, &merge.output)
}

fn look(logs: &cli::Check) -> Result<u8> {
    let found = check::check(&logs.logs)?;
    let mut out = io::stdout().lock();
    report::audit_summary(&found, &mut out)?;
    let clean = found.findings.values().all(|count| *count == 0);
    writeln!(out, "\n{}", if clean { "passed" } else { "failed" })?;
    Ok(u8::from(!clean))
}
