//! What waits for one webhook. Filled by workers, emptied by the webhook's task; must not know what an event says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// With the time of each one's coming.
    events: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// The batch that is neither taken nor given up.
    under_way: Option<UnderWay>,
    /// Since the receiver was told of some last.
    dropped: u64,
}

struct UnderWay {
    events: usize,
    /// When the oldest of them came.
    since: Instant,
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
            let oldest = waiting.events.pop_front().map_or(0, |(_, oldest)| oldest.len());
            waiting.bytes -= oldest;
            dropped += 1;
        }
        waiting.dropped += dropped;
        waiting.bytes += event.len();
        waiting.events.push_back((Instant::now(), event));
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

    /// Events that no receiver took yet, those under way included.
    pub(super) fn left(&self) -> usize {
        let waiting = self.waiting();
        waiting.events.len() + waiting.under_way.as_ref().map_or(0, |batch| batch.events)
    }

    /// For how long the oldest of them has waited; zero if there is none.
    pub(super) fn age(&self) -> Duration {
        let waiting = self.waiting();
        // What is under way came before what waits.
        let under_way = waiting.under_way.as_ref().map(|batch| batch.since);
        let oldest = under_way.or_else(|| waiting.events.front().map(|(came, _)| *came));
        drop(waiting);
        oldest.map_or(Duration::ZERO, |came| came.elapsed())
    }

    /// Takes up to `most` events, which are under way until [`Queue::done`]; empty if none waits.
    pub(super) fn take(&self, most: usize) -> Batch {
        let mut waiting = self.waiting();
        let (mut count, mut bytes) = (0, 0);
        while count < most.min(waiting.events.len())
            && (count == 0 || bytes + waiting.events[count].1.len() <= BATCH_BYTES)
        {
            bytes += waiting.events[count].1.len();
            count += 1;
        }
        waiting.under_way = waiting.events.front().map(|(came, _)| UnderWay { events: count, since: *came });
        let events: Vec<Bytes> = waiting.events.drain(..count).map(|(_, event)| event).collect();
        waiting.bytes -= bytes;
        self.meter.waiting(waiting.events.len());
        let dropped = if events.is_empty() { 0 } else { std::mem::take(&mut waiting.dropped) };
        Batch { events, dropped }
    }

    /// The batch under way came to its end. The receiver has not been told that so many events are lost.
    pub(super) fn done(&self, dropped: u64) {
        let mut waiting = self.waiting();
        waiting.under_way = None;
        waiting.dropped += dropped;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;
    use std::sync::Arc;

    const EVENT: Bytes = Bytes::from_static(b"{}");

    fn queue(most: usize) -> (Arc<Queue>, Arc<Metrics>) {
        let metrics = Metrics::new();
        let queue = Arc::new(Queue::new(most, metrics.webhooks.of("billing")));
        let watched = Arc::clone(&queue);
        metrics.webhooks.watch("billing", move || watched.age());
        (queue, metrics)
    }

    /// What a scrape finds.
    fn age(metrics: &Metrics) -> f64 {
        let text = metrics.render();
        let series = "roomcast_webhook_oldest_event_age_seconds{webhook=\"billing\"} ";
        let age = text.lines().find_map(|line| line.strip_prefix(series));
        age.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
    }

    fn is_zero(age: f64) -> bool {
        age.abs() < f64::EPSILON
    }

    #[test]
    fn the_oldest_event_grows_older_until_a_receiver_took_it() {
        let (queue, metrics) = queue(10);
        assert!(is_zero(age(&metrics)), "nothing waits");
        queue.push(EVENT);
        let waiting = age(&metrics);
        assert!(waiting > 0.0);
        let later = age(&metrics);
        assert!(later > waiting, "nobody but the scrape looked at it: {waiting}, {later}");
        assert_eq!(queue.take(10).events.len(), 1);
        assert!(age(&metrics) > later, "it is under way, and still not taken");
        let second = Instant::now();
        queue.push(EVENT);
        assert!(age(&metrics) > later, "the younger one does not hide it");
        assert_eq!((queue.len(), queue.left()), (1, 2));
        queue.done(0);
        assert!(queue.age() <= second.elapsed(), "what is left came later");
        assert_eq!(queue.take(10).events.len(), 1);
        queue.done(0);
        assert!(is_zero(age(&metrics)) && queue.left() == 0, "all are taken");
        assert!(queue.take(10).events.is_empty());
        assert!(is_zero(age(&metrics)), "an empty batch is nothing under way");
    }

    #[test]
    fn what_made_room_is_not_waited_for() {
        let (queue, _metrics) = queue(2);
        queue.push(EVENT);
        let first = Instant::now();
        queue.push(EVENT);
        queue.push(EVENT);
        assert!(queue.age() <= first.elapsed(), "the first is gone");
        assert_eq!(queue.take(10).dropped, 1);
        queue.done(3);
        queue.push(EVENT);
        assert_eq!(queue.take(10).dropped, 3, "told with the next batch");
    }
}
