//! A client's part in what its user may do over all connections and nodes: publishing, and being connected.
//!
//! Part of the dispatcher and of the session's beginning. Without such limits, or without a user, it costs a look at a
//! `None`.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use roomcast_protocol::ErrorCode;

use super::dispatch::{Dispatcher, Refused};
use super::end::End;
use crate::broker::Subject;
use crate::hub::{Allowance, Seat, Shard, Spending};

/// The user's allowance, and where the request stands that needs some of it.
pub(super) struct Share {
    allowance: Option<Rc<Allowance>>,
    /// The request being carried out must wait.
    waits: bool,
    /// The request that waited has paid all that it owes but this.
    paid: bool,
}

impl Share {
    pub(super) fn new(shard: &Shard, user: Subject) -> Self {
        Self { allowance: shard.user_allowance(user), waits: false, paid: false }
    }

    /// Whether the next request is one that waited.
    pub(super) fn is_paid(&self) -> bool {
        self.paid
    }

    /// Ends a request; true if it must be carried out again.
    pub(super) fn pay(&mut self) -> bool {
        self.paid = std::mem::take(&mut self.waits);
        self.paid
    }
}

impl Dispatcher {
    /// Takes one from the user's share. True if the request has to wait for it, and then be carried out again.
    pub(super) fn must_wait_for_share(&mut self) -> Result<bool, Refused> {
        let Some(allowance) = &self.share.allowance else { return Ok(false) };
        match self.floor().shard.spend(allowance, self.peer()) {
            Spending::Done => Ok(false),
            Spending::Waits => {
                self.share.waits = true;
                Ok(true)
            }
            Spending::Refused => {
                self.floor().totals.limits.refused("user", 1);
                Err(Refused::new(ErrorCode::RateLimited, "faster than this user may be over all connections"))
            }
        }
    }

    /// A seat among the connections of its user.
    pub(super) async fn seat(&self, user: Subject) -> Result<Box<Seat>, End> {
        let peer = self.peer();
        let stopped = poll_fn(|cx| {
            peer.register(cx.waker());
            peer.stop().map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            seat = self.floor().shard.seat_user(user) => seat.map(Box::new).ok_or(End::ConnectionLimit),
            stop = stopped => Err(stop.into()),
        }
    }
}
