//! The command line: from words to a checked [`Plan`], or to what is wrong with them. Called by the app; carries nothing
//! out.

mod build;
mod check;
mod command;
mod environment;
mod limits;
mod load;
mod output;
mod process;
mod refusal;
mod target;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::plan::Plan;
use crate::report::Threshold;
use crate::scenario;

pub use limits::make_room;
pub use output::Output;
pub use refusal::Refusal;

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    Run(Box<Run>),
    Merge(Merge),
    Check(Check),
}

/// A run of this process.
#[derive(Debug)]
pub struct Run {
    /// Without targets if `embedded`.
    pub plan: Plan,
    /// Start a gateway in this process and load that.
    pub embedded: bool,
    pub output: Output,
}

/// Join the reports of one run's processes.
#[derive(Debug, clap::Args)]
pub struct Merge {
    /// Reports that the processes of one run wrote with --json
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Join them even if reports of some processes are missing
    #[arg(long)]
    pub partial: bool,
    #[command(flatten)]
    pub output: Output,
    /// A condition on the joined report; may be repeated. As for a run
    #[arg(long = "assert", value_name = "CONDITION", value_parser = values::threshold)]
    pub thresholds: Vec<Threshold>,
}

/// Check logs that runs wrote with `--log`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Logs of all processes of one run
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
}

/// Makes load on a Roomcast cluster, measures it, and audits every message.
#[derive(Parser)]
#[command(name = "loadtest", version, max_term_width = 100, after_help = EXITS)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Words,
}

const EXITS: &str = "\
First look: loadtest fanout --self

Exit codes:
  0  passed
  1  a threshold failed; the audit's findings are thresholds
  2  bad usage
  3  the cluster was out of reach or the load generator too slow: the figures say nothing";
/// Teaches before it lists.
const TEMPLATE: &str = "{about}

{before-help}{usage-heading} {usage}

{all-args}";

#[derive(Subcommand)]
enum Words {
    Fanout(Talk),
    Chat(Talk),
    Idle(Idle),
    Storm(Storm),
    Churn(Churn),
    Soak(Soak),
    /// Join the reports of one run's processes into one, losslessly
    ///
    /// Counters and histograms are added, nothing is averaged: the report of N processes equals that of one. The audit is
    /// completed: messages are compared across processes, too. Exits with 1 if a condition fails.
    ///
    /// Example: loadtest merge a.json b.json --html report.html --assert 'delivery.p99<50ms'
    Merge(Merge),
    /// Check logs that runs wrote with --log: lost, duplicated, reordered and so on
    ///
    /// Reads what every client saw and says what the cluster owed them; the same checks as in a run. Give the logs of all
    /// processes of the run. Prints the findings; exits with 0 if there are none, with 1 if there are.
    ///
    /// Example: loadtest check a.log b.log
    Check(Check),
}

#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    target: target::TargetOptions,
    #[command(flatten)]
    rooms: load::RoomOptions,
    #[command(flatten)]
    process: process::ProcessOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    run_output: output::RunOutput,
}

#[derive(clap::Args)]
struct Talk {
    #[command(flatten)]
    load: load::LoadOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Idle {
    #[command(flatten)]
    load: load::IdleOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Storm {
    #[command(flatten)]
    load: load::LoadOptions,
    #[command(flatten)]
    waves: load::StormOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Churn {
    #[command(flatten)]
    load: load::LoadOptions,
    #[command(flatten)]
    leaving: load::ChurnOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Soak {
    #[command(flatten)]
    load: load::LoadOptions,
    #[command(flatten)]
    waves: load::StormOptions,
    #[command(flatten)]
    leaving: load::ChurnOptions,
    #[command(flatten)]
    common: Common,
}

/// Reads the command line, the program's name first; `variable` looks up the environment. Resolves the targets' names,
/// which may take as long as the system needs.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    now: SystemTime,
) -> Result<Command, Refusal> {
    let arguments: Vec<OsString> = arguments.collect();
    let given = environment::given(&arguments, variable);
    let mut full = arguments.clone();
    full.splice(full.len().min(2)..full.len().min(2), given.iter().map(environment::Given::as_argument));
    let matches = definition().try_get_matches_from(full)?;
    let words = Arguments::from_arg_matches(&matches)?;
    let command = command::shown(&arguments, &given);
    let parts = match words.subcommand {
        Words::Fanout(talk) => build::Parts::new(&scenario::fanout::SCENARIO, talk.load.crowd(), talk.common),
        Words::Chat(talk) => build::Parts::new(&scenario::chat::SCENARIO, talk.load.crowd(), talk.common),
        Words::Idle(idle) => build::Parts::new(&scenario::idle::SCENARIO, idle.load.crowd()?, idle.common),
        Words::Storm(words) => build::Parts::new(&scenario::storm::SCENARIO, words.load.crowd(), words.common)
            .with(Some(words.waves), None),
        Words::Churn(words) => build::Parts::new(&scenario::churn::SCENARIO, words.load.crowd(), words.common)
            .with(None, Some(words.leaving)),
        Words::Soak(words) => build::Parts::new(&scenario::soak::SCENARIO, words.load.crowd(), words.common)
            .with(Some(words.waves), Some(words.leaving)),
        Words::Merge(merge) => {
            merge.output.check()?;
            return Ok(Command::Merge(merge));
        }
        Words::Check(check) => return Ok(Command::Check(check)),
    };
    Ok(Command::Run(Box::new(parts.into_run(command, now)?)))
}

/// The options with each scenario's texts and defaults.
fn definition() -> clap::Command {
    let mut command = Arguments::command();
    for scenario in scenario::ALL {
        command = command.mut_subcommand(scenario.name, |mut sub| {
            sub = sub.about(scenario.about).before_help(scenario.teaches.join("\n\n")).help_template(TEMPLATE);
            for (option, default) in scenario.defaults {
                sub = sub.mut_arg(option, |arg| arg.required(false).default_value(*default));
            }
            environment::explain(sub)
        });
    }
    command
}
