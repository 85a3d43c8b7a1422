//! WebSocket on a TCP or TLS stream, the client's side. The only user of tungstenite, whose frame headers and handshake
//! it uses; buffers are its own, so that an idle connection holds none.
//!
//! Called by clients. It shares no code with the gateway's sockets: what audits a node must not share its mistakes.

#[cfg(test)]
pub mod fake;
mod frames;
mod handshake;
mod link;

#[cfg(test)]
mod tests;

pub use frames::{Frame, WireError};
pub use handshake::{ConnectError, Connector, Request};
pub use link::{Closed, Link};
