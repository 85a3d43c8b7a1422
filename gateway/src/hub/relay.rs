//! What the broker brings: messages and comings and goings of other nodes, and the news that some may be missing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use roomcast_protocol::{Recovery, Term, reset_frame};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::home::{CONGESTED_BYTES, Home, Phase, State};
use super::publish::{Due, now_us};
use super::sequencer::{Ground, Run, Sequencer, Step};
use super::shard::Shard;
use crate::broker::{BrokerError, Envelope, Event, History, Kind, Range};
use crate::config::Fault;
use crate::telemetry::metrics::DuplicateKind;

/// How long a jump in seq may be a mere crossing of answer and echo before the stream is read.
pub(super) const HELD_BACK: Duration = Duration::from_millis(100);
/// How long until a read that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The same while there is no connection: nothing is sent, and the two connections of a broker that is back are not made
/// at the same moment.
const TRY_SOON: Duration = Duration::from_millis(200);
/// How often a read is done again that ended before what is held back: it was begun too early.
const MOST_STALE: u32 = 3;
/// Messages of one read.
const PAGE: usize = 128;
/// How often a room that has too much waiting is looked at.
const WAIT_STEP: Duration = Duration::from_millis(2);
/// Events taken before others run.
const EVENTS_AT_ONCE: usize = 64;
/// Rooms caught up at the same time, after a subscription came back or a sweep.
const CAUGHT_UP_AT_ONCE: usize = 64;

impl Shard {
    /// Takes events as they come.
    pub async fn run_relay(self: Rc<Self>, mut events: Receiver<Event>) {
        let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
        while events.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
            for event in batch.drain(..) {
                let Some(home) = self.take_event(event) else { continue };
                // Its members get their share before more is added to it.
                tokio::task::yield_now().await;
                // More than this worker, or another with members there, can deliver: the bus has to wait. If that takes
                // long the subscription overruns, and the rooms catch up from their streams.
                while self.waiting(&home) > super::MOST_WAITING_BYTES {
                    tokio::time::sleep(WAIT_STEP).await;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes one event. Gives its room if much is waiting there now.
    fn take_event(self: &Rc<Self>, event: Event) -> Option<Rc<Home>> {
        match event {
            Event::Messages(envelope) => {
                let room = envelope.room.clone();
                self.take_envelope(envelope);
                return self.home(&room).filter(|home| self.waiting(home) >= CONGESTED_BYTES);
            }
            Event::Presence(event) => self.take_presence(&event),
            Event::Order(order) => self.take_order(order),
            Event::Resubscribed => self.catch_up_all(),
        }
        None
    }

    /// Bytes waiting for the members of a room: collected, queued, and on the most loaded worker that has some.
    fn waiting(&self, home: &Home) -> usize {
        let state = home.state.borrow();
        let loads = state.seats.iter().enumerate().filter(|(_, seats)| **seats > 0);
        let away = loads.map(|(worker, _)| self.parts.post.load(worker)).max().unwrap_or(0);
        state.builder.len() + home.room.queued_bytes() + away
    }

    fn take_envelope(self: &Rc<Self>, envelope: Envelope) {
        let Some(home) = self.home(&envelope.room) else { return };
        if self.loses(&home) {
            return;
        }
        let phase = home.state.borrow().phase;
        match phase {
            Phase::Closed => {}
            Phase::Opening => home.state.borrow_mut().keep_early(envelope),
            Phase::Open => self.take_open(&home, envelope),
        }
    }

    pub(super) fn take_open(self: &Rc<Self>, home: &Rc<Home>, envelope: Envelope) {
        let own = envelope.node == self.parts.node;
        match envelope.kind {
            Kind::Durable { term, first_seq, ts } => {
                self.offer(home, Run { term, first_seq, ts, records: envelope.records, own });
            }
            Kind::Ephemeral { .. } if own && !self.commits(Fault::KeepEcho) => {
                self.parts.metrics.deduplicated(DuplicateKind::Echo, envelope.records.len() as u64);
            }
            Kind::Ephemeral { ts } => {
                let mut state = home.state.borrow_mut();
                for record in &envelope.records {
                    self.collect(home, &mut state, Due { record, position: None, ts, remote: true });
                }
                drop(state);
                self.turn.due(home);
            }
        }
    }

    /// Metrics of a batch that reached its last member here.
    pub(super) fn record_delivery(&self, batch: &super::batch::Batch) {
        let now = now_us();
        for stamp in &batch.stamps {
            let took = Duration::from_micros(now.saturating_sub(stamp.accepted_at_us));
            if stamp.remote {
                self.parts.metrics.remote_delivery_took(took);
            } else {
                self.parts.metrics.local_delivery_took(took);
            }
        }
    }

    pub(super) fn collect_reset(
        &self,
        state: &mut State,
        home: &Home,
        reason: Recovery,
        term: Option<&Term>,
        seq: u64,
    ) {
        let label = match reason {
            Recovery::Diverged => "diverged",
            Recovery::UnknownTerm => "unknown_term",
            _ => "gap",
        };
        self.parts.totals.hub.resets.with_label_values(&[label]).inc();
        tracing::warn!(room = %home.name, reason = label, seq, "members are told of a break");
        state.builder.frame(&reset_frame(&home.name, reason, term, seq));
        state.builder.forget_positions();
        state.recent.clear();
    }

    /// The subscription was away: whatever was published meanwhile is in the stream, and who came and went is known to
    /// the broker.
    fn catch_up_all(self: &Rc<Self>) {
        let homes: Vec<Rc<Home>> = self.homes.borrow().values().cloned().collect();
        let (open, rest): (Vec<_>, Vec<_>) =
            homes.into_iter().partition(|home| home.state.borrow().phase == Phase::Open);
        for home in rest.iter().filter(|home| home.is_durable()) {
            // What is being opened may have been read before the subscription broke off.
            home.state.borrow_mut().missed_early = true;
        }
        let durable: Vec<Rc<Home>> = open.iter().filter(|home| home.is_durable()).cloned().collect();
        tracing::info!(rooms = durable.len(), "subscription is back, catching up");
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // Messages first: they are what people wait for.
            let behind = shard.out_of_date(durable).await;
            shard.repair_all(behind).await;
            shard.refresh_all(open).await;
        });
    }

    /// Repairs rooms, some at a time.
    pub(super) async fn repair_all(self: &Rc<Self>, homes: Vec<Rc<Home>>) {
        let shard = Rc::clone(self);
        some_at_a_time(homes, async move |home| shard.repair(&home).await).await;
    }

    /// Reads the stream if a gap is still there in a moment.
    pub(super) fn repair_later(self: &Rc<Self>, home: &Rc<Home>) {
        let mut state = home.state.borrow_mut();
        if std::mem::replace(&mut state.repairing, true) {
            return;
        }
        state.reread = false;
        let before = state.sequencer.last();
        drop(state);
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(HELD_BACK).await;
            let (stuck, gap) = {
                let mut state = home.state.borrow_mut();
                state.repairing = false;
                let gap = state.sequencer.has_gap();
                (state.reread || (gap && state.sequencer.last() == before), gap)
            };
            if stuck {
                shard.repair(&home).await;
            } else if gap {
                shard.repair_later(&home);
            }
        });
    }

    /// Reads the stream from the last delivered seq on, once for all members, until nothing is missing. Who comes while
    /// that is under way has it read once more: what was read already may be older than what was missed.
    pub(super) async fn repair(self: &Rc<Self>, home: &Rc<Home>) {
        if self.commits(Fault::NoRepair) {
            home.state.borrow_mut().tell_readers(&Ok(()));
            return self.skip_silently(home);
        }
        {
            let mut state = home.state.borrow_mut();
            state.reread = true;
            if std::mem::replace(&mut state.repairing, true) {
                return;
            }
        }
        let mut too_early = 0;
        loop {
            let asked = {
                let mut state = home.state.borrow_mut();
                state.reread = false;
                state.sequencer.begin_read();
                (state.sequencer.term().cloned(), state.sequencer.last())
            };
            let range = Range::After { seq: asked.1, limit: PAGE };
            let read = self.read(&home.name, range).await;
            if home.state.borrow().phase != Phase::Open {
                break;
            }
            match read {
                Ok(history) if too_early < MOST_STALE && is_stale(&home.state.borrow(), asked.1, &history) => {
                    too_early += 1;
                    tokio::time::sleep(HELD_BACK).await;
                }
                Ok(history) => {
                    if self.bring_in(home, &asked, history) && !home.state.borrow().reread {
                        break;
                    }
                }
                Err(error) => {
                    self.parts.totals.hub.gap_repairs.with_label_values(&["failed"]).inc();
                    tracing::debug!(room = %home.name, %error, "reading the stream failed");
                    let is_away = matches!(error, BrokerError::Unavailable(_));
                    home.state.borrow_mut().tell_readers(&Err(error));
                    tokio::time::sleep(if is_away { TRY_SOON } else { TRY_AGAIN }).await;
                }
            }
        }
        let mut state = home.state.borrow_mut();
        state.repairing = false;
        state.tell_readers(&Ok(()));
    }

    /// Waits until what the stream has now is part of the room's order: one read, however many wait for it.
    pub(super) async fn caught_up(self: &Rc<Self>, home: &Rc<Home>) -> Result<(), BrokerError> {
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut state = home.state.borrow_mut();
            // What is being read already may be older than what this one has to know.
            state.reread = true;
            state.readers.push(tell);
            state.readers.len() == 1 && !state.repairing
        };
        if is_first {
            let (shard, home) = (Rc::clone(self), Rc::clone(home));
            tokio::task::spawn_local(async move {
                // All who ask in this pass of the runtime share the read.
                tokio::task::yield_now().await;
                shard.repair(&home).await;
            });
        }
        told.await.unwrap_or_else(|_| Err(BrokerError::Unavailable("the room was closed".into())))
    }

    /// Brings what was read from `asked` on into the room's order. True when nothing more is missing.
    fn bring_in(self: &Rc<Self>, home: &Rc<Home>, asked: &(Option<Term>, u64), mut history: History) -> bool {
        self.believe_no_return(asked.1, &mut history);
        let mut steps = Vec::new();
        let mut state = home.state.borrow_mut();
        let keep = self.parts.settings.join_history as u64;
        state.oldest = history.first;
        let ground = state.sequencer.stand_on(asked, &history, keep, &mut steps);
        let is_done = match ground {
            Ground::Firm => {
                let filled = fill(&mut state.sequencer, asked.1, history, &mut steps);
                self.parts.totals.hub.gap_repairs.with_label_values(&[filled.label]).inc_by(u64::from(filled.counts));
                filled.is_done
            }
            Ground::Shifted => false,
            Ground::Bare => {
                // A room that nobody spoke in may have expired: its members have missed nothing.
                if self.spoke_lately(home, &state) {
                    state.sequencer.start_over(&mut steps);
                }
                !state.sequencer.has_gap()
            }
        };
        self.carry_out(home, &mut state, steps);
        is_done
    }

    /// Whether the broker should still have the last message delivered here.
    fn spoke_lately(&self, home: &Home, state: &State) -> bool {
        let Some(heard) = state.heard else { return false };
        super::tend::BEAT * (self.tick.get() - heard + 8) < home.policy.history_ttl
    }
}

struct Filled {
    /// For the metric.
    label: &'static str,
    counts: bool,
    is_done: bool,
}

/// Takes a page of the stream, read from `asked` on.
fn fill(sequencer: &mut Sequencer, asked: u64, history: History, steps: &mut Vec<Step>) -> Filled {
    let (found, before) = (history.messages.len(), sequencer.last());
    let mut has_lost = false;
    // How far this page speaks: behind a hole in the seqs that is wider than a page there may be more.
    let reach = history.top.min(asked.saturating_add(PAGE as u64));
    let mut history = history;
    for message in std::mem::take(&mut history.messages) {
        has_lost |= message.seq > sequencer.last() + 1;
        sequencer.take_read(message, steps);
    }
    let last = sequencer.last();
    if last < reach {
        // The stream no longer has what is missing: say so and go on.
        has_lost = true;
        let kept = (history.first > last + 1).then(|| history.first - 1);
        let seq = kept.or_else(|| hole_behind(last, &history)).unwrap_or(reach);
        let term = history.boundaries.iter().find(|ended| seq <= ended.end).map(|ended| &ended.term);
        sequencer.skip_to(seq, term.or(history.term.as_ref()), steps);
    }
    if sequencer.last() >= history.top
        && let Some(first) = sequencer.first_held()
    {
        has_lost = true;
        sequencer.skip_to(first - 1, None, steps);
    }
    let is_done = sequencer.last() >= history.top && !sequencer.has_gap();
    let label = if has_lost { "lost" } else { "filled" };
    Filled { label, counts: has_lost || (found > 0 && sequencer.last() > before), is_done }
}

/// The last seq of a hole between two terms, if `last` ends the one: something else wrote to the stream there.
fn hole_behind(last: u64, history: &History) -> Option<u64> {
    let at = history.boundaries.iter().position(|ended| ended.end == last)?;
    let start = history.boundaries.get(at + 1).map_or(history.start, |next| next.start);
    (start > last + 1).then(|| start - 1)
}

/// Works on rooms, so many at a time that the broker is busy and not flooded.
pub(super) async fn some_at_a_time(homes: Vec<Rc<Home>>, work: impl AsyncFn(Rc<Home>) + 'static) {
    let (queue, work) = (Rc::new(RefCell::new(homes)), Rc::new(work));
    let mut workers = JoinSet::new();
    for _ in 0..CAUGHT_UP_AT_ONCE.min(queue.borrow().len()) {
        let (queue, work) = (Rc::clone(&queue), Rc::clone(&work));
        workers.spawn_local(async move {
            loop {
                let next = queue.borrow_mut().pop();
                let Some(home) = next else { break };
                work(home).await;
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Whether a read ended before the gap that it is to fill: nothing follows from what it lacks.
fn is_stale(state: &State, last: u64, history: &History) -> bool {
    let gap_end = state.sequencer.first_held().map_or(0, |first| first - 1);
    history.messages.len() < PAGE && history.top >= last && history.top < gap_end
}
