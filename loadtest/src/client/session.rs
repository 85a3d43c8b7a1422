//! What a client does with the frames it receives, and what it sends.

use std::sync::atomic::Ordering::Relaxed;

use roomcast_protocol::Mode;

use super::decode::Fields;
use super::memo::Known;
use super::publisher::{Envelope, Publisher, read_id, write_frame};
use super::{Client, Output, Presence, Retry, State};
use crate::payload::{self, PayloadError, Stamp};
use crate::record::{Count, Latency, Reason, Tally};
use crate::wire::Frame;

/// How every `message` frame begins.
const MESSAGE: &[u8] = br#"{"type":"message""#;
/// Waits before a refused publish is tried again: this, doubled with each attempt, and at most sixteen times it.
const RETRY_NS: u64 = 100_000_000;
/// When a message was due whose data is damaged: it has no latency.
const UNKNOWN: u64 = 0;
/// Stands for all that were never sent, in a [`Retry`].
pub(super) const UNSENT: u32 = u32::MAX;
/// The `ref` of a join; publishes have their numbers, which begin with 1.
pub(super) const JOIN: u32 = 0;

impl Client {
    /// Takes one frame; what is to be sent in answer is added to `output`.
    pub(super) fn take_frame(&self, me: &mut State, frame: &Frame<'_>, output: &mut Output) {
        let Frame::Text(text) = frame else { return };
        if text.starts_with(MESSAGE) {
            self.take_message(me, text);
            return;
        }
        let Some(fields) = parse(text) else {
            self.unreadable(text);
            return;
        };
        match &*fields.kind {
            "ack" => self.take_ack(me, &fields),
            "joined" => self.take_joined(me, &fields, output),
            "welcome" => self.take_welcome(me, &fields, output),
            "error" => self.take_error(me, &fields),
            "reset" => self.take_reset(me, &fields),
            "reconnect" => {
                me.come_back_ms = Some(fields.after_ms);
                let node = me.node_id.as_deref().unwrap_or("unknown");
                self.floor.notes.borrow_mut().drains.add(node, 1);
            }
            _ => self.floor.recorder.count(Count::OtherFrames, 1),
        }
    }

    fn unreadable(&self, text: &[u8]) {
        self.floor.recorder.count(Count::OtherErrors, 1);
        self.floor.audit.corrupted(self.index, self.room, &format!("a frame of {} bytes is no JSON", text.len()));
    }

    fn take_message(&self, me: &mut State, text: &[u8]) {
        let floor = &self.floor;
        let mut memo = floor.memo.borrow_mut();
        let Some(known) = memo.get(text, |text| self.read_message(&parse(text)?)) else {
            self.unreadable(text);
            return;
        };
        if known.room != Some(self.room) {
            self.take_astray(me, known);
            return;
        }
        let Some(stamp) = &known.stamp else {
            floor.recorder.count(Count::Foreign, 1);
            me.seat.foreign(&floor.audit, known.place.as_ref());
            return;
        };
        me.seat.received(&floor.audit, stamp, known.place.as_ref());
        floor.recorder.count(Count::Received, 1);
        if known.place.as_ref().is_none_or(|place| place.seq > me.joined_seq) {
            self.delivered(me, stamp);
        }
    }

    /// A message that says it is of a room that the client is not in.
    pub(super) fn take_astray(&self, me: &mut State, known: &Known) {
        let audit = &self.floor.audit;
        match &known.stamp {
            Some(stamp) if stamp.room != self.room => audit.misplaced(self.index, self.room, stamp),
            _ => audit.corrupted(self.index, self.room, "a message of another room"),
        }
        me.seat.foreign(audit, None);
    }

    fn delivered(&self, me: &State, stamp: &Stamp) {
        let now = self.floor.clock.now_ns();
        self.floor.gauges.last_received_ns.store(now, Relaxed);
        if stamp.intended_ns == UNKNOWN {
            return;
        }
        let kind = if stamp.node == me.node { Latency::DeliverySame } else { Latency::DeliveryCross };
        self.floor.recorder.took(kind, now.saturating_sub(stamp.intended_ns));
        if now < stamp.intended_ns {
            self.floor.recorder.count(Count::ClockSkew, 1);
        }
    }

    /// Reads a message and holds it against what others saw of its room.
    pub(super) fn read_message(&self, fields: &Fields<'_>) -> Option<Known> {
        let floor = &self.floor;
        let name = fields.room.as_deref()?;
        let room = name.rsplit('-').next().and_then(|index| index.parse().ok());
        let room: Option<u32> =
            room.filter(|index| floor.plan.room_name(*index).is_some_and(|own| own.as_str() == name));
        let place = fields.place();
        let stamp = match payload::read(fields.data?.get()) {
            Ok(stamp) if stamp.run == floor.plan.run => Some(stamp),
            Ok(_) | Err(PayloadError::NotOurs) => None,
            Err(PayloadError::Corrupted) => {
                let words = format!("message {} is damaged", cut(fields.id.as_deref().unwrap_or("without id")));
                floor.audit.corrupted(self.index, self.room, &words);
                // Its id still tells which one it is, so that it does not count as lost as well.
                read_id(floor.plan.run, fields.id.as_deref()?).map(|(publisher, number)| Stamp {
                    run: floor.plan.run,
                    room: room.unwrap_or(self.room),
                    publisher,
                    number,
                    attempt: 0,
                    node: 0,
                    intended_ns: UNKNOWN,
                })
            }
        };
        if let (Some(room), Some(stamp)) = (room, &stamp) {
            floor.audit.verify(room, stamp, place.as_ref());
        }
        Some(Known { room, stamp, place })
    }

    fn take_ack(&self, me: &mut State, fields: &Fields<'_>) {
        let floor = &self.floor;
        let Some(number) = fields.number() else { return };
        let Some(publisher) = me.publisher.as_deref_mut() else { return };
        if publisher.get(number).is_some_and(|pending| pending.sent == 0) {
            self.out_of_place();
            return;
        }
        let Some(pending) = publisher.settle(number) else { return };
        floor.recorder.took(Latency::Ack, floor.clock.now_ns().saturating_sub(pending.intended_ns));
        floor.recorder.count(Count::Acked, 1);
        if fields.duplicate {
            floor.recorder.count(Count::AckedDuplicate, 1);
        }
        me.seat.acked(&floor.audit, number, fields.place().as_ref(), fields.duplicate);
    }

    fn take_error(&self, me: &mut State, fields: &Fields<'_>) {
        let floor = &self.floor;
        let code = fields.code.as_deref().unwrap_or("unknown");
        let Some(number) = fields.number().filter(|number| *number != JOIN) else {
            self.take_other_error(me, code, fields);
            return;
        };
        let Some(publisher) = me.publisher.as_deref_mut() else { return };
        floor.recorder.count(Count::PublishErrors, 1);
        floor.recorder.because(Reason::PublishError, code);
        let Some(pending) = publisher.get(number) else { return };
        let sent = pending.sent;
        if fields.retryable && floor.plan.mode == Mode::Durable {
            if std::mem::replace(&mut pending.refused, true) {
                return;
            }
            let wait = RETRY_NS << u32::from(sent).min(4);
            let at_ns = floor.clock.now_ns() + rand::random_range(wait / 2..=wait);
            floor.retries.borrow_mut().push(Retry { at_ns, client: self.slot, number, sent });
        } else {
            publisher.settle(number);
            floor.recorder.count(Count::Abandoned, 1);
            floor.audit.abandoned(self.index, self.room, number);
        }
    }

    /// What is no answer to a publish: a join that was refused, or something we should not have sent.
    fn take_other_error(&self, me: &mut State, code: &str, fields: &Fields<'_>) {
        let floor = &self.floor;
        floor.recorder.count(Count::OtherErrors, 1);
        let words = format!("{}: {}", cut(code), cut(fields.message.as_deref().unwrap_or_default()));
        floor.recorder.because(Reason::ConnectFailure, &words);
        // One that was refused already is tried again as it is.
        if me.presence != Presence::Out || me.node_id.is_none() || me.awaits_since.take().is_none() {
            return;
        }
        if fields.retryable {
            let at_ns = floor.clock.now_ns() + self.backoff_ns(1);
            floor.retries.borrow_mut().push(Retry { at_ns, client: self.slot, number: JOIN, sent: 0 });
        } else {
            floor.gauges.give_up(format!("room {} cannot be joined: {words}", self.room_name));
        }
    }

    fn take_reset(&self, me: &mut State, fields: &Fields<'_>) {
        let floor = &self.floor;
        let is_ours = fields.room.as_deref() == Some(self.room_name.as_str());
        match me.presence {
            Presence::Joined if is_ours => {}
            // It was on its way when the client left.
            Presence::Away if is_ours => return,
            _ => {
                self.out_of_place();
                return;
            }
        }
        if let (Some(reason), Some(seq)) = (fields.recovery(), fields.seq) {
            me.seat.reset(&floor.audit, reason, fields.term().as_ref(), seq);
        }
        floor.notes.borrow_mut().breaks.add(fields.recovery_word(), 1);
    }

    /// Sends a publish that has no answer yet, if the client is in its room.
    pub(super) fn send(&self, me: &mut State, number: u32) {
        let floor = &self.floor;
        let node = me.node;
        if me.presence != Presence::Joined {
            return;
        }
        let Some(publisher) = me.publisher.as_deref_mut() else { return };
        let next = publisher.first_unsent();
        let Some(pending) = publisher.get(number) else { return };
        let is_first = pending.sent == 0;
        // A publisher's messages go out in their order: behind one that waits for the socket, all do.
        if is_first && next.is_some_and(|next| next < number) {
            return;
        }
        if !self.can_send() {
            let at_ns = floor.clock.now_ns() + RETRY_NS;
            let (number, sent) = if is_first { (UNSENT, 0) } else { (number, pending.sent) };
            floor.retries.borrow_mut().push(Retry { at_ns, client: self.slot, number, sent });
            return;
        }
        let stamp = Stamp {
            run: floor.plan.run,
            room: self.room,
            publisher: self.index,
            number,
            attempt: pending.sent,
            node,
            intended_ns: pending.intended_ns,
        };
        floor.recorder.count(if pending.sent == 0 { Count::Sent } else { Count::Retried }, 1);
        floor.audit.published(self.index, self.room, number, pending.sent);
        pending.sent = pending.sent.saturating_add(1);
        pending.refused = false;
        let mut frame = Vec::new();
        write_frame(&Envelope { plan: &floor.plan, room_name: self.room_name.as_str() }, &stamp, &mut frame);
        self.send_text(&frame);
    }

    /// Sends what waited for the socket, in its order, as far as the socket takes it now.
    pub(super) fn send_unsent(&self, me: &mut State) {
        let next = |me: &State| me.publisher.as_deref().and_then(Publisher::first_unsent);
        while let Some(number) = next(me) {
            self.send(me, number);
            if next(me) == Some(number) {
                return;
            }
        }
    }

    /// After a join: everything that has no answer goes out, in its order.
    pub(super) fn resend(&self) {
        let mut me = self.me.borrow_mut();
        let numbers: Vec<u32> = match me.publisher.as_deref() {
            Some(publisher) if me.presence == Presence::Joined => publisher.pending().map(|p| p.number).collect(),
            _ => return,
        };
        for number in numbers {
            self.send(&mut me, number);
        }
    }

    /// Ephemeral rooms have no ids that are remembered: what was sent and has no answer may have arrived or not.
    pub(super) fn forget_what_cannot_be_retried(&self, me: &mut State) {
        if self.floor.plan.mode == Mode::Durable {
            return;
        }
        let Some(publisher) = me.publisher.as_deref_mut() else { return };
        let sent: Vec<u32> = publisher.pending().filter(|pending| pending.sent > 0).map(|p| p.number).collect();
        for number in sent {
            publisher.settle(number);
            self.floor.audit.abandoned(self.index, self.room, number);
        }
    }
}

/// Of what a server says, as much as anybody wants to read.
fn cut(words: &str) -> &str {
    &words[..words.floor_char_boundary(Tally::LONGEST)]
}

pub(super) fn parse(text: &[u8]) -> Option<Fields<'_>> {
    serde_json::from_str(simdutf8::basic::from_utf8(text).ok()?).ok()
}
