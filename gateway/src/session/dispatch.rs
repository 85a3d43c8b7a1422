//! What a client's frames ask for, in the order they came.
//!
//! Publishes flow without waiting for each other. Any other request waits until everything before it is answered, and
//! everything behind it waits for its answer: so what a client sends in one go has the effect of sending it step by step.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{ClientFrame, ErrorCode, FrameError, Limits, RoomName, Since, Welcome, pong_frame};
use uuid::Uuid;

use super::Floor;
use super::accepted::Route;
use super::budget::{Budget, millis_since};
use super::end::End;
use super::share::Share;
use crate::access::{Grant, Right};
use crate::broker::{Record, Subject};
use crate::hub::{LONGEST_PAGE, PAGE, Peer, Question, now_us};
use crate::telemetry::metrics::ReceivedKind;
use crate::telemetry::trace::Span;

/// Pings and pongs a client may send a second, and at once.
const CONTROL_RATE: u32 = 20;
const CONTROL_BURST: u32 = 100;

/// What of a refused request goes into its `error` frame.
pub(super) struct Refused(pub(super) ErrorCode, pub(super) Cow<'static, str>);

impl Refused {
    pub(super) fn new(code: ErrorCode, words: &'static str) -> Self {
        Self(code, Cow::Borrowed(words))
    }
}

/// One client's requests.
pub(super) struct Dispatcher {
    floor: Rc<Floor>,
    peer: Rc<Peer>,
    pub(super) grant: Grant,
    echo: bool,
    /// A request that waits for the answers before it.
    deferred: Option<Box<str>>,
    /// Whose ids this client's are.
    subject: Subject,
    publishes: Budget,
    pub(super) share: Share,
    wrongs: Budget,
    controls: Budget,
}

impl Dispatcher {
    pub(super) fn new(floor: Rc<Floor>, peer: Rc<Peer>, grant: Grant, echo: bool) -> Self {
        let now = millis_since(floor.heartbeat.start);
        let settings = &floor.settings;
        let subject = grant.user().map_or(Subject::NOBODY, |user| Subject::of(user));
        Self {
            publishes: Budget::new(settings.publish_rate, settings.publish_burst, now),
            wrongs: Budget::new(1, settings.abuse_limit, now),
            controls: Budget::new(CONTROL_RATE, CONTROL_BURST, now),
            share: Share::new(&floor.shard, subject),
            subject,
            floor,
            peer,
            grant,
            echo,
            deferred: None,
        }
    }

    pub(super) fn floor(&self) -> &Rc<Floor> {
        &self.floor
    }

    pub(super) fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    pub(super) fn into_parts(self) -> (Rc<Floor>, Rc<Peer>) {
        (self.floor, self.peer)
    }

    /// Whose client this is.
    pub(super) fn subject(&self) -> Subject {
        self.subject
    }

    pub(super) fn is_echo(&self) -> bool {
        self.echo
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Whether the next frame may be handled. An echo waits until its last answer is written.
    pub(super) fn may_go_on(&self) -> bool {
        if self.echo {
            return !self.peer.awaits_writable();
        }
        // What waits for its user's share need not wait for the answers to earlier publishes.
        if self.deferred.is_some() && !self.share.is_paid() { self.peer.is_settled() } else { self.peer.may_read() }
    }

    /// Says `welcome` and asks for the rooms of the path.
    pub(super) fn greet(&self, route: Route) {
        // An echo ends with its token, too.
        let expires_at_ms = self.mind_grant();
        let (rooms, path_room) = match route {
            Route::Echo => return,
            Route::Bare => (Vec::new(), None),
            Route::Rooms { rooms, path_room } => (rooms, path_room),
        };
        let settings = &self.floor.settings;
        let welcome = Welcome {
            client_id: self.peer.id,
            room_id: path_room,
            node_id: settings.node_id.as_str(),
            name: &self.peer.name(),
            session: &Uuid::new_v4().simple().to_string(),
            ping_interval_ms: settings.ping_interval.as_millis() as u64,
            limits: Limits {
                message_bytes: settings.max_message_bytes,
                rooms: settings.rooms_per_connection,
                publish_rate: settings.publish_rate,
                queue_bytes: settings.outbound_queue_bytes,
            },
            expires_at_ms,
        };
        if let Ok(json) = serde_json::to_vec(&welcome) {
            self.floor.shard.tell(&self.peer, &json);
        }
        // Who is to go again is seen in no room.
        let rooms = if self.peer.stop().is_some() { Vec::new() } else { rooms };
        for (room, since) in rooms {
            let sight = self.sight(&room);
            self.floor.shard.join(&self.peer, room, since, sight, None);
        }
    }

    /// Queues ready-made bytes.
    pub(super) fn send_raw(&self, frame: Bytes) {
        self.floor.shard.post_frame(&self.peer, frame);
    }

    /// Writes ready-made bytes at once, so that [`Dispatcher::may_go_on`] knows whether the socket took them.
    pub(super) fn send_now(&self, frame: &Bytes) {
        self.floor.shard.write_now(&self.peer, frame);
    }

    /// A begun message must end in time.
    pub(super) fn mind_deadline(&self, mid_message: bool) {
        match (mid_message, self.peer.deadline.get()) {
            (true, 0) => self.peer.deadline.set(self.floor.heartbeat.message_deadline()),
            (false, deadline) if deadline != 0 => self.peer.deadline.set(0),
            _ => {}
        }
    }

    pub(super) fn take_control(&mut self) -> Result<(), End> {
        let now = millis_since(self.floor.heartbeat.start);
        if self.controls.take(now) { Ok(()) } else { Err(End::Abuse) }
    }

    /// Carries out the request that waited.
    pub(super) fn resume(&mut self) -> Result<(), End> {
        match self.deferred.take() {
            Some(text) => self.take_text(&text),
            None => Ok(()),
        }
    }

    pub(super) fn take_text(&mut self, text: &str) -> Result<(), End> {
        match ClientFrame::decode(text) {
            Ok((reference, frame)) => {
                let flows = matches!(frame, ClientFrame::Publish { .. } | ClientFrame::Ping);
                if !flows && !self.peer.is_settled() {
                    self.deferred = Some(text.into());
                    return Ok(());
                }
                let outcome = self.carry_out(frame, reference);
                if self.share.pay() {
                    self.deferred = Some(text.into());
                }
                match outcome {
                    Ok(()) => Ok(()),
                    Err(Refused(code, words)) => self.refuse(reference, code, &words),
                }
            }
            Err(rejected) => {
                let FrameError { code, message } = rejected.error;
                self.floor.metrics.received(ReceivedKind::Invalid);
                self.refuse(rejected.reference, code, &message)
            }
        }
    }

    /// Answers with an error; a client that goes on being wrong is closed.
    fn refuse(&mut self, reference: Option<&str>, code: ErrorCode, words: &str) -> Result<(), End> {
        self.floor.shard.refuse(&self.peer, reference, code, words);
        let abusive = matches!(
            code,
            ErrorCode::BadFrame
                | ErrorCode::UnknownType
                | ErrorCode::BadRoom
                | ErrorCode::Unauthorized
                | ErrorCode::RateLimited
                | ErrorCode::TooLarge
        );
        if abusive && !self.wrongs.take(millis_since(self.floor.heartbeat.start)) {
            return Err(End::Abuse);
        }
        Ok(())
    }

    fn carry_out(&mut self, frame: ClientFrame<'_>, reference: Option<&str>) -> Result<(), Refused> {
        let metrics = &self.floor.metrics;
        match frame {
            ClientFrame::Publish { room, data, id, echo } => {
                if !self.share.is_paid() {
                    metrics.received(ReceivedKind::Publish);
                }
                self.publish(room, data, id, echo, reference)
            }
            ClientFrame::Ping => {
                metrics.received(ReceivedKind::Ping);
                self.floor.shard.tell(&self.peer, &pong_frame(reference));
                Ok(())
            }
            ClientFrame::Join { room, since } => {
                metrics.received(ReceivedKind::Join);
                self.join(room, since, reference)
            }
            ClientFrame::Leave { room } => {
                metrics.received(ReceivedKind::Leave);
                self.must_be_in(&room)?;
                self.floor.shard.leave(&self.peer, &room, reference);
                Ok(())
            }
            ClientFrame::Rename { name } => {
                if !self.share.is_paid() {
                    metrics.received(ReceivedKind::Rename);
                }
                self.must_be_free_to_rename()?;
                // Every member of every room joined is told: it counts as a publish.
                self.spend()?;
                if self.must_wait_for_share()? {
                    return Ok(());
                }
                self.floor.shard.rename(&self.peer, &Arc::from(&*name), reference);
                Ok(())
            }
            ClientFrame::History { room, before, after, limit } => {
                metrics.received(ReceivedKind::History);
                self.must_have(Right::History, &room)?;
                self.ask(&room, Question::History { before, after, limit: page(limit) }, reference)
            }
            ClientFrame::Members { room, cursor, limit } => {
                metrics.received(ReceivedKind::Members);
                self.must_have(Right::Presence, &room)?;
                let question = Question::Members { cursor: cursor.map(Cow::into_owned), limit: page(limit) };
                self.ask(&room, question, reference)
            }
            ClientFrame::Refresh { token } => {
                if !self.share.is_paid() {
                    metrics.received(ReceivedKind::Refresh);
                }
                self.spend()?;
                self.refresh(&token, reference)
            }
        }
    }

    fn publish(
        &mut self,
        room: Option<RoomName>,
        data: &str,
        id: Option<Cow<'_, str>>,
        echo: bool,
        reference: Option<&str>,
    ) -> Result<(), Refused> {
        self.spend()?;
        let room = match room {
            Some(room) => {
                self.must_be_in(&room)?;
                room
            }
            None => self.peer.only_room().ok_or_else(|| {
                Refused::new(ErrorCode::NotJoined, "`room` may be absent only when exactly one room is joined")
            })?,
        };
        self.must_have(Right::Publish, &room)?;
        if self.must_wait_for_share()? {
            return Ok(());
        }
        let span = self.floor.tracing.publish();
        let record = Record {
            idempotent: id.is_some(),
            subject: self.subject,
            id: id.map_or_else(|| Uuid::new_v4().hyphenated().to_string().into(), |id| Arc::from(&*id)),
            from: self.peer.id,
            name: self.peer.name(),
            user: self.peer.user().cloned(),
            echo,
            accepted_at_us: now_us(),
            trace: span.as_ref().map(Span::context),
            data: Bytes::copy_from_slice(data.as_bytes()),
        };
        self.floor.shard.publish(&self.peer, &room, record, reference, span);
        Ok(())
    }

    /// Takes one from the publish rate.
    fn spend(&mut self) -> Result<(), Refused> {
        if self.share.is_paid() || self.publishes.take(millis_since(self.floor.heartbeat.start)) {
            return Ok(());
        }
        self.floor.totals.limits.refused("client", 1);
        Err(Refused::new(ErrorCode::RateLimited, "faster than the allowed rate"))
    }

    fn join(&self, room: Option<RoomName>, since: Option<Since>, reference: Option<&str>) -> Result<(), Refused> {
        let room = room.unwrap_or_else(RoomName::random);
        self.must_have(Right::Join, &room)?;
        if self.peer.is_in(&room) {
            return Err(Refused::new(ErrorCode::AlreadyJoined, "already a member of that room"));
        }
        let most = self.floor.settings.rooms_per_connection;
        if self.peer.room_count() >= most {
            return Err(Refused(ErrorCode::RoomLimit, format!("a connection may be in {most} rooms").into()));
        }
        let sight = self.sight(&room);
        self.floor.shard.join(&self.peer, room, since, sight, reference);
        Ok(())
    }

    fn ask(&self, room: &RoomName, question: Question, reference: Option<&str>) -> Result<(), Refused> {
        self.must_be_in(room)?;
        self.floor.shard.ask(&self.peer, room, question, reference);
        Ok(())
    }

    fn must_be_in(&self, room: &RoomName) -> Result<(), Refused> {
        if self.peer.is_in(room) {
            Ok(())
        } else {
            Err(Refused::new(ErrorCode::NotJoined, "not a member of that room"))
        }
    }
}

fn page(limit: Option<usize>) -> usize {
    limit.unwrap_or(PAGE).clamp(1, LONGEST_PAGE)
}
