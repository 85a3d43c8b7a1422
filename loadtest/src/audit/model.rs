//! What an audit amounts to, as reports carry it. Plain data, that adds up over processes.
//!
//! Filled by the audit, written and drawn by the report; knows neither.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the audit found. What a client sees by itself (lost, duplicated, reordered, a silent break) is counted for each
/// (message, receiving client) pair; what is wrong with the message (corrupted, in a wrong room, stored twice), once per
/// message and process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    pub findings: BTreeMap<Finding, u64>,
    /// The first few, in words.
    pub examples: Vec<Example>,
    /// `recovery` of every join, by its name in the protocol.
    pub recoveries: BTreeMap<String, u64>,
    /// `reset` frames by reason.
    pub resets: BTreeMap<String, u64>,
    /// Messages that clients were told they cannot have: `gap` and the like. Not lost silently.
    pub told_missing: u64,
    /// Ephemeral rooms: messages that passed while a client was away.
    pub missed_away: u64,
    /// Checked deliveries.
    pub checked: u64,
    /// Of them too old to be held against the order that others saw.
    pub unchecked_order: u64,
    /// Messages acked, and of them seen by at least one member.
    pub acked: u64,
    /// Of these, messages that the room does not have any more, as clients were told: Redis lost them.
    #[serde(default)]
    pub lost_acked: u64,
    /// Publishes whose fate is unknown: sent, neither acked nor refused for good, and seen by nobody.
    pub undecided: u64,
    /// Members not in their room at the end: what they lack is not counted.
    pub absent_members: u64,
    /// What it takes to audit across processes.
    pub rooms: Vec<RoomTally>,
}

/// What a finding is called. All of them are violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Never came, and the client was not told.
    Lost,
    /// Came more than once, or was stored more than once.
    Duplicated,
    /// Out of the publisher's order, or not where other clients saw it.
    Reordered,
    /// In a room it was not published to.
    WrongRoom,
    /// The checksum or the form is wrong.
    Corrupted,
    /// A new term or a lower seq without `reset`.
    SilentBreak,
}

impl Finding {
    pub const ALL: [Self; 6] =
        [Self::Lost, Self::Duplicated, Self::Reordered, Self::WrongRoom, Self::Corrupted, Self::SilentBreak];

    /// As in JSON and thresholds.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::WrongRoom => "wrong_room",
            Self::Corrupted => "corrupted",
            Self::SilentBreak => "silent_break",
        }
    }

    /// What it means, as a noun for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Lost => "message lost",
            Self::Duplicated => "message duplicated",
            Self::Reordered => "message out of order",
            Self::WrongRoom => "message in the wrong room",
            Self::Corrupted => "message corrupted",
            Self::SilentBreak => "break of a room's order without a reset",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    pub finding: Finding,
    pub at_ms: u64,
    /// Room, client, publisher and numbers in a sentence.
    pub text: String,
}

/// One room as one process saw it, in a form that adds up. Its exact fields belong to the audit; what is empty or zero
/// is left out, since a run may have ten thousand rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoomTally {
    pub room: u32,
    /// Hash of the present term.
    #[serde(skip_serializing_if = "is_zero")]
    pub term: u64,
    /// Hashes of earlier terms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<u64>,
    /// Lowest and highest seq known in the present term.
    #[serde(skip_serializing_if = "is_zero")]
    pub first: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub top: u64,
    /// Durable: (last seq, seats that got so far).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<(u64, u64)>,
    /// Seqs of a block, and (block, hash of the seqs that were met, hash of the messages that stood there).
    #[serde(skip_serializing_if = "is_zero")]
    pub stride: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<(u64, u32, u32)>,
    /// Ephemeral: publisher, last number accepted or seen, (last number, seats that got so far).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<PublisherTally>,
    /// Ephemeral: publisher, number, seats that did not get it though they got later ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(u32, u32, u32)>,
    /// Publisher, number: behind a later number in the room's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<(u32, u32)>,
    /// Publisher, number: retried, given up or never answered, so that it may be late or missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<(u32, u32)>,
    /// There were too many of those to keep: none of this room's late or missing numbers is held against anybody.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
}

/// Publisher, last number accepted or seen, (last number, seats that got so far).
pub type PublisherTally = (u32, u32, Vec<(u32, u32)>);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
