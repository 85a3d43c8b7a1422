//! Life, death and exit code of a node. Everything else is in the library.
//!
//! Exit codes: 0 after a drain, 1 when the node failed or did not end in time, 2 for bad usage, and 128 + its number
//! (130, 143) when a second signal cut the drain short. Of `probe` and `check`: 0 when all is well, 1 when it is not.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use roomcast_gateway::check;
use roomcast_gateway::config::{Action, LogFormat, Settings, TokenArgs};
use roomcast_gateway::lifecycle::Stage;
use roomcast_gateway::server::probe::{self, ProbeError};
use roomcast_gateway::telemetry::logs;
use roomcast_gateway::{access, app};
use tokio::signal::unix::{Signal, SignalKind, signal};

// Idle connections are many small allocations; jemalloc keeps them dense.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let directory = std::env::current_dir().unwrap_or_default();
    let settings = match Settings::load(std::env::args_os(), std::env::vars_os(), &directory) {
        Ok(Action::Run(settings)) => *settings,
        Ok(Action::Print(text)) => {
            return ExitCode::from(u8::from(std::io::stdout().write_all(text.as_bytes()).is_err()));
        }
        Ok(Action::Probe { settings, live }) => return probe(&settings, live),
        Ok(Action::Token { settings, says }) => return token(&settings, &says),
        Ok(Action::Check(settings)) => return check(&settings),
        Ok(Action::Pause(duration)) => {
            std::thread::sleep(duration);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gateway: {error}");
            return ExitCode::from(2);
        }
    };
    let format = match settings.log_format {
        LogFormat::Pretty => logs::Format::Pretty,
        LogFormat::Json => logs::Format::Json,
    };
    if let Err(error) = logs::init(format, &settings.log) {
        let _ = writeln!(std::io::stderr(), "gateway: {error}");
        return ExitCode::from(2);
    }
    match run(settings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a token for trying things out.
fn token(settings: &Settings, says: &TokenArgs) -> ExitCode {
    match access::mint(settings, says) {
        Ok(token) => ExitCode::from(u8::from(writeln!(std::io::stdout(), "{token}").is_err())),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gateway: {error}");
            ExitCode::from(2)
        }
    }
}

/// Asks the node that runs with these settings. Health checks keep what is said here.
fn probe(settings: &Settings, live: bool) -> ExitCode {
    match probe::ask(settings.admin_listen, live) {
        Ok(word) => {
            let _ = writeln!(std::io::stdout(), "{word}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gateway: {error}");
            ExitCode::from(if matches!(error, ProbeError::NoPort(_)) { 2 } else { 1 })
        }
    }
}

/// Looks whether a node with these settings would work. What was found goes to stdout, whatever it is.
fn check(settings: &Settings) -> ExitCode {
    match check::check(settings) {
        Ok(report) => {
            let written = write!(std::io::stdout(), "{report}");
            ExitCode::from(u8::from(written.is_err() || !report.is_good()))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the node to its end. Gives the exit code.
fn run(settings: Settings) -> Result<u8> {
    // Signals and the admin listener; the workers have runtimes of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(live(settings));
    // Not dropped: that would wait for the workers, who may have been left behind.
    runtime.shutdown_background();
    code
}

async fn live(settings: Settings) -> Result<u8> {
    let broker = settings.redis.as_ref().map_or("memory", |_| "redis");
    let (node_id, workers) = (settings.node_id.clone(), settings.workers);
    let (delay, longest) = (settings.drain_delay, settings.shutdown_timeout);
    let mut signals = Signals::new()?;
    let node = app::start(settings)?;
    tracing::info!(
        addr = %node.address, admin = %node.admin_address, page = format!("http://localhost:{}/", node.address.port()),
        node = %node_id, workers, broker, "listening"
    );
    let lifecycle = node.lifecycle().clone();
    let orders = async {
        signals.next().await;
        lifecycle.advance(Stage::Leaving);
        // Whoever asks again does not wait for anything, least of all for the delay.
        let drain = async {
            tokio::time::sleep(delay).await;
            lifecycle.advance(Stage::Draining);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            code = signals.next() => code,
            () = drain => 0,
        }
    };
    let overdue = async {
        lifecycle.reached(Stage::Leaving).await;
        tokio::time::sleep(longest).await;
    };
    tokio::select! {
        outcome = node.finished() => {
            tracing::info!("stopped");
            outcome.map(|()| 0)
        }
        code = orders => {
            tracing::warn!("stopped at once, by a second signal: clients are cut off");
            Ok(code)
        }
        () = overdue => anyhow::bail!("stopped before everything was done: --shutdown-timeout has passed"),
    }
}

/// What asks the node to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one. Gives the exit code of a process that it ends, as shells have it.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + 15,
            _ = self.interrupt.recv() => 128 + 2,
        }
    }
}
