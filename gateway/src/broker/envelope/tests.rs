//! Round trips, hostile bytes, and the label of every way to be wrong.

use proptest::prelude::*;
use roomcast_protocol::ClientId;

use super::*;
use crate::broker::{Member, PresenceOp, Record, Subject};
use crate::telemetry::trace::TraceParent;

fn room() -> RoomName {
    RoomName::new("lobby").expect("valid")
}

fn node() -> NodeId {
    NodeId::new("n-1").expect("valid")
}

fn any_record() -> impl Strategy<Value = Record> {
    (
        "[ -~]{1,128}",
        any::<(bool, bool, u64)>(),
        any::<[u8; 16]>(),
        ("[a-zA-Zé☃]{1,16}", proptest::option::of("[a-zA-Zé☃|@ ]{1,40}")),
        proptest::option::of(any::<[u8; 16]>()),
        "[a-z \"\\\\]{0,40}",
    )
        .prop_map(|(id, (idempotent, echo, accepted_at_us), from, (name, user), trace, text)| Record {
            id: id.into(),
            idempotent,
            subject: Subject::NOBODY,
            from: ClientId::from_bytes(from),
            name: name.into(),
            user: user.map(Into::into),
            echo,
            accepted_at_us,
            trace: trace.map(|bytes| {
                let mut trace = [7; 25];
                trace[..16].copy_from_slice(&bytes);
                TraceParent(trace)
            }),
            data: serde_json::to_vec(&text).expect("a string").into(),
        })
}

fn any_op() -> impl Strategy<Value = PresenceOp> {
    let texts = ("[a-zA-Zé☃]{1,16}", proptest::option::of("[a-zA-Zé☃|@ ]{1,40}"));
    let info = proptest::option::of("[a-z \"\\\\]{0,900}");
    (0..3_usize, any::<[u8; 16]>(), texts, info).prop_map(|(kind, id, (name, user), info)| {
        let op: fn(Member) -> PresenceOp = [PresenceOp::Enter, PresenceOp::Leave, PresenceOp::Rename][kind];
        let info = info.and_then(|info| serde_json::to_string(&info).ok()).filter(|info| info.len() <= 1024);
        let (user, info) = (user.map(Into::into), info.map(Into::into));
        op(Member { id: ClientId::from_bytes(id), name: name.into(), user, info })
    })
}

fn durable(records: &[Record]) -> Vec<u8> {
    let mut out = format!("RC1 D lobby n-1 0a 41 1700000000000 {}\n", records.len()).into_bytes();
    for record in records {
        encode_record(record, &mut out);
    }
    out
}

fn record() -> Record {
    Record {
        id: "m-1".into(),
        idempotent: true,
        subject: Subject::NOBODY,
        from: ClientId::from_bytes([3; 16]),
        name: "Ann".into(),
        user: None,
        echo: true,
        accepted_at_us: 5,
        trace: None,
        data: Bytes::from_static(b"{\"a\": 1}"),
    }
}

fn error(payload: impl Into<Bytes>) -> DecodeError {
    decode(&payload.into(), &room()).expect_err("refused")
}

proptest! {
    #[test]
    fn messages_survive_the_trip(records in proptest::collection::vec(any_record(), 1..20)) {
        let payload = Bytes::from(durable(&records));
        let kind = Kind::Durable { term: Term::new("0a").expect("valid"), first_seq: 41, ts: 1_700_000_000_000 };
        let sent = Event::Messages(Envelope { node: node(), room: room(), kind, records: records.clone() });
        prop_assert_eq!(decode(&payload, &room()), Ok(sent));

        let payload = Bytes::from(encode_ephemeral(&room(), &node(), 9, &records));
        let sent = Event::Messages(Envelope { node: node(), room: room(), kind: Kind::Ephemeral { ts: 9 }, records });
        prop_assert_eq!(decode(&payload, &room()), Ok(sent));
    }

    #[test]
    fn operations_survive_the_trip(ops in proptest::collection::vec(any_op(), 1..20)) {
        let payload = operations(&ops);
        let event = PresenceEvent { node: node(), room: room(), version: 12, online: 2, ops };
        prop_assert_eq!(decode(&payload.into(), &room()), Ok(Event::Presence(event)));
    }

    #[test]
    fn a_changed_operation_never_panics(op in any_op(), at in 0..2000_usize, to in any::<u8>()) {
        let mut payload = operations(&[op]);
        let at = at % payload.len();
        payload[at] = to;
        _ = decode(&payload.into(), &room());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        _ = decode(&bytes.into(), &room());
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        count in 1..4_usize,
        tag in "[DEP]",
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 1..4),
    ) {
        let numbers = match tag.as_str() { "D" => "t 1 2", "E" => "1", _ => "1 2" };
        let mut payload = format!("RC1 {tag} lobby n {numbers} {count}\n").into_bytes();
        for body in bodies {
            payload.extend_from_slice(&(body.len() as u32).to_le_bytes());
            payload.extend_from_slice(&body);
        }
        _ = decode(&payload.into(), &room());
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0..100_usize, to in any::<u8>()) {
        let mut payload = durable(&[record(), record()]);
        let at = at % payload.len();
        payload[at] = to;
        _ = decode(&payload.into(), &room());
    }

    #[test]
    fn a_cut_payload_is_refused(at in 0..1000_usize) {
        let payload = durable(&[record(), record()]);
        let at = at % payload.len();
        prop_assert!(decode(&payload[..at].to_vec().into(), &room()).is_err());
    }
}

fn operations(ops: &[PresenceOp]) -> Vec<u8> {
    let mut payload = format!("RC1 P lobby n-1 12 2 {}\n", ops.len()).into_bytes();
    for op in ops {
        encode_op(op, &mut payload);
    }
    payload
}

fn member() -> Member {
    Member { id: ClientId::from_bytes([5; 16]), name: "Ann".into(), user: None, info: None }
}

#[test]
fn what_is_not_there_takes_no_bytes() {
    let payload = durable(&[record()]);
    let signed = durable(&[Record { user: Some("ann".into()), ..record() }]);
    assert_eq!(payload.len() + 1 + "ann".len(), signed.len());
    let payload = operations(&[PresenceOp::Leave(member())]);
    assert_eq!(payload.len(), "RC1 P lobby n-1 12 2 1\n".len() + 4 + 1 + 16 + 1 + "Ann".len());
}

/// Operations whose first byte is the kind with these flags, and whose name is followed by `rest`.
fn operation(kind: u8, rest: &[u8]) -> DecodeError {
    let record = [&[kind][..], &[5; 16], &[3], b"Ann", rest].concat();
    let length = (record.len() as u32).to_le_bytes();
    error([b"RC1 P lobby n-1 12 2 1\n", &length[..], &record].concat())
}

#[test]
fn users_and_infos_that_break_their_rules_are_refused() {
    let long_user = [&[200][..], &[b'u'; 200]].concat();
    let long_info = [&1025_u16.to_le_bytes()[..], b"\"", &[b'i'; 1023], b"\""].concat();
    let cases: [(u8, &[u8], DecodeError); 15] = [
        (4, b"", DecodeError::Record),      // no kind
        (1 | 32, b"", DecodeError::Record), // a flag that nobody knows
        (1 | 8, b"", DecodeError::Record),
        (1 | 8, b"\x05ann", DecodeError::Record), // shorter than it says
        (1 | 8, b"\x00", DecodeError::Name),
        (1 | 8, b"\x03a\nb", DecodeError::Name),
        (1 | 8, b"\x02\xff\xff", DecodeError::Name),
        (1 | 8, &long_user, DecodeError::Name),
        (1 | 8, b"\x01a{}", DecodeError::Length), // an info without its flag
        (1 | 16, b"\x02", DecodeError::Record),
        (1 | 16, b"\xff\xff{}", DecodeError::Record), // shorter than it says
        (1 | 16, b"\x00\x00", DecodeError::Json),
        (1 | 16, b"\x02\x001}", DecodeError::Json),
        (1 | 16, b"\x03\x00\"\xff\"", DecodeError::Json),
        (1 | 16, &long_info, DecodeError::Json),
    ];
    for (kind, rest, expected) in cases {
        assert_eq!(operation(kind, rest), expected, "{kind} {:?}", &rest[..rest.len().min(9)]);
    }
    for user in ["", "a\u{1f}b", &"u".repeat(129)] {
        let payload = durable(&[Record { user: Some(user.into()), ..record() }]);
        assert_eq!(error(payload), DecodeError::Name, "{user:?}");
    }
    let cut = durable(&[Record { user: Some("ann".into()), data: Bytes::new(), ..record() }]);
    let mut cut = cut[..cut.len() - 3].to_vec();
    let header = "RC1 D lobby n-1 0a 41 1700000000000 1\n".len();
    let length = (cut.len() - header - 4) as u32;
    cut[header..header + 4].copy_from_slice(&length.to_le_bytes());
    assert_eq!(error(cut), DecodeError::Record);
}

#[test]
fn data_is_a_slice_of_the_payload() {
    let payload = Bytes::from(durable(&[record()]));
    let Ok(Event::Messages(envelope)) = decode(&payload, &room()) else { panic!("messages") };
    let bounds = payload.as_ptr_range();
    assert!(bounds.contains(&envelope.records[0].data.as_ptr()));
}

#[test]
fn what_is_wrong_has_its_label() {
    let with = |header: &str| {
        let mut payload = header.as_bytes().to_vec();
        encode_record(&record(), &mut payload);
        error(payload)
    };
    assert_eq!(error(""), DecodeError::Version);
    assert_eq!(error("hello"), DecodeError::Version);
    assert_eq!(with("RC2 D lobby n 0a 1 1 1\n"), DecodeError::Version);
    assert_eq!(with("RC1 D lobby n 0a 1 1 1 1\n"), DecodeError::Header);
    assert_eq!(with("RC1 D lobby n 0a 1 1\n"), DecodeError::Header);
    assert_eq!(with("RC1 X lobby n 0a 1 1 1\n"), DecodeError::Header);
    assert_eq!(with("RC1 D lobby n{} 0a 1 1 1\n"), DecodeError::Header);
    assert_eq!(with("RC1 D lobby n 0A 1 1 1\n"), DecodeError::Header);
    assert_eq!(with("RC1 D other n 0a 1 1 1\n"), DecodeError::Room);
    for number in ["0", "-1", "+1", "", "1e3", "9007199254740991", "99999999999999999999999"] {
        assert_eq!(with(&format!("RC1 D lobby n 0a {number} 1 1\n")), DecodeError::Number, "{number}");
    }
    assert_eq!(with("RC1 D lobby n 0a 1 1 0\n"), DecodeError::Count);
    assert_eq!(with("RC1 D lobby n 0a 1 1 1025\n"), DecodeError::Count);
    assert_eq!(with("RC1 D lobby n 0a 1 1 1024\n"), DecodeError::Length);
    assert_eq!(with(&format!("RC1 D {} n 0a 1 1 1\n", "x".repeat(400))), DecodeError::Header);
    let mut trailing = durable(&[record()]);
    trailing.push(0);
    assert_eq!(error(trailing), DecodeError::Length);
    let mut huge = b"RC1 E lobby n 1 1\n".to_vec();
    huge.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(error(huge), DecodeError::Length);
}

#[test]
fn garbage_never_reaches_members() {
    for data in ["", "{", "nonsense", "{} {}", "1,2", "\"\u{0}\""] {
        let payload = durable(&[Record { data: Bytes::copy_from_slice(data.as_bytes()), ..record() }]);
        assert_eq!(error(payload), DecodeError::Json, "{data:?}");
    }
    let payload = durable(&[Record { data: Bytes::from_static(b"\"\xff\""), ..record() }]);
    assert_eq!(error(payload), DecodeError::Json);
    for (id, name) in [("", "Ann"), ("i", ""), ("i", &"n".repeat(65))] {
        let payload = durable(&[Record { id: id.into(), name: name.into(), ..record() }]);
        assert_eq!(error(payload), DecodeError::Name);
    }
    let payload = durable(&[Record { id: "i".repeat(129).into(), ..record() }]);
    assert_eq!(error(payload), DecodeError::Name);
}
