//! What a client does with the frames it receives, and what it sends.

use std::sync::atomic::Ordering::Relaxed;

use roomcast_protocol::{Mode, Recovery};

use super::decode::Fields;
use super::memo::Known;
use super::publisher::{Envelope, Publisher, read_id, write_frame};
use super::{Client, Output, Presence, Retry, State};
use crate::payload::{self, PayloadError, Stamp};
use crate::record::{Count, Latency, Reason};
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
const JOIN: u32 = 0;

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
    fn take_astray(&self, me: &mut State, known: &Known) {
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
    fn read_message(&self, fields: &Fields<'_>) -> Option<Known> {
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
                let words = format!("message {} is damaged", fields.id.as_deref().unwrap_or("without id"));
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

    fn take_welcome(&self, me: &mut State, fields: &Fields<'_>, output: &mut Output) {
        let floor = &self.floor;
        let (hash, id) = floor.node(fields.node_id.as_deref().unwrap_or("unknown"));
        (me.node, me.node_id) = (hash, Some(id));
        let now = floor.clock.now_ns();
        floor.recorder.count(Count::Connected, 1);
        floor.recorder.took(Latency::Connect, now.saturating_sub(me.connecting_since_ns));
        if let Some(limits) = &fields.limits {
            self.check_limits(limits.publish_rate, limits.message_bytes);
        }
        if me.presence != Presence::Away {
            output.frames.push(self.join_frame(me));
        }
    }

    /// A cluster that allows less than the plan wants makes every figure meaningless: say so at once.
    fn check_limits(&self, rate: u32, bytes: usize) {
        let plan = &self.floor.plan;
        let own = plan.rate / f64::from(plan.publishers.max(1));
        if rate > 0 && own > f64::from(rate) {
            self.floor.gauges.give_up(format!(
                "each publisher is to send {own:.1} messages a second, and the cluster allows {rate}: \
                 use more publishers, a lower rate, or raise the gateway's publish-rate"
            ));
        }
        let largest = plan.sizes.0.iter().map(|(size, _)| *size).max().unwrap_or(0) + 256;
        if bytes > 0 && largest > bytes && plan.rate > 0.0 {
            self.floor.gauges.give_up(format!(
                "messages of up to {largest} bytes with their frame, and the cluster allows {bytes}: \
                 use a smaller --size, or raise the gateway's max-message-bytes"
            ));
        }
    }

    pub(super) fn join_frame(&self, me: &mut State) -> Vec<u8> {
        me.joining_since_ns = self.floor.clock.now_ns();
        let room = &self.room_name;
        match me.seat.since() {
            Some(place) => format!(
                r#"{{"type":"join","room":"{room}","ref":{JOIN},"since":{{"term":"{}","seq":{}}}}}"#,
                place.term, place.seq
            ),
            None => format!(r#"{{"type":"join","room":"{room}","ref":{JOIN}}}"#),
        }
        .into_bytes()
    }

    fn take_joined(&self, me: &mut State, fields: &Fields<'_>, output: &mut Output) {
        let floor = &self.floor;
        if fields.mode() != Some(floor.plan.mode) {
            floor.gauges.give_up(format!(
                "room {} is {}, and --mode says otherwise: the gateway's room patterns decide; choose a --prefix",
                self.room_name,
                if floor.plan.mode == Mode::Durable { "not durable" } else { "not ephemeral" },
            ));
        }
        let recovery = fields.recovery().unwrap_or(Recovery::Fresh);
        let term = fields.term();
        me.seat.joined(&floor.audit, recovery, fields.rollback(), term.as_ref(), fields.seq);
        for message in &fields.messages {
            self.take_replayed(me, message);
        }
        me.joined_seq = fields.seq.unwrap_or(0);
        me.presence = Presence::Joined;
        floor.gauges.joined.fetch_add(1, Relaxed);
        floor.recorder.count(Count::Joined, 1);
        self.time_join(me);
        if !matches!(recovery, Recovery::Fresh | Recovery::Resumed) {
            floor.notes.borrow_mut().breaks.add(fields.recovery_word(), 1);
        }
        output.joined = true;
    }

    fn time_join(&self, me: &mut State) {
        let floor = &self.floor;
        let now = floor.clock.now_ns();
        let gone_at = std::mem::take(&mut me.gone_at_ns);
        if gone_at == 0 {
            floor.recorder.took(Latency::Join, now.saturating_sub(me.joining_since_ns));
        } else {
            floor.recorder.took(Latency::Resume, now.saturating_sub(gone_at));
            let node = me.node_id.as_deref().unwrap_or("unknown");
            floor.notes.borrow_mut().back.add(node, 1);
        }
    }

    fn take_replayed(&self, me: &mut State, message: &Fields<'_>) {
        let floor = &self.floor;
        match self.read_message(message) {
            Some(known) if known.room != Some(self.room) => self.take_astray(me, &known),
            Some(Known { stamp: Some(stamp), place, .. }) => {
                me.seat.replayed(&floor.audit, &stamp, place.as_ref());
                floor.recorder.count(Count::Replayed, 1);
            }
            Some(Known { place, .. }) => {
                floor.recorder.count(Count::Foreign, 1);
                me.seat.foreign(&floor.audit, place.as_ref());
            }
            None => floor.audit.corrupted(self.index, self.room, "a message within joined has no room or data"),
        }
    }

    fn take_ack(&self, me: &mut State, fields: &Fields<'_>) {
        let floor = &self.floor;
        let Some(number) = fields.number() else { return };
        let Some(pending) = me.publisher.as_deref_mut().and_then(|publisher| publisher.settle(number)) else { return };
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
        let Some(sent) = publisher.get(number).map(|pending| pending.sent) else { return };
        if fields.retryable && floor.plan.mode == Mode::Durable {
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
    fn take_other_error(&self, me: &State, code: &str, fields: &Fields<'_>) {
        let floor = &self.floor;
        floor.recorder.count(Count::OtherErrors, 1);
        let words = format!("{code}: {}", fields.message.as_deref().unwrap_or_default());
        floor.recorder.because(Reason::ConnectFailure, &words);
        if me.presence != Presence::Out {
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

fn parse(text: &[u8]) -> Option<Fields<'_>> {
    serde_json::from_str(simdutf8::basic::from_utf8(text).ok()?).ok()
}
