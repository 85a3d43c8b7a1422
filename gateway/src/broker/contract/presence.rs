//! Who is in a room.

use std::collections::BTreeSet;

use super::*;
use crate::broker::{BrokerError, MAX_MEMBERS, Moved, PresenceEvent};

everywhere!(
    both_nodes_see_who_comes_goes_and_renames,
    what_changes_nothing_is_told_to_nobody,
    versions_rise_over_an_empty_room,
    one_call_learns_that_a_room_filled_or_emptied,
    who_enters_again_under_another_name_is_no_newcomer,
    members_come_in_pages_without_duplicates,
    pages_survive_comings_and_goings,
    members_wanted_are_capped,
    bad_cursors_and_names_are_rejected,
);

/// Ids in order.
fn clients<const N: usize>() -> [ClientId; N] {
    std::array::from_fn(|at| {
        let mut bytes = ClientId::random().to_bytes();
        bytes[0] = at as u8;
        ClientId::from_bytes(bytes)
    })
}

async fn presence_event(events: &mut Events) -> PresenceEvent {
    match events.next().await {
        Event::Presence(event) => event,
        other => panic!("expected presence, got {other:?}"),
    }
}

async fn both_nodes_see_who_comes_goes_and_renames(mut pair: Pair) {
    let room = room("lobby");
    let [ann, bob] = clients();
    pair.a.subscribe(&room).await.expect("subscribed");
    pair.b.subscribe(&room).await.expect("subscribed");

    let first = pair.a.presence(&room, call(&[enter(ann, "Ann Lee")], 10)).await.expect("presence");
    assert_eq!((first.online, &*first.members), (1, &[member(ann, "Ann Lee")][..]));
    let event = presence_event(&mut pair.from_b).await;
    let ops = vec![enter(ann, "Ann Lee")];
    let told = PresenceEvent { node: node("node-a"), room: room.clone(), version: first.version, online: 1, ops };
    assert_eq!(event, told);

    let ops = [enter(bob, "Bob"), rename(bob, "Bøb"), rename(ann, "Ann")];
    let second = pair.b.presence(&room, call(&ops, 10)).await.expect("presence");
    assert!(second.version > first.version);
    assert_eq!((second.online, &*second.members), (2, &[member(ann, "Ann"), member(bob, "Bøb")][..]));
    let event = presence_event(&mut pair.from_a).await;
    assert_eq!((event.version, event.online, &*event.ops), (second.version, 2, &ops[..]));

    let third = pair.b.presence(&room, call(&[leave(ann, "Ann")], 0)).await.expect("presence");
    assert!(third.version > second.version);
    assert_eq!((third.online, third.members), (1, vec![]));
    let event = presence_event(&mut pair.from_a).await;
    assert_eq!((event.online, &*event.ops), (1, &[leave(ann, "Ann")][..]));

    let read = pair.a.presence(&room, call(&[], 10)).await.expect("presence");
    assert_eq!((read.version, &*read.members), (third.version, &[member(bob, "Bøb")][..]));
}

async fn what_changes_nothing_is_told_to_nobody(mut pair: Pair) {
    let room = room("lobby");
    let [ann, bob] = clients();
    pair.b.subscribe(&room).await.expect("subscribed");
    let first = pair.a.presence(&room, call(&[enter(ann, "Ann")], 0)).await.expect("presence");
    let nothing = [leave(bob, "Bob"), rename(bob, "Bob"), enter(ann, "Ann"), rename(ann, "Ann")];
    let same = pair.a.presence(&room, call(&nothing, 0)).await.expect("presence");
    assert_eq!((same.version, same.online), (first.version, 1));
    let ops = [leave(bob, "Bob"), enter(bob, "Bob"), enter(ann, "Ann")];
    pair.a.presence(&room, call(&ops, 0)).await.expect("presence");
    assert_eq!(presence_event(&mut pair.from_b).await.ops, [enter(ann, "Ann")]);
    assert_eq!(presence_event(&mut pair.from_b).await.ops, [enter(bob, "Bob")]);
}

async fn versions_rise_over_an_empty_room(mut pair: Pair) {
    let room = room("lobby");
    let [ann] = clients();
    pair.b.subscribe(&room).await.expect("subscribed");
    let mut last = 0;
    for _ in 0..5 {
        for (op, online) in [(enter(ann, "Ann"), 1), (leave(ann, "Ann"), 0)] {
            let reply = pair.a.presence(&room, call(&[op], 5)).await.expect("presence");
            assert!(reply.version > last, "{} after {last}", reply.version);
            last = reply.version;
            assert_eq!((reply.online, reply.members.len()), (online, online as usize));
            let event = presence_event(&mut pair.from_b).await;
            assert_eq!((event.version, event.online), (last, online));
        }
        let read = pair.b.presence(&room, call(&[], 5)).await.expect("presence");
        assert!(read.version >= last && read.online == 0);
        last = read.version;
    }
}

/// A call through one broker, and how many there are before and after.
type Turn<'a> = (&'a dyn Broker, &'a [PresenceOp], (u64, u64));

async fn one_call_learns_that_a_room_filled_or_emptied(pair: Pair) {
    let room = room("lobby");
    let [ann, bob] = clients();
    let turns: [Turn<'_>; 8] = [
        (&*pair.a, &[], (0, 0)),
        (&*pair.a, &[enter(ann, "Ann")], (0, 1)),
        (&*pair.b, &[enter(bob, "Bob")], (1, 2)),
        (&*pair.b, &[leave(ann, "Ann"), leave(ann, "Ann")], (2, 1)),
        // Nobody can have seen it empty.
        (&*pair.a, &[leave(bob, "Bob"), enter(ann, "Ann")], (1, 1)),
        (&*pair.a, &[leave(ann, "Ann")], (1, 0)),
        (&*pair.b, &[leave(ann, "Ann")], (0, 0)),
        (&*pair.b, &[enter(bob, "Bob"), leave(bob, "Bob")], (0, 0)),
    ];
    for (broker, ops, expected) in turns {
        let reply = broker.presence(&room, call(ops, 0)).await.expect("presence");
        assert_eq!((reply.before, reply.online), expected, "{ops:?}");
    }
}

async fn who_enters_again_under_another_name_is_no_newcomer(mut pair: Pair) {
    let room = room("lobby");
    let [ann] = clients();
    pair.b.subscribe(&room).await.expect("subscribed");
    let ops = [enter(ann, "Ann"), enter(ann, "Anna"), rename(ann, "Ann"), enter(ann, "Ann")];
    let reply = pair.a.presence(&room, call(&ops, 0)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed, Moved::Renamed, Moved::Changed, Moved::Same]);
    assert_eq!(presence_event(&mut pair.from_b).await.ops, ops[..3]);
}

async fn members_come_in_pages_without_duplicates(pair: Pair) {
    let room = room("hall");
    let everybody: Vec<ClientId> = (0..503).map(|_| ClientId::random()).collect();
    for (number, chunk) in everybody.chunks(100).enumerate() {
        let ops: Vec<PresenceOp> = chunk.iter().map(|&client| enter(client, &format!("c {number}"))).collect();
        let broker = if number % 2 == 0 { &pair.a } else { &pair.b };
        broker.presence(&room, call(&ops, 0)).await.expect("presence");
    }
    for limit in [1000, 100, 7] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = pair.b.members(&room, cursor.as_deref(), limit).await.expect("a page");
            assert_eq!(page.online, 503);
            assert!(page.members.len() <= limit);
            seen.extend(page.members.iter().map(|member| member.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 503);
        assert!(seen.is_sorted());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), everybody.iter().copied().collect());
    }
    let nobody = pair.b.members(&super::room("nowhere"), None, 10).await.expect("a page");
    assert_eq!((nobody.members.len(), nobody.next, nobody.online), (0, None, 0));
}

async fn pages_survive_comings_and_goings(pair: Pair) {
    let room = room("hall");
    let all = clients::<9>();
    let ops: Vec<PresenceOp> = all[..8].iter().map(|&client| enter(client, "x")).collect();
    pair.a.presence(&room, call(&ops, 0)).await.expect("presence");
    let first = pair.b.members(&room, None, 4).await.expect("a page");
    // The cursor's own member leaves, one before it renames, one behind comes.
    let ops = [leave(all[3], "x"), rename(all[1], "y"), leave(all[5], "x"), enter(all[8], "new")];
    pair.a.presence(&room, call(&ops, 0)).await.expect("presence");
    let second = pair.b.members(&room, first.next.as_deref(), 4).await.expect("a page");
    let ids: Vec<ClientId> = second.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, [all[4], all[6], all[7], all[8]]);
    assert_eq!((second.next, second.online), (None, 7));
}

async fn members_wanted_are_capped(pair: Pair) {
    let room = room("hall");
    let ops: Vec<PresenceOp> = (0..1024).map(|_| enter(ClientId::random(), "x")).collect();
    let reply = pair.a.presence(&room, call(&ops, usize::MAX)).await.expect("presence");
    assert_eq!((reply.online, reply.members.len()), (1024, MAX_MEMBERS));
    assert_eq!(pair.a.presence(&room, call(&[], 3)).await.expect("presence").members, reply.members[..3]);
    let page = pair.a.members(&room, None, usize::MAX).await.expect("a page");
    assert_eq!((page.members.len(), page.next.is_some()), (MAX_MEMBERS, true));
}

async fn bad_cursors_and_names_are_rejected(pair: Pair) {
    let room = room("hall");
    for cursor in ["", "x", "+", "[a", "0-0"] {
        let error = pair.a.members(&room, Some(cursor), 10).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{cursor}: {error}");
    }
    for name in ["", "a\nb", &"n".repeat(65)] {
        let ops = [enter(ClientId::random(), name)];
        let error = pair.a.presence(&room, call(&ops, 0)).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{name:?}: {error}");
    }
    let ann = member(ClientId::random(), "Ann");
    for user in ["", "a\u{1f}b", &"u".repeat(129)] {
        let ops = [PresenceOp::Leave(Member { user: Some(user.into()), ..ann.clone() })];
        let error = pair.a.presence(&room, call(&ops, 0)).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{user:?}: {error}");
    }
    for info in ["", "{", "{}\u{1f}", "1}", &format!("\"{}\"", "i".repeat(1023))] {
        let ops = [PresenceOp::Enter(Member { info: Some(info.into()), ..ann.clone() })];
        let error = pair.a.presence(&room, call(&ops, 0)).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{info:?}: {error}");
    }
    assert_eq!(pair.a.members(&room, None, 9).await.expect("a page").online, 0);
}
