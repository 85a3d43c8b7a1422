//! What can be subscribed to. Used by the subscription and by what knows the servers.

use roomcast_protocol::RoomName;

use super::super::Keys;
use super::super::topology::WHOLE;

/// Something with a channel of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super) enum Topic {
    /// A room's messages and members.
    Room(RoomName),
    /// Orders to all nodes.
    Orders,
}

impl Topic {
    /// What decides where it is.
    pub(in super::super) fn tag(&self) -> &str {
        match self {
            Self::Room(room) => room.as_str(),
            Self::Orders => WHOLE,
        }
    }

    pub(in super::super) fn channel(&self, keys: &Keys) -> String {
        match self {
            Self::Room(room) => keys.channel(room),
            Self::Orders => keys.orders(),
        }
    }
}

/// How many of them are rooms.
pub(super) fn rooms<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> usize {
    topics.into_iter().filter(|topic| matches!(topic, Topic::Room(_))).count()
}
