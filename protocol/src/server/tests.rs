//! Frames of the server, read back as a client would.

use super::*;
use serde_json::{Value, json};

fn read(frame: &[u8]) -> Value {
    serde_json::from_slice(frame).expect("valid JSON")
}

fn named(id: ClientId, name: &str) -> MemberFields<'_> {
    MemberFields { id, name, user: None, info: None }
}

#[test]
fn a_message_carries_its_fields_and_its_data_untouched() {
    let (room, term, from) = (RoomName::new("a").expect("valid"), Term::new("t1").expect("valid"), ClientId::random());
    let position = Some((&term, 7));
    let head = MessageHead { room: &room, position, id: "i\"1", from, name: "Zoë \n", user: None, ts: 9 };
    let mut out = Vec::new();
    message_frame(&head, b"{\"x\":1.50}", &mut out);
    assert_eq!(
        read(&out),
        json!({"type":"message","room":"a","seq":7,"term":"t1","id":"i\"1",
               "from":{"id":from.to_string(),"name":"Zoë \n"},"ts":9,"data":{"x":1.50}})
    );
    let mut ephemeral = Vec::new();
    message_frame(&MessageHead { position: None, ..head }, b"null", &mut ephemeral);
    assert_eq!(read(&ephemeral).get("seq"), None);
    assert!(out.ends_with(br#""data":{"x":1.50}}"#));
    let mut signed = Vec::new();
    message_frame(&MessageHead { user: Some("a\"b"), ..head }, b"null", &mut signed);
    assert_eq!(read(&signed)["from"], json!({"id":from.to_string(),"name":"Zoë \n","user":"a\"b"}));
}

#[test]
fn small_frames_have_the_documented_fields() {
    let room = RoomName::new("a").expect("valid");
    let id = ClientId::random();
    assert_eq!(
        read(&error_frame(Some("3"), ErrorCode::RateLimited, "slow \"down\"")),
        json!({"type":"error","ref":3,"code":"rate_limited","message":"slow \"down\"","retryable":true})
    );
    assert_eq!(read(&pong_frame(None)), json!({"type":"pong"}));
    assert_eq!(read(&left_frame(Some("\"r\""), &room, None)), json!({"type":"left","ref":"r","room":"a"}));
    let left = json!({"type":"left","room":"a","reason":"forbidden"});
    assert_eq!(read(&left_frame(None, &room, Some("forbidden"))), left);
    let refreshed = json!({"type":"refreshed","ref":1,"expiresAtMs":5});
    assert_eq!(read(&refreshed_frame(Some("1"), Some(5))), refreshed);
    assert_eq!(read(&refreshed_frame(None, None)), json!({"type":"refreshed","expiresAtMs":null}));
    assert_eq!(read(&reconnect_frame("drain", 250)), json!({"type":"reconnect","reason":"drain","afterMs":250}));
    assert_eq!(
        read(&presence_frame(&room, PresenceKind::Join, Some(named(id, "n")), 2)),
        json!({"type":"presence","room":"a","event":"join","member":{"id":id.to_string(),"name":"n"},"online":2})
    );
    assert_eq!(
        read(&presence_frame(&room, PresenceKind::Count, None, 900)),
        json!({"type":"presence","room":"a","event":"count","online":900})
    );
    assert_eq!(
        read(&reset_frame(&room, Recovery::Gap, None, 5)),
        json!({"type":"reset","room":"a","reason":"gap","term":null,"seq":5})
    );
    let (members, count) = member_list([named(id, "n")].into_iter(), 1000);
    assert_eq!(count, 1);
    assert_eq!(
        read(&members_frame(Some("1"), &room, &members, 1, Some("7"))),
        json!({"type":"members","ref":1,"room":"a","members":[{"id":id.to_string(),"name":"n"}],"online":1,"next":"7"})
    );
    let messages = message_list([b"{}".as_slice(), b"{}".as_slice()].into_iter());
    assert_eq!(
        read(&history_frame(Some("1"), &room, &messages, None)),
        json!({"type":"history","ref":1,"room":"a","messages":[{},{}]})
    );
}

#[test]
fn absent_fields_are_left_out_of_acks_but_null_in_joined() {
    let room = RoomName::new("a").expect("valid");
    let reference = RawValue::from_string("1".into()).expect("valid");
    let ack = Ack { reference: &reference, id: "x", room: &room, seq: None, term: None, duplicate: false };
    assert_eq!(serde_json::to_value(&ack).expect("valid"), json!({"type":"ack","ref":1,"id":"x","room":"a"}));
    let head = JoinedHead {
        room: &room,
        mode: Mode::Ephemeral,
        term: None,
        seq: None,
        recovery: Recovery::UnknownTerm,
        rollback: None,
        online: 1,
    };
    assert_eq!(
        read(&joined_frame(Some("4"), &head, b"[]", b"[{}]")),
        json!({"type":"joined","ref":4,"room":"a","mode":"ephemeral","term":null,"seq":null,
               "recovery":"unknown_term","online":1,"members":[],"messages":[{}]})
    );
    let rollback = Since { term: Term::new("0a").expect("valid"), seq: 8 };
    let head = JoinedHead { recovery: Recovery::Diverged, rollback: Some(&rollback), ..head };
    let joined = read(&joined_frame(None, &head, b"[]", b"[]"));
    assert_eq!((&joined["recovery"], &joined["rollback"]), (&json!("diverged"), &json!({"term":"0a","seq":8})));
}

#[test]
fn members_show_user_and_info_where_they_have_them() {
    let (room, id) = (RoomName::new("a").expect("valid"), ClientId::random());
    let member = MemberFields { user: Some("\u{2603}\"u\\"), info: Some("{\"a\" : 1.50}"), ..named(id, "n") };
    let frame = presence_frame(&room, PresenceKind::Rename, Some(member), 2);
    let shown = json!({"id":id.to_string(),"name":"n","user":"\u{2603}\"u\\","info":{"a":1.50}});
    assert_eq!(read(&frame)["member"], shown);
    assert!(String::from_utf8_lossy(&frame).contains("\"info\":{\"a\" : 1.50}}"), "byte for byte");
    let (list, _) = member_list([member, named(id, "m"), MemberFields { user: None, ..member }].into_iter(), 1000);
    let without = json!({"id":id.to_string(),"name":"n","info":{"a":1.50}});
    assert_eq!(read(&list), json!([shown, {"id":id.to_string(),"name":"m"}, without]));
}

#[test]
fn lists_of_members_keep_to_their_bytes() {
    let members = || [ClientId::random(); 9].into_iter().map(|id| MemberFields { info: Some("[7]"), ..named(id, "n") });
    let (whole, nine) = member_list(members(), 10_000);
    assert_eq!(nine, 9);
    assert_eq!(member_list(members(), whole.len()).1, 9, "what fits exactly fits");
    for most in 0..whole.len() {
        let (list, count) = member_list(members(), most);
        assert!(list.len() <= most.max(2) && count < 9);
        assert_eq!(read(&list).as_array().map(Vec::len), Some(count));
    }
    assert_eq!(member_list(members(), whole.len() - 1).1, 8);
}
