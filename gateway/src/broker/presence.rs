//! The words of presence: who comes and goes, what became of it, who is there.
//!
//! Used by the hub and by every broker. Knows neither how members are kept nor how others are told.

use std::sync::Arc;

use roomcast_protocol::{ClientId, MemberFields, NodeId, RoomName};

use super::Incarnation;

/// A change of a room's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceOp {
    /// A client joins, or is taken over with what is new about it.
    Enter(Member),
    /// A client leaves; nothing if it is not there. All but the id is for those who are told.
    Leave(Member),
    /// A client changes its name; nothing if it is not there. User and info are those it entered with.
    Rename(Member),
}

impl PresenceOp {
    /// Whom it is about.
    pub fn member(&self) -> &Member {
        let (Self::Enter(member) | Self::Leave(member) | Self::Rename(member)) = self;
        member
    }
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

/// One who is in a room. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: ClientId,
    /// Display name. At most 64 bytes.
    pub name: Arc<str>,
    /// Whose session it is, if a token said so. 1 to 128 bytes, no control characters.
    pub user: Option<Arc<str>>,
    /// What the token told about it, for those who see the member: raw JSON of at most 1024 bytes.
    pub info: Option<Arc<str>>,
}

impl Member {
    /// As frames show it.
    pub fn fields(&self) -> MemberFields<'_> {
        MemberFields { id: self.id, name: &self.name, user: self.user.as_deref(), info: self.info.as_deref() }
    }
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
