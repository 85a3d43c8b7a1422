//! The task of one webhook: one call at a time, in the order of its events, until each is taken, refused or given up.
//! Started by the parent; must not know what an event says.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};

use super::queue::{Batch, Queue};
use super::retry::{self, Verdict};
use super::{WebhookOptions, payload, signature};
use crate::config::Webhook;
use crate::outbound::{Call, Outbound};
use crate::telemetry::metrics::WebhookMeter;

/// Bytes of an answer that are read, so that the connection can be used again. Nothing in it matters.
const ANSWER_BYTES: usize = 16 * 1024;
/// The longest pause between two tries while the node ends.
const LAST_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// A running task, for its end.
pub(super) struct Handle {
    name: String,
    task: JoinHandle<()>,
    hurry: watch::Sender<bool>,
    queue: Arc<Queue>,
    meter: WebhookMeter,
}

struct Sender {
    webhook: Webhook,
    options: WebhookOptions,
    outbound: Outbound,
    queue: Arc<Queue>,
    hurry: watch::Receiver<bool>,
    meter: WebhookMeter,
}

/// How a batch ended.
enum End {
    Taken,
    Dropped(&'static str),
}

pub(super) fn start(
    webhook: &Webhook,
    options: &WebhookOptions,
    outbound: Outbound,
    queue: Arc<Queue>,
    meter: WebhookMeter,
) -> Handle {
    let (hurry, hurried) = watch::channel(false);
    let sender = Sender {
        webhook: webhook.clone(),
        options: options.clone(),
        outbound,
        queue: Arc::clone(&queue),
        hurry: hurried,
        meter: meter.clone(),
    };
    Handle { name: webhook.name.clone(), task: tokio::spawn(sender.run()), hurry, queue, meter }
}

impl Handle {
    /// Nothing more comes: no waiting for company, no long pauses, and an end when the queue is empty.
    pub(super) fn hurry(&self) {
        self.hurry.send_replace(true);
    }

    /// Waits for the end; what is not sent by then is counted and named.
    pub(super) async fn finished(mut self, deadline: Instant) {
        let ended = timeout_at(deadline.into(), &mut self.task).await.is_ok();
        self.task.abort();
        let left = self.queue.left();
        if left > 0 {
            self.meter.dropped("shutdown", left as u64);
            tracing::warn!(webhook = self.name, events = left, ended, "events were not taken before the node ended");
        }
    }
}

impl Sender {
    async fn run(mut self) {
        loop {
            if !self.wait().await {
                return;
            }
            let batch = self.queue.take(self.options.batch);
            if batch.events.is_empty() {
                continue;
            }
            let events = batch.events.len();
            match self.deliver(&batch).await {
                End::Taken => {
                    self.meter.sent(events as u64);
                    self.queue.done(0);
                }
                End::Dropped(reason) => {
                    self.meter.dropped(reason, events as u64);
                    self.queue.done(batch.dropped + events as u64);
                }
            }
        }
    }

    /// Waits for a batch worth a call. False when there will be none.
    async fn wait(&mut self) -> bool {
        let hurried = *self.hurry.borrow();
        if hurried {
            return self.queue.len() > 0;
        }
        tokio::select! {
            () = self.queue.filled() => {}
            _ = self.hurry.changed() => return true,
        }
        if self.queue.len() < self.options.batch {
            tokio::select! {
                () = sleep(self.options.linger) => {}
                _ = self.hurry.changed() => {}
            }
        }
        true
    }

    async fn deliver(&mut self, batch: &Batch) -> End {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let (verdict, asked) = self.call(batch, tries).await;
            match verdict {
                Verdict::Taken => {
                    if tries > 0 {
                        tracing::info!(webhook = self.webhook.name, tries, "the webhook takes events again");
                    }
                    return End::Taken;
                }
                Verdict::Refused => return End::Dropped("refused"),
                Verdict::Later if began.elapsed() >= self.options.give_up => {
                    tracing::warn!(webhook = self.webhook.name, events = batch.events.len(), tries, "given up");
                    return End::Dropped("given_up");
                }
                Verdict::Later => {}
            }
            let pause = asked.unwrap_or_default().max(retry::pause(tries, rand::random()));
            tries = tries.saturating_add(1);
            let hurried = *self.hurry.borrow();
            if hurried {
                sleep(pause.min(LAST_PAUSE)).await;
            } else {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = self.hurry.changed() => {}
                }
            }
        }
    }

    /// One try; gives also how long the receiver asks to be left alone.
    async fn call(&self, batch: &Batch, tries: u32) -> (Verdict, Option<std::time::Duration>) {
        let body = body(self.options.node.as_str(), batch);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = signature::sign(self.webhook.secret.expose(), seconds, &body);
        let headers = [("content-type", "application/json"), (signature::HEADER, &*signature)];
        let call = Call {
            url: self.webhook.url.as_str(),
            headers: &headers,
            body: Some(body),
            timeout: self.options.timeout,
            longest_answer: ANSWER_BYTES,
        };
        let began = Instant::now();
        let answer = self.outbound.tell(call).await;
        let (webhook, took) = (self.webhook.name.as_str(), began.elapsed());
        match answer {
            Ok(answer) => {
                let verdict = retry::verdict(answer.status);
                let status = answer.status;
                let outcome = match verdict {
                    Verdict::Taken => "taken",
                    Verdict::Later => "later",
                    Verdict::Refused => "refused",
                };
                self.meter.called(outcome, took);
                match verdict {
                    Verdict::Taken => {}
                    Verdict::Later if tries > 0 => tracing::debug!(webhook, status, tries, "not now"),
                    Verdict::Later => tracing::warn!(webhook, status, "the webhook takes no events now; trying again"),
                    Verdict::Refused => {
                        let events = batch.events.len();
                        tracing::warn!(webhook, status, events, "the webhook refused events: they are dropped");
                    }
                }
                let asked = answer.retry_after.map(|asked| asked.min(retry::LONGEST_ASKED));
                (verdict, asked)
            }
            Err(error) => {
                self.meter.called("unreachable", took);
                if tries == 0 {
                    tracing::warn!(webhook, %error, "the webhook cannot be reached; trying again");
                } else {
                    tracing::debug!(webhook, %error, tries, "still not reached");
                }
                (Verdict::Later, None)
            }
        }
    }
}

fn body(node: &str, batch: &Batch) -> Bytes {
    let length: usize = batch.events.iter().map(|event| event.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 192);
    // A node's id needs no escapes.
    let head =
        format!("{{\"node\":\"{node}\",\"sentAtMs\":{},\"dropped\":{},\"events\":[", payload::now_ms(), batch.dropped);
    body.extend_from_slice(head.as_bytes());
    for (index, event) in batch.events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.extend_from_slice(b"]}");
    body.into()
}
