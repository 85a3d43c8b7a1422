//! Life, death and exit code of a load test. Everything else is in the library.
//!
//! Exit codes: 0 passed, 1 a threshold failed, 2 bad usage, 3 the cluster was out of reach or the generator too slow.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::SystemTime;

use roomcast_loadtest::{app, cli};

// Idle connections are many small allocations; jemalloc keeps them dense.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let parsed = cli::parse(std::env::args_os(), &|name| std::env::var_os(name), SystemTime::now());
    let result = match parsed {
        Ok(command) => app::run(command),
        Err(refusal) => return refuse(&refusal),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loadtest: {error:#}");
            ExitCode::from(app::exit_code_of(&error))
        }
    }
}

/// Help is an answer and goes to standard output.
fn refuse(refusal: &cli::Refusal) -> ExitCode {
    let code = refusal.exit_code();
    let _ = match (refusal, code) {
        (cli::Refusal::Clap(help), 0) => write!(std::io::stdout(), "{help}"),
        (cli::Refusal::Clap(error), _) => write!(std::io::stderr(), "{error}"),
        (words, _) => writeln!(std::io::stderr(), "loadtest: {words}"),
    };
    ExitCode::from(code)
}
