//! What a cluster owes its clients, checked while the run goes on, in bounded memory.
//!
//! The same checks serve a running load test and the checker of logs (`loadtest check`): both turn what clients saw
//! into calls of [`Audit`] and [`Seat`]. Called by clients; knows neither sockets nor clocks.

pub mod check;
pub mod log;
mod seat;
mod tally;

use std::collections::BTreeMap;

use roomcast_protocol::{Mode, Term};

use crate::clock::Clock;
use crate::payload::Stamp;
use crate::plan::Share;
use crate::report::{AuditReport, Finding};

pub use seat::Seat;
pub use tally::merge;

/// A message's place in a durable room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub term: Term,
    pub seq: u64,
}

/// The shape of the whole run, the same in all its processes but for `share`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub mode: Mode,
    /// Whether publishers get their own messages.
    pub echo: bool,
    pub share: Share,
}

/// What all clients of a process saw, held against each other. Shared by its threads.
pub struct Audit {
    run: u32,
    layout: Layout,
    log: Option<log::Log>,
    clock: Clock,
}

impl Audit {
    pub fn new(run: u32, layout: Layout, log: Option<log::Log>, clock: Clock) -> Self {
        Self { run, layout, log, clock }
    }

    /// A message that came live in `room`. Once per distinct frame and thread, before any [`Seat::received`] of it;
    /// more often does no harm.
    pub fn verify(&self, room: u32, stamp: &Stamp, place: Option<&Place>) {
        let _ = (self.run, self.layout, &self.log, self.clock, room, stamp, place);
    }

    /// A payload or frame is damaged, or came from a room that the client is not in: `what` says so in words.
    /// If it has a place, [`Seat::foreign`] must follow, so that it does not count as lost too.
    pub fn corrupted(&self, client: u32, room: u32, what: &str) {
        let _ = (client, room, what);
    }

    /// About to be written to the socket: to be called before.
    pub fn published(&self, publisher: u32, room: u32, number: u32, attempt: u8) {
        let _ = (publisher, room, number, attempt);
    }

    /// The publisher gave up on this one: refused for good, or (ephemeral) the connection broke before its ack. It
    /// may be missing, or be seen after all. What is still to be retried is none of this.
    pub fn abandoned(&self, publisher: u32, room: u32, number: u32) {
        let _ = (publisher, room, number);
    }

    /// What was found so far, but for what is still on its way. Cheap enough for once a second.
    pub fn findings(&self) -> BTreeMap<Finding, u64> {
        BTreeMap::new()
    }

    /// Writes what is left of the log.
    ///
    /// # Errors
    /// Of any write of the log so far.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.log.as_ref().map_or(Ok(()), log::Log::flush)
    }

    /// Everything. At the end, after every seat's [`Seat::conclude`].
    pub fn report(&self) -> AuditReport {
        AuditReport::default()
    }
}
