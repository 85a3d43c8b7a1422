//! Who may do what: tokens are read into a [`Grant`], and a grant says what its holder may do in which room.
//!
//! Made by app, one per node; asked by the server at each handshake and by sessions for each request. Knows no sockets
//! and no frames. What a token says is believed only once its signature was checked by a key that was configured.

mod claims;
mod grant;
mod issuer;
mod jwks;
mod key;
mod mint;
#[cfg(test)]
mod tests;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use claims::Claims;
pub use grant::{Grant, Right};
pub use mint::mint;

use crate::config::Settings;
use crate::telemetry::metrics::Metrics;
use issuer::Issuer;
use token::Token;

/// Who may come in, and how they prove it. One per node.
#[derive(Debug, Default)]
pub struct Access {
    issuers: Vec<Issuer>,
    metrics: Option<Arc<Metrics>>,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file of a public key.
    #[error("{path}: {problem}", path = .path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A token cannot be made.
    #[error("{0}")]
    Mint(String),
}

/// Why a token is refused. The words are for the client's developer, and hold nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("no token: give one as Authorization: Bearer, as the subprotocol bearer.<token>, or as ?token=")]
    Missing,
    /// Longer than a token may be.
    #[error("the token is longer than 8192 bytes")]
    TooLong,
    /// No token at all.
    #[error("this is no JSON Web Token that could be read")]
    Malformed,
    /// Nobody whose tokens are taken.
    #[error("tokens of this issuer (`iss`) are not taken here")]
    Issuer,
    /// No key for what the header says.
    #[error("no key of the issuer has the token's `alg` and `kid`")]
    Key,
    /// Signed by another key, or changed since.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// The time is over.
    #[error("the token has expired")]
    Expired,
    /// The time has not come.
    #[error("the token is not valid yet (`nbf`)")]
    NotYet,
    /// For somebody else.
    #[error("the token is not for this service (`aud`)")]
    Audience,
    /// A claim is missing, or not what it must be.
    #[error("the token's claim `{0}` is missing or not what it must be")]
    Claim(&'static str),
    /// A claim of ours is there twice, or is of the wrong kind.
    #[error("the token's claims cannot be read: one of them is of the wrong kind or there twice")]
    Claims,
    /// The issuer's keys have not been fetched yet.
    #[error("the issuer's keys are not known yet: try again")]
    KeysUnavailable,
}

impl Denied {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Issuer => "issuer",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Claim(_) | Self::Claims => "claims",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

impl Access {
    /// Everyone may do everything: no key is configured.
    pub fn open() -> Self {
        Self::default()
    }

    /// What the settings say; open, if they name no key. Published keys are still to be fetched.
    ///
    /// # Errors
    /// [`AccessError`] when the file of a public key cannot be used.
    pub fn new(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self, AccessError> {
        let issuers = settings.issuers().into_iter().map(Issuer::new).collect::<Result<_, _>>()?;
        Ok(Self { issuers, metrics: Some(Arc::clone(metrics)) })
    }

    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        self.issuers.is_empty()
    }

    /// What the holder of `token` may do. Never waits and never asks anyone.
    ///
    /// # Errors
    /// [`Denied`], unless access is open.
    pub fn verify(&self, token: &str) -> Result<Grant, Denied> {
        self.admit(Some(token))
    }

    /// What someone may do who came with or without a token.
    ///
    /// # Errors
    /// [`Denied`], unless access is open.
    pub fn admit(&self, token: Option<&str>) -> Result<Grant, Denied> {
        if self.is_open() {
            return Ok(Grant::open());
        }
        let outcome = token.ok_or(Denied::Missing).and_then(|token| self.verify_at(token, SystemTime::now()));
        if let Some(metrics) = &self.metrics {
            let label = outcome.as_ref().map_or_else(|denied| denied.label(), |_| "accepted");
            metrics.access.tokens.with_label_values(&[label]).inc();
        }
        outcome
    }

    fn verify_at(&self, token: &str, now: SystemTime) -> Result<Grant, Denied> {
        let token = Token::parse(token)?;
        let registered = token.registered()?;
        let issuer = self.issuers.iter().find(|issuer| issuer.is(registered.iss.as_deref())).ok_or(Denied::Issuer)?;
        issuer.admit(&token, &registered, now)
    }
}
