//! What workers say to each other about rooms.
//!
//! A room's home worker orders and encodes; other workers hold members of it. Mail from one worker to another keeps
//! its order and travels as one hand-over a turn. The channels are unbounded, what they carry is not: a connection has
//! at most one request and a bounded number of publishes under way, and batches are counted in `Post::load`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use roomcast_protocol::{ClientId, RoomName, Since};
use tokio::sync::mpsc::{Sender, UnboundedSender};
use tokio::sync::oneshot;

use super::batch::Batch;
use super::lease::Validity;
use super::naming::Claimed;
use super::posting::{Placed, Refused};
use super::users::Seat;
use crate::broker::{Incarnation, Member, Meters, Record, Subject, Task};
use crate::telemetry::trace::Span;

/// Where a session lives. The slot may have been given to another since, so the id is compared too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) worker: usize,
    pub(super) slot: u32,
    pub(super) client: ClientId,
}

/// What a member may get to see beside what is sent from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// What was sent before.
    pub history: bool,
    /// Who is there.
    pub presence: bool,
}

impl Sight {
    /// Everything.
    pub const FULL: Self = Self { history: true, presence: true };
}

/// A session asks to be seated.
#[derive(Debug)]
pub(super) struct JoinRequest {
    pub(super) room: RoomName,
    pub(super) from: Address,
    pub(super) member: Member,
    pub(super) since: Option<Since>,
    pub(super) sight: Sight,
    pub(super) reference: Option<Box<str>>,
    /// The life of the node under which the broker knows of it; 0 before.
    pub(super) life: u32,
}

/// Who publishes, and so how it is told what came of it.
#[derive(Debug)]
pub(super) enum Publisher {
    /// A session, by mail.
    Session(Address),
    /// Somebody without one, who waits.
    Caller(oneshot::Sender<Result<Placed, Refused>>),
}

/// Somebody publishes.
#[derive(Debug)]
pub(super) struct PublishRequest {
    pub(super) room: RoomName,
    pub(super) from: Publisher,
    pub(super) reference: Option<Box<str>>,
    pub(super) record: Record,
    /// Ends with the request, once its publisher was told.
    pub(super) _span: Option<Box<Span>>,
}

/// A question about a room that its broker answers.
#[derive(Debug)]
pub enum Question {
    /// Stored messages.
    History {
        /// Only messages with a smaller seq.
        before: Option<u64>,
        /// Only messages with a greater seq.
        after: Option<u64>,
        /// Most messages wanted.
        limit: usize,
    },
    /// Who is in the room.
    Members {
        /// Where the last page ended.
        cursor: Option<String>,
        /// Most members wanted.
        limit: usize,
    },
}

/// One thing said.
#[derive(Debug)]
pub(super) enum Mail {
    /// To the home: seat this session.
    Join(JoinRequest),
    /// To the home: the session left, or went.
    Leave { room: RoomName, member: Member, worker: usize },
    /// To the home: store and spread this.
    Publish(PublishRequest),
    /// To the home: a member with its new name; told what came of it if that matters.
    Rename { room: RoomName, member: Member, claim: Option<oneshot::Sender<Claimed>> },
    /// To the home: answer this.
    Ask { room: RoomName, from: Address, reference: Option<Box<str>>, question: Question },
    /// From the home: the session is a member from here on; its `joined` frame.
    Admit { to: Address, room: RoomName, member: Member, frame: Bytes },
    /// From the home: a part of what a joiner missed; `taken` is told once its socket has all of it.
    Replay { to: Address, room: RoomName, frames: Bytes, taken: oneshot::Sender<()> },
    /// From the home: the session is no member, and why, if it does not know.
    Decline { to: Address, room: RoomName, frame: Option<Bytes> },
    /// From the home: a request's answer.
    Answer { to: Address, frame: Bytes },
    /// From the home: what became of a publish of that many bytes; a frame if one was asked for.
    Settle { to: Address, frame: Option<Bytes>, bytes: usize },
    /// From the home: frames for the members of a room.
    Batch { room: RoomName, batch: Arc<Batch> },
    /// To every worker: a life of this node has begun.
    Life(Incarnation),
    /// From the home worker: name your members of its rooms.
    Muster { home: usize },
    /// To the home: these are here.
    Present { room: RoomName, members: Vec<(Address, Member)> },
    /// To the worker that counts: one more connection of a user.
    Sit { user: Subject, answer: oneshot::Sender<Seat> },
    /// To the worker that counts: one connection less.
    Rise { user: Subject },
    /// From the home: the member's name was taken while it was not known to the broker.
    Expel { to: Address },
    /// To every worker: carry this out, and say how many connections it concerned.
    Order { task: Arc<Task>, done: Sender<u64> },
}

/// The ways to every worker of the node.
#[derive(Clone)]
pub struct Post {
    boxes: Arc<[UnboundedSender<Vec<Mail>>]>,
    load: Arc<[AtomicUsize]>,
    settled: Arc<[AtomicBool]>,
    lease: Arc<Validity>,
    alone: Arc<Mutex<Meters>>,
}

/// What one worker receives.
pub struct Inbox(tokio::sync::mpsc::UnboundedReceiver<Vec<Mail>>);

impl Inbox {
    pub(super) async fn next(&mut self) -> Option<Vec<Mail>> {
        self.0.recv().await
    }
}

impl Post {
    /// Boxes for `workers` workers.
    pub fn new(workers: usize) -> (Self, Vec<Inbox>) {
        let (boxes, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| tokio::sync::mpsc::unbounded_channel()).unzip();
        let load = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let settled = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let lease = Arc::new(Validity::new());
        let alone = Arc::default();
        (Self { boxes: boxes.into(), load, settled, lease, alone }, inboxes.into_iter().map(Inbox).collect())
    }

    /// Whether the node's lease runs.
    pub(super) fn lease(&self) -> &Validity {
        &self.lease
    }

    /// Rates as they hold on this node while the broker does not answer.
    pub(super) fn alone(&self) -> MutexGuard<'_, Meters> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.boxes.len()
    }

    /// Notes whether `worker` has anything left to do; true if no worker has. Those that have ended have not.
    pub(super) fn agree(&self, worker: usize, settled: bool) -> bool {
        self.settled[worker].store(settled, Ordering::Release);
        let mut others = self.settled.iter().zip(&*self.boxes);
        settled && others.all(|(settled, mail)| settled.load(Ordering::Acquire) || mail.is_closed())
    }

    /// Hands over a turn's mail. A worker that has ended takes none; its members are gone too.
    pub(super) fn send(&self, worker: usize, mail: Vec<Mail>) {
        let bytes: usize = mail.iter().map(Mail::load).sum();
        self.load[worker].fetch_add(bytes, Ordering::Relaxed);
        if self.boxes[worker].send(mail).is_err() {
            self.load[worker].fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of batches handed to `worker` that have not reached its members yet.
    pub(super) fn load(&self, worker: usize) -> usize {
        self.load[worker].load(Ordering::Relaxed)
    }

    /// `worker` delivered a batch that was handed to it.
    pub(super) fn unload(&self, worker: usize, batch: &Batch) {
        self.load[worker].fetch_sub(batch.frames.len(), Ordering::Relaxed);
    }
}

impl Mail {
    fn load(&self) -> usize {
        match self {
            Self::Batch { batch, .. } => batch.frames.len(),
            _ => 0,
        }
    }
}
