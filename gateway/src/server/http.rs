//! One TCP connection's HTTP part: a request that is answered or turned into a WebSocket, or a run of API requests.
//!
//! Called by the accept loop. Pages and handshakes have one request per connection: the time a connection may be here
//! is bounded as a whole, and it never waits for a second request. The future of this part ends with the handshake; a
//! session starts in its own, smaller task. A connection of the API gets a task of its own, too, and may stay.

mod decision;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::server::conn::http1::{Builder, Connection, Parts};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use roomcast_protocol::SUBPROTOCOL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::api::{self, Api, Visit};
use super::handshake::{Granted, HandshakeRules, client_address, judge, question};
use super::outcome::{HandshakeOutcome as Outcome, Refusal};
use super::{Context, admission};
use crate::session::accepted::Accepted;
use decision::{Answer, Step, decide};

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
    // Deadlines are kept here: hyper's would count the time between two requests as that of a head.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(rules.max_headers)
        .max_header_size(rules.max_header_bytes)
        .max_buf_size(rules.max_header_bytes.max(MIN_BUFFER));
    builder
}

/// Serves one connection; ends when it is closed, or handed to a session or to a task of the API. `place` is that of
/// its handshake.
pub(super) async fn serve(stream: TcpStream, peer: IpAddr, context: Rc<Context>, place: OwnedSemaphorePermit) {
    let stay = Rc::new(Stay {
        began: SystemTime::now(),
        _arrival: context.admission.visit(),
        granted: Cell::new(None),
        outcome: Cell::new(Outcome::Abandoned),
        for_api: Cell::new(false),
        visit: Visit::new(Instant::now() + context.rules.header_read_timeout),
    });
    let door = Door { context: Rc::clone(&context), peer, stay: Rc::clone(&stay) };
    let mut connection = context.builder.serve_connection(TokioIo::new(stream), door);
    let result = {
        let mut alarm = pin!(sleep_until(stay.visit.until()));
        poll_fn(|cx| {
            let result = stay.poll(cx, &mut connection, alarm.as_mut());
            if result.is_pending() && stay.for_api.get() { Poll::Ready(None) } else { result.map(Some) }
        })
        .await
    };
    if let Some(result) = result {
        finish(result, connection, &stay, &context).await;
    } else {
        context.record(Outcome::Api, stay.began);
        // Boxed by the spawn: what the API needs is no part of a handshake's future. Its place is free.
        tokio::task::spawn_local(serve_api(connection, stay, context));
    }
    drop(place);
}

/// Serves a connection whose first request was the API's, for as long as it stays.
async fn serve_api(mut connection: Connection<TokioIo<TcpStream>, Door>, stay: Rc<Stay>, context: Rc<Context>) {
    let Some(api) = context.api.clone() else { return };
    let result = {
        let mut alarm = pin!(sleep_until(stay.visit.until()));
        let mut draining = pin!(api.draining());
        let mut told = false;
        poll_fn(|cx| {
            if !told && draining.as_mut().poll(cx).is_ready() {
                told = true;
                // Who waits for a request is closed; who is being answered is told to go after that.
                Pin::new(&mut connection).graceful_shutdown();
            }
            stay.poll(cx, &mut connection, alarm.as_mut())
        })
        .await
    };
    stay.visit.release();
    // A page or a handshake came behind the API's requests. Otherwise the outcome was recorded when the API took over.
    if stay.outcome.get() != Outcome::Api || stay.has_granted() {
        finish(result, connection, &stay, &context).await;
    } else if result.is_some_and(|result| result.map_or_else(|error| error.is_parse(), |()| true)) {
        linger(connection.into_parts().io.into_inner()).await;
    }
}

/// Hands a connection on, or listens until its client has read why it was refused.
async fn finish(
    result: Option<hyper::Result<()>>,
    connection: Connection<TokioIo<TcpStream>, Door>,
    stay: &Stay,
    context: &Context,
) {
    let Parts { io, read_buf, .. } = connection.into_parts();
    let stream = io.into_inner();
    stay.visit.release();
    match (result, stay.granted.take()) {
        (Some(Ok(())), Some(granted)) => {
            context.record(Outcome::Accepted, stay.began);
            (context.on_socket)(accepted(stream, read_buf, granted));
        }
        (Some(Ok(())), None) => {
            context.record(stay.outcome.get(), stay.began);
            linger(stream).await;
        }
        (Some(Err(error)), _) => {
            context.record(failure(&error), stay.began);
            if error.is_parse() {
                linger(stream).await;
            }
        }
        (None, _) => context.record(Outcome::Timeout, stay.began),
    }
}

/// What is known of a connection while it is here, beside the connection itself.
struct Stay {
    began: SystemTime,
    /// While it is here, the node is not idle.
    _arrival: admission::Visit,
    granted: Cell<Option<Granted>>,
    outcome: Cell<Outcome>,
    /// True once the API was asked.
    for_api: Cell<bool>,
    visit: Visit,
}

impl Stay {
    /// Goes on with the connection; none when its time is over.
    fn poll(
        &self,
        cx: &mut TaskContext<'_>,
        connection: &mut Connection<TokioIo<TcpStream>, Door>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Poll<Option<hyper::Result<()>>> {
        if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(Some(result));
        }
        // Each request moves it on.
        if alarm.deadline() != self.visit.until() {
            alarm.as_mut().reset(self.visit.until());
        }
        ready!(alarm.poll(cx));
        Poll::Ready(None)
    }

    fn has_granted(&self) -> bool {
        let granted = self.granted.take();
        let has = granted.is_some();
        self.granted.set(granted);
        has
    }
}

fn accepted(stream: TcpStream, leftover: Bytes, granted: Granted) -> Accepted {
    let Granted { route, name, grant, asked, peer, permit, .. } = granted;
    Accepted { stream, leftover, route, name, grant, asked, peer, permit }
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
    stay: Rc<Stay>,
}

impl Door {
    /// The answer, or what the operator's service is to be asked before it is given.
    fn answer(&self, mut request: Request<Incoming>) -> Result<Step, Refusal> {
        if let Some(page) = self.context.pages.response(&request) {
            self.stay.outcome.set(Outcome::Page);
            return Ok(Step::Answer(page));
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
        let asking = rules.authorizer.as_ref().map(|asked| (Arc::clone(asked), question(&request, &granted, access)));
        // Its future is not needed: the socket comes back from the connection itself, with no cast in between.
        let (switching, _) = fastwebsockets::upgrade::upgrade(&mut request)
            .map_err(|error| Refusal::new(Outcome::BadRequest, error.to_string()))?;
        let mut response = switching.map(|_| Full::default());
        if granted.subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let Some((authorizer, question)) = asking else {
            self.stay.granted.set(Some(granted));
            return Ok(Step::Answer(response));
        };
        self.stay.visit.move_on(authorizer.patience() + ANSWER_TIMEOUT);
        let stay = Rc::clone(&self.stay);
        Ok(Step::Ask(Box::pin(async move {
            let granted = decide(&authorizer, question, granted).await?;
            stay.granted.set(Some(granted));
            Ok(response)
        })))
    }

    /// Lets the API answer, if this connection has a place. The first request takes it; the others are the rate's of
    /// their key.
    fn ask_api(&self, api: &Rc<Api>, request: Request<Incoming>) -> Answering {
        let Context { rules, admission, draining, .. } = &*self.context;
        let client = client_address(self.peer, request.headers(), &rules.trusted_proxies);
        if !self.stay.for_api.get() {
            let refused = match () {
                () if draining() => Err(Outcome::Draining),
                () if !admission.is_in_time() => Err(Outcome::ConnectRate),
                () => admission.admit(client).map_err(Outcome::from),
            };
            match refused {
                Ok(permit) => self.stay.visit.take_place(permit),
                Err(outcome) => {
                    self.stay.outcome.set(outcome);
                    self.stay.visit.move_on(ANSWER_TIMEOUT);
                    return Answering::Now(Some(api.refuse(outcome)));
                }
            }
            self.stay.for_api.set(true);
            self.stay.outcome.set(Outcome::Api);
        }
        let (api, stay) = (Rc::clone(api), Rc::clone(&self.stay));
        Answering::Later(Box::pin(async move { api.answer(request, client, &stay.visit).await }))
    }
}

/// An answer to come. Only the API's take time, and only they cost an allocation.
enum Answering {
    Now(Option<Response<Full<Bytes>>>),
    Later(Pin<Box<dyn Future<Output = Response<Full<Bytes>>>>>),
}

impl Future for Answering {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // hyper does not poll again.
            Self::Now(response) => response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

/// The answer as it is sent; notes in words for developers why someone is refused.
fn answered(answer: Answer, peer: IpAddr, stay: &Stay) -> Response<Full<Bytes>> {
    let mut response = answer.unwrap_or_else(|refusal| {
        tracing::debug!(%peer, outcome = refusal.outcome.label(), detail = %refusal.detail, "refused");
        stay.outcome.set(refusal.outcome);
        refusal.response()
    });
    // Said here and not by hyper's `keep_alive(false)`, which would also make the 101 say `upgrade, close`: strict
    // clients refuse that.
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
    }
    response
}

impl Service<Request<Incoming>> for Door {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some(api) = &self.context.api
            && api::is_below(request.uri().path())
        {
            return self.ask_api(api, request);
        }
        self.stay.visit.release();
        self.stay.visit.move_on(ANSWER_TIMEOUT);
        let (peer, stay) = (self.peer, Rc::clone(&self.stay));
        match self.answer(request) {
            Ok(Step::Ask(asking)) => Answering::Later(Box::pin(async move { answered(asking.await, peer, &stay) })),
            Ok(Step::Answer(response)) => Answering::Now(Some(answered(Ok(response), peer, &stay))),
            Err(refusal) => Answering::Now(Some(answered(Err(refusal), peer, &stay))),
        }
    }
}
