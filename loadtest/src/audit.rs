//! What a cluster owes its clients, checked while the run goes on, in bounded memory.
//!
//! The same checks serve a running load test and the checker of logs (`loadtest check`): both turn what clients saw
//! into calls of [`Audit`]. Called by clients; knows neither sockets nor clocks.

use roomcast_protocol::Term;

/// A message's place in a durable room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub term: Term,
    pub seq: u64,
}
