//! Publishing at a room's home: what came in a turn goes to the broker as one call, and to the members in its order.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use roomcast_protocol::{Ack, ErrorCode, Mode, RoomName, Term};
use serde_json::value::RawValue;

use super::batch::Stamp;
use super::home::{CONGESTED_BYTES, Home, Phase, State};
use super::joining::head_of;
use super::mail::{Mail, PublishRequest, Publisher};
use super::posting::{Placed, Refused};
use super::sequencer::{Run, Step};
use super::shard::{Shard, text_frame};
use crate::broker::{BrokerError, Outcome, Published, Record};
use crate::telemetry::metrics::{DuplicateKind, PublishOutcome};

/// Most messages of one broker call.
const MOST_MESSAGES: usize = 128;
/// Bytes of data after which a call takes no further message. Members with an empty queue can take what it brings.
const MOST_BYTES: usize = 64 * 1024;
/// Bytes of ephemeral messages of one room that may wait for the way to the other nodes; more are lost there.
const MOST_OUTGOING_BYTES: usize = 1024 * 1024;
/// Bytes of publishes waiting in one room before more are refused as `overloaded`.
pub(super) const MOST_PENDING_BYTES: usize = 16 * 1024 * 1024;

/// About what a frame takes beside its data.
const FRAME_BYTES: usize = 320;

/// What the publisher of a number that is too old is told.
pub(super) const STALE: &str =
    "the id's number is too far behind this producer's latest to know whether it was stored; it was not now";

/// What is said when a bound is reached.
pub(super) const TOO_MUCH: &str = "too much is in flight";

/// What the publisher of an accepted message is told.
#[derive(Clone, Copy)]
pub(super) struct Settled<'a> {
    pub(super) position: Option<(&'a Term, u64)>,
    pub(super) duplicate: bool,
    /// When it was stored or accepted, ms since the Unix epoch; none for a duplicate.
    pub(super) ts: Option<u64>,
}

/// A message that is due to a room's members.
#[derive(Clone, Copy)]
pub(super) struct Due<'a> {
    pub(super) record: &'a Record,
    /// None in ephemeral rooms.
    pub(super) position: Option<(&'a Term, u64)>,
    /// When it was stored, or accepted, ms since the Unix epoch.
    pub(super) ts: u64,
    /// Whether another node published it.
    pub(super) remote: bool,
}

/// Microseconds since the Unix epoch, by this node's clock.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn since_us(then: u64) -> Duration {
    Duration::from_micros(now_us().saturating_sub(then))
}

/// The answer of a failed broker call, for the client and for the metrics.
pub(super) fn refusal(error: &BrokerError) -> (ErrorCode, PublishOutcome, &'static str) {
    match error {
        BrokerError::Unavailable(_) => (
            ErrorCode::BrokerUnavailable,
            PublishOutcome::Unavailable,
            "the broker cannot be reached; nothing was sent",
        ),
        BrokerError::Undecided(_) => {
            (ErrorCode::Undecided, PublishOutcome::Undecided, "sent, but not answered; retry with the same id")
        }
        BrokerError::StorageFull => {
            (ErrorCode::StorageFull, PublishOutcome::StorageFull, "the broker's memory is full; nothing was stored")
        }
        BrokerError::NoWrites(_) => (
            ErrorCode::BrokerUnavailable,
            PublishOutcome::Unavailable,
            "the broker takes no writes: its disk is full or failing, or it has too few replicas; nothing was stored",
        ),
        BrokerError::Overloaded => (ErrorCode::Overloaded, PublishOutcome::Overloaded, TOO_MUCH),
        BrokerError::Rejected(_) | BrokerError::Misconfigured(_) => {
            (ErrorCode::Internal, PublishOutcome::Failed, "the broker refused the request")
        }
    }
}

fn acknowledgement(room: &RoomName, id: &str, reference: &str, settled: Settled<'_>) -> Option<Bytes> {
    let reference: &RawValue = serde_json::from_str(reference).ok()?;
    let ack = Ack {
        reference,
        id,
        room,
        seq: settled.position.map(|(_, seq)| seq),
        term: settled.position.map(|(term, _)| term.clone()),
        duplicate: settled.duplicate,
    };
    serde_json::to_vec(&ack).ok().map(|json| text_frame(&json))
}

/// What came of one message that the broker was given.
pub(super) fn settled<'a>(
    published: &'a Published,
    outcome: &'a Outcome,
) -> Result<Settled<'a>, (ErrorCode, &'static str)> {
    let duplicate = |position| Ok(Settled { position, duplicate: true, ts: None });
    match outcome {
        Outcome::Stored { seq } => {
            Ok(Settled { position: Some((&published.term, *seq)), duplicate: false, ts: Some(published.ts) })
        }
        Outcome::Duplicate { term, seq } => duplicate(Some((term, *seq))),
        Outcome::Known => duplicate(None),
        Outcome::Stale => Err((ErrorCode::StaleId, STALE)),
    }
}

impl State {
    /// All that waits.
    pub(super) fn take_all_pending(&mut self) -> VecDeque<PublishRequest> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    /// The next messages to go out together, at most `most`.
    fn take_pending(&mut self, most: usize) -> Vec<PublishRequest> {
        let (mut count, mut bytes) = (0, 0);
        while count < MOST_MESSAGES.min(self.pending.len()).min(most) && bytes < MOST_BYTES {
            bytes += self.pending[count].record.data.len();
            count += 1;
        }
        self.pending_bytes -= bytes;
        self.pending.drain(..count).collect()
    }
}

impl Shard {
    pub(super) fn take_publish(self: &Rc<Self>, request: PublishRequest) {
        let is_posted = matches!(request.from, Publisher::Caller(_));
        let home = self.home(&request.room);
        let Some(home) = home.filter(|home| !is_posted || home.state.borrow().phase == Phase::Open) else {
            if is_posted {
                return self.post(request);
            }
            return self.settle(request, Err((ErrorCode::NotJoined, "not a member of that room")));
        };
        let mut state = home.state.borrow_mut();
        if state.pending_bytes > MOST_PENDING_BYTES {
            drop(state);
            self.parts.metrics.published(home.policy.mode, PublishOutcome::Overloaded, 1);
            return self.settle(request, Err((ErrorCode::Overloaded, TOO_MUCH)));
        }
        state.pending_bytes += request.record.data.len();
        state.pending.push_back(request);
        drop(state);
        self.turn.due(&home);
    }

    /// Sends off what waits, unless a call is under way or the members are behind: publishers then wait, and TCP tells
    /// them.
    pub(super) fn run_publishes(self: &Rc<Self>, home: &Rc<Home>) {
        let waiting = home.state.borrow().builder.len() + home.room.queued_bytes();
        let congested = waiting >= CONGESTED_BYTES && (home.room.is_busy() || self.is_overloaded_away(home));
        let mut state = home.state.borrow_mut();
        if state.pending.is_empty() || state.publishing || congested || state.phase != Phase::Open {
            return;
        }
        let most = self.allowed(home, &mut state);
        if most == 0 {
            return;
        }
        let requests = state.take_pending(most);
        home.spent(requests.len());
        if home.is_durable() {
            state.publishing = true;
            drop(state);
            self.publish_durable(home, requests);
        } else {
            drop(state);
            self.publish_ephemeral(home, requests);
        }
        if !home.state.borrow().pending.is_empty() {
            self.turn.due(home);
        }
    }

    fn publish_durable(self: &Rc<Self>, home: &Rc<Home>, requests: Vec<PublishRequest>) {
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            let records: Vec<Record> = requests.iter().map(|request| request.record.clone()).collect();
            let spans = shard.broker_spans(&records);
            let result = shard.parts.broker.publish(&home.name, &home.policy, &records).await;
            home.state.borrow_mut().publishing = false;
            drop(spans);
            match result {
                Ok(published) => shard.published(&home, requests, records, &published),
                Err(error) => shard.not_published(&home, requests, &error),
            }
            home.state.borrow_mut().doubts.end_call();
            shard.turn.due(&home);
        });
    }

    fn published(
        self: &Rc<Self>,
        home: &Rc<Home>,
        requests: Vec<PublishRequest>,
        records: Vec<Record>,
        published: &Published,
    ) {
        let mut stored = Vec::with_capacity(records.len());
        let mut first_seq = None;
        if let Some(first) = records.first() {
            self.parts.metrics.publish_took(Mode::Durable, since_us(first.accepted_at_us));
        }
        for ((request, record), outcome) in requests.into_iter().zip(records).zip(&published.outcomes) {
            home.tell_outcome(&record, published, outcome);
            if let Outcome::Stored { seq } = outcome {
                first_seq.get_or_insert(*seq);
                stored.push(record);
            }
            self.settle(request, settled(published, outcome));
        }
        self.count_outcomes(&published.outcomes);
        if let Some(first_seq) = first_seq {
            let run = Run { term: published.term.clone(), first_seq, ts: published.ts, records: stored, own: true };
            self.offer(home, run);
        }
    }

    pub(super) fn count_outcomes(&self, outcomes: &[Outcome]) {
        let metrics = &self.parts.metrics;
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count() as u64;
        let duplicates = count(|outcome| matches!(outcome, Outcome::Duplicate { .. } | Outcome::Known));
        let accepted = count(|outcome| matches!(outcome, Outcome::Stored { .. }));
        metrics.published(Mode::Durable, PublishOutcome::Accepted, accepted);
        metrics.published(Mode::Durable, PublishOutcome::Duplicate, duplicates);
        metrics.published(Mode::Durable, PublishOutcome::Stale, outcomes.len() as u64 - accepted - duplicates);
        metrics.deduplicated(DuplicateKind::Id, duplicates);
    }

    fn not_published(&self, home: &Home, requests: Vec<PublishRequest>, error: &BrokerError) {
        let (code, outcome, words) = refusal(error);
        self.parts.metrics.published(Mode::Durable, outcome, requests.len() as u64);
        tracing::debug!(%error, messages = requests.len(), "publish failed");
        for request in requests {
            home.doubt(&request.record, error);
            self.settle(request, Err((code, words)));
        }
    }

    /// Ephemeral: members here get it at once, the other nodes as soon as the last call is through.
    fn publish_ephemeral(self: &Rc<Self>, home: &Rc<Home>, requests: Vec<PublishRequest>) {
        let ts = now_us() / 1000;
        let mut state = home.state.borrow_mut();
        for request in &requests {
            self.collect(home, &mut state, Due { record: &request.record, position: None, ts, remote: false });
            let room_left = state.outgoing.len() < MOST_MESSAGES * 8 && state.outgoing_bytes < MOST_OUTGOING_BYTES;
            if room_left {
                state.outgoing_bytes += request.record.data.len();
                state.outgoing.push(request.record.clone());
            } else {
                self.parts.totals.broker.overruns.inc();
            }
        }
        drop(state);
        self.parts.metrics.published(Mode::Ephemeral, PublishOutcome::Accepted, requests.len() as u64);
        if let Some(first) = requests.first() {
            self.parts.metrics.publish_took(Mode::Ephemeral, since_us(first.record.accepted_at_us));
        }
        for request in requests {
            home.tell_message(&request.record, None, ts);
            self.settle(request, Ok(Settled { position: None, duplicate: false, ts: Some(ts) }));
        }
        self.broadcast(home);
    }

    fn broadcast(self: &Rc<Self>, home: &Rc<Home>) {
        let mut state = home.state.borrow_mut();
        if state.broadcasting || state.outgoing.is_empty() {
            return;
        }
        let count = state.outgoing.len().min(MOST_MESSAGES);
        let records: Vec<Record> = state.outgoing.drain(..count).collect();
        state.outgoing_bytes -= records.iter().map(|record| record.data.len()).sum::<usize>();
        state.broadcasting = true;
        drop(state);
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            // Ephemeral messages may be lost; the broker counts its failures.
            let spans = shard.broker_spans(&records);
            let _ = shard.parts.broker.broadcast(&home.name, &records).await;
            drop(spans);
            home.state.borrow_mut().broadcasting = false;
            shard.broadcast(&home);
            shard.turn.due(&home);
        });
    }

    /// Tells a publisher what became of its message and gives its share of the queue back.
    pub(super) fn settle(&self, request: PublishRequest, outcome: Result<Settled<'_>, (ErrorCode, &'static str)>) {
        let PublishRequest { room, from, reference, record, .. } = request;
        let (reference, id) = (reference.as_deref(), record.id);
        match from {
            Publisher::Session(to) => {
                let frame = match outcome {
                    Ok(settled) => reference.and_then(|reference| acknowledgement(&room, &id, reference, settled)),
                    // An error is told even to those who asked for no answer.
                    Err((code, words)) => Some(self.error(reference, code, words)),
                };
                self.send(to.worker, Mail::Settle { to, frame, bytes: record.data.len() });
            }
            Publisher::Caller(answer) => {
                let outcome = outcome.map(|settled| Placed::new(id, settled));
                // Who asked may have gone.
                _ = answer.send(outcome.map_err(|(code, words)| Refused { code, words }));
            }
        }
    }

    /// Brings a run into the room's order and collects what is due for the members.
    pub(super) fn offer(self: &Rc<Self>, home: &Rc<Home>, run: Run) {
        let mut steps = Vec::with_capacity(run.records.len());
        let own = run.own;
        let mut state = home.state.borrow_mut();
        if let Some(sabotage) = &self.sabotage {
            sabotage.believe_any_term(&run, &mut state.sequencer);
            sabotage.deliver_again(&run, &state.sequencer, &mut steps);
        }
        let offered = state.sequencer.offer(run, &mut steps);
        let repeat = if own { DuplicateKind::Echo } else { DuplicateKind::Seq };
        self.parts.metrics.deduplicated(repeat, offered.repeated as u64);
        self.carry_out(home, &mut state, steps);
        drop(state);
        if offered.strange {
            // Nothing that may cross: only the stream knows where the term begins.
            let (shard, home) = (Rc::clone(self), Rc::clone(home));
            tokio::task::spawn_local(async move { shard.repair(&home).await });
        } else if offered.gap {
            self.repair_later(home);
        }
    }

    /// Collects the sequencer's steps as frames.
    pub(super) fn carry_out(&self, home: &Rc<Home>, state: &mut State, steps: Vec<Step>) {
        let bytes = |step: &Step| match step {
            Step::Message(message, _) => message.record.data.len() + FRAME_BYTES,
            Step::Reset { .. } => FRAME_BYTES,
        };
        state.builder.reserve(steps.iter().map(bytes).sum());
        if !steps.is_empty() {
            state.heard = Some(self.tick.get());
        }
        for step in steps {
            match step {
                Step::Message(message, own) => {
                    home.tell_if_doubted(state, &message, own);
                    let position = Some((&message.term, message.seq));
                    let due = Due { record: &message.record, position, ts: message.ts, remote: !own };
                    self.collect(home, state, due);
                }
                Step::Reset { reason, term, seq } => self.collect_reset(state, home, reason, term.as_ref(), seq),
            }
        }
        self.turn.due(home);
    }

    /// Takes one message for the room's members.
    pub(super) fn collect(&self, home: &Home, state: &mut State, due: Due<'_>) {
        match self.sabotage {
            None => self.add(home, state, due),
            Some(_) => self.add_spoiled(home, state, due),
        }
    }

    /// Adds one message to the batch of the room's members.
    pub(super) fn add(&self, home: &Home, state: &mut State, due: Due<'_>) {
        let Due { record, position, ts, remote } = due;
        let head = head_of(&home.name, record, position, ts);
        let omit = (!record.echo).then_some(record.from);
        let span = self.parts.tracing.deliver(record.trace, remote).map(Box::new);
        let stamp = Stamp { accepted_at_us: record.accepted_at_us, remote, _span: span };
        state.builder.message(&head, &record.data, omit, stamp, &mut self.scratch.borrow_mut());
        // A batch is never more than a member with an empty queue can take, however much comes at once.
        if state.builder.len() >= self.replay_bytes() {
            self.seal_state(home, state);
        }
    }
}
