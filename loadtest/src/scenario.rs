//! The kinds of runs: their defaults and what `--help` teaches about them. Data only, for the command line; the engine
//! knows plans, not scenarios.

pub mod chat;
pub mod churn;
pub mod fanout;
pub mod idle;
pub mod soak;
pub mod storm;

/// One subcommand that makes load.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// One line for the list of subcommands.
    pub about: &'static str,
    /// Paragraphs: what it does by default, an example, what to look at.
    pub teaches: &'static [&'static str],
    /// Options, by their ids, and their defaults in this scenario.
    pub defaults: &'static [(&'static str, &'static str)],
}

/// In the order of `--help`.
pub const ALL: [&Scenario; 6] =
    [&fanout::SCENARIO, &chat::SCENARIO, &idle::SCENARIO, &storm::SCENARIO, &churn::SCENARIO, &soak::SCENARIO];
