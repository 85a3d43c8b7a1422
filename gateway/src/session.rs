//! One client's life: reading, what its frames ask for, and how it ends.
//!
//! The server starts a session with [`start`] once a handshake is complete. The session knows rooms only through the
//! hub's shard, and writes only through its peer. Its task is kept small: 10,000 idle ones must cost little.

pub mod accepted;
mod budget;
mod closing;
mod dispatch;
mod end;
mod heartbeat;
mod rights;
mod share;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use roomcast_protocol::ClientId;

use crate::access::Access;
use crate::broker::Subject;
use crate::config::Settings;
use crate::hub::{Identity, Peer, Seat, Shard, Stop};
use crate::lifecycle::Lifecycle;
use crate::socket::{Event, Reader, frames};
use crate::telemetry::metrics::{Metrics, WorkerMetrics};
use crate::telemetry::trace::Tracing;
use accepted::{Accepted, Permit, Route};
use dispatch::Dispatcher;
pub use end::{End, Row};
pub use heartbeat::{Heartbeat, beat};

/// Bytes read at once, into one buffer of the worker's: what a session keeps is only what is partial.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What all sessions of a worker share.
pub struct Floor {
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// This worker's part of the hub.
    pub shard: Rc<Shard>,
    /// This worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
    /// The node's metrics, for what happens seldom.
    pub totals: Arc<Metrics>,
    /// The worker's clock of pings and deadlines.
    pub heartbeat: Heartbeat,
    /// Spans.
    pub tracing: Tracing,
    /// Whether the node is draining.
    pub lifecycle: Lifecycle,
    /// Who reads the tokens that clients bring later.
    pub access: Arc<Access>,
    scratch: RefCell<Box<[u8]>>,
    /// Sessions whose task lives, closing ones too.
    sessions: Cell<usize>,
}

impl Floor {
    /// What sessions on a worker with this shard share.
    pub fn new(
        settings: Arc<Settings>,
        shard: Rc<Shard>,
        metrics: (Rc<WorkerMetrics>, Arc<Metrics>),
        tracing: Tracing,
        lifecycle: Lifecycle,
        access: Arc<Access>,
    ) -> Rc<Self> {
        let heartbeat = Heartbeat::new(&settings);
        let scratch = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
        let (metrics, totals) = metrics;
        Rc::new(Self {
            settings,
            shard,
            metrics,
            totals,
            heartbeat,
            tracing,
            lifecycle,
            access,
            scratch,
            sessions: Cell::new(0),
        })
    }
}

impl Floor {
    /// Sessions that have not ended yet, closing ones included.
    pub fn sessions(&self) -> usize {
        self.sessions.get()
    }
}

/// A session's place in [`Floor::sessions`], and in the shard: even a session that panics leaves its rooms.
struct Alive(Rc<Floor>, Rc<Peer>);

impl Alive {
    fn new(floor: &Rc<Floor>, peer: &Rc<Peer>) -> Self {
        floor.sessions.set(floor.sessions.get() + 1);
        floor.shard.connect(peer);
        floor.totals.sockets.connections.inc();
        floor.totals.sockets.connections_total.inc();
        Self(Rc::clone(floor), Rc::clone(peer))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let Self(floor, peer) = self;
        if floor.shard.disconnect(peer) {
            floor.totals.sockets.connections.dec();
        }
        floor.sessions.set(floor.sessions.get() - 1);
    }
}

/// What the session's task waits for.
enum Next {
    Stop(Stop),
    Writable,
    Readable,
    /// Input that was set aside may be handled now.
    Resume,
}

struct Session {
    reader: Reader,
    /// Input behind a frame that had to wait.
    leftover: Vec<u8>,
    dispatcher: Dispatcher,
    _permit: Permit,
    _alive: Alive,
    /// Its place among the connections of its user, if those are limited.
    seat: Option<Box<Seat>>,
}

/// Starts the session of a socket that is past its handshake, as a task of this worker.
pub fn start(floor: &Rc<Floor>, accepted: Accepted) {
    let (session, route) = Session::new(floor, accepted);
    let user = session.dispatcher.subject();
    if floor.shard.counts(user) {
        tokio::task::spawn_local(session.run_seated(user, route));
        return;
    }
    session.dispatcher.greet(route);
    tokio::task::spawn_local(session.run());
}

impl Session {
    fn new(floor: &Rc<Floor>, accepted: Accepted) -> (Self, Route) {
        let Accepted { stream, leftover, route, name, grant, asked, permit, .. } = accepted;
        let settings = &floor.settings;
        let id = ClientId::random();
        // Who may not choose a name has the one that was given, whatever the query asks for.
        let name = grant.name().cloned().or_else(|| name.map(Into::into));
        let name: Arc<str> = name.unwrap_or_else(|| format!("guest-{}", &id.to_string()[..4]).into());
        let identity = Identity { user: grant.user().cloned(), info: grant.info().cloned() };
        let peer = Peer::new(id, name, identity, stream, settings.outbound_queue_bytes, floor.heartbeat.now());
        let alive = Alive::new(floor, &peer);
        floor.shard.end_if_dismissed(&peer, asked);
        let echo = matches!(route, Route::Echo);
        let dispatcher = Dispatcher::new(Rc::clone(floor), peer, grant, echo);
        let fragments = u32::try_from(settings.max_fragments).unwrap_or(u32::MAX);
        let most = u32::try_from(settings.max_message_bytes).unwrap_or(u32::MAX);
        let session = Self {
            reader: Reader::new(most, fragments),
            leftover: leftover.to_vec(),
            dispatcher,
            _permit: permit,
            _alive: alive,
            seat: None,
        };
        (session, route)
    }

    /// Says `welcome` only once there is a place for one more connection of this user.
    async fn run_seated(mut self, user: Subject, route: Route) {
        match self.dispatcher.seat(user).await {
            Ok(seat) => {
                self.seat = Some(seat);
                self.dispatcher.greet(route);
                self.run().await;
            }
            Err(end) => closing::close(self.dispatcher, end).await,
        }
    }

    async fn run(mut self) {
        let end = self.serve().await;
        // Boxed, so that a living session does not carry the room its end needs.
        Box::pin(closing::close(self.dispatcher, end)).await;
    }

    /// Serves until there is a reason to end.
    async fn serve(&mut self) -> End {
        loop {
            let next = poll_fn(|cx| self.poll_next(cx)).await;
            let outcome = match next {
                Next::Stop(stop) => Err(stop.into()),
                Next::Writable => {
                    self.dispatcher.floor().shard.flush(self.dispatcher.peer());
                    Ok(())
                }
                Next::Readable => self.read(),
                Next::Resume => self.resume(),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let peer = self.dispatcher.peer();
        peer.register(cx.waker());
        if let Some(stop) = peer.stop() {
            return Poll::Ready(Next::Stop(stop));
        }
        if peer.awaits_writable() && peer.stream().poll_write_ready(cx).is_ready() {
            return Poll::Ready(Next::Writable);
        }
        if !self.dispatcher.may_go_on() {
            return Poll::Pending;
        }
        if self.dispatcher.has_deferred() || !self.leftover.is_empty() {
            return Poll::Ready(Next::Resume);
        }
        peer.stream().poll_read_ready(cx).map(|_| Next::Readable)
    }

    fn read(&mut self) -> Result<(), End> {
        let floor = Rc::clone(self.dispatcher.floor());
        let mut scratch = floor.scratch.borrow_mut();
        match self.dispatcher.peer().stream().try_read(&mut scratch) {
            Ok(0) => Err(End::Gone),
            Ok(count) => {
                floor.metrics.read(count);
                self.dispatcher.peer().heard.set(floor.heartbeat.now());
                self.take_in(&mut scratch[..count])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(End::Gone),
        }
    }

    fn resume(&mut self) -> Result<(), End> {
        self.dispatcher.resume()?;
        let mut input = std::mem::take(&mut self.leftover);
        self.take_in(&mut input)
    }

    /// Handles the frames of `input` until one must wait; the rest is set aside.
    fn take_in(&mut self, mut input: &mut [u8]) -> Result<(), End> {
        loop {
            if !self.dispatcher.may_go_on() || self.dispatcher.has_deferred() {
                self.leftover.extend_from_slice(input);
                break;
            }
            let Some(event) = self.reader.next(&mut input)? else { break };
            if matches!(event, Event::Text(_) | Event::Binary(_)) {
                // What is begun behind it has a deadline of its own. Control frames buy an unfinished message no time.
                self.dispatcher.mind_deadline(false);
            }
            self.dispatcher.handle(&event)?;
        }
        self.dispatcher.mind_deadline(self.reader.is_mid_message());
        Ok(())
    }
}

/// A control frame made by `encode`.
fn control(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

impl Dispatcher {
    /// What one event of the socket asks for.
    fn handle(&mut self, event: &Event<'_>) -> Result<(), End> {
        match *event {
            Event::Text(text) if self.is_echo() => self.send_now(&control(|out| frames::text(text.as_bytes(), out))),
            Event::Binary(bytes) if self.is_echo() => self.send_now(&control(|out| frames::binary(bytes, out))),
            Event::Text(text) => return self.take_text(text),
            Event::Binary(_) => return Err(End::Binary),
            Event::Ping(payload) => {
                self.take_control()?;
                self.send_raw(control(|out| frames::pong(payload, out)));
            }
            Event::Pong(_) => self.take_control()?,
            Event::Close(reason) => return Err(End::Client(reason.map(|(code, _)| code))),
        }
        Ok(())
    }
}
