//! Round trips, hostile bytes, and the label of every way to be wrong.

use proptest::prelude::*;
use roomcast_protocol::ClientId;

use super::*;
use crate::broker::{PresenceOp, Record, Subject};
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
        "[a-zA-Zé☃]{1,16}",
        proptest::option::of(any::<[u8; 16]>()),
        "[a-z \"\\\\]{0,40}",
    )
        .prop_map(|(id, (idempotent, echo, accepted_at_us), from, name, trace, text)| Record {
            id: id.into(),
            idempotent,
            subject: Subject::NOBODY,
            from: ClientId::from_bytes(from),
            name: name.into(),
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

#[test]
fn operations_survive_the_trip() {
    let (ann, bob) = (ClientId::random(), ClientId::random());
    let ops = vec![
        PresenceOp::Enter { client: ann, name: "Ann".into() },
        PresenceOp::Rename { client: ann, name: "Änn".into() },
        PresenceOp::Leave { client: bob, name: "bob".into() },
    ];
    let mut payload = b"RC1 P lobby n-1 12 2 3\n".to_vec();
    for op in &ops {
        encode_op(op, &mut payload);
    }
    let event = PresenceEvent { node: node(), room: room(), version: 12, online: 2, ops };
    assert_eq!(decode(&payload.into(), &room()), Ok(Event::Presence(event)));
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
