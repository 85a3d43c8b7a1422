//! What waits for one webhook. Filled by workers, emptied by the webhook's task; must not know what an event says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::telemetry::metrics::WebhookMeter;

/// Bytes that may wait, whatever the number of events: messages may be long.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of a batch above which no further event is added.
const BATCH_BYTES: usize = 1024 * 1024;

pub(super) struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
    meter: WebhookMeter,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Since the receiver was told of some last.
    dropped: u64,
}

/// Events that travel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Bytes>,
    /// Events that were dropped since the last batch.
    pub(super) dropped: u64,
}

impl Queue {
    pub(super) fn new(most: usize, meter: WebhookMeter) -> Self {
        Self { most, waiting: Mutex::default(), filled: Notify::new(), meter }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked with it left it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one event. Never waits: what is oldest makes room, since the newest says best how things stand.
    pub(super) fn push(&self, event: Bytes) {
        let mut waiting = self.waiting();
        let mut dropped = 0;
        while waiting.events.len() >= self.most
            || (waiting.bytes + event.len() > MOST_BYTES && !waiting.events.is_empty())
        {
            let oldest = waiting.events.pop_front().map_or(0, |oldest| oldest.len());
            waiting.bytes -= oldest;
            dropped += 1;
        }
        waiting.dropped += dropped;
        waiting.bytes += event.len();
        waiting.events.push_back(event);
        self.meter.waiting(waiting.events.len());
        drop(waiting);
        if dropped > 0 {
            self.meter.dropped("full", dropped);
        }
        self.filled.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().events.len()
    }

    /// Takes up to `most` events; empty if none waits.
    pub(super) fn take(&self, most: usize) -> Batch {
        let mut waiting = self.waiting();
        let (mut count, mut bytes) = (0, 0);
        while count < most.min(waiting.events.len())
            && (count == 0 || bytes + waiting.events[count].len() <= BATCH_BYTES)
        {
            bytes += waiting.events[count].len();
            count += 1;
        }
        let events: Vec<Bytes> = waiting.events.drain(..count).collect();
        waiting.bytes -= bytes;
        self.meter.waiting(waiting.events.len());
        let dropped = if events.is_empty() { 0 } else { std::mem::take(&mut waiting.dropped) };
        Batch { events, dropped }
    }

    /// The receiver has not been told of so many losses.
    pub(super) fn note_dropped(&self, events: u64) {
        self.waiting().dropped += events;
    }

    /// Waits until something is there. Cancel-safe.
    pub(super) async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if self.len() > 0 {
                return;
            }
            filled.await;
        }
    }
}
