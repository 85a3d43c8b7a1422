//! What a client may write: decoding never panics, costs what the text accounts for, and hands out nothing that would
//! break a frame of ours it is put into.
#![no_main]

use std::alloc::System;

use arbitrary::Arbitrary;
use cap::Cap;
use libfuzzer_sys::fuzz_target;
use roomcast_protocol::{
    Ack, ClientFrame, ClientId, ErrorCode, JoinedHead, MAX_NAME_BYTES, MAX_REF_BYTES, MessageHead, Mode, Recovery,
    RoomName, Term, check_display_name, error_frame, history_frame, joined_frame, left_frame, members_frame,
    message_frame, message_list, pong_frame,
};
use serde::Deserialize;
use serde_json::value::RawValue;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated in all, freed ones too, for each byte of text, and whatever the text.
const BYTES_PER_BYTE: usize = 16;
const BYTES_AT_LEAST: usize = 8 * 1024;
/// Longest error frame: `ref` and words are bounded, whatever the client wrote.
const ERROR_FRAME_BYTES: usize = 2048;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    /// An object of the fields that frames have, so that the fuzzer need not find their names by itself.
    Object {
        fields: Vec<(Key<'a>, Value<'a>)>,
        tail: &'a str,
    },
}

#[derive(Debug, Arbitrary)]
enum Key<'a> {
    Known(u8),
    Other(&'a str),
}

#[derive(Debug, Arbitrary)]
enum Value<'a> {
    /// As it is: likely not JSON.
    Raw(&'a str),
    Text(&'a str),
    /// A text of one character, repeated.
    Long(char, Count),
    Kind(u8),
    Room(u8),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Null,
    Since(&'a str, i64),
    /// Lists in lists; with `false` nobody closes them.
    Nested(Count, bool),
    Digits(u8, Count),
}

/// Mostly small: long inputs are slow ones.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Count(u8);

impl Count {
    /// Each up to 199, or one of 56 from 1 Ki to 56 Ki.
    fn get(self) -> usize {
        let number = usize::from(self.0);
        number.checked_sub(199).filter(|&large| large > 0).map_or(number, |large| large * 1024)
    }
}

const KEYS: [&str; 14] = [
    "type", "ref", "room", "data", "id", "echo", "since", "name", "before", "after", "limit", "cursor", "token", "seq",
];
const KINDS: [&str; 8] = ["join", "leave", "publish", "rename", "history", "members", "refresh", "ping"];

impl Input<'_> {
    fn write(&self) -> String {
        match self {
            Self::Text(text) => (*text).into(),
            Self::Object { fields, tail } => {
                let fields: Vec<_> =
                    fields.iter().map(|(key, value)| format!("{}:{}", key.write(), value.write())).collect();
                format!("{{{}}}{tail}", fields.join(","))
            }
        }
    }
}

impl Key<'_> {
    fn write(&self) -> String {
        match self {
            Self::Known(number) => quoted(KEYS[usize::from(*number) % KEYS.len()]),
            Self::Other(text) => quoted(text),
        }
    }
}

impl Value<'_> {
    fn write(&self) -> String {
        match self {
            Self::Raw(text) => (*text).into(),
            Self::Text(text) => quoted(text),
            Self::Long(character, count) => quoted(&character.to_string().repeat(count.get())),
            Self::Kind(number) => quoted(KINDS[usize::from(*number) % KINDS.len()]),
            Self::Room(length) => quoted(&"r".repeat((*length).into())),
            Self::Bool(value) => value.to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::Float(value) => format!("{value:e}"),
            Self::Null => "null".into(),
            Self::Since(term, seq) => format!("{{\"term\":{},\"seq\":{seq}}}", quoted(term)),
            Self::Nested(depth, closed) => {
                let closing = if *closed { depth.get() } else { 0 };
                "[".repeat(depth.get()) + &"]".repeat(closing)
            }
            Self::Digits(first, count) => first.to_string() + &"0".repeat(count.get()),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn is_part_of(part: &str, whole: &str) -> bool {
    let (part, whole) = (part.as_bytes().as_ptr_range(), whole.as_bytes().as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

/// The value, if the frame is JSON in UTF-8 and of this type.
fn read<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> T {
    serde_json::from_slice(frame).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(frame)))
}

/// What every frame has.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "ref", borrow)]
    reference: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    id: String,
    #[serde(borrow)]
    data: &'a RawValue,
    from: Member,
}

#[derive(Deserialize)]
struct Member {
    name: String,
}

fn check_answer(frame: &[u8], kind: &str, reference: Option<&str>) {
    let answer: Answer = read(frame);
    assert_eq!(answer.kind, kind);
    assert_eq!(answer.reference.map(RawValue::get), reference);
}

/// A `ref` is echoed as it stands, in all that answers.
fn check_reference(reference: Option<&str>, text: &str) {
    let room = RoomName::new("lobby").expect("valid");
    let head = JoinedHead {
        room: &room,
        mode: Mode::Durable,
        term: None,
        seq: None,
        recovery: Recovery::Fresh,
        rollback: None,
        online: 1,
    };
    check_answer(&pong_frame(reference), "pong", reference);
    check_answer(&left_frame(reference, &room, None), "left", reference);
    check_answer(&joined_frame(reference, &head, b"[]", b"[]"), "joined", reference);
    check_answer(&history_frame(reference, &room, b"[]", None), "history", reference);
    let Some(reference) = reference else { return };
    assert!(is_part_of(reference, text));
    assert!(reference.len() <= MAX_REF_BYTES);
    assert!(!reference.starts_with(['{', '[', 't', 'f', 'n']), "a text or a number");
    let raw = RawValue::from_string(reference.into()).expect("JSON");
    let ack = Ack { reference: &raw, id: reference, room: &room, seq: Some(1), term: None, duplicate: false };
    check_answer(&serde_json::to_vec(&ack).expect("plain"), "ack", Some(reference));
}

fn check_publish(data: &str, id: Option<&str>, text: &str) {
    assert!(is_part_of(data, text), "data is handed out as it was written");
    read::<&RawValue>(data.as_bytes());
    let id = id.unwrap_or("0");
    assert!((1..=MAX_REF_BYTES).contains(&id.len()));
    let (room, term) = (RoomName::new("lobby").expect("valid"), Term::new("0a").expect("valid"));
    let head = MessageHead {
        room: &room,
        position: Some((&term, u64::MAX)),
        id,
        from: ClientId::from_bytes([7; 16]),
        name: "Ann",
        user: Some("ann"),
        ts: u64::MAX,
    };
    for position in [head.position, None] {
        let mut frame = Vec::new();
        message_frame(&MessageHead { position, ..head }, data.as_bytes(), &mut frame);
        let message: Message = read(&frame);
        assert_eq!((message.id.as_str(), message.data.get(), message.from.name.as_str()), (id, data, "Ann"));
        let list = message_list([frame.as_slice(), frame.as_slice()].into_iter());
        assert_eq!(read::<Vec<&RawValue>>(&list).len(), 2);
        check_answer(&history_frame(None, &room, &list, Some(1)), "history", None);
    }
}

fn check_frame(frame: &ClientFrame<'_>, text: &str) {
    match frame {
        ClientFrame::Publish { data, id, .. } => check_publish(data, id.as_deref(), text),
        ClientFrame::Rename { name } => {
            assert!((1..=MAX_NAME_BYTES).contains(&name.len()) && check_display_name(name).is_ok());
        }
        ClientFrame::Members { room, cursor, .. } => {
            check_answer(&members_frame(None, room, b"[]", 1, cursor.as_deref()), "members", None);
        }
        _ => {}
    }
}

fuzz_target!(|input: Input| {
    let text = input.write();
    let before = ALLOCATOR.total_allocated();
    let decoded = ClientFrame::decode(&text);
    let allocated = ALLOCATOR.total_allocated() - before;
    let most = BYTES_PER_BYTE * text.len() + BYTES_AT_LEAST;
    assert!(allocated <= most, "{allocated} bytes allocated for {} of text", text.len());
    assert_eq!(decoded, ClientFrame::decode(&text));
    match &decoded {
        Ok((reference, frame)) => {
            read::<&RawValue>(text.as_bytes());
            check_reference(*reference, &text);
            check_frame(frame, &text);
        }
        Err(rejected) => {
            let codes = [ErrorCode::BadFrame, ErrorCode::UnknownType, ErrorCode::BadRoom, ErrorCode::TooLarge];
            assert!(codes.contains(&rejected.error.code));
            check_reference(rejected.reference, &text);
            let answer = error_frame(rejected.reference, rejected.error.code, &rejected.error.message);
            check_answer(&answer, "error", rejected.reference);
            assert!(answer.len() <= ERROR_FRAME_BYTES, "{} bytes answer {}", answer.len(), text.len());
        }
    }
});
