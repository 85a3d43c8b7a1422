//! How a session ends: out of its rooms at once, then the close frame, then a moment for the client to take it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use roomcast_protocol::reconnect_frame;
use socket2::SockRef;

use super::dispatch::Dispatcher;
use super::end::End;
use super::{Floor, control};
use crate::hub::{Peer, Stop};
use crate::socket::frames;

/// How long a client has to take the close frame and to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// How long a node that sends a client away waits for the broker's answers to what a client asked for.
const SETTLE: Duration = Duration::from_secs(2);
/// The same for a slow consumer, whose socket is full.
const LINGER_SLOW: Duration = Duration::from_secs(5);
/// Longest time that a client is asked to stay away, and what it is asked for when all are sent away at once.
const AWAY: Duration = Duration::from_secs(1);
/// Shortest bound of that time: clients go in groups, and come back one by one.
const AWAY_LEAST: Duration = Duration::from_millis(100);
/// The parts of the drain's window of which clients stay away for one at most: they are spread by when they are sent
/// away, and what comes on top only blurs the groups.
const PARTS: u32 = 10;

/// Ends a session.
pub(super) async fn close(dispatcher: Dispatcher, end: End) {
    let (floor, peer) = dispatcher.into_parts();
    let end = settle(&peer, end).await;
    let row = end.row();
    floor.totals.sockets.closes.with_label_values(&[row.label]).inc();
    tracing::debug!(client = %peer.id, reason = row.label, code = row.code, "session ended");
    if end == End::SlowConsumer {
        floor.totals.sockets.slow_consumers.inc();
    }
    if floor.shard.disconnect(&peer) {
        floor.totals.sockets.connections.dec();
    }
    if end == End::Gone {
        return;
    }
    if let Some(reason) = end.asks_back() {
        let after_ms = rand::random_range(0..=away(&floor).as_millis() as u64);
        peer.append(control(|out| frames::text(&reconnect_frame(reason, after_ms), out)));
    }
    let words = peer.take_words().filter(|_| end == End::Removed);
    let frame = control(|out| match row.code {
        Some(code) => frames::close(code, words.as_deref().unwrap_or(row.words), out),
        None => frames::close_empty(out),
    });
    peer.begin_close(frame, end == End::SlowConsumer);
    let linger = if end == End::SlowConsumer { LINGER_SLOW } else { LINGER };
    // A client that does not take its close in time is cut off.
    let _ = tokio::time::timeout(linger, part(&floor, &peer)).await;
}

/// The longest time that a client is asked to stay away.
fn away(floor: &Floor) -> Duration {
    let window = floor.settings.drain_window;
    let at_once = window.is_zero() || floor.lifecycle.is_hurried();
    if at_once { AWAY } else { (window / PARTS).clamp(AWAY_LEAST, AWAY) }
}

/// Lets a client that is asked back have its answers first: an ack that is lost makes it publish again. Whoever is removed
/// meanwhile is not asked back.
async fn settle(peer: &Peer, end: End) -> End {
    if end.asks_back().is_none() {
        return end;
    }
    let _ = tokio::time::timeout(SETTLE, settled(peer)).await;
    if peer.stop() == Some(Stop::Removed) { End::Removed } else { end }
}

async fn settled(peer: &Peer) {
    poll_fn(|cx| {
        peer.register(cx.waker());
        if peer.is_settled() || peer.stop() == Some(Stop::Removed) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Writes what is left, says that no more comes, and reads until the client has closed, too: closing a socket with
/// unread input would reset it, and the close frame would be lost.
async fn part(floor: &Rc<Floor>, peer: &Peer) {
    let mut over = false;
    while peer.backlog() > 0 {
        poll_fn(|cx| {
            // Once the client has closed its side, only the socket's taking more is news.
            over = over || discard(peer, floor, cx);
            peer.stream().poll_write_ready(cx)
        })
        .await
        .ok();
        if peer.flush().is_none() && !peer.awaits_writable() {
            return;
        }
    }
    if SockRef::from(peer.stream()).shutdown(std::net::Shutdown::Write).is_err() || over {
        return;
    }
    poll_fn(|cx| if discard(peer, floor, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Throws input away. True when there is no more to come.
fn discard(peer: &Peer, floor: &Floor, cx: &mut Context<'_>) -> bool {
    let mut scratch = floor.scratch.borrow_mut();
    while peer.stream().poll_read_ready(cx).is_ready() {
        match peer.stream().try_read(&mut scratch) {
            Ok(0) => return true,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return true,
            _ => {}
        }
    }
    false
}
