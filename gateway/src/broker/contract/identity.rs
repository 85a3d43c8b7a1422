//! Who somebody is besides the name: with messages, among members, and behind those who left.

use super::*;
use crate::broker::{Farewell, Moved, PresenceEvent};

everywhere!(
    messages_say_whose_they_are,
    members_are_shown_with_user_and_info,
    leaves_of_the_dead_say_who_it_was,
    what_looks_the_same_is_no_news,
    only_the_name_has_to_be_unique,
);

/// Every combination, with what a separator, a pattern or a length could trip over.
fn crowd() -> Vec<Member> {
    let long_info = format!("\"{}\"", "i".repeat(1022));
    let each = [
        ("Ann", None, None),
        ("Bob  B", Some("bob"), None),
        ("Cleo %d", None, Some(r#"{"a": [1, 2.50], "%s": "\u001f \"}"}"#)),
        ("☃ ^$", Some("zoë|\"x\" %1 c"), Some("\n[\t1 ]\r\n")),
        ("d 1 2", Some(" "), Some("null")),
        ("12345678901234567890123456789012345678901234567890123456789 6é4", Some(USER), Some(&*long_info)),
    ];
    let one = |(name, user, info): (&str, Option<&str>, Option<&str>)| Member {
        user: user.map(Into::into),
        info: info.map(Into::into),
        ..member(ClientId::random(), name)
    };
    let mut crowd: Vec<Member> = each.into_iter().map(one).collect();
    crowd.sort_unstable_by_key(|member| member.id);
    crowd
}

/// As long as a user may be.
const USER: &str = "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu\
    uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";

fn through<'a>(life: &'a Incarnation, ops: &'a [PresenceOp], unique_names: bool) -> PresenceCall<'a> {
    PresenceCall { incarnation: life, ops, unique_names, want_members: 100 }
}

async fn presence_event(events: &mut Events) -> PresenceEvent {
    match events.next().await {
        Event::Presence(event) => event,
        other => panic!("expected presence, got {other:?}"),
    }
}

async fn messages_say_whose_they_are(mut pair: Pair) {
    let room = room("lobby");
    pair.b.subscribe(&room).await.expect("subscribed");
    let records: Vec<Record> = crowd()
        .into_iter()
        .map(|Member { id, name, user, .. }| Record { from: id, name, user, ..plain("x") })
        .collect();
    pair.a.publish(&room, &policy(), &records).await.expect("published");
    assert_eq!(pair.from_b.messages().await.records, records);
    pair.a.broadcast(&room, &records).await.expect("sent");
    assert_eq!(pair.from_b.messages().await.records, records);
}

async fn members_are_shown_with_user_and_info(mut pair: Pair) {
    let room = room("lobby");
    let crowd = crowd();
    pair.b.subscribe(&room).await.expect("subscribed");
    let enters: Vec<PresenceOp> = crowd.iter().cloned().map(PresenceOp::Enter).collect();
    let reply = pair.a.presence(&room, call(&enters, 100)).await.expect("presence");
    assert_eq!((&*reply.outcomes, &reply.members), (&[Moved::Changed; 6][..], &crowd));
    assert_eq!(presence_event(&mut pair.from_b).await.ops, enters);
    assert_eq!(pair.b.members(&room, None, 100).await.expect("a page").members, crowd);
    let first = pair.b.members(&room, None, 2).await.expect("a page");
    let rest = pair.b.members(&room, first.next.as_deref(), 100).await.expect("a page");
    assert_eq!([first.members, rest.members].concat(), crowd);

    let renamed: Vec<Member> = crowd.into_iter().map(|member| Member { name: "new".into(), ..member }).collect();
    let ops: Vec<PresenceOp> = renamed.iter().cloned().map(PresenceOp::Rename).collect();
    pair.a.presence(&room, call(&ops, 0)).await.expect("presence");
    assert_eq!(presence_event(&mut pair.from_b).await.ops, ops);
    assert_eq!(pair.b.members(&room, None, 100).await.expect("a page").members, renamed);

    let leaves: Vec<PresenceOp> = renamed.into_iter().map(PresenceOp::Leave).collect();
    let reply = pair.b.presence(&room, call(&leaves, 100)).await.expect("presence");
    assert_eq!((reply.online, reply.members), (0, vec![]));
    pair.a.subscribe(&room).await.expect("subscribed");
}

async fn leaves_of_the_dead_say_who_it_was(mut pair: Pair) {
    let room = room("lobby");
    let (dead, alive) = (Incarnation::new(&node("node-c")), Incarnation::new(&node("node-d")));
    let crowd = crowd();
    let enters: Vec<PresenceOp> = crowd.iter().cloned().map(PresenceOp::Enter).collect();
    pair.a.presence(&room, through(&dead, &enters, true)).await.expect("presence");
    let stays = ClientId::random();
    pair.a.presence(&room, through(&alive, &[enter(stays, "stays")], true)).await.expect("presence");
    pair.b.subscribe(&room).await.expect("subscribed");

    let evicted = pair.a.evict(&room, &dead, None).await.expect("evicted");
    let mut by_id = crowd.clone();
    by_id.sort_by_key(|member| member.id);
    assert_eq!((evicted.next, evicted.online, evicted.gone), (None, 1, by_id.clone()));
    let event = presence_event(&mut pair.from_b).await;
    assert_eq!(event.ops, crowd.iter().cloned().map(PresenceOp::Leave).collect::<Vec<_>>());
    // Their names are free.
    let again: Vec<PresenceOp> =
        crowd.into_iter().map(|gone| PresenceOp::Enter(Member { id: ClientId::random(), ..gone })).collect();
    let reply = pair.b.presence(&room, through(&alive, &again, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed; 6]);
    pair.a.bury(&dead, Farewell::Clean).await.expect("buried");
}

async fn what_looks_the_same_is_no_news(mut pair: Pair) {
    let room = room("lobby");
    let (old, new) = (Incarnation::new(&node("node-a")), Incarnation::new(&node("node-a")));
    let crowd = crowd();
    let mut ops: Vec<PresenceOp> = crowd.iter().cloned().map(PresenceOp::Enter).collect();
    pair.a.presence(&room, through(&old, &ops, false)).await.expect("presence");
    pair.b.subscribe(&room).await.expect("subscribed");
    ops.extend(crowd.iter().cloned().map(PresenceOp::Rename));
    let reply = pair.a.presence(&room, through(&new, &ops, false)).await.expect("presence");
    assert_eq!((&*reply.outcomes, &reply.members), (&[Moved::Same; 12][..], &crowd));
    // What is new about somebody is, and takes the place of what was.
    for changed in [
        Member { user: Some("other".into()), ..crowd[0].clone() },
        Member { info: Some("{}".into()), ..crowd[0].clone() },
        Member { user: None, info: None, ..crowd[0].clone() },
        crowd[0].clone(),
    ] {
        let ops = [PresenceOp::Enter(changed.clone())];
        let before = pair.a.presence(&room, through(&new, &[], false)).await.expect("presence").members;
        let reply = pair.a.presence(&room, through(&new, &ops, false)).await.expect("presence");
        assert_eq!((reply.online, &reply.members[0]), (6, &changed));
        if before[0] != changed {
            assert_eq!(presence_event(&mut pair.from_b).await.ops, ops);
        }
    }
}

async fn only_the_name_has_to_be_unique(pair: Pair) {
    let room = room("lobby");
    let life = Incarnation::new(&node("node-a"));
    let of = |user: &str, name: &str| Member { user: Some(user.into()), ..member(ClientId::random(), name) };
    let (ann, other, same) = (of("u1", "Ann"), of("u2", "Ann"), of("u1", "Ann 2"));
    let ops = [ann.clone(), other.clone(), same].map(PresenceOp::Enter);
    let reply = pair.a.presence(&room, through(&life, &ops, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed, Moved::NameTaken, Moved::Changed]);
    let ops = [PresenceOp::Rename(Member { name: "Zoë".into(), ..ann }), PresenceOp::Enter(other)];
    let reply = pair.b.presence(&room, through(&life, &ops, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed; 2]);
}

/// Whoever can write to Redis must not be able to write into clients' frames.
#[tokio::test(flavor = "local")]
async fn entries_that_break_the_rules_are_left_out() {
    let server = Server::start(&[]);
    let (a, mut events) = connect(&server.options("node-a"), 64).await;
    let life = Incarnation::new(&node("node-x"));
    let good = ClientId::random();
    let mut command = vec!["ZADD".to_owned(), "rc:{lobby}:p".into()];
    let (long_user, long_info) = ("u".repeat(129), format!("\"{}\"", "i".repeat(1023)));
    let bad = ["\u{1f}\u{1f}{", "\u{1f}\u{1f}1}", "\u{1f}a\u{1f}{}\u{1f}", "\u{1f}\u{1f}", "\u{1f}a\nb"];
    let bad = bad.map(String::from).into_iter();
    for rest in bad.chain([format!("\u{1f}{long_user}"), format!("\u{1f}\u{1f}{long_info}")]) {
        command.extend(["0".into(), format!("{} {life} x{rest}", ClientId::random())]);
    }
    command.extend(["0".into(), format!("{good} {life} Ann\u{1f}ann\u{1f}[1]")]);
    let _: i64 = server.command(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = Member { user: Some("ann".into()), info: Some("[1]".into()), ..member(good, "Ann") };
    let room = room("lobby");
    assert_eq!(a.members(&room, None, 100).await.expect("a page").members, std::slice::from_ref(&shown));
    assert_eq!(a.presence(&room, call(&[], 100)).await.expect("presence").members, [shown]);
    // They can be cleared away all the same.
    a.subscribe(&room).await.expect("subscribed");
    let evicted = a.evict(&room, &life, None).await.expect("evicted");
    assert_eq!((evicted.next, evicted.online), (None, 0));
    a.publish(&room, &policy(), &plains(0..1)).await.expect("published");
    let (b, _from_b) = connect(&server.options("node-b"), 64).await;
    b.publish(&room, &policy(), &plains(1..2)).await.expect("published");
    while !matches!(events.next().await, Event::Messages(_)) {}
}
