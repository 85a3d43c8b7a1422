//! A client's new name: told to the homes of its rooms, and asked of those where names are unique.
//!
//! Sessions call it. Unique rooms are asked one after the other; when one refuses, those before it get the old name
//! back, so that a client has one name everywhere.

use std::rc::Rc;
use std::sync::Arc;

use roomcast_protocol::{ErrorCode, RoomName};
use tokio::sync::oneshot;

use super::home::Movement;
use super::mail::Mail;
use super::peer::Peer;
use super::publish::refusal;
use super::shard::Shard;
use crate::broker::{BrokerError, Member, Moved, PresenceOp};

/// What came of asking for a name in one room.
pub(super) type Claimed = Result<Moved, BrokerError>;

/// What a client is told whose name another has.
pub(super) const NAME_TAKEN: &str = "another member of this room has that name";

impl Shard {
    /// Shows what is new about a client besides its name, in every room joined.
    pub fn show(&self, peer: &Peer) {
        self.tell_name(peer, &peer.name(), peer.rooms());
    }

    /// Changes the display name, in every room joined. Nothing is answered, but `error` when it cannot be had.
    pub fn rename(self: &Rc<Self>, peer: &Rc<Peer>, name: &Arc<str>, reference: Option<&str>) {
        let is_unique = |room: &RoomName| self.parts.settings.rooms.policy(room).unique_names;
        let (unique, free): (Vec<_>, Vec<_>) = peer.rooms().into_iter().partition(is_unique);
        if unique.is_empty() {
            return self.tell_name(peer, name, free);
        }
        peer.begin_request();
        let (shard, peer, name) = (Rc::clone(self), Rc::clone(peer), Arc::clone(name));
        let reference = reference.map(str::to_owned);
        tokio::task::spawn_local(async move {
            match shard.claim(&peer, &unique, &name).await {
                Ok(()) => shard.tell_name(&peer, &name, free),
                Err((code, words)) => shard.refuse(&peer, reference.as_deref(), code, words),
            }
            peer.end_request();
        });
    }

    fn tell_name(&self, peer: &Peer, name: &Arc<str>, rooms: Vec<RoomName>) {
        peer.set_name(Arc::clone(name));
        for room in rooms.into_iter().filter(|room| peer.is_in(room)) {
            self.send_home(&room.clone(), Mail::Rename { room, member: peer.member(), claim: None });
        }
    }

    async fn claim(&self, peer: &Peer, rooms: &[RoomName], name: &Arc<str>) -> Result<(), (ErrorCode, &'static str)> {
        for (asked, room) in rooms.iter().enumerate() {
            let (claim, claimed) = oneshot::channel();
            let member = Member { name: Arc::clone(name), ..peer.member() };
            self.send_home(room, Mail::Rename { room: room.clone(), member, claim: Some(claim) });
            let (refused, perhaps) = match claimed.await {
                // Without an answer the home has gone, and the membership with it.
                Ok(Ok(Moved::Changed | Moved::Renamed | Moved::Same)) | Err(_) => continue,
                Ok(Ok(Moved::NameTaken)) => ((ErrorCode::NameTaken, NAME_TAKEN), 0),
                Ok(Err(error)) => {
                    let (code, _, words) = refusal(&error);
                    let undecided = matches!(error, BrokerError::Undecided(_));
                    let code = if undecided { ErrorCode::BrokerUnavailable } else { code };
                    ((code, words), usize::from(undecided))
                }
            };
            for room in rooms[..asked + perhaps].iter().cloned() {
                self.send_home(&room.clone(), Mail::Rename { room, member: peer.member(), claim: None });
            }
            return Err(refused);
        }
        Ok(())
    }

    pub(super) fn take_rename(&self, room: &RoomName, member: Member, claim: Option<oneshot::Sender<Claimed>>) {
        let Some(home) = self.home(room) else { return };
        let movement = Movement { claim, ..Movement::new(PresenceOp::Rename(member)) };
        home.state.borrow_mut().roll.movements.push_back(movement);
        self.turn.due(&home);
    }
}
