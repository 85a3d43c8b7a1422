//! Faults that a node commits on purpose, so that anyone can see an audit find them. Read by the loader; committed by
//! the hub and by the Redis broker. Not in `--help`: docs/configuration.md says what it is for.

use std::fmt;
use std::num::NonZeroU64;

/// What is expected of one fault, for error messages.
const EXPECTED: &str = "expected faults such as drop=1000: keep-echo, no-repair, no-dedupe, no-terms, drop=N, repeat=N, \
                        swap=N, corrupt=N, misroute=N or lose-bus=N with N from 1 to 1000000";
/// The largest N: beyond, nobody would ever see the fault.
const MOST: u64 = 1_000_000;

/// One broken promise. Those with a number hit every so-many-th message of a room at its home on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This node's own ephemeral messages are delivered again when Redis brings them back.
    KeepEcho,
    /// What the bus lost is skipped without a word instead of being read from the stream.
    NoRepair,
    /// Durable messages that were seen before are delivered again, and ids of publishes are not checked.
    NoDedupe,
    /// Every durable message is of one term, whatever became of Redis and its data in between.
    NoTerms,
    /// Not delivered to the members.
    Drop(NonZeroU64),
    /// Delivered twice.
    Repeat(NonZeroU64),
    /// Delivered behind the message that follows.
    Swap(NonZeroU64),
    /// Delivered with one character of its data changed.
    Corrupt(NonZeroU64),
    /// Delivered to the members of another room, too.
    Misroute(NonZeroU64),
    /// What the bus brings for a room is lost, as a whole envelope.
    LoseBus(NonZeroU64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepEcho => f.write_str("keep-echo"),
            Self::NoRepair => f.write_str("no-repair"),
            Self::NoDedupe => f.write_str("no-dedupe"),
            Self::NoTerms => f.write_str("no-terms"),
            Self::Drop(every) => write!(f, "drop={every}"),
            Self::Repeat(every) => write!(f, "repeat={every}"),
            Self::Swap(every) => write!(f, "swap={every}"),
            Self::Corrupt(every) => write!(f, "corrupt={every}"),
            Self::Misroute(every) => write!(f, "misroute={every}"),
            Self::LoseBus(every) => write!(f, "lose-bus={every}"),
        }
    }
}

pub(super) fn fault(text: &str) -> Result<Fault, String> {
    let (name, every) = match text.split_once('=') {
        Some((name, number)) => (name, number.parse::<NonZeroU64>().ok().filter(|number| number.get() <= MOST)),
        None => (text, None),
    };
    let found = match (name, every) {
        ("drop", Some(every)) => Some(Fault::Drop(every)),
        ("repeat", Some(every)) => Some(Fault::Repeat(every)),
        ("swap", Some(every)) => Some(Fault::Swap(every)),
        ("corrupt", Some(every)) => Some(Fault::Corrupt(every)),
        ("misroute", Some(every)) => Some(Fault::Misroute(every)),
        ("lose-bus", Some(every)) => Some(Fault::LoseBus(every)),
        _ => [Fault::KeepEcho, Fault::NoRepair, Fault::NoDedupe, Fault::NoTerms]
            .into_iter()
            .find(|fault| fault.to_string() == text),
    };
    found.ok_or_else(|| EXPECTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_back_as_they_are_shown() {
        for text in [
            "keep-echo",
            "no-repair",
            "no-dedupe",
            "no-terms",
            "drop=3",
            "repeat=1",
            "swap=1000000",
            "corrupt=7",
            "misroute=2",
            "lose-bus=1",
        ] {
            assert_eq!(fault(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["", "drop", "drop=", "drop=0", "drop=-1", "drop=1000001", "keep-echo=1", "Drop=3", "drop=3=3", "x"]
        {
            assert_eq!(fault(text).expect_err(text), EXPECTED);
        }
    }
}
