//! What is wrong with the settings, in words that lead to the line to change. Made by the loader; shown by main.

use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};

use super::parse;
use super::source::{Layer, Setting};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable of the environment.
    Environment,
    /// A line of this `.env`.
    DotEnv(PathBuf),
    /// A key of this TOML file.
    File(PathBuf),
    /// Nobody gave one.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment => f.write_str("environment"),
            Self::DotEnv(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} ({env}) is {value:?}, from {origin}: {expected}")]
pub struct WrongValue {
    /// The setting as a flag.
    pub flag: String,
    /// The setting as a variable.
    pub env: String,
    /// The value, without passwords.
    pub value: String,
    /// Who gave it.
    pub origin: Origin,
    /// "expected ..."
    pub expected: String,
}

/// Why the node does not start. main shows it on stderr and exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its bounds, or against another setting.
    #[error("{0}")]
    Value(Box<WrongValue>),
    /// A name that is no setting.
    #[error("{name} in {origin} is no setting{}", .similar.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The name as it was written.
        name: String,
        /// Where it stands.
        origin: Origin,
        /// The setting with the most similar name.
        similar: Option<String>,
    },
    /// A flag that does not exist, a value that is missing: what clap says about it.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be read, or is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An `[[issuers]]` entry that is wrong.
    #[error("{path}: [[issuers]] number {index}: {problem}")]
    Issuers {
        /// The file.
        path: PathBuf,
        /// Its place among the entries, from 1.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A `[[rooms]]` entry that is wrong.
    #[error("{path}: [[rooms]] number {index}: {problem}")]
    Rooms {
        /// The file.
        path: PathBuf,
        /// Its place among the entries, from 1.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A `[[webhooks]]` entry that is wrong.
    #[error("{path}: [[webhooks]] number {index}: {problem}")]
    Webhooks {
        /// The file.
        path: PathBuf,
        /// Its place among the entries, from 1.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Says in our words what clap found wrong with a value, and leaves the rest to clap.
pub(super) fn explain(command: &clap::Command, layer: &Layer, error: &clap::Error) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    // clap names it as in the usage: `--listen <LISTEN>`, `--echo[=<ECHO>]`.
    let flag = argument.and_then(|argument| argument.split([' ', '[', '=']).next());
    let setting = Setting::all(command).find(|setting| Some(setting.flag().as_str()) == flag);
    let (Some(setting), Some(value)) = (setting, value) else {
        let text = error.render().to_string();
        // A URL in the wrong place is shown, its password is not.
        let text = value.map_or_else(|| text.clone(), |value| text.replace(value, &parse::redact(value)));
        return ConfigError::Usage(text.trim_start_matches("error: ").trim_end().to_owned());
    };
    ConfigError::Value(Box::new(WrongValue {
        flag: setting.flag(),
        env: setting.env(),
        value: setting.shown(value),
        origin: layer.get(setting.id()).map_or(Origin::Flag, |given| given.origin.clone()),
        expected: expected(error),
    }))
}

/// What a parser of ours, or clap's own, says it wants.
pub(super) fn expected(error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) {
        return format!("expected {}", valid.join(" or "));
    }
    std::error::Error::source(error).map_or_else(|| "expected a value".to_owned(), ToString::to_string)
}

/// The candidate with the fewest edits from `name`, if it is close enough to be meant.
pub(super) fn most_similar(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let scored = candidates.map(|candidate| (edits(name, &candidate), candidate));
    scored.min().filter(|(edits, _)| *edits <= 3).map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
