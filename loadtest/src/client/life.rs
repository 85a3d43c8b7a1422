//! A client's connections, one after the other.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::watch::Cut;
use super::{Client, EndsRun, Output, Presence};
use crate::plan::Target;
use crate::record::{Count, Reason};
use crate::wire::{Closed, ConnectError, Frame, Request};

/// How a session ended.
enum End {
    Closed(Closed),
    /// We broke it off.
    Cut(Cut),
}

/// Longest time that a server's wish to come back later is followed. Who asks for more has no use for us.
const LONGEST_AWAY: Duration = Duration::from_mins(5);

fn asked_ns(after_ms: u64) -> u64 {
    Duration::from_millis(after_ms).min(LONGEST_AWAY).as_nanos() as u64
}

impl Client {
    /// Connects when `due_ns` comes, and whenever the connection is lost, until it is concluded.
    pub async fn live(self: Rc<Self>, due_ns: u64) {
        let _guard = EndsRun(&self.floor.gauges);
        let mut due_ns = due_ns;
        let mut attempt: u32 = 0;
        loop {
            self.sleep_until(due_ns).await;
            if self.concluded.get() {
                return;
            }
            match Box::pin(self.open(due_ns, attempt)).await {
                Ok(()) => {}
                Err(error) => {
                    self.floor.recorder.count(Count::ConnectFailed, 1);
                    self.floor.recorder.because(Reason::ConnectFailure, &error.to_string());
                    due_ns = self.floor.clock.now_ns() + self.backoff_ns(attempt);
                    attempt += 1;
                    continue;
                }
            }
            let end = poll_fn(|cx| self.poll_session(cx)).await;
            if self.concluded.get() {
                return;
            }
            let welcomed = self.me.borrow().node_id.is_some();
            // Who gets in and is thrown out again backs off too.
            attempt = if welcomed { 1 } else { attempt + 1 };
            due_ns = self.ended(&end, attempt);
        }
    }

    async fn sleep_until(&self, ns: u64) {
        if ns > self.floor.clock.now_ns() {
            tokio::time::sleep_until(self.floor.clock.instant(ns).into()).await;
        }
    }

    /// Full jitter: somewhere between now and a bound that doubles.
    pub(super) fn backoff_ns(&self, attempt: u32) -> u64 {
        let backoff = self.floor.plan.backoff;
        let most = backoff.base.saturating_mul(1 << attempt.min(16)).min(backoff.most);
        rand::random_range(0..=most.as_nanos() as u64)
    }

    /// A room's members are spread over the targets. Who comes back goes anywhere, so that the clients of a lost node
    /// do not all meet on the next.
    fn target(&self, attempt: u32) -> &Target {
        let targets = &self.floor.plan.targets;
        let at =
            if attempt == 0 { self.member as usize + self.room as usize } else { rand::random_range(0..targets.len()) };
        &targets[at % targets.len()]
    }

    async fn open(&self, due_ns: u64, attempt: u32) -> Result<(), ConnectError> {
        let plan = &self.floor.plan;
        let target = self.target(attempt);
        let now_s = self.floor.clock.now_ns() / 1_000_000_000;
        let token =
            plan.token.text(self.index, self.room_name.as_str(), now_s).map_err(|e| ConnectError::Io(e.to_string()))?;
        let path = format!("{}/connect?name=lt-{}", target.base, self.index);
        let request = Request {
            address: target.addresses[(self.index + attempt) as usize % target.addresses.len()],
            source: plan.sources.get(self.index as usize % plan.sources.len().max(1)).copied(),
            host: &target.host,
            port: target.port,
            tls: target.tls,
            path: &path,
            token: token.as_deref(),
        };
        let connecting = tokio::time::timeout(plan.connect_timeout, self.floor.connector.connect(request));
        let (mut link, rest) = connecting.await.map_err(|_| ConnectError::Io("timed out".to_owned()))??;
        {
            let mut me = self.me.borrow_mut();
            me.node_id = None;
            me.connecting_since_ns = due_ns;
            me.ping_interval_ms = 0;
            me.awaits_since = Some(self.floor.looks.now());
            self.heard.set(self.floor.looks.now());
        }
        let mut output = Output::default();
        link.feed(&rest, &mut |frame| self.take_frame(&mut self.me.borrow_mut(), &frame, &mut output));
        *self.link.borrow_mut() = Some(Box::new(link));
        self.floor.gauges.connections.fetch_add(1, Relaxed);
        self.answer(output);
        Ok(())
    }

    fn answer(&self, output: Output) {
        for frame in output.frames {
            self.send_text(&frame);
        }
        if output.joined {
            self.resend();
        }
    }

    fn poll_session(&self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(why) = self.cut.take() {
            return Poll::Ready(End::Cut(why));
        }
        let mut output = Output::default();
        loop {
            let polled = self.poll_link(cx, &mut output);
            self.answer(std::mem::take(&mut output));
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            match ready!(polled) {
                Ok(read) => {
                    self.heard.set(self.floor.looks.now());
                    self.floor.recorder.count(Count::BytesIn, read as u64);
                }
                Err(closed) => return Poll::Ready(End::Closed(closed)),
            }
        }
    }

    fn poll_link(&self, cx: &mut Context<'_>, output: &mut Output) -> Poll<Result<usize, Closed>> {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_deref_mut() else {
            return Poll::Ready(Err(Closed::Lost("no connection".to_owned())));
        };
        let mut me = self.me.borrow_mut();
        let mut on = |frame: Frame<'_>| self.take_frame(&mut me, &frame, output);
        link.poll(cx, &mut self.floor.scratch.borrow_mut(), &mut on)
    }

    /// Tidies up after a connection. Gives when to come back.
    fn ended(&self, end: &End, attempt: u32) -> u64 {
        *self.link.borrow_mut() = None;
        let floor = &self.floor;
        floor.gauges.connections.fetch_sub(1, Relaxed);
        let mut me = self.me.borrow_mut();
        let node = me.node_id.take();
        me.awaits_since = None;
        let was_joined = me.presence == Presence::Joined;
        if was_joined {
            me.presence = Presence::Out;
            me.seat.away(&floor.audit);
            floor.gauges.joined.fetch_sub(1, Relaxed);
        }
        self.forget_what_cannot_be_retried(&mut me);
        let now = floor.clock.now_ns();
        let asked = me.come_back_ms.take().map(asked_ns);
        let back = match end {
            End::Cut(Cut::Storm) => now,
            _ => now + asked.unwrap_or_else(|| self.backoff_ns(attempt)),
        };
        self.tell_of(end, node.as_deref());
        // Waiting as the server asked is not the cluster's latency; our own backoff is.
        if asked.is_some() && (was_joined || me.gone_at_ns > 0) {
            me.gone_at_ns = back;
        } else if was_joined {
            me.gone_at_ns = now;
        }
        back
    }

    /// Counts a connection that ended; without a welcome it was none.
    fn tell_of(&self, end: &End, node: Option<&str>) {
        let recorder = &self.floor.recorder;
        match (end, node) {
            (End::Cut(Cut::Storm), _) => recorder.count(Count::Dropped, 1),
            (_, None) => {
                recorder.count(Count::ConnectFailed, 1);
                recorder.because(Reason::ConnectFailure, &words(end));
            }
            (_, Some(node)) => {
                recorder.count(Count::Disconnected, 1);
                recorder.because(Reason::Close, &words(end));
                self.floor.notes.borrow_mut().gone.add(node, 1);
            }
        }
        if matches!(end, End::Cut(Cut::NoJoined)) {
            recorder.because(Reason::ConnectFailure, Cut::NoJoined.words());
        }
    }
}

fn words(end: &End) -> String {
    match end {
        End::Closed(Closed::By(code, reason)) if reason.is_empty() => format!("{code}"),
        End::Closed(Closed::By(code, reason)) => format!("{code} {reason}"),
        End::Closed(Closed::Lost(reason)) => format!("lost: {reason}"),
        End::Cut(why) => why.words().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_followed_for_minutes_and_not_for_ever() {
        assert_eq!(asked_ns(1500), 1_500_000_000);
        assert_eq!(asked_ns(u64::MAX), 300_000_000_000);
    }
}
