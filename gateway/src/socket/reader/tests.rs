//! RFC 6455 rule by rule, each input whole and byte by byte; then any input in any pieces.

use proptest::prelude::*;

use super::*;

/// An event with its own memory.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_announcing(first, payload.len(), payload)
}

fn frame_announcing(first: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match len {
        0..=125 => out.push(0x80 | len as u8),
        126..=65535 => {
            out.push(0xfe);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

fn drain(reader: &mut Reader, bytes: &[u8], seen: &mut Vec<Seen>) {
    let mut owned = bytes.to_vec();
    let mut input = &mut owned[..];
    loop {
        match reader.next(&mut input) {
            Ok(Some(event)) => seen.push(event.into()),
            Ok(None) => break,
            Err(violation) => seen.push(Seen::Violation(violation)),
        }
    }
    assert!(input.is_empty(), "all input is used up");
}

fn reader() -> Reader {
    Reader::new(1000, 5)
}

fn read(parts: &[&[u8]]) -> Vec<Seen> {
    let (mut reader, mut seen) = (reader(), Vec::new());
    for part in parts {
        drain(&mut reader, part, &mut seen);
    }
    seen
}

/// What whole input gives; byte by byte must give the same.
fn events(bytes: &[u8]) -> Vec<Seen> {
    let whole = read(&[bytes]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single), whole, "byte by byte");
    whole
}

fn violation(bytes: &[u8]) -> u16 {
    match &events(bytes)[..] {
        [Seen::Violation(violation)] => violation.code,
        other => panic!("expected a violation alone, got {other:?}"),
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.into())
}

#[test]
fn an_idle_reader_is_small_and_holds_nothing() {
    assert!(size_of::<Reader>() <= 24);
    let (mut reader, mut seen) = (reader(), Vec::new());
    drain(&mut reader, &[frame(0x81, b"one"), frame(0x82, &[1, 2])].concat(), &mut seen);
    assert_eq!(seen, [text("one"), Seen::Binary(vec![1, 2])]);
    assert_eq!((reader.held_bytes(), reader.is_mid_message()), (0, false));
}

#[test]
fn a_whole_frame_is_lent_from_the_input() {
    let mut bytes = frame(0x81, b"zero copy");
    let range = bytes.as_ptr_range();
    let (mut reader, mut input) = (reader(), &mut bytes[..]);
    let Ok(Some(Event::Text(text))) = reader.next(&mut input) else { panic!("a text") };
    assert!(range.contains(&text.as_ptr()));
}

#[test]
fn what_is_partial_is_kept_and_given_back() {
    let bytes = frame(0x81, b"in pieces");
    for cut in 1..bytes.len() {
        let (mut reader, mut seen) = (reader(), Vec::new());
        drain(&mut reader, &bytes[..cut], &mut seen);
        assert!(reader.is_mid_message() && seen.is_empty(), "cut at {cut}");
        drain(&mut reader, &bytes[cut..], &mut seen);
        assert_eq!(seen, [text("in pieces")], "cut at {cut}");
        assert_eq!((reader.held_bytes(), reader.is_mid_message()), (0, false));
    }
}

#[test]
fn fragments_make_one_message_with_control_frames_between() {
    let bytes = [
        frame(0x01, b"a"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x8a, b""),
        frame(0x80, b"b"),
        frame(0x02, b"c"),
        frame(0x80, b"d"),
    ]
    .concat();
    let expected = [Seen::Ping(b"ping".into()), Seen::Pong(vec![]), text("ab"), Seen::Binary(b"cd".into())];
    assert_eq!(events(&bytes), expected);
    let (mut reader, mut seen) = (reader(), Vec::new());
    drain(&mut reader, &frame(0x01, b"a"), &mut seen);
    assert!(reader.is_mid_message(), "an unfinished message counts");
}

#[test]
fn nothing_is_reserved_on_the_word_of_a_header() {
    let mut reader = Reader::new(u32::MAX, 5);
    drain(&mut reader, &frame_announcing(0x82, 1 << 30, b""), &mut Vec::new());
    assert!(reader.held_bytes() <= 128, "{}", reader.held_bytes());
    drain(&mut reader, &[7; 100], &mut Vec::new());
    assert!(reader.held_bytes() <= 128 + 200, "{}", reader.held_bytes());
}

#[test]
fn sizes_are_judged_at_the_header() {
    assert_eq!(events(&frame(0x82, &[1; 1000])), [Seen::Binary(vec![1; 1000])]);
    assert_eq!(violation(&frame_announcing(0x82, 1001, b"")), 1009);
    assert_eq!(violation(&frame_announcing(0x82, usize::MAX >> 1, b"")), 1009);
    assert_eq!(violation(&[frame(0x02, &[1; 600]), frame_announcing(0x80, 401, b"")].concat()), 1009);
    let five = [frame(0x02, b"1"), frame(0x00, b"2").repeat(3)].concat();
    assert_eq!(events(&[five.clone(), frame(0x80, b"3")].concat()), [Seen::Binary(b"12223".into())]);
    assert_eq!(violation(&[five, frame(0x00, b""), frame(0x80, b"")].concat()), 1009);
}

#[test]
fn the_rules_of_frames_are_kept() {
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f, 0x09, 0x08, 0x0a, 0x80, 0x00] {
        assert_eq!(violation(&frame(first, b"x")), 1002, "{first:x}");
    }
    assert_eq!(violation(b"\x81\x01x"), 1002, "not masked");
    assert_eq!(violation(&frame(0x89, &[0; 126])), 1002, "long ping");
    assert_eq!(events(&frame(0x89, &[0; 125])), [Seen::Ping(vec![0; 125])]);
    assert_eq!(violation(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()), 1002, "message in a message");
    assert_eq!(violation(b"\x82\xff\x80\0\0\0\0\0\0\0mask"), 1002, "top bit");
    assert_eq!(
        events(b"\x82\xff\0\0\0\0\0\0\0\x01\0\0\0\0x"),
        [Seen::Binary(b"x".into())],
        "lengths need not be minimal"
    );
}

#[test]
fn text_is_judged_as_soon_as_it_can_be() {
    assert_eq!(events(&frame(0x81, "κόσμε".as_bytes())), [text("κόσμε")]);
    assert_eq!(violation(&frame(0x81, b"\xff")), 1007);
    assert_eq!(violation(&frame(0x81, b"\xce")), 1007, "cut off at the end");
    let split = [frame(0x01, b"\xce"), frame(0x80, b"\xba")].concat();
    assert_eq!(events(&split), [text("κ")], "a character over two fragments");
    // Not at the end of the message, of the fragment, or of the frame: at the byte that cannot be right.
    for bad in [&b"\xed\xa0"[..], b"\xf4\x90", b"\xc0", b"\xf5", b"ok\xce\xbay\x80"] {
        assert_eq!(violation(&frame(0x01, bad)), 1007, "{bad:x?}");
        assert_eq!(violation(&frame_announcing(0x81, 500, bad)), 1007, "{bad:x?}");
    }
    assert_eq!(violation(&[frame(0x01, b"\xce"), frame(0x80, b"")].concat()), 1007);
}

#[test]
fn closes_are_checked_and_nothing_follows_them() {
    let close = |payload: &[u8]| frame(0x88, payload);
    assert_eq!(events(&[close(b""), frame(0x81, b"x")].concat()), [Seen::Close(None)]);
    for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
        let payload = [&code.to_be_bytes()[..], b"why"].concat();
        assert_eq!(events(&close(&payload)), [Seen::Close(Some((code, "why".into())))]);
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(violation(&close(&code.to_be_bytes())), 1002, "{code}");
    }
    assert_eq!(violation(&close(b"\x03")), 1002);
    assert_eq!(violation(&close(b"\x03\xe8\xce")), 1007);
    let (mut reader, mut seen) = (reader(), Vec::new());
    drain(&mut reader, b"\xff\xff", &mut seen);
    drain(&mut reader, &frame(0x81, b"x"), &mut seen);
    assert_eq!((seen.len(), reader.held_bytes(), reader.is_mid_message()), (1, 0, false));
}

/// Frames that are mostly right, with what goes wrong in practice between them.
fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "\\PC{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(0x20..0x7f_u8, 100..300),
    ];
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a]),
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    (first, payload).prop_map(|(first, payload)| frame(first, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_splitting_gives_what_the_whole_gives(
        frames in prop::collection::vec(some_frame(), 0..8),
        cuts in prop::collection::vec(1..60_usize, 0..60),
    ) {
        let bytes = frames.concat();
        let mut parts = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        prop_assert_eq!(read(&parts), read(&[&bytes]));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        events(&bytes);
    }
}
