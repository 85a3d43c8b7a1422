//! Options that the environment may give, for containers. What stands on the command line wins.

use std::ffi::{OsStr, OsString};

use crate::scenario;

/// Options that say the same thing: if one stands on the command line, variables of the others do not count.
const TARGETS: &[&str] = &["--target", "--self"];
const TOKENS: &[&str] = &["--token", "--token-file", "--jwt-secret", "--jwt-secret-file"];

/// Variable, option, and what replaces it. The first of an option's variables wins.
const VARIABLES: &[(&str, &str, &[&str])] = &[
    ("LOADTEST_TARGET", "--target", TARGETS),
    ("LOADTEST_TOKEN", "--token", TOKENS),
    ("LOADTEST_JWT_SECRET", "--jwt-secret", TOKENS),
    ("LOADTEST_PROCESSES", "--processes", &["--processes"]),
    ("LOADTEST_PROCESS", "--process", &["--process"]),
    ("JOB_COMPLETION_INDEX", "--process", &["--process"]),
    ("LOADTEST_RUN", "--run", &["--run"]),
    ("LOADTEST_START_AT", "--start-at", &["--start-at"]),
];

/// An option that a variable gives.
pub(super) struct Given {
    pub variable: &'static str,
    pub option: &'static str,
    pub value: OsString,
}

impl Given {
    /// As one word, so that a value may begin with `-`.
    pub fn as_argument(&self) -> OsString {
        let mut word = OsString::from(self.option);
        word.push("=");
        word.push(&self.value);
        word
    }
}

/// What the environment adds to these arguments; nothing to a subcommand that makes no load. Empty variables count as
/// unset.
pub(super) fn given(arguments: &[OsString], variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<Given> {
    let is_run = arguments.get(1).is_some_and(|name| scenario::ALL.iter().any(|scenario| name == scenario.name));
    let mut found: Vec<Given> = Vec::new();
    for (name, option, replaced_by) in VARIABLES {
        let skipped = !is_run
            || arguments.iter().any(|word| replaced_by.iter().any(|other| is_option(word, other)))
            || found.iter().any(|given| given.option == *option);
        if let Some(value) = variable(name).filter(|value| !skipped && !value.is_empty()) {
            found.push(Given { variable: name, option, value });
        }
    }
    found
}

/// The options of a scenario, each saying which variables give it.
pub(super) fn explain(mut command: clap::Command) -> clap::Command {
    let mut options: Vec<&str> = VARIABLES.iter().map(|(_, option, _)| *option).collect();
    options.dedup();
    for option in options {
        let names: Vec<&str> = VARIABLES.iter().filter(|(_, of, _)| *of == option).map(|(name, ..)| *name).collect();
        command = command.mut_arg(option.trim_start_matches('-').replace('-', "_"), |arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [env: {}]", names.join(", ")))
        });
    }
    command
}

/// Whether the word is `--option` or `--option=value`.
pub(super) fn is_option(word: &OsStr, option: &str) -> bool {
    let rest = word.as_encoded_bytes().strip_prefix(option.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'=')
}
