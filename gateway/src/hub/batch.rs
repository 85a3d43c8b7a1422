//! Frames of one room that travel together: encoded once, shared by every member.

use std::cell::LazyCell;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{ClientId, MessageHead, message_frame};

use crate::socket::frames;
use crate::telemetry::trace::Span;

/// A part of a batch that some members must not get.
#[derive(Debug, Clone)]
pub(super) struct Omission {
    from: Kept,
    start: usize,
    end: usize,
    /// What they get in its place.
    instead: Bytes,
}

/// From whom a part is kept.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// The sender of a message that was published without echo.
    Sender(ClientId),
    /// Those who may not know who is there.
    Unseeing,
}

/// When a message entered the cluster, and whether on another node.
#[derive(Debug)]
pub(super) struct Stamp {
    /// Microseconds since the Unix epoch, on the publishing node.
    pub(super) accepted_at_us: u64,
    /// True when another node published it.
    pub(super) remote: bool,
    /// When the message is traced: ends with the batch, once all workers have delivered it.
    pub(super) _span: Option<Box<Span>>,
}

/// Whole frames, ready for the wire.
#[derive(Debug)]
pub struct Batch {
    pub(super) frames: Bytes,
    pub(super) count: u32,
    pub(super) stamps: Vec<Stamp>,
    omissions: Vec<Omission>,
}

impl Batch {
    /// What `client` gets: the shared bytes, or its own cut of them. `sees` says whether it may know who is there; it is
    /// asked once at most, and not at all by a batch that tells nobody so.
    pub(super) fn for_client(&self, client: ClientId, sees: impl FnOnce() -> bool) -> Bytes {
        let sees = LazyCell::new(sees);
        let concerns = |part: &&Omission| match part.from {
            Kept::Sender(sender) => sender == client,
            Kept::Unseeing => !*sees,
        };
        if !self.omissions.iter().any(|part| concerns(&part)) {
            return self.frames.clone();
        }
        let mut own = BytesMut::with_capacity(self.frames.len());
        let mut from = 0;
        for part in self.omissions.iter().filter(concerns) {
            own.extend_from_slice(&self.frames[from..part.start]);
            own.extend_from_slice(&part.instead);
            from = part.end;
        }
        own.extend_from_slice(&self.frames[from..]);
        own.freeze()
    }

    /// Whether some member gets a cut of its own.
    pub(super) fn is_uniform(&self) -> bool {
        self.omissions.is_empty()
    }
}

/// A message in a batch being built: its seq and where its JSON stands.
struct Placed {
    seq: u64,
    start: usize,
    end: usize,
}

/// Collects a room's frames until its members are ready for the next batch.
#[derive(Default)]
pub(super) struct Builder {
    frames: BytesMut,
    count: u32,
    stamps: Vec<Stamp>,
    omissions: Vec<Omission>,
    placed: Vec<Placed>,
}

impl Builder {
    /// Bytes collected.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Makes room for that many more bytes at once, so that a batch is not copied as it grows.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.frames.reserve(bytes);
    }

    /// Adds a message. `omit` names the sender if it asked for no echo. `scratch` is only used inside.
    pub(super) fn message(
        &mut self,
        head: &MessageHead<'_>,
        data: &[u8],
        omit: Option<ClientId>,
        stamp: Stamp,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        message_frame(head, data, scratch);
        let start = self.frames.len();
        frames::text(scratch, &mut self.frames);
        let end = self.frames.len();
        self.count += 1;
        self.stamps.push(stamp);
        if let Some(client) = omit {
            self.omissions.push(Omission { from: Kept::Sender(client), start, end, instead: Bytes::new() });
        }
        if let Some((_, seq)) = head.position {
            self.placed.push(Placed { seq, start: end - scratch.len(), end });
        }
    }

    /// Adds any other frame for every member.
    pub(super) fn frame(&mut self, json: &[u8]) {
        frames::text(json, &mut self.frames);
        self.count += 1;
    }

    /// Adds a frame that tells who is there, and `instead` for those who may not know.
    pub(super) fn frame_for_seeing(&mut self, json: &[u8], instead: &[u8]) {
        let start = self.frames.len();
        self.frame(json);
        let mut other = BytesMut::new();
        frames::text(instead, &mut other);
        let (end, instead) = (self.frames.len(), other.freeze());
        self.omissions.push(Omission { from: Kept::Unseeing, start, end, instead });
    }

    /// The messages collected so far are not to be recorded: what follows does not continue them.
    pub(super) fn forget_positions(&mut self) {
        self.placed.clear();
    }

    /// Closes the batch; `recorded` gets every durable message's seq and JSON, sharing the batch's memory.
    pub(super) fn seal(&mut self, mut recorded: impl FnMut(u64, Bytes)) -> Option<Batch> {
        if self.count == 0 {
            return None;
        }
        let built = std::mem::take(self);
        let frames = built.frames.freeze();
        for placed in built.placed {
            recorded(placed.seq, frames.slice(placed.start..placed.end));
        }
        Some(Batch { frames, count: built.count, stamps: built.stamps, omissions: built.omissions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_protocol::{RoomName, Term};

    #[test]
    fn a_sender_without_echo_gets_everything_but_its_own() {
        let (room, term) = (RoomName::new("r").expect("valid"), Term::new("t").expect("valid"));
        let (alice, bob) = (ClientId::random(), ClientId::random());
        let mut builder = Builder::default();
        let mut scratch = Vec::new();
        for (seq, from, omit) in [(1, bob, None), (2, alice, Some(alice)), (3, bob, None)] {
            let position = Some((&term, seq));
            let head = MessageHead { room: &room, position, id: "i", from, name: "n", user: None, ts: 0 };
            let stamp = Stamp { accepted_at_us: 0, remote: false, _span: None };
            builder.message(&head, b"1", omit, stamp, &mut scratch);
        }
        let mut kept = Vec::new();
        let batch = builder.seal(|seq, json| kept.push((seq, json))).expect("not empty");
        assert_eq!((batch.count, batch.is_uniform(), kept.len()), (3, false, 3));
        assert!(kept.iter().all(|(seq, json)| {
            let value: serde_json::Value = serde_json::from_slice(json).expect("whole JSON");
            value["seq"] == *seq
        }));
        let asked = || panic!("nothing here tells who is there");
        assert_eq!(batch.for_client(bob, asked), batch.frames);
        let own = batch.for_client(alice, asked);
        let text = String::from_utf8_lossy(&own);
        assert!(text.contains("\"seq\":1") && !text.contains("\"seq\":2") && text.contains("\"seq\":3"));
        assert!(builder.seal(|_, _| ()).is_none(), "a sealed builder is empty");
    }

    #[test]
    fn who_may_not_see_gets_something_else_in_its_place() {
        let mut builder = Builder::default();
        for (text, instead) in [("joins", Some("counts")), ("other", None), ("leaves", Some("less"))] {
            match instead {
                Some(instead) => builder.frame_for_seeing(text.as_bytes(), instead.as_bytes()),
                None => builder.frame(text.as_bytes()),
            }
        }
        let batch = builder.seal(|_, _| ()).expect("not empty");
        let client = ClientId::random();
        assert_eq!(batch.for_client(client, || true), batch.frames);
        let cut = batch.for_client(client, || false);
        assert_eq!(
            String::from_utf8_lossy(&cut),
            "\u{81}\u{6}counts\u{81}\u{5}other\u{81}\u{4}less".replace('\u{81}', "\u{fffd}")
        );
    }
}
