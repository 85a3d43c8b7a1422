//! Resuming at a room's home: what a client missed, in steps that its queue can take, and then its seat.
//!
//! A short absence is answered from memory with `joined` alone. A longer one is read from the stream page by page: the
//! first step goes into `joined`, the others follow as `message` frames, each when the client has taken the one before.
//! Only the last step and the seat belong together, so live messages follow without gap or repeat.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{JoinedHead, Recovery, Since, joined_frame, message_list, reset_frame};
use tokio::sync::oneshot;

use super::home::{Home, State};
use super::joining::message_json;
use super::mail::{JoinRequest, Mail};
use super::shard::{Shard, text_frame};
use crate::broker::{BrokerError, History, Range};
use crate::socket::frames;

/// Messages of one read. Small: they may be 64 KiB each.
const PAGE: usize = 64;

/// A step of a replay: messages that go out together.
enum Step {
    /// These, up to this seq.
    Messages(Vec<Vec<u8>>, u64),
    /// They must be read from the stream.
    Read,
    /// They are not to be had any more.
    Hole,
}

/// Why a replay ended without a seat.
enum Ended {
    /// The client went.
    Gone,
    /// The stream could not be read, before or after `joined` was sent.
    Failed { error: BrokerError, joined: bool },
}

impl Shard {
    /// Gives a joiner its seat: at once, or after a replay.
    pub(super) fn bring_up(self: &Rc<Self>, home: &Rc<Home>, join: JoinRequest, members: &Rc<Vec<u8>>) {
        let past = recovery(&home.state.borrow(), join.since.as_ref());
        match (past, join.since.as_ref().map(|since| since.seq)) {
            (None, Some(since)) => self.replay_to(home, join, since, Rc::clone(members)),
            (known, _) => self.seat_with_newest(home, &join, known.unwrap_or(Recovery::Fresh), members),
        }
    }

    /// A seat without a replay. Who missed nothing gets nothing; others get the newest messages.
    fn seat_with_newest(&self, home: &Rc<Home>, join: &JoinRequest, recovery: Recovery, members: &[u8]) {
        let messages = match recovery {
            Recovery::Resumed => b"[]".to_vec(),
            _ => self.newest(&home.state.borrow()),
        };
        let frame = joined_bytes(home, join, recovery, members, &messages);
        self.seat_one(home, join, frame);
    }

    fn replay_to(self: &Rc<Self>, home: &Rc<Home>, join: JoinRequest, since: u64, members: Rc<Vec<u8>>) {
        home.state.borrow_mut().resuming += 1;
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            match shard.replay(&home, &join, since, &members).await {
                Ok(()) => {}
                Err(Ended::Gone) => shard.take_back(&home, &join),
                Err(Ended::Failed { error, joined: false }) => {
                    shard.take_back(&home, &join);
                    shard.refuse_join(&join, &error);
                }
                Err(Ended::Failed { joined: true, .. }) => shard.seat_behind_a_gap(&home, &join),
            }
            home.state.borrow_mut().resuming -= 1;
            shard.turn.due(&home);
        });
    }

    async fn replay(&self, home: &Rc<Home>, join: &JoinRequest, since: u64, members: &[u8]) -> Result<(), Ended> {
        let (mut cursor, mut joined, mut page) = (since, false, None);
        loop {
            // Whatever was collected goes to the members there are and into the recent messages first.
            self.seal(home);
            let step = self.step(&home.state.borrow(), home, join, cursor, page.take());
            match step {
                Step::Read => {
                    let range = Range::After { seq: cursor, limit: PAGE };
                    let read = self.read(&home.name, range).await;
                    page = Some(read.map_err(|error| Ended::Failed { error, joined })?);
                }
                Step::Hole if joined => {
                    self.seat_behind_a_gap(home, join);
                    return Ok(());
                }
                Step::Hole => {
                    // Trimmed meanwhile; or the room has begun a new term, or gone back, since the join came.
                    let known = recovery(&home.state.borrow(), join.since.as_ref());
                    self.seat_with_newest(home, join, known.unwrap_or(Recovery::Gap), members);
                    return Ok(());
                }
                Step::Messages(messages, upto) => {
                    let frame = if joined {
                        message_frames(&messages)
                    } else {
                        let list = message_list(messages.iter().map(Vec::as_slice));
                        joined_bytes(home, join, Recovery::Resumed, members, &list)
                    };
                    if upto >= home.state.borrow().sequencer.last() {
                        self.seat_one(home, join, frame);
                        return Ok(());
                    }
                    self.send_and_wait(join, frame).await?;
                    (cursor, joined) = (upto, true);
                }
            }
        }
    }

    /// The next messages behind `cursor`, from memory if they are there, else from `page`, as many as fit a frame.
    fn step(&self, state: &State, home: &Home, join: &JoinRequest, cursor: u64, page: Option<History>) -> Step {
        let last = state.sequencer.last();
        if state.sequencer.term() != join.since.as_ref().map(|since| &since.term) || cursor > last {
            return Step::Hole;
        }
        let mut room = self.replay_bytes();
        let mut upto = cursor;
        let mut fits = |size: usize| {
            let fits = size <= room || upto == cursor;
            room = room.saturating_sub(size);
            upto += u64::from(fits);
            fits
        };
        if let Some(missed) = state.recent.after(cursor) {
            let messages = missed.take_while(|json| fits(json.len())).map(<[u8]>::to_vec).collect();
            return Step::Messages(messages, upto);
        }
        let Some(page) = page else { return Step::Read };
        let mut messages = Vec::new();
        for (message, due) in page.messages.iter().zip(cursor + 1..=last) {
            if message.seq != due {
                break;
            }
            let json = message_json(&home.name, message);
            if !fits(json.len()) {
                break;
            }
            messages.push(json);
        }
        if messages.is_empty() { Step::Hole } else { Step::Messages(messages, upto) }
    }

    /// Sends a step to the joiner and waits until its socket has taken it.
    async fn send_and_wait(&self, join: &JoinRequest, frames: Bytes) -> Result<(), Ended> {
        let (taken, waits) = oneshot::channel();
        self.send(join.from.worker, Mail::Replay { to: join.from, frames, taken });
        waits.await.map_err(|_| Ended::Gone)
    }

    /// The rest of the replay is lost: says so, and goes on with what comes.
    fn seat_behind_a_gap(&self, home: &Rc<Home>, join: &JoinRequest) {
        self.seal(home);
        let state = home.state.borrow();
        let frame = reset_frame(&home.name, Recovery::Gap, state.sequencer.term(), state.sequencer.last());
        drop(state);
        self.parts.totals.hub.resets.with_label_values(&["gap"]).inc();
        self.seat_one(home, join, text_frame(&frame));
    }

    /// Bytes that may go to a member at once: half of what a connection may have queued.
    pub(super) fn replay_bytes(&self) -> usize {
        self.parts.settings.outbound_queue_bytes / 2
    }

    /// The newest messages that fit a frame.
    fn newest(&self, state: &State) -> Vec<u8> {
        let mut bytes: usize = state.recent.all().map(|json| json.len() + 1).sum();
        let most = self.replay_bytes();
        message_list(state.recent.all().skip_while(|json| {
            let skip = bytes > most;
            bytes -= json.len() + 1;
            skip
        }))
    }
}

/// What can be said without a replay; `None` when one is due.
fn recovery(state: &State, since: Option<&Since>) -> Option<Recovery> {
    let Some(since) = since else { return Some(Recovery::Fresh) };
    let last = state.sequencer.last();
    if state.sequencer.term() != Some(&since.term) {
        return Some(Recovery::UnknownTerm);
    }
    match since.seq.cmp(&last) {
        std::cmp::Ordering::Greater => Some(Recovery::Diverged),
        std::cmp::Ordering::Equal => Some(Recovery::Resumed),
        std::cmp::Ordering::Less => None,
    }
}

/// The `joined` frame of a joiner.
fn joined_bytes(home: &Home, join: &JoinRequest, recovery: Recovery, members: &[u8], messages: &[u8]) -> Bytes {
    let state = home.state.borrow();
    let durable = home.is_durable();
    let head = JoinedHead {
        room: &home.name,
        mode: home.policy.mode,
        term: state.sequencer.term().filter(|_| durable),
        seq: durable.then(|| state.sequencer.last()),
        recovery,
        online: state.roll.online,
    };
    text_frame(&joined_frame(join.reference.as_deref(), &head, members, messages))
}

/// Each message as a frame of its own.
fn message_frames(messages: &[Vec<u8>]) -> Bytes {
    let mut out = BytesMut::with_capacity(messages.iter().map(|json| json.len() + 10).sum());
    for json in messages {
        frames::text(json, &mut out);
    }
    out.freeze()
}
