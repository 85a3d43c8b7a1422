//! Whether a request may become a WebSocket, and what it asks for.
//!
//! Called by `http` for each request that is no page; pure but for the count of connections. fastwebsockets' own
//! upgrade accepts any method, origin and key, so all of it is checked here; only the answer's accept key is its work.

mod address;
mod origin;
mod query;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, AsHeaderName, CONNECTION, HOST, HeaderMap, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};
use ipnet::IpNet;
use roomcast_protocol::{RoomName, SUBPROTOCOL, Since};

pub(super) use address::client_address;
pub use origin::{InvalidOrigin, Origin, OriginPolicy};

use super::admission::Full;
use super::authorize::{Authorizer, Question};
use super::outcome::{HandshakeOutcome as Outcome, Refusal};
use crate::access::{Access, Denied, Grant, Right};
use crate::session::accepted::{Permit, Route};
pub(super) use query::decode;
use query::{Asked, Place};

/// A browser cannot set headers: it offers its token as a subprotocol with this in front. Never sent back.
const BEARER_PROTOCOL: &str = "bearer.";

/// The rules of the handshake, as the settings have them.
#[derive(Debug, Clone)]
pub struct HandshakeRules {
    /// Which pages may connect. A request without Origin is no browser's and passes.
    pub origins: OriginPolicy,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// From the first to the last byte of a request's head.
    pub header_read_timeout: Duration,
    /// Headers of one request.
    pub max_headers: usize,
    /// Bytes of one request's head.
    pub max_header_bytes: usize,
    /// Rooms that one connection may ask for.
    pub rooms_per_connection: usize,
    /// Whether `/echo` exists.
    pub echo: bool,
    /// Who decides, once a token is found good or none is wanted; nobody.
    pub authorizer: Option<Arc<Authorizer>>,
}

/// A request that may become a WebSocket.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) route: Route,
    pub(super) name: Option<String>,
    pub(super) grant: Grant,
    /// When it was begun to find that out.
    pub(super) asked: Instant,
    pub(super) peer: IpAddr,
    pub(super) permit: Permit,
    /// Whether to answer with [`SUBPROTOCOL`].
    pub(super) subprotocol: bool,
}

/// Judges a request from `peer`. `door` says whether anyone may come in now, and is asked once it is clear that a
/// WebSocket is wanted; `admit` gives it a place, and is asked last.
pub(super) fn judge(
    request: &Request<Incoming>,
    peer: IpAddr,
    rules: &HandshakeRules,
    access: &Access,
    door: impl FnOnce() -> Result<(), Refusal>,
    admit: impl FnOnce(IpAddr) -> Result<Permit, Full>,
) -> Result<Granted, Refusal> {
    let uri = request.uri();
    let Some(place) = Place::of(uri.path(), rules.echo) else {
        let paths = "nothing here: a WebSocket is at /ws/{room}, /ws?room={room}, /ws and /connect";
        return Err(Refusal::new(Outcome::NotFound, paths));
    };
    check_http(request)?;
    check_upgrade(request.headers())?;
    check_origin(request, &rules.origins)?;
    door()?;
    let mut asked = Asked::read(uri.query().unwrap_or(""))?;
    let route = asked.route(place, rules.rooms_per_connection)?;
    let offered = || tokens(request.headers(), SEC_WEBSOCKET_PROTOCOL);
    let token = token(request.headers(), asked.token.as_deref());
    let since = Instant::now();
    let grant = authorised(access, token, &route)?;
    let client = client_address(peer, request.headers(), &rules.trusted_proxies);
    let permit = admit(client).map_err(|full| Refusal::new(Outcome::from(full), full.to_string()))?;
    Ok(Granted {
        subprotocol: offered().any(|token| token == SUBPROTOCOL),
        grant,
        asked: since,
        route,
        name: asked.name,
        peer: client,
        permit,
    })
}

/// What the operator's service is asked about a client that was granted so much.
pub(super) fn question(request: &Request<Incoming>, granted: &Granted, access: &Access) -> Question {
    let asked = Asked::read(request.uri().query().unwrap_or("")).ok();
    let in_query = asked.as_ref().and_then(|asked| asked.token.as_deref());
    Question {
        token: token(request.headers(), in_query).map(str::to_owned),
        user: granted.grant.user().map(ToString::to_string),
        name: granted.grant.name().map(ToString::to_string).or_else(|| granted.name.clone()),
        rooms: rooms_of(&granted.route).iter().map(|(room, _)| room.to_string()).collect(),
        address: granted.peer,
        origin: only(request.headers(), ORIGIN).map(str::to_owned),
        has_rights: !access.is_open(),
    }
}

/// Where a client's token may stand, the first of them that does.
fn token<'a>(headers: &'a HeaderMap, in_query: Option<&'a str>) -> Option<&'a str> {
    let bearer = || tokens(headers, SEC_WEBSOCKET_PROTOCOL).find_map(|token| token.strip_prefix(BEARER_PROTOCOL));
    authorization(headers).or_else(bearer).or(in_query)
}

fn rooms_of(route: &Route) -> &[(RoomName, Option<Since>)] {
    match route {
        Route::Rooms { rooms, .. } => rooms,
        Route::Bare | Route::Echo => &[],
    }
}

/// Refuses a grant that does not allow to join the rooms of the path.
pub(super) fn check_rooms(grant: &Grant, route: &Route) -> Result<(), Refusal> {
    if rooms_of(route).iter().all(|(room, _)| grant.may(Right::Join, room)) {
        return Ok(());
    }
    Err(Refusal::new(Outcome::ForbiddenRoom, "not allowed to join this room"))
}

fn check_http(request: &Request<Incoming>) -> Result<(), Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::new(Outcome::BadMethod, "a WebSocket begins with GET"));
    }
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::new(Outcome::BadHttpVersion, "a WebSocket begins with HTTP/1.1"));
    }
    if !request.body().is_end_stream() {
        return Err(Refusal::new(Outcome::BadRequest, "a WebSocket begins with a request without a body"));
    }
    Ok(())
}

fn check_upgrade(headers: &HeaderMap) -> Result<(), Refusal> {
    if !tokens(headers, UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket")) {
        return Err(Refusal::new(Outcome::NoUpgrade, "this is a WebSocket: expected the header Upgrade: websocket"));
    }
    if !tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(Refusal::new(Outcome::NoUpgrade, "this is a WebSocket: expected the header Connection: Upgrade"));
    }
    if only(headers, SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::new(Outcome::BadVersion, "expected the header Sec-WebSocket-Version: 13"));
    }
    if !only(headers, SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Refusal::new(Outcome::BadKey, "expected one header Sec-WebSocket-Key with 16 bytes in base64"));
    }
    Ok(())
}

fn check_origin(request: &Request<Incoming>, origins: &OriginPolicy) -> Result<(), Refusal> {
    let Some(host) = request.uri().authority().map(Authority::as_str).or_else(|| only(request.headers(), HOST)) else {
        return Err(Refusal::new(Outcome::BadRequest, "expected one header Host"));
    };
    if !request.headers().contains_key(ORIGIN) {
        return Ok(());
    }
    match only(request.headers(), ORIGIN) {
        Some(origin) if origins.allows(origin, host) => Ok(()),
        _ => Err(Refusal::new(Outcome::BadOrigin, "pages of this origin may not connect")),
    }
}

/// 16 bytes in base64: 22 characters of its alphabet and two of padding.
fn is_key(value: &str) -> bool {
    value.len() == 24
        && value.strip_suffix("==").is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        })
}

/// The token of `Authorization: Bearer`.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What the holder of `token` may do, if that includes the rooms of the path.
fn authorised(access: &Access, token: Option<&str>, route: &Route) -> Result<Grant, Refusal> {
    let grant = access.admit(token).map_err(|denied| {
        let outcome = match denied {
            Denied::Missing => Outcome::NoToken,
            Denied::KeysUnavailable => Outcome::KeysUnavailable,
            _ => Outcome::BadToken,
        };
        Refusal::new(outcome, denied.to_string())
    })?;
    check_rooms(&grant, route)?;
    Ok(grant)
}

/// The value of a header that is there exactly once, and is text.
pub(super) fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// The members of a header that is a list, over all its lines.
fn tokens(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
