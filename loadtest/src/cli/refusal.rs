//! Why there is nothing to carry out. Made by the command line, shown by main.

use crate::plan::TargetError;

/// What ends the program before anything runs.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What clap says: what is wrong, or the help or version that was asked for. Print it with `print()` or `render()`.
    #[error("{}", .0.render())]
    Clap(#[from] clap::Error),
    /// What is wrong with the options, in a sentence or a few.
    #[error("{0}")]
    Usage(String),
    /// The cluster's name is not known.
    #[error("{0}")]
    Unreachable(String),
}

impl Refusal {
    /// 0 for help, 2 for bad usage, 3 for a cluster out of reach.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Clap(error) if !error.use_stderr() => 0,
            Self::Clap(_) | Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Form { .. } => Self::Usage(error.to_string()),
            TargetError::Unresolved { .. } => Self::Unreachable(error.to_string()),
        }
    }
}

/// For `?` on words about one option.
pub(super) fn usage(words: impl Into<String>) -> Refusal {
    Refusal::Usage(words.into())
}
