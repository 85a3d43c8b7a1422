//! What a client may do: asked before each request is carried out, and changed by `refresh`.
//!
//! Part of the dispatcher. It knows grants, not tokens: those are read by `access`, and are gone when it returns.

use roomcast_protocol::{ErrorCode, RoomName, refreshed_frame};

use super::dispatch::{Dispatcher, Refused};
use super::heartbeat::unix_ms;
use crate::access::{Denied, Right};
use crate::hub::Sight;

/// Why a member must leave a room that its new token does not name.
const FORBIDDEN: &str = "forbidden";

impl Dispatcher {
    /// Refuses what the grant does not give.
    pub(super) fn must_have(&self, right: Right, room: &RoomName) -> Result<(), Refused> {
        if self.grant.may(right, room) {
            return Ok(());
        }
        let words = match right {
            Right::Join => "not allowed to join this room",
            Right::Publish => "not allowed to publish in this room",
            Right::History => "not allowed to read this room's history",
            Right::Presence => "not allowed to see who is in this room",
        };
        Err(Refused::new(ErrorCode::Forbidden, words))
    }

    /// Refuses a new name to those who were given one.
    pub(super) fn must_be_free_to_rename(&self) -> Result<(), Refused> {
        match self.grant.name() {
            None => Ok(()),
            Some(_) => Err(Refused::new(ErrorCode::Forbidden, "the name is given by the token")),
        }
    }

    /// What of a room's past and members this client may see.
    pub(super) fn sight(&self, room: &RoomName) -> Sight {
        Sight { history: self.grant.may(Right::History, room), presence: self.grant.may(Right::Presence, room) }
    }

    /// Has the session end when its grant does, and see whom it may. Gives the end, in milliseconds since the Unix epoch.
    pub(super) fn mind_grant(&self) -> Option<u64> {
        // Never 0, which would be never.
        let at = self.grant.expires_at().map(|at| unix_ms(at).max(1));
        let bounds = &self.peer().bounds;
        bounds.expires_at_ms.set(at.unwrap_or(0));
        let grant = self.grant.clone();
        bounds.limit_sight((!grant.is_open()).then(|| Box::new(move |room: &_| grant.may(Right::Presence, room)) as _));
        at
    }

    /// Goes on under a newer token of the same user, if it is good. Rooms that it does not name are left.
    pub(super) fn refresh(&mut self, token: &str, reference: Option<&str>) -> Result<(), Refused> {
        let grant = self.floor().access.verify(token).map_err(refused)?;
        if !self.grant.is_held_by_the_same(&grant) {
            return Err(Refused::new(ErrorCode::Unauthorized, "the token is another user's"));
        }
        let grant = self.grant.renewed(grant);
        let name = grant.name().filter(|name| **name != self.peer().name()).cloned();
        let is_news = name.is_some() || grant.info() != self.peer().identity().info.as_ref();
        // Every member of every room joined is told, as of a rename. Nothing has been done yet: this may come again.
        if is_news && self.must_wait_for_share()? {
            return Ok(());
        }
        self.grant = grant;
        let (shard, peer) = (&self.floor().shard, self.peer());
        shard.tell(peer, &refreshed_frame(reference, self.mind_grant()));
        for room in peer.rooms() {
            if !self.grant.may(Right::Join, &room) {
                shard.expel(peer, &room, FORBIDDEN);
            }
        }
        // By itself: the new name may be taken, or have to wait for the broker.
        if peer.set_info(self.grant.info().cloned()) {
            shard.show(peer);
        }
        if let Some(name) = name {
            shard.rename(peer, &name, None);
        }
        Ok(())
    }
}

fn refused(denied: Denied) -> Refused {
    let code = if denied == Denied::KeysUnavailable { ErrorCode::KeysUnavailable } else { ErrorCode::Unauthorized };
    Refused(code, denied.to_string().into())
}
