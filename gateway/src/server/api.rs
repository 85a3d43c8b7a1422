//! The HTTP API below `/api/v1`: what backends publish, look at and put right, and what the page needs to know.
//!
//! Called by `http` for each request of a connection. Requests are answered one after the other; whoever has a key may
//! keep the connection. It knows rooms only through the hub's shard, and answers JSON. There is no CORS: keys are for
//! backends, and no page of another origin has any business here.

mod body;
mod commands;
mod keys;
mod problem;
mod publish;
mod rooms;
mod routes;
#[cfg(test)]
mod tests;
mod turns;
mod video;

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use roomcast_protocol::RoomName;
use serde::Serialize;
use tokio::time::Instant;

pub use keys::Gate;
pub use video::Video;

use super::handshake::only;
use super::outcome::HandshakeOutcome;
use crate::access::Access;
use crate::config::{ApiKey, Settings};
use crate::hub::Shard;
use crate::lifecycle::{Lifecycle, Stage};
use crate::session::Floor;
use crate::session::accepted::Permit;
use crate::telemetry::metrics::Metrics;
use problem::{Code, Problem};
use routes::{Call, Endpoint, Found, Needs};

/// What the API looks like to tools: OpenAPI 3.1. A test holds it to the table of routes.
const DESCRIPTION: &str = include_str!("api/openapi.json");
/// Time until the next request's head is complete, from the moment an answer was ready.
const IDLE: Duration = Duration::from_secs(30);
/// Time for everything of one request but its body. What is below has shorter times; this one is for what has none.
const REQUEST: Duration = Duration::from_mins(1);
/// Bytes of a body beside the message in it: ids, a name, a list of rooms.
const BODY_BYTES: usize = 32 * 1024;
/// Bytes of a body that is no message.
const SMALL_BODY_BYTES: usize = 4096;

/// Whether a path is the API's.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What one worker's API works with.
pub struct Api {
    gate: Arc<Gate>,
    shard: Rc<Shard>,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    access: Arc<Access>,
    video: Option<Video>,
}

/// One connection's stay with the API.
pub(super) struct Visit {
    permit: Cell<Option<Permit>>,
    until: Cell<Instant>,
}

impl Visit {
    pub(super) fn new(until: Instant) -> Self {
        Self { permit: Cell::new(None), until: Cell::new(until) }
    }

    /// When the connection is cut off.
    pub(super) fn until(&self) -> Instant {
        self.until.get()
    }

    /// Lets the connection live for so long from now on.
    pub(super) fn move_on(&self, patience: Duration) {
        self.until.set(Instant::now() + patience);
    }

    /// Counts the connection among those of the node.
    pub(super) fn take_place(&self, permit: Permit) {
        self.permit.set(Some(permit));
    }

    /// Gives its place back.
    pub(super) fn release(&self) {
        self.permit.set(None);
    }
}

/// A request that was understood as far as its head goes.
struct Asked<'a> {
    /// The `{...}` of its path.
    path: &'a [Cow<'a, str>],
    parts: &'a Parts,
    /// Who calls, as far as proxies are believed.
    client: IpAddr,
    /// Of endpoints that need one.
    key: Option<&'a ApiKey>,
}

impl Asked<'_> {
    fn room(&self) -> Result<RoomName, Problem> {
        let text = self.path.first().map_or("", |text| text);
        RoomName::new(text).map_err(|error| Problem::new(Code::BadRoom, error.to_string()))
    }

    fn segment(&self, at: usize) -> &str {
        self.path.get(at).map_or("", |text| text)
    }

    fn key_name(&self) -> &str {
        self.key.map_or("", ApiKey::name)
    }
}

/// A request that was carried out.
struct Done {
    status: StatusCode,
    body: Bytes,
}

impl Done {
    fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(body).map_err(|_| Problem::new(Code::Internal, "the answer is no JSON"))?;
        Ok(Self { status, body: body.into() })
    }

    fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, body)
    }
}

impl Api {
    /// A worker's API.
    pub fn new(gate: Arc<Gate>, floor: &Floor) -> Rc<Self> {
        for endpoint in routes::ENDPOINTS {
            floor.totals.api.requests.with_label_values(&[endpoint.label, "200"]);
        }
        Rc::new(Self {
            gate,
            shard: Rc::clone(&floor.shard),
            settings: Arc::clone(&floor.settings),
            metrics: Arc::clone(&floor.totals),
            lifecycle: floor.lifecycle.clone(),
            access: Arc::clone(&floor.access),
            video: Video::of(&floor.settings),
        })
    }

    /// Where video is, if it is configured.
    pub(super) fn video(&self) -> Option<&Video> {
        self.video.as_ref()
    }

    /// Resolves once the node drains.
    pub(super) async fn draining(&self) {
        self.lifecycle.reached(Stage::Draining).await;
    }

    /// The answer to a connection that has no place.
    pub(super) fn refuse(&self, outcome: HandshakeOutcome) -> Response<Full<Bytes>> {
        let problem = match outcome {
            HandshakeOutcome::Draining => {
                Problem::new(Code::Draining, "this node is going away: connect again to reach another")
            }
            HandshakeOutcome::ConnectRate => {
                Problem::new(Code::TooManyConnections, "more connections come than this node takes")
            }
            _ => Problem::new(Code::TooManyConnections, "this node or address has as many connections as it may"),
        };
        self.finished("none", false, problem.response())
    }

    /// Answers one request of `client`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        visit: &Visit,
    ) -> Response<Full<Bytes>> {
        let patience = self.settings.message_deadline + REQUEST;
        visit.move_on(patience);
        let (parts, body) = request.into_parts();
        let (label, mut stays, response) = match Self::begin(&parts) {
            Ok(Found::Methods(methods)) => ("options", false, allow(&methods)),
            Ok(Found::Endpoint(endpoint, path)) => {
                let (stays, response) = self.call(endpoint, &path, &parts, body, client).await;
                (endpoint.label, stays, response)
            }
            Err(problem) => ("none", false, problem.response()),
        };
        stays &= self.lifecycle.stage() < Stage::Draining;
        visit.move_on(IDLE);
        self.finished(label, stays, response)
    }

    fn begin(parts: &Parts) -> Result<Found<'_>, Problem> {
        if parts.version == Version::HTTP_11 && parts.uri.authority().is_none() && only(&parts.headers, HOST).is_none()
        {
            return Err(Problem::new(Code::BadRequest, "expected one header Host"));
        }
        routes::find(&parts.method, parts.uri.path())
    }

    /// The answer of an endpoint, and whether the connection may stay: only for those who have a key.
    async fn call(
        &self,
        endpoint: &Endpoint,
        path: &[Cow<'_, str>],
        parts: &Parts,
        body: Incoming,
        client: IpAddr,
    ) -> (bool, Response<Full<Bytes>>) {
        let key = match endpoint.needs {
            Needs::Nothing | Needs::Token => Ok(None),
            Needs::Key(scope) => self.gate.check(&parts.headers, scope, client, Instant::now().into_std()).map(Some),
        };
        let key = match key {
            Ok(key) => key,
            // Who asks too fast has a key, and keeps the connection.
            Err(problem) => return (problem.code == Code::RateLimited, problem.response()),
        };
        let asked = Asked { path, parts, client, key };
        let result = self.carry_out(endpoint.call, &asked, body).await;
        let is_cut = matches!(&result, Err(problem) if matches!(problem.code, Code::Timeout | Code::TooLarge));
        let response = result.map_or_else(|problem| problem.response(), |done| json(done.status, done.body));
        (key.is_some() && !is_cut, response)
    }

    async fn carry_out(&self, call: Call, asked: &Asked<'_>, body: Incoming) -> Result<Done, Problem> {
        match call {
            Call::Description => Ok(Done { status: StatusCode::OK, body: Bytes::from_static(DESCRIPTION.as_bytes()) }),
            Call::ClientConfig => self.client_config(),
            Call::Rooms => self.rooms(asked).await,
            Call::Room => self.room(asked).await,
            Call::History => self.history(asked).await,
            Call::Publish => self.publish(asked, body).await,
            Call::PublishMany => self.publish_many(asked, body).await,
            Call::Members => self.members(asked).await,
            Call::RemoveUser => self.remove_user(asked).await,
            Call::RemoveClient => self.remove_client(asked).await,
            Call::DisconnectUser => self.disconnect_user(asked, body).await,
            Call::DisconnectClient => self.disconnect_client(asked).await,
            Call::Nodes => self.nodes().await,
            Call::VideoToken => self.video_token(asked, body).await,
        }
    }

    /// The body of a request as JSON text.
    async fn body(&self, asked: &Asked<'_>, body: Incoming, limit: usize) -> Result<Bytes, Problem> {
        body::read(&asked.parts.headers, body, limit, self.settings.message_deadline).await
    }

    fn finished(&self, label: &str, stays: bool, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        if !stays {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.api.requests.with_label_values(&[label, response.status().as_str()]).inc();
        response
    }
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn allow(methods: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(methods) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}
