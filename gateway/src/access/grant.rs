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
    /// What the operator's service said of this client, besides.
    decision: Option<Grant>,
    /// Whose token it was, whoever the decision says it is.
    holder: Option<Arc<str>>,
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
    /// All rights in all rooms.
    fn everywhere() -> Self {
        Self::all_in("*".parse().ok().into_iter().collect())
    }

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

    /// Whether this is everyone's.
    pub const fn is_open(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn new(
        user: Option<Arc<str>>,
        name: Option<Arc<str>>,
        info: Option<Arc<str>>,
        expires_at: Option<SystemTime>,
        rooms: Rooms,
    ) -> Self {
        let holder = user.clone();
        Self(Some(Arc::new(Inner { user, name, info, expires_at, rooms, decision: None, holder })))
    }

    /// This, as far as `decision` allows it, too: what the operator's service says of the holder of a token. Who it is
    /// is as the decision has it, where it says so; both must not be over.
    #[must_use]
    pub fn decided(&self, decision: &Self) -> Self {
        let own = self.0.as_deref();
        let rooms = own.map_or_else(Rooms::everywhere, |own| own.rooms.clone());
        let expires_at = match (self.expires_at(), decision.expires_at()) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        Self(Some(Arc::new(Inner {
            user: decision.user().or(self.user()).cloned(),
            name: decision.name().or(self.name()).cloned(),
            info: decision.info().or(self.info()).cloned(),
            expires_at,
            rooms,
            decision: Some(decision.clone()),
            holder: own.and_then(|own| own.holder.clone()),
        })))
    }

    /// Whether `newer` was given to the same user, by their tokens.
    pub fn is_held_by_the_same(&self, newer: &Self) -> bool {
        let holder = |grant: &Self| grant.0.as_ref().and_then(|inner| inner.holder.clone());
        holder(self) == holder(newer)
    }

    /// What a newer token gives to the holder of this: a decision on the connection goes on to hold.
    #[must_use]
    pub fn renewed(&self, newer: Self) -> Self {
        match self.0.as_deref().and_then(|inner| inner.decision.as_ref()) {
            Some(decision) => newer.decided(decision),
            None => newer,
        }
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
        let Some(Inner { rooms, decision, .. }) = self.0.as_deref() else { return true };
        if decision.as_ref().is_some_and(|decision| !decision.may(right, room)) {
            return false;
        }
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
    fn a_decision_narrows_a_token_and_outlives_it() {
        let room = |name| RoomName::new(name).expect("a name");
        let time = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let all = |list: &[&str]| Rooms::all_in(patterns(list));
        let token = Grant::new(Some("ann".into()), Some("Ann".into()), None, time(9), all(&["a", "b"]));
        let decision = Grant::new(None, Some("Anna".into()), Some("1".into()), time(8), all(&["b", "c"]));
        let both = token.decided(&decision);
        let may = |grant: &Grant| ["a", "b", "c"].map(|name| grant.may(Right::Join, &room(name)));
        assert_eq!(may(&both), [false, true, false]);
        assert_eq!(both.user().map(|user| &**user), Some("ann"));
        assert_eq!(both.name().map(|name| &**name), Some("Anna"));
        assert_eq!((both.info().map(|info| &**info), both.expires_at()), (Some("1"), time(8)));
        assert!(both.is_held_by_the_same(&token) && !both.is_held_by_the_same(&decision));
        // A newer token does not get rid of it, not even where tokens are not looked at.
        let newer = both.renewed(Grant::new(Some("ann".into()), None, None, time(20), all(&["*"])));
        assert_eq!((may(&newer), newer.expires_at()), ([false, true, true], time(8)));
        assert_eq!(may(&Grant::open().decided(&decision).renewed(Grant::open())), [false, true, true]);
        assert_eq!(may(&token.renewed(Grant::open())), [true; 3], "without a decision the newer one holds");
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
