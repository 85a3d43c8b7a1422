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
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::Either;
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

use super::authorize::{Authorizer, Question, Verdict};
use super::handshake::{Granted, HandshakeRules, check_rooms, judge, question};
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
    let _visit = context.admission.visit();
    let fate = Rc::new(Fate { granted: Cell::new(None), outcome: Cell::new(Outcome::Abandoned) });
    let door = Door { context: context.clone(), peer, fate: Rc::clone(&fate) };
    let mut connection = context.builder.serve_connection(TokioIo::new(stream), door);
    let decision = context.rules.authorizer.as_ref().map(|authorizer| authorizer.patience()).unwrap_or_default();
    let patience = context.rules.header_read_timeout + decision + ANSWER_TIMEOUT;
    let result = timeout(patience, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
    let Parts { io, read_buf, .. } = connection.into_parts();
    let stream = io.into_inner();
    match (result, fate.granted.take()) {
        (Ok(Ok(())), Some(granted)) => {
            context.record(Outcome::Accepted, began);
            (context.on_socket)(accepted(stream, read_buf, granted));
        }
        (Ok(Ok(())), None) => {
            context.record(fate.outcome.get(), began);
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

/// What hyper asks for the answer.
struct Door {
    context: Rc<Context>,
    peer: IpAddr,
    fate: Rc<Fate>,
}

/// What is to happen behind the answer.
struct Fate {
    granted: Cell<Option<Granted>>,
    outcome: Cell<Outcome>,
}

type Answer = Result<Response<Full<Bytes>>, Refusal>;

impl Door {
    /// The answer, or what the operator's service is to be asked before it is given.
    fn answer(&self, mut request: Request<Incoming>) -> Result<Step, Refusal> {
        if let Some(page) = pages::response(request.method(), request.uri().path()) {
            self.fate.outcome.set(Outcome::Page);
            return Ok(Step::Answer(page));
        }
        let Context { rules, admission, access, draining, .. } = &*self.context;
        let authorizer = rules.authorizer.as_ref();
        let door = || {
            if draining() {
                return Err(Refusal::new(Outcome::Draining, "this node is going away: connect again to reach another"));
            }
            admission.is_in_time().then_some(()).ok_or_else(|| {
                Refusal::new(Outcome::ConnectRate, "more connections come than this node takes: come back later")
            })
        };
        let granted = judge(&request, self.peer, rules, access, door, |client| admission.admit(client))?;
        let question = authorizer.map(|_| question(&request, &granted, access));
        // Its future is not needed: the socket comes back from the connection itself, with no cast in between.
        let (switching, _) = fastwebsockets::upgrade::upgrade(&mut request)
            .map_err(|error| Refusal::new(Outcome::BadRequest, error.to_string()))?;
        let mut response = switching.map(|_| Full::default());
        if granted.subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let (Some(authorizer), Some(question)) = (authorizer, question) else {
            self.fate.granted.set(Some(granted));
            return Ok(Step::Answer(response));
        };
        let (authorizer, fate) = (Arc::clone(authorizer), Rc::clone(&self.fate));
        Ok(Step::Ask(Box::pin(async move {
            let granted = authorised(&authorizer, question, granted).await?;
            fate.granted.set(Some(granted));
            Ok(response)
        })))
    }
}

/// How an answer comes.
enum Step {
    /// It is there.
    Answer(Response<Full<Bytes>>),
    /// The operator's service has to be asked.
    Ask(Pin<Box<dyn Future<Output = Answer>>>),
}

/// Has the operator's service decide. Its place among the connections is held meanwhile.
async fn authorised(authorizer: &Arc<Authorizer>, question: Question, granted: Granted) -> Result<Granted, Refusal> {
    let decision = match authorizer.ask(question).await {
        Verdict::Allowed(decision) => decision,
        Verdict::Denied(reason) => return Err(Refusal::new(Outcome::NotAuthorized, reason.to_string())),
        Verdict::Failed => {
            return Err(Refusal::new(Outcome::AuthorizeFailed, "nobody can say now whether you may: come back later"));
        }
        Verdict::Busy => {
            return Err(Refusal::new(Outcome::AuthorizeBusy, "too many ask to come in now: come back later"));
        }
    };
    let grant = granted.grant.decided(&decision);
    check_rooms(&grant, &granted.route)?;
    Ok(Granted { grant, ..granted })
}

/// The answer as it is sent; notes in words for developers why someone is refused.
fn answered(answer: Answer, peer: IpAddr, fate: &Fate) -> Response<Full<Bytes>> {
    let mut response = answer.unwrap_or_else(|refusal| {
        tracing::debug!(%peer, outcome = refusal.outcome.label(), detail = %refusal.detail, "refused");
        fate.outcome.set(refusal.outcome);
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
    type Future = Either<
        Ready<Result<Self::Response, Infallible>>,
        Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>,
    >;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (peer, fate) = (self.peer, Rc::clone(&self.fate));
        match self.answer(request) {
            Ok(Step::Ask(asking)) => Either::Right(Box::pin(async move { Ok(answered(asking.await, peer, &fate)) })),
            Ok(Step::Answer(response)) => Either::Left(ready(Ok(answered(Ok(response), peer, &fate)))),
            Err(refusal) => Either::Left(ready(Ok(answered(Err(refusal), peer, &fate)))),
        }
    }
}
