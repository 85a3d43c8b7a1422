//! Life, death and exit code of a node. Everything else is in the library.
//!
//! Exit codes: 0 after a drain, 1 when the node failed, 2 for bad usage.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use roomcast_gateway::app;
use roomcast_gateway::config::{Action, LogFormat, Settings};
use roomcast_gateway::lifecycle::Stage;
use roomcast_gateway::telemetry::logs;
use tokio::signal::unix::{SignalKind, signal};

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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> Result<()> {
    // Signals and the admin listener; the workers have runtimes of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = settings.redis.as_ref().map_or("memory", |_| "redis");
        let (node_id, workers) = (settings.node_id.clone(), settings.workers);
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let node = app::start(settings)?;
        tracing::info!(
            addr = %node.address, admin = %node.admin_address, page = format!("http://localhost:{}/", node.address.port()),
            node = %node_id, workers, broker, "listening"
        );
        let lifecycle = node.lifecycle().clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("draining");
            lifecycle.advance(Stage::Draining);
        });
        let outcome = node.finished().await;
        signals.abort();
        tracing::info!("stopped");
        outcome
    })
}
