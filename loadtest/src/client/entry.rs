//! How a client gets in: `welcome`, its limits, the join and the answer to it.

use std::sync::atomic::Ordering::Relaxed;

use roomcast_protocol::{Mode, Recovery};

use super::decode::Fields;
use super::memo::Known;
use super::session::{JOIN, parse};
use super::{Client, Output, Presence, State};
use crate::record::{Count, Latency};

impl Client {
    /// A frame that the protocol does not allow where it came. What it says is not believed.
    pub(super) fn out_of_place(&self) {
        self.floor.recorder.count(Count::OtherErrors, 1);
    }

    pub(super) fn take_welcome(&self, me: &mut State, fields: &Fields<'_>, output: &mut Output) {
        let floor = &self.floor;
        if me.node_id.is_some() {
            self.out_of_place();
            return;
        }
        me.awaits_since = None;
        me.ping_interval_ms = fields.ping_interval_ms;
        let (hash, id) = floor.nodes.borrow_mut().meet(fields.node_id.as_deref().unwrap_or("unknown"));
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
        me.awaits_since = Some(self.floor.looks.now());
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

    pub(super) fn take_joined(&self, me: &mut State, fields: &Fields<'_>, output: &mut Output) {
        let floor = &self.floor;
        let is_ours = fields.room.as_deref() == Some(self.room_name.as_str());
        if me.presence != Presence::Out || me.node_id.is_none() || !is_ours {
            self.out_of_place();
            return;
        }
        me.awaits_since = None;
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
            self.take_replayed(me, message.get());
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

    fn take_replayed(&self, me: &mut State, message: &str) {
        let floor = &self.floor;
        match parse(message.as_bytes()).and_then(|fields| self.read_message(&fields)) {
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
}
