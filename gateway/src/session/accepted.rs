//! What the server hands to a session: a socket past its handshake, and what the handshake said.
//!
//! Made by the server, taken apart by the session. Knows nothing of HTTP; the server's counting is behind [`Release`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::{RoomName, Since};
use tokio::net::TcpStream;

use crate::access::Grant;

/// A socket whose handshake is complete: the 101 is written, every byte from here on is WebSocket.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; `TCP_NODELAY` is set.
    pub stream: TcpStream,
    /// What the client sent right behind its handshake: to be read before anything from `stream`.
    pub leftover: Bytes,
    /// What the path asked for.
    pub route: Route,
    /// The display name asked for, checked.
    pub name: Option<String>,
    /// What the client may do.
    pub grant: Grant,
    /// When it was begun to find that out.
    pub asked: Instant,
    /// The client's address, looked up behind trusted proxies.
    pub peer: IpAddr,
    /// The connection's place in the count; dropping it gives the place back.
    pub permit: Permit,
}

/// What a client asked for by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/ws...`: join these rooms at once, in this order. No room is there twice; there is at least one.
    Rooms {
        /// The rooms, each with where the client left off.
        rooms: Vec<(RoomName, Option<Since>)>,
        /// The room that `welcome` names: the first one, generated if the client named none.
        path_room: Option<RoomName>,
    },
    /// `/connect`: join nothing yet.
    Bare,
    /// `/echo`: no session, send back what comes.
    Echo,
}

/// Whoever counts connections and takes places back.
pub trait Release: Send + Sync {
    /// One connection of `address` has ended.
    fn release(&self, address: IpAddr);
}

/// One counted connection.
pub struct Permit {
    counter: Arc<dyn Release>,
    address: IpAddr,
}

impl Permit {
    /// A place that `counter` gave to `address`.
    pub fn new(counter: Arc<dyn Release>, address: IpAddr) -> Self {
        Self { counter, address }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counter.release(self.address);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("address", &self.address).finish_non_exhaustive()
    }
}
