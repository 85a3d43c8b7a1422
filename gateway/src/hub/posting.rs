//! Messages that no session sends: what a backend publishes over HTTP.
//!
//! The server calls it. A room that is open on this node takes a posting in line with what its members publish: the same
//! batches, the same order, the same bounds. Where it is not, the broker is asked directly, and nobody here is waiting.
//! It must not know who may publish.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{ClientId, ErrorCode, Mode, RoomName, Term};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::allowance::ROOM_IS_FULL;
use super::home::Phase;
use super::mail::{Mail, PublishRequest, Publisher};
use super::publish::{Due, MOST_PENDING_BYTES, Settled, TOO_MUCH, now_us, refusal, settled};
use super::shard::Shard;
use crate::broker::{BrokerError, MessageId, Published, Record, Subject};
use crate::config::{Fault, RoomPolicy};
use crate::telemetry::metrics::PublishOutcome;
use crate::telemetry::trace::Span;

/// Calls to the broker that postings to rooms which are not open here may have under way at once.
const MOST_CALLS: usize = 256;

/// A message of somebody who has no session.
#[derive(Debug, Clone)]
pub struct Posting {
    /// The idempotency key, 1 to 128 bytes; without one, the message is stored as often as it is posted.
    pub id: Option<MessageId>,
    /// Whose key it is.
    pub subject: Subject,
    /// The name that members see as the sender's. A display name.
    pub name: Arc<str>,
    /// The user that members see as the sender's, if any. `check_user` of the protocol holds.
    pub user: Option<Arc<str>>,
    /// JSON, checked by the caller: its syntax, its size and, with `is_shallow` of the protocol, its depth.
    pub data: Bytes,
}

/// What a posting takes beside its data.
const POSTING_BYTES: usize = 512;

/// Where a posting ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The key given, or the id made up.
    pub id: MessageId,
    /// Term and seq; none in ephemeral rooms, and for a duplicate that was stored too long ago.
    pub position: Option<(Term, u64)>,
    /// When it was stored, or accepted in ephemeral rooms, ms since the Unix epoch; none for a duplicate.
    pub ts: Option<u64>,
    /// It was stored before, and nobody got it now.
    pub duplicate: bool,
}

/// Why the hub did not do, or does not know whether it did, what the server asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Refused {
    /// As on the wire; it says whether the same may succeed later.
    pub code: ErrorCode,
    /// What to tell.
    pub words: &'static str,
}

impl From<&BrokerError> for Refused {
    fn from(error: &BrokerError) -> Self {
        let (code, _, words) = refusal(error);
        Self { code, words }
    }
}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Self {
        Self::from(&error)
    }
}

impl Placed {
    pub(super) fn new(id: MessageId, settled: Settled<'_>) -> Self {
        let Settled { position, duplicate, ts } = settled;
        Self { id, position: position.map(|(term, seq)| (term.clone(), seq)), ts, duplicate }
    }
}

/// Postings of this worker that are on their way to the broker without a room.
pub(super) struct Postings {
    turns: Semaphore,
    bytes: Cell<usize>,
    alone_until: Cell<Instant>,
}

impl Default for Postings {
    fn default() -> Self {
        Self { turns: Semaphore::new(MOST_CALLS), bytes: Cell::new(0), alone_until: Cell::new(Instant::now()) }
    }
}

impl Postings {
    /// Whether none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.bytes.get() == 0
    }

    /// Until when the broker, which did not answer, is not asked about rooms' rates.
    pub(super) fn alone_until(&self) -> &Cell<Instant> {
        &self.alone_until
    }
}

impl Shard {
    /// Publishes what no session sends, from whichever worker this is.
    ///
    /// # Errors
    /// As for a session's publish. [`ErrorCode::Undecided`] also if the room's worker ended meanwhile.
    pub async fn publish_for(&self, room: &RoomName, posting: Posting) -> Result<Placed, Refused> {
        let Posting { id, subject, name, user, data } = posting;
        let span = self.parts.tracing.publish();
        let record = Record {
            idempotent: id.is_some() && !self.commits(Fault::NoDedupe),
            subject,
            id: id.unwrap_or_else(|| Uuid::new_v4().hyphenated().to_string().into()),
            from: ClientId::NOBODY,
            name,
            user,
            echo: true,
            accepted_at_us: now_us(),
            trace: span.as_ref().map(Span::context),
            data,
        };
        let (answer, answered) = oneshot::channel();
        let from = Publisher::Caller(answer);
        let request = PublishRequest { room: room.clone(), from, reference: None, record, _span: span.map(Box::new) };
        self.send_home(room, Mail::Publish(request));
        let lost = Refused { code: ErrorCode::Undecided, words: "the node is ending; retry with the same id" };
        answered.await.unwrap_or(Err(lost))
    }

    /// A span for each traced message of a call; empty, and not even allocated, when none is.
    pub(super) fn broker_spans(&self, records: &[Record]) -> Vec<Span> {
        records.iter().filter_map(|record| self.parts.tracing.broker(record.trace)).collect()
    }

    /// Has the broker publish for a room that is not open here.
    pub(super) fn post(self: &Rc<Self>, request: PublishRequest) {
        let policy = self.parts.settings.rooms.policy(&request.room);
        let size = request.record.data.len() + POSTING_BYTES;
        let waiting = &self.postings.bytes;
        if waiting.get() > MOST_PENDING_BYTES {
            self.parts.metrics.published(policy.mode, PublishOutcome::Overloaded, 1);
            return self.settle(request, Err((ErrorCode::Overloaded, TOO_MUCH)));
        }
        waiting.set(waiting.get() + size);
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let turn = shard.postings.turns.acquire().await;
            let published = shard.post_within_rate(&request, &policy).await;
            drop(turn);
            let waiting = &shard.postings.bytes;
            waiting.set(waiting.get() - size);
            match published {
                Ok(Some(published)) => {
                    shard.count_outcomes(&published.outcomes);
                    shard.tell_posted(&request, Some(&published));
                    let outcome = published.outcomes.first().map(|outcome| settled(&published, outcome));
                    let outcome = outcome.unwrap_or(Err((ErrorCode::Internal, "the broker gave no outcome")));
                    shard.settle(request, outcome);
                }
                Ok(None) => {
                    shard.parts.metrics.published(Mode::Ephemeral, PublishOutcome::Accepted, 1);
                    shard.tell_posted(&request, None);
                    let ts = request.record.accepted_at_us / 1000;
                    shard.show_posted(&request, ts);
                    shard.settle(request, Ok(Settled { position: None, duplicate: false, ts: Some(ts) }));
                }
                Err((code, outcome, words)) => {
                    shard.parts.metrics.published(policy.mode, outcome, 1);
                    shard.settle(request, Err((code, words)));
                }
            }
        });
    }

    /// Whoever came in while the broker was asked gets the message, too: its echo is dropped here. Whose seat is still
    /// awaited comes behind it.
    fn show_posted(&self, request: &PublishRequest, ts: u64) {
        let home = self.home(&request.room).filter(|home| home.state.borrow().phase == Phase::Open);
        let Some(home) = home else { return };
        let due = Due { record: &request.record, position: None, ts, remote: false };
        self.collect(&home, &mut home.state.borrow_mut(), due);
        self.turn.due(&home);
    }

    /// What the broker said of one message, if the room takes it; none where nothing is stored.
    async fn post_within_rate(
        &self,
        request: &PublishRequest,
        policy: &RoomPolicy,
    ) -> Result<Option<Published>, (ErrorCode, PublishOutcome, &'static str)> {
        if let Some(rate) = policy.publish_rate
            && !self.takes_one(&request.room, rate).await
        {
            return Err((ErrorCode::RateLimited, PublishOutcome::Refused, ROOM_IS_FULL));
        }
        let (broker, records) = (&self.parts.broker, std::slice::from_ref(&request.record));
        let _spans = self.broker_spans(records);
        let published = match policy.mode {
            Mode::Durable => broker.publish(&request.room, policy, records).await.map(Some),
            Mode::Ephemeral => broker.broadcast(&request.room, records).await.map(|()| None),
        };
        published.map_err(|error| refusal(&error))
    }
}
