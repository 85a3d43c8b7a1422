//! How handshakes end: one table of labels and status codes, and the answer to a refused client.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full as Body;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::admission::Full;

/// Seconds that a refused client is told to wait when the node has no place for it: each another time, so that those
/// who were refused together do not come back together.
const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u32> = 1..=5;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $status:literal;)*) => {
        /// How one connection's HTTP part ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum HandshakeOutcome { $($(#[$doc])* $name,)* }

        impl HandshakeOutcome {
            /// All of them, for a metric that starts at zero.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The status of the answer; 0 when there is none.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

outcomes! {
    /// The socket was handed to a session.
    Accepted, "accepted", 101;
    /// A page or one of its assets was served.
    Page, "page", 200;
    /// A request of the HTTP API came; what became of it is counted there.
    Api, "api", 200;
    /// Nothing is at this path.
    NotFound, "not_found", 404;
    /// Not GET.
    BadMethod, "bad_method", 405;
    /// Not HTTP/1.1.
    BadHttpVersion, "bad_http_version", 400;
    /// Not HTTP at all, a body where none may be, or no usable Host.
    BadRequest, "bad_request", 400;
    /// No upgrade to WebSocket was asked for.
    NoUpgrade, "no_upgrade", 426;
    /// Not version 13 of WebSocket.
    BadVersion, "bad_version", 426;
    /// No usable `Sec-WebSocket-Key`.
    BadKey, "bad_key", 400;
    /// A page of another origin.
    BadOrigin, "bad_origin", 403;
    /// A room name outside its rule.
    BadRoom, "bad_room", 400;
    /// More rooms than one connection may be in.
    TooManyRooms, "too_many_rooms", 400;
    /// A query that cannot be understood.
    BadQuery, "bad_query", 400;
    /// A display name outside its rule.
    BadName, "bad_name", 400;
    /// No token, where one is needed.
    NoToken, "no_token", 401;
    /// A token that is not good: expired, not for this service, not signed by a known key.
    BadToken, "bad_token", 401;
    /// The token's issuer publishes its keys, and they could not be fetched yet.
    KeysUnavailable, "keys_unavailable", 503;
    /// The token does not allow a room of the path or query.
    ForbiddenRoom, "forbidden_room", 403;
    /// The operator's service says no.
    NotAuthorized, "not_authorized", 403;
    /// The operator's service gives no answer.
    AuthorizeFailed, "authorize_failed", 503;
    /// Too many wait for the answers of the operator's service.
    AuthorizeBusy, "authorize_busy", 503;
    /// The node has as many connections as it may.
    TooManyConnections, "too_many_connections", 503;
    /// The client's address has.
    AddressLimit, "address_limit", 503;
    /// More connections come than the node takes in a second.
    ConnectRate, "connect_rate", 503;
    /// The node is going away.
    Draining, "draining", 503;
    /// Too many headers, or too long ones.
    HeadersTooLarge, "headers_too_large", 431;
    /// The request, or the reading of the answer, took too long.
    Timeout, "timeout", 0;
    /// The client went away before its request was complete.
    Abandoned, "abandoned", 0;
}

impl From<Full> for HandshakeOutcome {
    fn from(full: Full) -> Self {
        match full {
            Full::Node => Self::TooManyConnections,
            Full::Address => Self::AddressLimit,
        }
    }
}

/// Why a request is not granted, in words for the client's developer. What the client sent is never repeated in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was wrong.
    pub outcome: HandshakeOutcome,
    /// What was wrong, and what would be right.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with words.
    pub fn new(outcome: HandshakeOutcome, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, detail: detail.into() }
    }

    /// The answer, with the headers its status asks for.
    pub fn response(&self) -> Response<Body<Bytes>> {
        let mut response = Response::new(Body::from(format!("{}\n", self.detail)));
        *response.status_mut() =
            StatusCode::from_u16(self.outcome.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match self.outcome {
            HandshakeOutcome::BadMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            HandshakeOutcome::NoUpgrade => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
            }
            HandshakeOutcome::BadVersion => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
                headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
            }
            HandshakeOutcome::NoToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            HandshakeOutcome::BadToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
            }
            HandshakeOutcome::KeysUnavailable
            | HandshakeOutcome::TooManyConnections
            | HandshakeOutcome::AddressLimit
            | HandshakeOutcome::ConnectRate
            | HandshakeOutcome::AuthorizeFailed
            | HandshakeOutcome::AuthorizeBusy
            | HandshakeOutcome::Draining => {
                headers.insert(RETRY_AFTER, rand::random_range(RETRY_AFTER_SECONDS).into());
            }
            _ => {}
        }
        response
    }
}
