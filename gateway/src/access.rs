//! Who may do what: tokens are read into a [`Grant`], and a grant says what its holder may do in which room.
//!
//! Made by app, one per node; asked by the server at each handshake and by sessions for each request. Knows no sockets
//! and no frames. What a token says is believed only once its signature was checked.

mod claims;
mod grant;

pub use claims::Claims;
pub use grant::{Grant, Right};

/// Who may come in, and how they prove it. One per node.
#[derive(Debug, Default)]
pub struct Access {}

/// Why a token is refused. The words are for the client's developer, and hold nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("no token: give one as Authorization: Bearer, as the subprotocol bearer.<token>, or as ?token=")]
    Missing,
    /// A claim is missing, or not what it must be.
    #[error("the token's claim `{0}` is missing or not what it must be")]
    Claim(&'static str),
}

impl Access {
    /// Everyone may do everything: no key is configured.
    pub fn open() -> Self {
        Self {}
    }

    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        true
    }

    /// What the holder of `token` may do. Never waits and never asks anyone.
    ///
    /// # Errors
    /// [`Denied`], unless access is open.
    pub fn verify(&self, _token: &str) -> Result<Grant, Denied> {
        Ok(Grant::open())
    }

    /// What someone may do who came with or without a token.
    ///
    /// # Errors
    /// [`Denied`], unless access is open.
    pub fn admit(&self, token: Option<&str>) -> Result<Grant, Denied> {
        match token {
            _ if self.is_open() => Ok(Grant::open()),
            Some(token) => self.verify(token),
            None => Err(Denied::Missing),
        }
    }
}
