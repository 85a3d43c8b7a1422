//! Joins under way, as the client's own worker knows them: from the request until its home has seated or declined it.
//!
//! Who is in the middle of one is no member yet, so an order that takes it out of the room is remembered here: it leaves
//! in the moment in which it is one. Called by the shard, and by orders.

use std::cell::RefCell;

use bytes::Bytes;
use roomcast_protocol::RoomName;
use tokio::sync::oneshot;

use super::mail::{Address, Mail};
use super::shard::Shard;
use crate::broker::Member;

struct Arrival {
    room: RoomName,
    /// Told once its queue is empty, while it is sent what it missed.
    taken: Option<oneshot::Sender<()>>,
    /// Its `left` frame, if it was taken out before it was in.
    left: Option<Bytes>,
}

/// The joins of one connection that are under way: those of its path, or one.
#[derive(Default)]
pub(super) struct Arrivals(RefCell<Vec<Arrival>>);

impl Arrivals {
    pub(super) fn begin(&self, room: &RoomName) {
        self.0.borrow_mut().push(Arrival { room: room.clone(), taken: None, left: None });
    }

    /// The join ended. Gives what is to be told to who was taken out meanwhile.
    pub(super) fn end(&self, room: &RoomName) -> Option<Bytes> {
        let mut arrivals = self.0.borrow_mut();
        let at = arrivals.iter().position(|arrival| arrival.room == *room)?;
        let left = arrivals.swap_remove(at).left;
        if arrivals.is_empty() {
            // Most connections never join again, and there may be very many.
            *arrivals = Vec::new();
        }
        left
    }

    /// Takes the client out of a room that it is about to be in. False if it is not, or was taken out before.
    pub(super) fn call_off(&self, room: &RoomName, left: &Bytes) -> bool {
        let mut arrivals = self.0.borrow_mut();
        let Some(arrival) = arrivals.iter_mut().find(|arrival| arrival.room == *room) else { return false };
        // The home waits no longer for a client that may be slow, and declines it.
        arrival.taken = None;
        arrival.left.replace(left.clone()).is_none()
    }

    /// Tells `taken` when the queue is empty the next time. Dropped, and so noticed by the home, when the client is
    /// taken out or the peer ends.
    fn tell_when_empty(&self, room: &RoomName, taken: oneshot::Sender<()>) {
        let mut arrivals = self.0.borrow_mut();
        if let Some(arrival) = arrivals.iter_mut().find(|arrival| arrival.room == *room && arrival.left.is_none()) {
            arrival.taken = Some(taken);
        }
    }

    /// The queue is empty.
    pub(super) fn tell_empty(&self) {
        for taken in self.0.borrow_mut().iter_mut().filter_map(|arrival| arrival.taken.take()) {
            // Who waited may have gone.
            _ = taken.send(());
        }
    }
}

impl Shard {
    /// Gives a joiner a part of what it missed.
    pub(super) fn take_replay(&self, to: Address, room: &RoomName, frames: Bytes, taken: oneshot::Sender<()>) {
        let Some(peer) = self.resolve(to) else { return };
        peer.arrivals.tell_when_empty(room, taken);
        self.post_frame(&peer, frames);
    }

    /// Seats a session of this worker and gives it its last frames before what comes live, or tells the home that it went
    /// meanwhile.
    pub(super) fn admit(&self, to: Address, room: &RoomName, member: Member, frame: Bytes) {
        let Some(peer) = self.resolve(to) else {
            let mail = Mail::Leave { room: room.clone(), member, worker: self.parts.index };
            return self.send_home(room, mail);
        };
        self.post_frame(&peer, frame);
        self.room(room).admit(&peer);
        self.parts.totals.hub.members.inc();
        if let Some(left) = peer.arrivals.end(room) {
            self.remove(&peer, room, left);
        }
        peer.end_request();
    }

    /// A join came to nothing; without a frame, because the client was taken out, or is gone.
    pub(super) fn decline(&self, to: Address, room: &RoomName, frame: Option<Bytes>) {
        let Some(peer) = self.resolve(to) else { return };
        let left = peer.arrivals.end(room);
        if let Some(frame) = frame.or(left) {
            self.post_frame(&peer, frame);
        }
        peer.end_request();
    }
}
