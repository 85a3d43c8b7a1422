//! One TCP connection's HTTP part: a single request, answered or turned into a WebSocket.
//!
//! Called by the accept loop. One request per connection (no keep-alive): the time a connection may be here is bounded
//! as a whole, and it never waits for a second request. The future of this part ends with the handshake; a session
//! starts in its own, smaller task.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use roomcast_protocol::SUBPROTOCOL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Granted, HandshakeRules, judge};
use super::outcome::{HandshakeOutcome as Outcome, Refusal};
use super::{Context, pages};
use crate::session::accepted::Accepted;

/// How long a client may take to read its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a refused client is listened to so that it can read why: closing a socket with
/// unread input resets it, and the answer may be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// hyper accepts no less.
const MIN_BUFFER: usize = 8192;

/// Prepares hyper as the rules have it.
pub(super) fn builder(rules: &HandshakeRules) -> Builder {
    let mut builder = Builder::new();
    // Without a timer the header timeout would do nothing.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(rules.header_read_timeout)
        .max_headers(rules.max_headers)
        .max_header_size(rules.max_header_bytes)
        .max_buf_size(rules.max_header_bytes.max(MIN_BUFFER));
    builder
}

/// Serves one connection; ends when it is closed or handed to a session.
pub(super) async fn serve(stream: TcpStream, peer: IpAddr, context: Rc<Context>) {
    let began = SystemTime::now();
    let door =
        Door { context: context.clone(), peer, granted: Cell::new(None), outcome: Cell::new(Outcome::Abandoned) };
    let mut connection = context.builder.serve_connection(TokioIo::new(stream), door);
    let patience = context.rules.header_read_timeout + ANSWER_TIMEOUT;
    let result = timeout(patience, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
    let Parts { io, read_buf, service: door, .. } = connection.into_parts();
    let stream = io.into_inner();
    match (result, door.granted.take()) {
        (Ok(Ok(())), Some(granted)) => {
            context.record(Outcome::Accepted, began);
            (context.on_socket)(accepted(stream, read_buf, granted));
        }
        (Ok(Ok(())), None) => {
            context.record(door.outcome.get(), began);
            linger(stream).await;
        }
        (Ok(Err(error)), _) => {
            context.record(failure(&error), began);
            if error.is_parse() {
                linger(stream).await;
            }
        }
        (Err(_), _) => context.record(Outcome::Timeout, began),
    }
}

fn accepted(stream: TcpStream, leftover: Bytes, granted: Granted) -> Accepted {
    let Granted { route, name, grant, peer, permit, .. } = granted;
    Accepted { stream, leftover, route, name, grant, peer, permit }
}

fn failure(error: &hyper::Error) -> Outcome {
    if error.is_timeout() {
        Outcome::Timeout
    } else if error.is_parse_too_large() {
        Outcome::HeadersTooLarge
    } else if error.is_parse() {
        Outcome::BadRequest
    } else {
        Outcome::Abandoned
    }
}

async fn linger(mut stream: TcpStream) {
    let discard = async {
        let _ = stream.shutdown().await;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = stream.read(&mut scratch).await
            && left > read
        {
            left -= read;
        }
    };
    let _ = timeout(LINGER, discard).await;
}

/// What hyper asks for the answer; keeps what is to happen after it.
struct Door {
    context: Rc<Context>,
    peer: IpAddr,
    granted: Cell<Option<Granted>>,
    outcome: Cell<Outcome>,
}

impl Door {
    fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        if let Some(page) = pages::response(request.method(), request.uri().path()) {
            self.outcome.set(Outcome::Page);
            return Ok(page);
        }
        let Context { rules, admission, access, draining, .. } = &*self.context;
        let door = || {
            if draining() {
                return Err(Refusal::new(Outcome::Draining, "this node is going away: connect again to reach another"));
            }
            admission.is_in_time().then_some(()).ok_or_else(|| {
                Refusal::new(Outcome::ConnectRate, "more connections come than this node takes: come back later")
            })
        };
        let granted = judge(&request, self.peer, rules, access, door, |client| admission.admit(client))?;
        // Its future is not needed: the socket comes back from the connection itself, with no cast in between.
        let (switching, _) = fastwebsockets::upgrade::upgrade(&mut request)
            .map_err(|error| Refusal::new(Outcome::BadRequest, error.to_string()))?;
        let mut response = switching.map(|_| Full::default());
        if granted.subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        self.granted.set(Some(granted));
        Ok(response)
    }
}

impl Service<Request<Incoming>> for Door {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut response = self.answer(request).unwrap_or_else(|refusal| {
            tracing::debug!(peer = %self.peer, outcome = refusal.outcome.label(), detail = %refusal.detail, "refused");
            self.outcome.set(refusal.outcome);
            refusal.response()
        });
        // Said here and not by hyper's `keep_alive(false)`, which would also make the 101 say `upgrade, close`: strict
        // clients refuse that.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        }
        ready(Ok(response))
    }
}
