//! The frame reader on hostile bytes: however input is cut, it says the same as on the whole, and it never holds more
//! than what was received accounts for.
//!
//! On a stable toolchain: `RUSTC_BOOTSTRAP=1 cargo fuzz run frame_reader`.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use roomcast_gateway::socket::{Event, Reader, Violation};

#[derive(Debug, Arbitrary)]
struct Input {
    max_message: u16,
    max_fragments: u8,
    pieces: Vec<Piece>,
    cuts: Vec<u8>,
}

/// Frames that are well-formed but for what their fields say, so that the fuzzer need not find heads by itself.
#[derive(Debug, Arbitrary)]
enum Piece {
    Raw(Vec<u8>),
    Frame { first: u8, mask: [u8; 4], payload: Vec<u8>, announced_more: u8 },
    Text { fin: bool, continuation: bool, mask: [u8; 4], text: String },
    Close { code: u16, reason: String },
}

impl Piece {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(bytes) => out.extend_from_slice(bytes),
            Self::Frame { first, mask, payload, announced_more } => {
                frame(*first, *mask, payload, payload.len() + usize::from(*announced_more), out);
            }
            Self::Text { fin, continuation, mask, text } => {
                let first = u8::from(*fin) << 7 | u8::from(!continuation);
                frame(first, *mask, text.as_bytes(), text.len(), out);
            }
            Self::Close { code, reason } => {
                let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
                frame(0x88, [1, 2, 3, 4], &payload, payload.len(), out);
            }
        }
    }
}

fn frame(first: u8, mask: [u8; 4], payload: &[u8], announced: usize, out: &mut Vec<u8>) {
    out.push(first);
    if announced < 126 {
        out.push(0x80 | announced as u8);
    } else if announced < 65536 {
        out.push(0xfe);
        out.extend_from_slice(&(announced as u16).to_be_bytes());
    } else {
        out.push(0xff);
        out.extend_from_slice(&(announced as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
}

#[derive(Debug, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Violation(Violation),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into()),
            Event::Binary(bytes) => Self::Binary(bytes.into()),
            Event::Ping(bytes) => Self::Ping(bytes.into()),
            Event::Pong(bytes) => Self::Pong(bytes.into()),
            Event::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.into()))),
        }
    }
}

/// Bytes a reader may hold for its own records, beside payload.
const RECORDS: usize = 128;

fn read<'a>(input: &Input, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, bool) {
    let mut reader = Reader::new(input.max_message.into(), input.max_fragments.into());
    let mut seen = Vec::new();
    let mut received = 0;
    for part in parts {
        received += part.len();
        let mut owned = part.to_vec();
        let mut rest = &mut owned[..];
        loop {
            match reader.next(&mut rest) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(violation) => seen.push(Seen::Violation(violation)),
            }
        }
        assert!(rest.is_empty(), "all input is used up");
        let held = reader.held_bytes();
        assert!(held <= 2 * received + RECORDS, "{held} held of {received} received");
        assert!(held <= 2 * (usize::from(input.max_message) + 125) + RECORDS, "{held} held");
        assert_eq!(held > 0, reader.is_mid_message(), "nothing is held between messages");
    }
    for (at, event) in seen.iter().enumerate() {
        match event {
            Seen::Text(text) => assert!(text.len() <= input.max_message.into()),
            Seen::Binary(bytes) => assert!(bytes.len() <= input.max_message.into()),
            Seen::Ping(bytes) | Seen::Pong(bytes) => assert!(bytes.len() <= 125),
            Seen::Close(_) | Seen::Violation(_) => assert_eq!(at, seen.len() - 1, "nothing follows the end"),
        }
    }
    (seen, reader.is_mid_message())
}

/// Cuts `bytes` as `cuts` say, and what is left where they end.
fn cut<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for &len in cuts {
        let (part, rest) = bytes.split_at(usize::from(len).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

fuzz_target!(|input: Input| {
    let mut bytes = Vec::new();
    for piece in &input.pieces {
        piece.write(&mut bytes);
    }
    let whole = read(&input, std::iter::once(&bytes[..]));
    assert_eq!(read(&input, cut(&bytes, &input.cuts).into_iter()), whole);
    assert_eq!(read(&input, bytes.chunks(1)), whole, "byte by byte");
});
