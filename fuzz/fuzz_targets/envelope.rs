//! What comes over the bus: decoding never panics, costs what the payload accounts for, and what it accepts can be sent
//! to members as it is.
//!
//! The encoder below is written from the format's description, not taken from the code: both must agree.
#![no_main]

use std::alloc::System;

use arbitrary::Arbitrary;
use bytes::Bytes;
use cap::Cap;
use libfuzzer_sys::fuzz_target;
use roomcast_gateway::broker::envelope::{DecodeError, decode};
use roomcast_gateway::broker::{Envelope, Event, Kind, MAX_BATCH, Member, PresenceEvent, PresenceOp, Record, Subject};
use roomcast_gateway::telemetry::trace::TraceParent;
use roomcast_protocol::{
    ClientId, MAX_INFO_BYTES, MAX_REF_BYTES, MAX_USER_BYTES, MessageHead, NodeId, PresenceKind, RoomName, Term,
    check_display_name, check_info, check_user, message_frame, presence_frame,
};
use serde_json::value::RawValue;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated in all for each byte of payload: a record's place is reserved for every four bytes that are there.
const BYTES_PER_BYTE: usize = 64;
const BYTES_AT_LEAST: usize = 4 * 1024;
/// Largest number a script counts exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Bytes(&'a [u8]),
    /// A header of words that may be right, with records whose fields may be wrong.
    Loose {
        tag: u8,
        words: Vec<Word<'a>>,
        records: Vec<Loose<'a>>,
    },
    /// A payload as a node would make it, and what happens to it on the way.
    Made {
        made: Made<'a>,
        changes: Vec<Change>,
    },
}

#[derive(Debug, Arbitrary)]
enum Word<'a> {
    Room,
    Node,
    Number(u64),
    Small(u8),
    Other(&'a str),
}

#[derive(Debug, Arbitrary)]
enum Loose<'a> {
    Bytes(&'a [u8]),
    Message {
        flags: u8,
        trace: bool,
        id: &'a str,
        name: &'a str,
        user: Option<&'a str>,
        data: &'a [u8],
    },
    Operation {
        kind: u8,
        name: &'a str,
        user: Option<&'a str>,
        info: Option<&'a str>,
        rest: &'a [u8],
    },
    /// Announces what does not follow.
    Length(u32),
}

#[derive(Debug, Arbitrary)]
struct Made<'a> {
    node: u8,
    kind: u8,
    numbers: [u64; 2],
    records: Vec<Fields<'a>>,
}

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    id: &'a str,
    name: &'a str,
    user: Option<&'a str>,
    info: Option<&'a str>,
    from: [u8; 16],
    accepted_at_us: u64,
    idempotent: bool,
    echo: bool,
    trace: Option<[u8; 25]>,
    data: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Change {
    Set(u16, u8),
    Insert(u16, u8),
    Remove(u16),
    Cut(u16),
    Long(u16, u32),
}

fn room() -> RoomName {
    RoomName::new("lobby").expect("valid")
}

/// At most `most` bytes of `text`, without control characters; `default` if nothing is left.
fn tame(text: &str, most: usize, default: &str) -> String {
    let mut tame: String = text.chars().filter(|character| !character.is_control()).collect();
    while tame.len() > most {
        tame.pop();
    }
    if tame.is_empty() { default.into() } else { tame }
}

impl Fields<'_> {
    fn record(&self) -> Record {
        let raw = serde_json::from_str::<&RawValue>(self.data).is_ok();
        let data = if raw { self.data.into() } else { serde_json::to_string(self.data).expect("a text") };
        Record {
            id: tame(self.id, MAX_REF_BYTES, "i").into(),
            idempotent: self.idempotent,
            subject: Subject::NOBODY,
            from: ClientId::from_bytes(self.from),
            name: tame(self.name, 64, "n").into(),
            user: self.user.map(|user| tame(user, MAX_USER_BYTES, "u").into()),
            echo: self.echo,
            accepted_at_us: self.accepted_at_us,
            trace: self.trace.map(TraceParent),
            data: data.into_bytes().into(),
        }
    }

    fn op(&self) -> PresenceOp {
        let Record { from: id, name, user, idempotent, echo, .. } = self.record();
        let info = self.info.map(|info| {
            let texts = [info.to_owned(), serde_json::to_string(info).expect("a text"), "0".into()];
            texts.into_iter().find(|info| check_info(info).is_ok()).expect("the last is good").into()
        });
        let member = Member { id, name, user, info };
        match (idempotent, echo) {
            (true, _) => PresenceOp::Enter(member),
            (false, true) => PresenceOp::Leave(member),
            (false, false) => PresenceOp::Rename(member),
        }
    }
}

impl Made<'_> {
    fn event(&self) -> Option<Event> {
        let node = NodeId::new(&"n".repeat(usize::from(self.node % 64) + 1)).expect("valid");
        let [one, two] = self.numbers.map(|number| number % (MAX_NUMBER + 1));
        let fields = self.records.get(..self.records.len().min(MAX_BATCH)).filter(|fields| !fields.is_empty())?;
        let messages = |kind| Envelope {
            node: node.clone(),
            room: room(),
            kind,
            records: fields.iter().map(Fields::record).collect(),
        };
        Some(match self.kind % 3 {
            0 => {
                let term = Term::new("0a").expect("valid");
                let first_seq = one.clamp(1, MAX_NUMBER - MAX_BATCH as u64);
                Event::Messages(messages(Kind::Durable { term, first_seq, ts: two }))
            }
            1 => Event::Messages(messages(Kind::Ephemeral { ts: one })),
            _ => {
                let ops = fields.iter().map(Fields::op).collect();
                Event::Presence(PresenceEvent { node, room: room(), version: one, online: two, ops })
            }
        })
    }
}

fn framed(record: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(record);
}

fn short(text: &str) -> Vec<u8> {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    [&[bytes.len() as u8], bytes].concat()
}

fn long(text: &str) -> Vec<u8> {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    [&(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    match event {
        Event::Messages(Envelope { node, room, kind, records }) => {
            let count = records.len();
            let head = match kind {
                Kind::Durable { term, first_seq, ts } => {
                    format!("RC1 D {room} {node} {term} {first_seq} {ts} {count}\n")
                }
                Kind::Ephemeral { ts } => format!("RC1 E {room} {node} {ts} {count}\n"),
            };
            out.extend_from_slice(head.as_bytes());
            for record in records {
                let flags = u8::from(record.idempotent)
                    | u8::from(record.echo) << 1
                    | u8::from(record.trace.is_some()) << 2
                    | u8::from(record.user.is_some()) << 3;
                let mut bytes = vec![flags];
                bytes.extend_from_slice(&record.from.to_bytes());
                bytes.extend_from_slice(&record.accepted_at_us.to_le_bytes());
                bytes.extend(record.trace.iter().flat_map(|trace| trace.0));
                bytes.extend(short(&record.id));
                bytes.extend(short(&record.name));
                bytes.extend(record.user.iter().flat_map(|user| short(user)));
                bytes.extend_from_slice(&record.data);
                framed(&bytes, &mut out);
            }
        }
        Event::Presence(PresenceEvent { node, room, version, online, ops }) => {
            out.extend_from_slice(format!("RC1 P {room} {node} {version} {online} {}\n", ops.len()).as_bytes());
            for op in ops {
                let (kind, Member { id, name, user, info }) = match op {
                    PresenceOp::Enter(member) => (1, member),
                    PresenceOp::Leave(member) => (2, member),
                    PresenceOp::Rename(member) => (3, member),
                };
                let kind = kind | u8::from(user.is_some()) << 3 | u8::from(info.is_some()) << 4;
                let user = user.as_deref().map(short).unwrap_or_default();
                let info = info.as_deref().map(long).unwrap_or_default();
                framed(&[&[kind][..], &id.to_bytes(), &short(name), &user, &info].concat(), &mut out);
            }
        }
        Event::Order(_) | Event::Resubscribed => unreachable!("never on a room's channel"),
    }
    out
}

fn loose(tag: u8, words: &[Word], records: &[Loose]) -> Vec<u8> {
    let mut head = format!("RC1 {}", ["D", "E", "P"][usize::from(tag) % 3]);
    for word in words {
        head.push(' ');
        match word {
            Word::Room => head.push_str("lobby"),
            Word::Node => head.push('n'),
            Word::Number(number) => head.push_str(&number.to_string()),
            Word::Small(number) => head.push_str(&number.to_string()),
            Word::Other(text) => head.push_str(text),
        }
    }
    let mut out = (head + "\n").into_bytes();
    for record in records {
        match record {
            Loose::Bytes(bytes) => framed(bytes, &mut out),
            Loose::Message { flags, trace, id, name, user, data } => {
                let trace = if *trace { &[1; 25][..] } else { &[] };
                let user = user.map(short).unwrap_or_default();
                framed(&[&[*flags], &[0; 24][..], trace, &short(id), &short(name), &user, data].concat(), &mut out);
            }
            Loose::Operation { kind, name, user, info, rest } => {
                let (user, info) = (user.map(short).unwrap_or_default(), info.map(long).unwrap_or_default());
                framed(&[&[*kind], &[0; 16][..], &short(name), &user, &info, rest].concat(), &mut out);
            }
            Loose::Length(length) => out.extend_from_slice(&length.to_le_bytes()),
        }
    }
    out
}

fn change(payload: &mut Vec<u8>, change: &Change) {
    if payload.is_empty() {
        return;
    }
    let length = payload.len();
    let place = |at: u16| usize::from(at) % length;
    match *change {
        Change::Set(at, byte) => payload[place(at)] = byte,
        Change::Insert(at, byte) => payload.insert(place(at), byte),
        Change::Remove(at) => drop(payload.remove(place(at))),
        Change::Cut(at) => payload.truncate(place(at)),
        Change::Long(at, long) => {
            for (slot, byte) in payload[place(at)..].iter_mut().zip(long.to_le_bytes()) {
                *slot = byte;
            }
        }
    }
}

fn check_name(name: &str) {
    check_display_name(name).expect("a name that clients may have");
}

fn check_record(record: &Record, payload: &Bytes, room: &RoomName, position: Option<(&Term, u64)>) {
    assert!((1..=MAX_REF_BYTES).contains(&record.id.len()));
    check_name(&record.name);
    let (part, whole) = (record.data.as_ptr_range(), payload.as_ptr_range());
    assert!(whole.start <= part.start && part.end <= whole.end, "data is a slice of the payload");
    serde_json::from_slice::<&RawValue>(&record.data).expect("JSON");
    let Record { id, from, name, user, data, .. } = record;
    assert!(user.as_deref().is_none_or(|user| check_user(user).is_ok()));
    let (user, mut frame) = (user.as_deref(), Vec::new());
    message_frame(&MessageHead { room, position, id, from: *from, name, user, ts: 1 }, data, &mut frame);
    serde_json::from_slice::<&RawValue>(&frame).expect("a frame for members");
}

fn check_event(event: &Event, payload: &Bytes) {
    match event {
        Event::Messages(Envelope { room: of, kind, records, .. }) => {
            assert_eq!(*of, room());
            assert!((1..=MAX_BATCH).contains(&records.len()));
            for (at, record) in records.iter().enumerate() {
                let position = match kind {
                    Kind::Durable { term, first_seq, .. } => Some((term, first_seq + at as u64)),
                    Kind::Ephemeral { .. } => None,
                };
                assert!(position.is_none_or(|(_, seq)| (1..=MAX_NUMBER).contains(&seq)));
                check_record(record, payload, of, position);
            }
        }
        Event::Presence(PresenceEvent { room: of, ops, .. }) => {
            assert_eq!(*of, room());
            assert!((1..=MAX_BATCH).contains(&ops.len()));
            for op in ops {
                let Member { name, user, info, .. } = op.member();
                check_name(name);
                assert!(user.as_deref().is_none_or(|user| check_user(user).is_ok()));
                assert!(info.as_ref().is_none_or(|info| info.len() <= MAX_INFO_BYTES && check_info(info).is_ok()));
                let frame = presence_frame(of, PresenceKind::Join, Some(op.member().fields()), 1);
                serde_json::from_slice::<&RawValue>(&frame).expect("a frame for members");
            }
        }
        Event::Order(_) | Event::Resubscribed => panic!("nobody on a room's channel can say that"),
    }
}

fn check(payload: Vec<u8>) -> Result<Event, DecodeError> {
    let (payload, room) = (Bytes::from(payload), room());
    let before = ALLOCATOR.total_allocated();
    let decoded = decode(&payload, &room);
    let allocated = ALLOCATOR.total_allocated() - before;
    let most = BYTES_PER_BYTE * payload.len() + BYTES_AT_LEAST;
    assert!(allocated <= most, "{allocated} bytes allocated for {} of payload", payload.len());
    if let Ok(event) = &decoded {
        check_event(event, &payload);
        let again = Bytes::from(encode(event));
        assert_eq!(decode(&again, &room).as_ref(), Ok(event), "what was read can be written and read again");
        let other = RoomName::new("other").expect("valid");
        assert_eq!(decode(&payload, &other), Err(DecodeError::Room), "only on its own channel");
        assert!(decode(&payload.slice(..payload.len() - 1), &room).is_err(), "nothing may be missing");
        let longer = Bytes::from([&payload[..], b" "].concat());
        assert_eq!(decode(&longer, &room), Err(DecodeError::Length), "nothing may follow");
    }
    decoded
}

fuzz_target!(|input: Input| {
    match input {
        Input::Bytes(bytes) => drop(check(bytes.into())),
        Input::Loose { tag, words, records } => drop(check(loose(tag, &words, &records))),
        Input::Made { made, changes } => {
            let Some(event) = made.event() else { return };
            let mut payload = encode(&event);
            assert_eq!(check(payload.clone()), Ok(event), "what a node makes is taken");
            for each in &changes {
                change(&mut payload, each);
            }
            let _ = check(payload);
        }
    }
});
