//! Asking the operator's own service whether a client may connect, and what it may do.
//!
//! Asked by the handshake, once a client's token was found good or none is wanted; one for all workers. Equal questions
//! share one call and, for a while, its answer. Calls run on main's runtime. Without an answer nobody comes in: what is
//! counted as failed here is answered 503 by the handshake. Knows claims only as `access` reads them.

mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ring::digest;
use roomcast_protocol::NodeId;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::access::{Claims, Grant};
use crate::config::RoomPattern;
use crate::events::signature;
use crate::outbound::{Call, Outbound};
use crate::telemetry::metrics::AuthorizeMetrics;
use table::{Found, Key, Table};

/// Calls under way at a time. Beyond, the handshake is answered 503 at once.
const MOST_CALLS: usize = 128;
/// Handshakes of the node that wait for an answer, so that a slow service leaves places for those that need none of it.
const MOST_WAITING: usize = 512;
/// Longest answer that is read.
const LONGEST_ANSWER: usize = 16 * 1024;
/// Longest reason that a client is told, in characters.
const LONGEST_REASON: usize = 200;

/// Whom to ask, and how. Holds the secret: not to be shown.
#[derive(Clone)]
pub struct AuthorizeOptions {
    /// This node.
    pub node: NodeId,
    /// Where to.
    pub url: String,
    /// Signs the questions.
    pub secret: String,
    /// For one call.
    pub timeout: Duration,
    /// How long an answer holds, unless it says less.
    pub cache: Duration,
}

/// What is asked. Rooms are those of the path and query.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Of the token, if keys are configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) rooms: Vec<String>,
    pub(super) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    /// Whether an answer that names no rooms means all that the token gives. Else it means those that are asked for.
    #[serde(skip)]
    pub(super) has_rights: bool,
}

/// What came of a question.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// May come in, and do this.
    Allowed(Grant),
    /// May not, for this reason, which is fit to be shown.
    Denied(Arc<str>),
    /// There is no answer that could be used.
    Failed,
    /// Too many ask at once.
    Busy,
}

/// Asks. One per node.
pub struct Authorizer {
    options: AuthorizeOptions,
    outbound: Outbound,
    runtime: Handle,
    calls: Arc<Semaphore>,
    waiting: AtomicUsize,
    table: Table,
    metrics: AuthorizeMetrics,
    /// So that a service that is away is one line in the log, not one per handshake.
    failing: AtomicBool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    node_id: &'a str,
    #[serde(flatten)]
    question: &'a Question,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    allow: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    cache_seconds: Option<f64>,
}

impl Question {
    /// Equal for questions that get equal answers. Lengths stand in front, so that nothing runs into the next.
    fn key(&self) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |part: Option<&str>| {
            context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            context.update(part.unwrap_or_default().as_bytes());
        };
        add(self.token.as_deref());
        add(self.user.as_deref());
        add(self.name.as_deref());
        add(self.origin.as_deref());
        add(Some(&self.address.to_string()));
        for room in &self.rooms {
            add(Some(room));
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// What an answer gives that names no rooms.
    fn default_rooms(&self) -> Arc<[RoomPattern]> {
        let parse = |text: &str| text.parse().ok();
        if self.has_rights {
            parse("*").into_iter().collect()
        } else {
            self.rooms.iter().filter_map(|room| parse(room)).collect()
        }
    }
}

/// One handshake that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn take(count: &'a AtomicUsize) -> Option<Self> {
        let step = |waiting| (waiting < MOST_WAITING).then(|| waiting + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

impl Authorizer {
    /// Calls run on the present runtime.
    pub fn new(options: AuthorizeOptions, outbound: Outbound, metrics: AuthorizeMetrics) -> Arc<Self> {
        Arc::new(Self {
            options,
            outbound,
            runtime: Handle::current(),
            calls: Arc::new(Semaphore::new(MOST_CALLS)),
            waiting: AtomicUsize::new(0),
            table: Table::default(),
            metrics,
            failing: AtomicBool::new(false),
        })
    }

    /// How long a handshake may take longer because of this.
    pub(super) fn patience(&self) -> Duration {
        self.options.timeout
    }

    /// The verdict on a client, and when what decided it was begun: an answer that is kept counts as given now. Ends within
    /// the time-out; may be dropped at any point.
    pub(super) async fn ask(self: &Arc<Self>, question: Question) -> (Verdict, Instant) {
        let (verdict, asked) = self.find(question).await;
        self.metrics.decided(match &verdict {
            Verdict::Allowed(_) => "allowed",
            Verdict::Denied(_) => "denied",
            Verdict::Failed => "failed",
            Verdict::Busy => "busy",
        });
        (verdict, asked)
    }

    async fn find(self: &Arc<Self>, question: Question) -> (Verdict, Instant) {
        let (key, now) = (question.key(), Instant::now());
        let begin = || {
            let slot = Arc::clone(&self.calls).try_acquire_owned().ok()?;
            let (told, answer) = watch::channel(None);
            let asker = Arc::clone(self);
            self.runtime.spawn(async move {
                let (verdict, holds) = asker.call(&question).await;
                // It may be as old as the question.
                asker.table.settle(key, &verdict, holds.saturating_sub(now.elapsed()));
                told.send_replace(Some(verdict));
                drop(slot);
            });
            Some(answer)
        };
        let (mut answer, asked) = match self.table.find(key, now, begin) {
            Found::Known(verdict) => {
                self.metrics.cached();
                return (verdict, now);
            }
            Found::Asked(answer, asked) => (answer, asked),
            Found::Full => return (Verdict::Busy, now),
        };
        let Some(_place) = Waiting::take(&self.waiting) else { return (Verdict::Busy, now) };
        // Without a sender the call has panicked.
        let told = answer.wait_for(Option::is_some).await;
        (told.ok().and_then(|verdict| verdict.clone()).unwrap_or(Verdict::Failed), asked)
    }

    /// One call; gives also how long its answer holds.
    async fn call(&self, question: &Question) -> (Verdict, Duration) {
        let asked = Asked { node_id: self.options.node.as_str(), question };
        let body = Bytes::from(serde_json::to_vec(&asked).unwrap_or_default());
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = signature::sign(&self.options.secret, seconds, &body);
        let headers = [("content-type", "application/json"), (signature::HEADER, &*signature)];
        let call = Call {
            url: &self.options.url,
            headers: &headers,
            body: Some(body),
            timeout: self.options.timeout,
            longest_answer: LONGEST_ANSWER,
        };
        let began = Instant::now();
        let answer = self.outbound.call(call).await;
        self.metrics.called(began.elapsed());
        let verdict = match answer {
            Err(error) => Err(error.to_string()),
            Ok(answer) if answer.status == 200 => self.read(&answer.body, question),
            // Said in HTTP's own words.
            Ok(answer) if matches!(answer.status, 401 | 403) => {
                Ok((Verdict::Denied("not allowed".into()), self.options.cache))
            }
            Ok(answer) => Err(format!("status {}", answer.status)),
        };
        let failed = verdict.is_err();
        match (&verdict, self.failing.swap(failed, Ordering::Relaxed)) {
            (Err(problem), false) => {
                tracing::warn!(problem, "authorize-url gives no answer that can be used: nobody new comes in");
            }
            (Err(problem), true) => tracing::debug!(problem, "authorize-url still gives no answer"),
            (Ok(_), true) => tracing::info!("authorize-url answers again"),
            (Ok(_), false) => {}
        }
        verdict.unwrap_or((Verdict::Failed, Duration::ZERO))
    }

    fn read(&self, body: &[u8], question: &Question) -> Result<(Verdict, Duration), String> {
        // The words of a JSON error may repeat what stands there: they are not for logs.
        let place = |error: &serde_json::Error| format!("bad JSON at line {}, column {}", error.line(), error.column());
        let answered: Answered = serde_json::from_slice(body).map_err(|error| place(&error))?;
        let holds = match answered.cache_seconds {
            Some(seconds) => {
                Duration::try_from_secs_f64(seconds).map_err(|_| "bad cacheSeconds".to_owned())?.min(self.options.cache)
            }
            None => self.options.cache,
        };
        if !answered.allow {
            return Ok((Verdict::Denied(shown(answered.reason.as_deref().unwrap_or("not allowed"))), holds));
        }
        let claims = Claims::read(body).map_err(|error| place(&error))?;
        let grant = claims.grant(&question.default_rooms(), "").map_err(|denied| denied.to_string())?;
        let left = grant.expires_at().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        if left.is_some_and(|left| left.is_zero()) {
            return Err("exp is over".to_owned());
        }
        Ok((Verdict::Allowed(grant), holds.min(left.unwrap_or(Duration::MAX))))
    }
}

/// One line of bounded length.
fn shown(reason: &str) -> Arc<str> {
    reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>().into()
}
