//! What one client may do. Made from claims; asked for each request, so it is cheap to ask and to clone.

use std::sync::Arc;
use std::time::SystemTime;

use roomcast_protocol::RoomName;

use crate::config::RoomPattern;

/// What may be done in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Become a member and get what is sent from then on.
    Join,
    /// Send.
    Publish,
    /// Get what was sent before: on joining, on coming back, and by `history`.
    History,
    /// Get to know who is there: on joining, by `presence` and by `members`.
    Presence,
}

/// What one client may do, and who it is.
#[derive(Debug, Clone)]
pub struct Grant(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    user: Option<Arc<str>>,
    name: Option<Arc<str>>,
    info: Option<Arc<str>>,
    expires_at: Option<SystemTime>,
    rooms: Rooms,
}

/// A list of patterns for each right; those that say the same share their memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms {
    pub(super) join: Arc<[RoomPattern]>,
    pub(super) publish: Arc<[RoomPattern]>,
    pub(super) history: Arc<[RoomPattern]>,
    pub(super) presence: Arc<[RoomPattern]>,
}

impl Rooms {
    /// All rights in the rooms of one list.
    pub(super) fn all_in(patterns: Arc<[RoomPattern]>) -> Self {
        Self {
            join: Arc::clone(&patterns),
            publish: Arc::clone(&patterns),
            history: Arc::clone(&patterns),
            presence: patterns,
        }
    }
}

impl Grant {
    /// Everyone's while access is open: all rights in all rooms, and no user.
    pub const fn open() -> Self {
        Self(None)
    }

    pub(super) fn new(
        user: Option<Arc<str>>,
        name: Option<Arc<str>>,
        info: Option<Arc<str>>,
        expires_at: Option<SystemTime>,
        rooms: Rooms,
    ) -> Self {
        Self(Some(Arc::new(Inner { user, name, info, expires_at, rooms })))
    }

    /// Who the client is, 1 to 128 bytes. None while access is open, and for those whose token names nobody.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.user.as_ref()
    }

    /// The display name that the client must have, if any is given.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.name.as_ref()
    }

    /// JSON about the client for other members, at most 1024 bytes.
    pub fn info(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.info.as_ref()
    }

    /// When the client must have brought a new token. None is never.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.as_ref()?.expires_at
    }

    /// Whether `right` is had in `room`. Costs a match per pattern.
    pub fn may(&self, right: Right, room: &RoomName) -> bool {
        let Some(Inner { rooms, .. }) = self.0.as_deref() else { return true };
        let patterns = match right {
            Right::Join => &rooms.join,
            Right::Publish => &rooms.publish,
            Right::History => &rooms.history,
            Right::Presence => &rooms.presence,
        };
        patterns.iter().any(|pattern| pattern.matches(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Arc<[RoomPattern]> {
        list.iter().map(|text| text.parse().expect("a pattern")).collect()
    }

    #[test]
    fn rights_are_looked_up_each_in_its_own_list() {
        let rooms = Rooms { join: patterns(&["lobby", "team-*"]), publish: patterns(&["team-?"]), ..Rooms::default() };
        let grant = Grant::new(None, None, None, None, rooms);
        let may = |right, room: &str| grant.may(right, &RoomName::new(room).expect("a name"));
        assert!(may(Right::Join, "lobby") && may(Right::Join, "team-10") && !may(Right::Join, "lobby2"));
        assert!(may(Right::Publish, "team-1") && !may(Right::Publish, "team-10") && !may(Right::Publish, "lobby"));
        assert!(!may(Right::History, "lobby") && !may(Right::Presence, "team-1"));
    }

    #[test]
    fn open_access_is_everything_for_nobody_in_particular() {
        let (grant, room) = (Grant::open(), RoomName::new("any").expect("a name"));
        for right in [Right::Join, Right::Publish, Right::History, Right::Presence] {
            assert!(grant.may(right, &room));
        }
        assert!(grant.user().is_none() && grant.name().is_none() && grant.expires_at().is_none());
    }
}
