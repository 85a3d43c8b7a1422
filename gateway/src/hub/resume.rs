//! Resuming at a room's home: what a client missed, in steps that its queue can take, and then its seat.
//!
//! A short absence is answered from memory with `joined` alone. A longer one is read from the stream page by page: the
//! first step goes into `joined`, the others follow as `message` frames, each when the client has taken the one before.
//! Only the last step and the seat belong together, so live messages follow without gap or repeat.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{JoinedHead, Recovery, Since, joined_frame, message_list, reset_frame};
use tokio::sync::oneshot;

use super::home::{Home, State};
use super::joining::message_json;
use super::mail::{JoinRequest, Mail};
use super::sequencer::Place;
use super::shard::{Shard, text_frame};
use super::storm::is_of;
use crate::broker::{BrokerError, History, Range};
use crate::socket::frames;

/// Messages of one read. Small: they may be 64 KiB each.
const PAGE: usize = 64;

/// How long a client waits for what it has seen elsewhere before the stream is read for it.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// How often a resume looks for ground that shifts under it before it gives up.
const MOST_SHIFTS: u32 = 8;

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

/// A client on its way back.
struct Return<'a> {
    join: &'a JoinRequest,
    members: &'a [u8],
    /// Where it stands: `since` at first, then what it was sent.
    at: Since,
    /// Whether it has its `joined`.
    joined: bool,
    /// Frames that are to go before the next.
    before: BytesMut,
}

impl Shard {
    /// Gives a joiner its seat: at once, or after a replay.
    pub(super) fn bring_up(self: &Rc<Self>, home: &Rc<Home>, join: JoinRequest, members: &Rc<Vec<u8>>) {
        let nobody = || Rc::new(b"[]".to_vec());
        let members = &if join.sight.presence { Rc::clone(members) } else { nobody() };
        match join.since.clone() {
            None => self.seat_with_newest(home, &join, Recovery::Fresh, None, members),
            Some(_) if !home.is_durable() => {
                self.seat_with_newest(home, &join, Recovery::UnknownTerm, None, members);
            }
            Some(since) if !join.sight.history => {
                // What was missed is history, too: without the right to it there is nothing to come back to.
                let state = home.state.borrow();
                let is_current = state.sequencer.place(&since) == Place::Within && since.seq == state.sequencer.last();
                drop(state);
                let recovery = if is_current { Recovery::Resumed } else { Recovery::Gap };
                self.seat_with_newest(home, &join, recovery, None, members);
            }
            Some(since) => self.replay_to(home, join, since, Rc::clone(members)),
        }
    }

    /// A seat without a replay, but with the newest messages, if the joiner may see them.
    fn seat_with_newest(
        &self,
        home: &Rc<Home>,
        join: &JoinRequest,
        recovery: Recovery,
        rollback: Option<&Since>,
        members: &[u8],
    ) {
        let messages = if join.sight.history { self.newest(&home.state.borrow()) } else { b"[]".to_vec() };
        let frame = self.joined(home, join, (recovery, rollback), members, &messages);
        self.seat_one(home, join, frame);
    }

    fn replay_to(self: &Rc<Self>, home: &Rc<Home>, join: JoinRequest, since: Since, members: Rc<Vec<u8>>) {
        {
            let mut state = home.state.borrow_mut();
            state.resuming += 1;
            state.resumed_at = Some(self.tick.get());
        }
        let (shard, home) = (Rc::clone(self), Rc::clone(home));
        tokio::task::spawn_local(async move {
            let mut back = Return { join: &join, members: &members, at: since, joined: false, before: BytesMut::new() };
            match shard.replay(&home, &mut back).await {
                Ok(()) => {}
                Err(Ended::Gone) => {
                    // Behind which, if it was only taken out, it may come again.
                    shard.take_back(&home, &join);
                    shard.decline_join(&join, None);
                }
                Err(Ended::Failed { error, joined: false }) => {
                    shard.take_back(&home, &join);
                    shard.refuse_join(&join, &error);
                }
                Err(Ended::Failed { joined: true, .. }) => shard.seat_behind(&home, &mut back, Recovery::Gap),
            }
            home.state.borrow_mut().resuming -= 1;
            shard.turn.due(&home);
        });
    }

    async fn replay(self: &Rc<Self>, home: &Rc<Home>, back: &mut Return<'_>) -> Result<(), Ended> {
        let (mut page, mut shifts) = (None, 0);
        loop {
            // Whatever was collected goes to the members there are and into the recent messages first.
            self.seal(home);
            if self.find_place(home, back, &mut shifts).await? {
                return Ok(());
            }
            let step = self.step(&home.state.borrow(), home, back.at.seq, page.take());
            match step {
                Step::Read => {
                    page = self.read_for(home, back, &mut shifts).await?;
                }
                Step::Hole if back.joined => {
                    self.seat_behind(home, back, Recovery::Gap);
                    return Ok(());
                }
                Step::Hole => {
                    self.seat_with_newest(home, back.join, Recovery::Gap, None, back.members);
                    return Ok(());
                }
                Step::Messages(messages, upto) => {
                    let frame = if back.joined {
                        message_frames(std::mem::take(&mut back.before), &messages)
                    } else {
                        let list = message_list(messages.iter().map(Vec::as_slice));
                        self.joined(home, back.join, (Recovery::Resumed, None), back.members, &list)
                    };
                    let position = home.state.borrow().sequencer.position(upto);
                    if upto >= home.state.borrow().sequencer.last() {
                        self.seat_one(home, back.join, frame);
                        return Ok(());
                    }
                    self.send_and_wait(back.join, frame).await?;
                    back.joined = true;
                    back.at = position.unwrap_or_else(|| Since { seq: upto, ..back.at.clone() });
                }
            }
        }
    }

    /// Finds out whether what the client has is part of the room's order. If not it gets its seat, being told: true.
    ///
    /// This node may be behind another that the client was on, so nobody is told of a loss before the stream was read.
    async fn find_place(
        self: &Rc<Self>,
        home: &Rc<Home>,
        back: &mut Return<'_>,
        shifts: &mut u32,
    ) -> Result<bool, Ended> {
        let (mut is_awaited, mut is_read) = (false, false);
        loop {
            let (place, is_final) = {
                let state = home.state.borrow();
                let place = state.sequencer.place(&back.at);
                if place == Place::Within && back.at.seq <= state.sequencer.last() {
                    return Ok(false);
                }
                let is_final = state.sequencer.is_final(&place, &back.at.term);
                (place, is_final)
            };
            if !is_awaited && !is_final {
                // What this node lacks may be on its way, and so may be others who came for the same reason.
                is_awaited = true;
                tokio::time::sleep(ON_ITS_WAY).await;
                self.seal(home);
                continue;
            }
            if place == Place::Within || !is_read && !is_final {
                self.shift(home, back, shifts).await?;
                self.seal(home);
                is_read = true;
                continue;
            }
            if place == Place::Unknown {
                home.state.borrow_mut().sequencer.rule_out(&back.at.term);
            }
            match (place, back.joined) {
                (Place::Beyond(end), false) => {
                    back.at.seq = end;
                    self.seat_with_newest(home, back.join, Recovery::Diverged, Some(&back.at), back.members);
                    return Ok(true);
                }
                (Place::Beyond(end), true) => {
                    // What it was sent just now is lost, too. It goes back, and on from there.
                    back.at.seq = end;
                    self.parts.totals.hub.resets.with_label_values(&["diverged"]).inc();
                    let frame = reset_frame(&home.name, Recovery::Diverged, Some(&back.at.term), end);
                    frames::text(&frame, &mut back.before);
                }
                (_, false) => {
                    self.seat_with_newest(home, back.join, Recovery::UnknownTerm, None, back.members);
                    return Ok(true);
                }
                (_, true) => {
                    self.seat_behind(home, back, Recovery::UnknownTerm);
                    return Ok(true);
                }
            }
        }
    }

    /// Has the room catch up with its stream.
    async fn shift(self: &Rc<Self>, home: &Rc<Home>, back: &Return<'_>, shifts: &mut u32) -> Result<(), Ended> {
        let joined = back.joined;
        *shifts += 1;
        if *shifts > MOST_SHIFTS {
            let error = BrokerError::Unavailable("the room's history keeps changing".into());
            return Err(Ended::Failed { error, joined });
        }
        self.caught_up(home).await.map_err(|error| Ended::Failed { error, joined })
    }

    /// Has what the client missed read: into the recent messages, for all who come back, or as a page for it alone.
    async fn read_for(
        self: &Rc<Self>,
        home: &Rc<Home>,
        back: &Return<'_>,
        shifts: &mut u32,
    ) -> Result<Option<History>, Ended> {
        let joined = back.joined;
        let failed = |error| Ended::Failed { error, joined };
        if !home.state.borrow().recent.is_deep() {
            self.deepen(home).await.map_err(failed)?;
            if !home.state.borrow().recent.is_deep() {
                self.shift(home, back, shifts).await?;
            }
            return Ok(None);
        }
        let range = Range::After { seq: back.at.seq, limit: PAGE };
        let page = self.read(&home.name, range).await.map_err(failed)?;
        {
            let mut state = home.state.borrow_mut();
            if is_of(&page, &state) {
                state.oldest = page.first;
                return Ok(Some(page));
            }
        }
        self.shift(home, back, shifts).await?;
        Ok(None)
    }

    /// The next messages behind `cursor`, from memory if they are there, else from `page`, as many as fit a frame.
    fn step(&self, state: &State, home: &Home, cursor: u64, page: Option<History>) -> Step {
        let last = state.sequencer.last();
        if cursor >= last {
            return Step::Messages(Vec::new(), cursor);
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
        if cursor + 1 < state.oldest {
            return Step::Hole;
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
        self.send(join.from.worker, Mail::Replay { to: join.from, room: join.room.clone(), frames, taken });
        waits.await.map_err(|_| Ended::Gone)
    }

    /// The rest of the replay is lost: says so, and goes on with what comes.
    fn seat_behind(&self, home: &Rc<Home>, back: &mut Return<'_>, reason: Recovery) {
        self.seal(home);
        let state = home.state.borrow();
        let frame = reset_frame(&home.name, reason, state.sequencer.term(), state.sequencer.last());
        drop(state);
        self.parts.totals.hub.resets.with_label_values(&[reason.as_str()]).inc();
        frames::text(&frame, &mut back.before);
        self.seat_one(home, back.join, std::mem::take(&mut back.before).freeze());
    }

    /// Bytes that may go to a member at once: half of what a connection may have queued.
    pub(super) fn replay_bytes(&self) -> usize {
        self.parts.settings.outbound_queue_bytes / 2
    }

    /// The `joined` frame of a joiner.
    fn joined(
        &self,
        home: &Home,
        join: &JoinRequest,
        (recovery, rollback): (Recovery, Option<&Since>),
        members: &[u8],
        messages: &[u8],
    ) -> Bytes {
        let durable = home.is_durable();
        let counted = if durable { recovery } else { Recovery::Fresh };
        self.parts.totals.hub.joins.with_label_values(&[counted.as_str()]).inc();
        let state = home.state.borrow();
        let head = JoinedHead {
            room: &home.name,
            mode: home.policy.mode,
            term: state.sequencer.term().filter(|_| durable),
            seq: durable.then(|| state.sequencer.last()),
            recovery,
            rollback,
            online: state.roll.online,
        };
        text_frame(&joined_frame(join.reference.as_deref(), &head, members, messages))
    }

    /// The newest messages that fit a frame.
    fn newest(&self, state: &State) -> Vec<u8> {
        let mut bytes: usize = state.recent.newest().map(|json| json.len() + 1).sum();
        let most = self.replay_bytes();
        message_list(state.recent.newest().skip_while(|json| {
            let skip = bytes > most;
            bytes -= json.len() + 1;
            skip
        }))
    }
}

/// Each message as a frame of its own, behind `out`.
fn message_frames(mut out: BytesMut, messages: &[Vec<u8>]) -> Bytes {
    out.reserve(messages.iter().map(|json| json.len() + 10).sum());
    for json in messages {
        frames::text(json, &mut out);
    }
    out.freeze()
}
