//! The words of presence: who comes and goes, what became of it, who is there.
//!
//! Used by the hub and by every broker. Knows neither how members are kept nor how others are told.

use std::sync::Arc;

use roomcast_protocol::{ClientId, NodeId, RoomName};

use super::Incarnation;

/// A change of a room's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceOp {
    /// A client joins, or is taken over with a new name.
    Enter {
        /// Who.
        client: ClientId,
        /// Display name. At most 64 bytes.
        name: Arc<str>,
    },
    /// A client leaves; nothing if it is not there.
    Leave {
        /// Who.
        client: ClientId,
        /// The name it had, for those who are told. At most 64 bytes.
        name: Arc<str>,
    },
    /// A client changes its name; nothing if it is not there.
    Rename {
        /// Who.
        client: ClientId,
        /// The new one. At most 64 bytes.
        name: Arc<str>,
    },
}

/// Some presence operations of one room.
#[derive(Debug, Clone, Copy)]
pub struct PresenceCall<'a> {
    /// Through which life of which node the clients are there.
    pub incarnation: &'a Incarnation,
    /// In order.
    pub ops: &'a [PresenceOp],
    /// Whether two members may not have the same name, compared byte by byte.
    pub unique_names: bool,
    /// Members wanted in the answer.
    pub want_members: usize,
}

/// What became of a presence operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It changed what others see, and they were told: who entered was not there, who left was.
    Changed,
    /// The same for one who entered and was there before, under another name.
    Renamed,
    /// It changed nothing for others.
    Same,
    /// Another member has that name, and names are unique: nothing was changed.
    NameTaken,
}

/// One who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: ClientId,
    /// Display name.
    pub name: Arc<str>,
}

/// A room's presence after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceReply {
    /// Rises with every change, also when the room empties and fills again; not by ones.
    pub version: u64,
    /// Members over all nodes.
    pub online: u64,
    /// The same right before the call. So exactly one call learns that it filled an empty room, or emptied one.
    pub before: u64,
    /// One per operation.
    pub outcomes: Vec<Moved>,
    /// As many as asked for, ordered by id.
    pub members: Vec<Member>,
}

/// A page of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersPage {
    /// Ordered by id.
    pub members: Vec<Member>,
    /// Where the next page starts; none after the last.
    pub next: Option<String>,
    /// Members over all nodes.
    pub online: u64,
}

/// A change of a room's members, made through one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEvent {
    /// Through which node.
    pub node: NodeId,
    /// Where.
    pub room: RoomName,
    /// As in [`PresenceReply`]. An event with a version not above the known one is old.
    pub version: u64,
    /// Members over all nodes, after.
    pub online: u64,
    /// Those that changed something, in order.
    pub ops: Vec<PresenceOp>,
}
