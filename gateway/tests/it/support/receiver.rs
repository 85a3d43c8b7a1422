//! A service that is called by the gateway: it takes webhooks, and answers as a test wants it to.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{eventually, within};

/// What signs the calls of every test.
pub const SECRET: &str = "a secret of the tests";

/// Where it is called, to the letter; elsewhere there is nothing.
const PATH: &str = "/hook?of=tests";

/// How a call is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// With a status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// The same, after a while.
    Late(Duration, u16),
    /// With 200 and a body, once the test says so.
    Held(Arc<Notify>, String),
    /// Never.
    Never,
    /// With 200 and a body that does not end.
    Endless,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }

    pub fn json(body: &Value) -> Self {
        Self::Status(200, vec![("content-type", "application/json".to_owned())], body.to_string())
    }
}

/// One call as it came.
#[derive(Debug, Clone)]
pub struct Taken {
    pub body: Value,
    pub status: u16,
    pub at: Instant,
    /// Of the peer: the same while the connection is kept.
    pub peer: SocketAddr,
}

type Answering = Box<dyn FnMut(&Value) -> Reply + Send>;

#[derive(Default)]
struct State {
    calls: Vec<Taken>,
    /// Calls that are being answered now, and the most there were at a time.
    open: usize,
    most_open: usize,
    next: VecDeque<Reply>,
    answering: Option<Answering>,
}

/// A running service; stopped when dropped.
pub struct Receiver {
    addr: SocketAddr,
    scheme: &'static str,
    tls: Option<TlsAcceptor>,
    state: Arc<Mutex<State>>,
    task: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    /// Keeps the address while nobody listens there.
    held: Option<TcpSocket>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, as `localhost`.
    pub async fn start_tls(config: rustls::ServerConfig) -> Self {
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut receiver =
            Self { addr: listener.local_addr().unwrap(), scheme, tls, state: Arc::default(), task: None, held: None };
        receiver.listen(listener);
        receiver
    }

    fn listen(&mut self, listener: TcpListener) {
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        let (stop, stopped) = watch::channel(false);
        let serve_all = async move {
            let mut connections = JoinSet::new();
            let mut over = stopped.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = over.wait_for(|over| *over) => break,
                };
                let Ok((stream, peer)) = accepted else { continue };
                let (state, tls, stopped) = (Arc::clone(&state), tls.clone(), stopped.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, peer, state, stopped).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, peer, state, stopped).await;
                            }
                        }
                    }
                });
            }
            drop(listener);
            while connections.join_next().await.is_some() {}
        };
        self.task = Some((tokio::spawn(serve_all), stop));
    }

    /// Nobody is there any more. What was taken is answered first: whoever called would else call again.
    pub async fn stop(&mut self) {
        if let Some((task, stop)) = self.task.take() {
            stop.send_replace(true);
            within("the last calls to be answered", task).await.unwrap();
            self.held = Some(self.bound().expect("the address is still ours"));
        }
    }

    /// Back at the same address.
    pub fn resume(&mut self) {
        let socket = self.held.take().expect("it was stopped");
        self.listen(socket.listen(64).unwrap());
    }

    fn bound(&self) -> std::io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.addr)?;
        Ok(socket)
    }

    pub fn url(&self) -> String {
        let host = if self.tls.is_some() { "localhost".to_owned() } else { self.addr.ip().to_string() };
        format!("{}://{host}:{}{PATH}", self.scheme, self.addr.port())
    }

    /// How the next calls are answered, one each; then all is taken again.
    pub fn answer_next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state().next.extend(replies);
    }

    /// How calls are answered from now on.
    pub fn answer(&self, answering: impl FnMut(&Value) -> Reply + Send + 'static) {
        self.state().answering = Some(Box::new(answering));
    }

    pub fn calls(&self) -> Vec<Taken> {
        self.state().calls.clone()
    }

    /// The most calls that were open at a time.
    pub fn most_open(&self) -> usize {
        self.state().most_open
    }

    /// The events of all calls that were answered 2xx, in their order. As receivers should, it skips those that it has
    /// had: a node that did not hear the answer in time calls again.
    pub fn events(&self) -> Vec<Value> {
        let taken = |call: Taken| call.body["events"].as_array().cloned().unwrap_or_default();
        let calls = self.calls().into_iter().filter(|call| (200..300).contains(&call.status));
        let mut had = HashSet::new();
        calls.flat_map(taken).filter(|event| had.insert(event["id"].to_string())).collect()
    }

    /// Waits until the events are such.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, || async {
            let events = self.events();
            wanted(&events).then_some(events)
        })
        .await
    }

    /// Waits until there are so many events.
    pub async fn until_count(&self, count: usize) -> Vec<Value> {
        self.until(&format!("{count} events"), |events| events.len() >= count).await
    }

    /// Waits for so many calls, whatever became of them.
    pub async fn until_calls(&self, count: usize) -> Vec<Taken> {
        eventually(&format!("{count} calls"), || async {
            let calls = self.calls();
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.task {
            task.abort();
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    state: Arc<Mutex<State>>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(take(request, peer, state).await) }
    });
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// One that is counted as open.
struct Open(Arc<Mutex<State>>);

impl Open {
    fn new(state: &Arc<Mutex<State>>) -> Self {
        let mut inner = state.lock().unwrap();
        inner.open += 1;
        inner.most_open = inner.most_open.max(inner.open);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().open -= 1;
    }
}

async fn take(
    request: Request<Incoming>,
    peer: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let _open = Open::new(&state);
    let is_here = request.uri() == PATH;
    let signature =
        request.headers().get("roomcast-signature").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let Ok(body) = request.into_body().collect().await else { return answered(400, &[], String::new()) };
    let body = body.to_bytes();
    let is_signed = signature.as_deref().is_some_and(|signature| is_signed(signature, &body));
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let reply = {
        let mut state = state.lock().unwrap();
        let reply = match state.next.pop_front() {
            _ if !is_here => Reply::status(404),
            _ if !is_signed => Reply::status(401),
            Some(reply) => reply,
            None => state.answering.as_mut().map_or(Reply::status(200), |answering| answering(&json)),
        };
        let status = match &reply {
            Reply::Status(status, ..) | Reply::Late(_, status) => *status,
            Reply::Never => 0,
            Reply::Held(..) | Reply::Endless => 200,
        };
        state.calls.push(Taken { body: json, status, at: Instant::now(), peer });
        reply
    };
    match reply {
        Reply::Status(status, headers, body) => answered(status, &headers, body),
        Reply::Late(time, status) => {
            tokio::time::sleep(time).await;
            answered(status, &[], String::new())
        }
        Reply::Held(until, body) => {
            until.notified().await;
            answered(200, &[], body)
        }
        Reply::Never => std::future::pending().await,
        Reply::Endless => {
            let piece = || Some((Ok(Frame::data(Bytes::from_static(&[b' '; 8192]))), ()));
            Response::new(BoxBody::new(StreamBody::new(futures_util::stream::unfold(
                (),
                move |()| async move { piece() },
            ))))
        }
    }
}

fn answered(status: u16, headers: &[(&'static str, String)], body: String) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(BoxBody::new(Full::from(body))).unwrap()
}

/// As docs/webhooks.md tells receivers to check it.
fn is_signed(signature: &str, body: &[u8]) -> bool {
    let part = |name: &str| signature.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (Some(time), Some(given)) = (part("t"), part("v1")) else { return false };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    if time.parse::<u64>().is_ok_and(|time| now.abs_diff(time) > 300) {
        return false;
    }
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    let given: Option<Vec<u8>> =
        (0..given.len() / 2).map(|at| u8::from_str_radix(given.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    given.is_some_and(|given| ring::hmac::verify(&key, &signed, &given).is_ok())
}

/// Waits until a node says so in its log.
pub async fn until_logged(node: &super::Node, words: &str) {
    within(words, async {
        while !node.log().contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
