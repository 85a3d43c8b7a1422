//! The connection that events come in on: which topics are wanted, and the task that keeps it so.
//!
//! Used by the broker. The task opens the connection, subscribes to all that is wanted, awaits the acknowledgements,
//! says [`Event::Resubscribed`], then follows the wishes and watches for silence. Whatever goes wrong, it drops the
//! connection and starts over: there is one way to be right and no half-subscribed state.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, SendError};
use ::redis::{RedisResult, cmd};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub(super) use self::intake::Intake;
pub(super) use self::topic::Topic;
use super::canary::is_deaf;
use super::connection::{Backoff, Endpoint, PING_INTERVAL, PING_TIMEOUT};
use crate::broker::stats::Path;
use crate::broker::{BrokerError, BrokerStats, Event};

mod channels;
mod intake;
mod topic;

/// Channels per SUBSCRIBE.
const BATCH: usize = 512;

pub(super) struct Subscription {
    wishes: Rc<Wishes>,
    timeout: Duration,
    stats: BrokerStats,
    supervisor: JoinHandle<()>,
}

/// Awaits the acknowledgement of a subscription.
pub(super) async fn acknowledgement(acknowledged: oneshot::Receiver<()>, limit: Duration) -> Result<(), BrokerError> {
    match timeout(limit, acknowledged).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(BrokerError::Unavailable("unsubscribed meanwhile".into())),
        Err(_) => Err(BrokerError::Unavailable("the subscription was not acknowledged in time".into())),
    }
}

/// Who is told of an acknowledgement.
pub(super) type Waiter = oneshot::Sender<()>;

/// What the hub wants, and what the connection has.
#[derive(Default)]
struct Wishes {
    /// What is wanted, each with those who await its acknowledgement.
    wanted: RefCell<HashMap<Topic, Vec<Waiter>>>,
    /// What was acknowledged on the present connection.
    active: RefCell<HashSet<Topic>>,
    /// Those whose wish changed since the task looked. Only kept while there is a connection to change.
    changed: RefCell<HashSet<Topic>>,
    /// How many rooms came from other servers, and how many of them the hub was told to catch up.
    taken_over: Cell<u64>,
    caught_up: Cell<u64>,
    serving: Cell<bool>,
    wake: Notify,
}

impl Subscription {
    /// `moved` drops the connection: the server turned out to be the wrong one.
    pub(super) fn start(endpoint: Endpoint, intake: Intake, timeout: Duration, moved: Rc<Notify>) -> Self {
        let wishes = Rc::<Wishes>::default();
        let stats = intake.stats().clone();
        let supervisor = tokio::task::spawn_local(supervise(endpoint, intake, Rc::clone(&wishes), moved));
        Self { wishes, timeout, stats, supervisor }
    }

    pub(super) fn is_up(&self) -> bool {
        self.wishes.serving.get()
    }

    pub(super) async fn subscribe(&self, topic: &Topic) -> Result<(), BrokerError> {
        let (waiter, acknowledged) = oneshot::channel();
        self.want(topic, vec![waiter]);
        acknowledgement(acknowledged, self.timeout).await
    }

    /// Asks for a topic, and for word to all of `waiters` once it is acknowledged.
    pub(super) fn want(&self, topic: &Topic, waiters: Vec<Waiter>) {
        let mut wanted = self.wishes.wanted.borrow_mut();
        let all = wanted.entry(topic.clone()).or_default();
        if self.wishes.active.borrow().contains(topic) {
            for waiter in waiters {
                _ = waiter.send(());
            }
            return;
        }
        all.retain(|waiter| !waiter.is_closed());
        all.extend(waiters);
        drop(wanted);
        self.wishes.changed(topic);
    }

    /// Asks for a topic that another server had until now: what it missed meanwhile is to be caught up.
    pub(super) fn take_over(&self, topic: &Topic, waiters: Vec<Waiter>) {
        self.wishes.taken_over.set(self.wishes.taken_over.get() + 1);
        self.want(topic, waiters);
    }

    /// Gives up the wanted topics that are not to `stay`.
    pub(super) fn release(&self, stay: impl Fn(&Topic) -> bool) -> Vec<(Topic, Vec<Waiter>)> {
        let gone: Vec<_> = self.wishes.wanted.borrow_mut().extract_if(|topic, _| !stay(topic)).collect();
        for (topic, _) in &gone {
            self.wishes.changed(topic);
        }
        gone
    }

    pub(super) fn unsubscribe(&self, topic: &Topic) {
        if self.wishes.wanted.borrow_mut().remove(topic).is_some() {
            self.wishes.changed(topic);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.stats.end_subscriptions(self.wishes.forget_connection());
    }
}

impl Wishes {
    fn changed(&self, topic: &Topic) {
        if self.serving.get() {
            self.changed.borrow_mut().insert(topic.clone());
            self.wake.notify_one();
        }
    }

    /// Topics to subscribe to and to leave, to make the connection what is wanted.
    fn differences(&self) -> (Vec<Topic>, Vec<Topic>) {
        let changed = std::mem::take(&mut *self.changed.borrow_mut());
        let (wanted, active) = (self.wanted.borrow(), self.active.borrow());
        let differing = changed.into_iter().filter(|topic| wanted.contains_key(topic) != active.contains(topic));
        differing.partition(|topic| wanted.contains_key(topic))
    }

    fn acknowledge(&self, topics: &[Topic]) {
        let (mut wanted, mut active) = (self.wanted.borrow_mut(), self.active.borrow_mut());
        for topic in topics {
            active.insert(topic.clone());
            for waiter in wanted.get_mut(topic).map(std::mem::take).unwrap_or_default() {
                _ = waiter.send(());
            }
        }
    }

    /// Forgets those topics that nobody wants, and gives them. Who wanted one back until now was told that it is there:
    /// that one stays.
    fn forget<'a>(&self, topics: &'a [Topic]) -> Vec<&'a Topic> {
        let (wanted, mut active) = (self.wanted.borrow(), self.active.borrow_mut());
        let unwanted = topics.iter().filter(|topic| !wanted.contains_key(*topic));
        unwanted.inspect(|topic| _ = active.remove(*topic)).collect()
    }

    /// Whether someone gave up waiting for a room: it is told by [`Event::Resubscribed`].
    fn unattended(&self) -> bool {
        self.wanted.borrow().values().any(|waiters| waiters.iter().all(oneshot::Sender::is_closed))
    }

    /// Returns how many subscriptions ended with it.
    fn forget_connection(&self) -> usize {
        self.serving.set(false);
        let gone = topic::rooms(&std::mem::take(&mut *self.active.borrow_mut()));
        self.changed.borrow_mut().clear();
        gone
    }
}

async fn supervise(endpoint: Endpoint, intake: Intake, wishes: Rc<Wishes>, moved: Rc<Notify>) {
    let mut backoff = Backoff::new();
    let mut opened = false;
    loop {
        let Some(perch) = intake.canary().channel().await else { return };
        // The place for `Resubscribed` is taken before connecting. A hub that is behind is so left in peace until it
        // reads again, and the word cannot be lost. An error: nobody will ever read again.
        let Ok(place) = intake.events().reserve_owned().await else { return };
        let tap = Arc::new(intake.tap(perch));
        let pushes = Arc::clone(&tap);
        match endpoint
            .open(
                move |push| {
                    pushes.take(push);
                    Ok::<(), SendError>(())
                },
                BATCH,
            )
            .await
        {
            Ok(connection) => {
                let refusal = RefCell::default();
                let mut link = Link { connection, tap, wishes: &wishes, intake: &intake, moved: &moved, refusal };
                let began = Instant::now();
                let ended = tokio::select! {
                    ended = link.serve(place, &mut opened) => ended,
                    () = endpoint.moved() => "the master is another server now",
                };
                backoff.lasted(began.elapsed());
                intake.stats().end_subscriptions(wishes.forget_connection());
                intake.doubt().notify_one();
                intake.signs().stir();
                let error = link.refusal.take();
                if backoff.is_news(&format!("{ended} {error}")) {
                    tracing::warn!(
                        server = endpoint.name(),
                        reason = ended,
                        error,
                        "redis: lost the subscription connection"
                    );
                }
            }
            Err(error) if backoff.is_news(&error) => {
                tracing::warn!(server = endpoint.name(), %error, "redis: cannot connect for the subscription");
            }
            Err(_) => {}
        }
        backoff.wait().await;
    }
}

/// One connection's life.
struct Link<'a> {
    connection: MultiplexedConnection,
    tap: Arc<intake::Tap>,
    wishes: &'a Wishes,
    intake: &'a Intake,
    moved: &'a Rc<Notify>,
    /// What the server said when it refused something.
    refusal: RefCell<String>,
}

impl Link<'_> {
    /// Returns why the connection must be made anew.
    async fn serve(&mut self, place: mpsc::OwnedPermit<Event>, opened: &mut bool) -> &'static str {
        let (lost, moved) = (Arc::clone(&self.tap), Rc::clone(self.moved));
        tokio::select! {
            () = lost.lost() => lost.reason(),
            () = self.intake.canary().leaves(lost.perch()) => "the canary's slot moved to another server",
            () = Self::deaf(self.intake, &lost) => "deaf: the canary does not come back",
            () = moved.notified() => "the server is not the master any more",
            reason = self.follow(place, opened) => reason,
        }
    }

    /// Resolves when the canary is owed for too long.
    async fn deaf(intake: &Intake, tap: &intake::Tap) {
        loop {
            intake.canary().deaf().await;
            if is_deaf(intake.canary().overdue(), tap.silent_for()) {
                return;
            }
        }
    }

    async fn follow(&mut self, place: mpsc::OwnedPermit<Event>, opened: &mut bool) -> &'static str {
        let wanted: Vec<Topic> = self.wishes.wanted.borrow().keys().cloned().collect();
        let taken_over = self.wishes.taken_over.get();
        let catch_up = *opened || taken_over > self.wishes.caught_up.get() || self.wishes.unattended();
        // From here on wishes that change are noted.
        self.wishes.serving.set(true);
        self.intake.signs().stir();
        // The canary's channel last: it is heard once all rooms are.
        if !self.subscribe_to(&wanted).await || !self.subscribe_canary().await {
            return "subscriptions were not acknowledged";
        }
        if *opened {
            self.intake.stats().count_reconnect(Path::Subscribe);
        }
        if catch_up {
            place.send(Event::Resubscribed);
            self.wishes.caught_up.set(taken_over);
        } else {
            drop(place);
        }
        *opened = true;
        tracing::info!(rooms = topic::rooms(&wanted), "redis: subscribed");
        // A clock of its own: wishes that cancel each other out must not put the pings off for ever.
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.wishes.wake.notified() => {
                    if !self.follow_wishes().await {
                        return "a subscription was not acknowledged";
                    }
                }
                _ = pings.tick() => {
                    let mut connection = self.connection.clone();
                    if !self.answered(async move { cmd("PING").query_async::<()>(&mut connection).await }).await {
                        return "silent";
                    }
                }
            }
        }
    }

    async fn follow_wishes(&mut self) -> bool {
        let taken_over = self.wishes.taken_over.get();
        let (enter, leave) = self.wishes.differences();
        if !self.subscribe_to(&enter).await {
            return false;
        }
        if taken_over > self.wishes.caught_up.get() {
            if self.intake.events().send(Event::Resubscribed).await.is_err() {
                return false;
            }
            self.wishes.caught_up.set(taken_over);
        }
        for topics in leave.chunks(BATCH) {
            // Before it is sent: who wants one of them back from here on must not be told that it is still there.
            let topics = self.wishes.forget(topics);
            if topics.is_empty() {
                continue;
            }
            self.intake.stats().end_subscriptions(topic::rooms(topics.iter().copied()));
            let names: Vec<String> = topics.iter().map(|topic| topic.channel(self.intake.keys())).collect();
            let connection = self.connection.clone();
            let sharded = self.intake.sharded();
            if sharded {
                self.tap.expect_to_leave(names.len());
            }
            if !self.answered(channels::leave(connection, names, sharded)).await {
                return false;
            }
        }
        true
    }

    async fn subscribe_canary(&self) -> bool {
        let perch = vec![self.tap.perch().to_owned()];
        let done = self.answered(channels::enter(self.connection.clone(), perch, self.intake.sharded())).await;
        self.intake.canary().listen();
        done
    }

    async fn subscribe_to(&mut self, topics: &[Topic]) -> bool {
        for topics in topics.chunks(BATCH) {
            let names: Vec<String> = topics.iter().map(|topic| topic.channel(self.intake.keys())).collect();
            let connection = self.connection.clone();
            if !self.answered(channels::enter(connection, names, self.intake.sharded())).await {
                return false;
            }
            self.wishes.acknowledge(topics);
            self.intake.stats().begin_subscriptions(topic::rooms(topics));
        }
        true
    }

    /// Awaits an answer for as long as anything at all comes in: behind a burst of events, an answer may be late.
    async fn answered<T>(&self, call: impl Future<Output = RedisResult<T>>) -> bool {
        let mut call = std::pin::pin!(call);
        loop {
            match timeout(PING_TIMEOUT, &mut call).await {
                Ok(Ok(_)) => return true,
                Ok(Err(error)) => {
                    self.refusal.replace(error.to_string());
                    return false;
                }
                Err(_) if self.tap.silent_for() < PING_TIMEOUT => {}
                Err(_) => return false,
            }
        }
    }
}
