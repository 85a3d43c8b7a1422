//! Frames from the server as the client reads them: one parse, borrowed.
//!
//! Written from the protocol's page and not from the gateway's encoder, which it is to check.

use std::borrow::Cow;

use roomcast_protocol::{Mode, Recovery, Term};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::audit::Place;

/// Every field of every frame that a load test looks at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(rename = "ref", borrow, default)]
    pub(super) reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) room: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) term: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) seq: Option<u64>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) duplicate: bool,
    #[serde(borrow, default)]
    recovery: Option<Cow<'a, str>>,
    #[serde(default)]
    rollback: Option<Rollback>,
    #[serde(borrow, default)]
    mode: Option<Cow<'a, str>>,
    /// Each to be parsed on its own: what is wrong in one is no matter of the others, and fields are many times the size
    /// of what may stand for a message.
    #[serde(borrow, default)]
    pub(super) messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) retryable: bool,
    #[serde(borrow, default)]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) after_ms: u64,
    #[serde(borrow, default)]
    pub(super) node_id: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) ping_interval_ms: u64,
    #[serde(default)]
    pub(super) limits: Option<Limits>,
}

#[derive(Deserialize)]
struct Rollback {
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limits {
    #[serde(default)]
    pub(super) message_bytes: usize,
    #[serde(default)]
    pub(super) publish_rate: u32,
}

impl Fields<'_> {
    /// Where in a durable room's order this stands; none without term and seq, or with a term that is none.
    pub(super) fn place(&self) -> Option<Place> {
        Some(Place { term: self.term()?, seq: self.seq? })
    }

    pub(super) fn term(&self) -> Option<Term> {
        Term::new(self.term.as_deref()?).ok()
    }

    /// The `ref` as the number of a publish.
    pub(super) fn number(&self) -> Option<u32> {
        self.reference?.get().parse().ok()
    }

    /// Up to where what the client had in its term still stands.
    pub(super) fn rollback(&self) -> Option<u64> {
        self.rollback.as_ref().map(|rollback| rollback.seq)
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        match self.mode.as_deref()? {
            "durable" => Some(Mode::Durable),
            "ephemeral" => Some(Mode::Ephemeral),
            _ => None,
        }
    }

    /// The word for how a join relates to `since`, or for why a reset was sent.
    pub(super) fn recovery_word(&self) -> &str {
        self.recovery.as_deref().or(self.reason.as_deref()).unwrap_or_default()
    }

    pub(super) fn recovery(&self) -> Option<Recovery> {
        match self.recovery_word() {
            "fresh" => Some(Recovery::Fresh),
            "resumed" => Some(Recovery::Resumed),
            "gap" => Some(Recovery::Gap),
            "diverged" => Some(Recovery::Diverged),
            "unknown_term" => Some(Recovery::UnknownTerm),
            _ => None,
        }
    }
}
