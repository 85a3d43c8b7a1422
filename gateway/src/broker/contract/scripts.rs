//! What only a look into Redis shows: lost metadata, foreign writes, full memory, forgotten scripts, hostile payloads.

use super::*;
use crate::broker::{BrokerError, Range};

async fn one(server: &Server) -> (RedisBroker, Events) {
    connect(&server.options("node-a"), 1024).await
}

#[tokio::test(flavor = "local")]
async fn lost_metadata_begins_a_term_and_seq_continues() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server).await;
    let (room, policy) = (room("lobby"), policy());
    let before = a.publish(&room, &policy, &plains(0..5)).await.expect("published");
    let _: i64 = server.command(&["DEL", "rc:{lobby}:m"]);
    let history = a.history(&room, Range::Latest { limit: 2 }).await.expect("history");
    // The stream itself says where the term stands.
    assert_eq!((history.term.as_ref(), history.top, history.messages.len()), (Some(&before.term), 5, 2));
    let after = a.publish(&room, &policy, &plains(5..7)).await.expect("published");
    assert_ne!(after.term, before.term);
    assert_eq!(stored(&after.outcomes), [6, 7]);
    let history = a.history(&room, Range::Latest { limit: 3 }).await.expect("history");
    let terms: Vec<_> = history.messages.iter().map(|message| &message.term).collect();
    assert_eq!(terms, [&before.term, &after.term, &after.term]);
    // With the stream gone, too, the metadata still counts on.
    let _: i64 = server.command(&["DEL", "rc:{lobby}:s"]);
    let last = a.publish(&room, &policy, &plains(7..8)).await.expect("published");
    assert_eq!((last.term, stored(&last.outcomes)), (after.term, vec![8]));
}

#[tokio::test(flavor = "local")]
async fn a_foreign_entry_in_the_stream_is_passed_over() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server).await;
    let (room, policy) = (room("lobby"), policy());
    let before = a.publish(&room, &policy, &plains(0..2)).await.expect("published");
    let _: String = server.command(&["XADD", "rc:{lobby}:s", "1700000000000-7", "what", "ever"]);
    let after = a.publish(&room, &policy, &plains(2..4)).await.expect("published");
    assert_ne!(after.term, before.term);
    assert_eq!(stored(&after.outcomes), [1_700_000_000_001, 1_700_000_000_002]);
    let history = a.history(&room, Range::Latest { limit: 2 }).await.expect("history");
    assert_eq!(history.messages.len(), 2);
    // What lies so far below counts as older than what is kept: a reader learns that there is a gap.
    let history = a.history(&room, Range::After { seq: 1, limit: 1 }).await.expect("history");
    assert_eq!((history.first, history.messages.len()), (1_700_000_000_001, 0));

    let _: String = server.command(&["XADD", "rc:{lobby}:s", "18446744073709551615-1", "what", "ever"]);
    let last = a.publish(&room, &policy, &plains(4..5)).await.expect("published");
    assert_ne!(last.term, after.term);
    assert_eq!(stored(&last.outcomes), [1_700_000_000_003]);
}

#[tokio::test(flavor = "local")]
async fn foreign_types_are_refused_and_change_nothing() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server).await;
    let (room, policy) = (room("lobby"), policy());
    let _: String = server.command(&["SET", "rc:{lobby}:s", "x"]);
    let error = a.publish(&room, &policy, &[idempotent("i", "x")]).await.expect_err("refused");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    assert_eq!(keys, ["rc:{lobby}:s"]);
}

#[tokio::test(flavor = "local")]
async fn a_full_memory_refuses_and_changes_nothing() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let (a, _events) = one(&server).await;
    let (b, mut events) = connect(&server.options("node-b"), 1024).await;
    let (room, policy) = (room("lobby"), policy());
    b.subscribe(&room).await.expect("subscribed");
    a.publish(&room, &policy, &plains(0..1)).await.expect("published");
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = a.publish(&room, &policy, &[idempotent("i", "x")]).await.expect_err("refused");
    assert_eq!(error, BrokerError::StorageFull);
    let ops = [enter(ClientId::random(), "Ann")];
    assert_eq!(a.presence(&room, call(&ops, 0)).await.expect_err("refused"), BrokerError::StorageFull);
    // What is kept nowhere still goes through, and reading works.
    a.broadcast(&room, &plains(1..2)).await.expect("sent");
    assert_eq!(a.history(&room, Range::Latest { limit: 9 }).await.expect("history").top, 1);
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let published = a.publish(&room, &policy, &[idempotent("i", "x")]).await.expect("published");
    assert_eq!(stored(&published.outcomes), [2]);
    assert_eq!(first_seq(&events.messages().await), 1);
    assert!(matches!(events.messages().await.kind, Kind::Ephemeral { .. }));
    assert_eq!(first_seq(&events.messages().await), 2);
}

#[tokio::test(flavor = "local")]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server).await;
    let (room, policy) = (room("lobby"), policy());
    for seq in 1..=3 {
        let _: String = server.command(&["SCRIPT", "FLUSH"]);
        let published = a.publish(&room, &policy, &plains(0..1)).await.expect("published");
        assert_eq!(stored(&published.outcomes), [seq]);
        let history = a.history(&room, Range::Latest { limit: 9 }).await.expect("history");
        assert_eq!(history.top, seq);
    }
}

#[tokio::test(flavor = "local")]
async fn keys_expire_and_an_empty_room_leaves_none() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server).await;
    let (room, policy) = (room("lobby"), policy());
    a.publish(&room, &policy, &[idempotent("i", "x")]).await.expect("published");
    let client = ClientId::random();
    a.presence(&room, call(&[enter(client, "Ann")], 0)).await.expect("presence");
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort_unstable();
    let expected = ["rc:{lobby}:i::i", "rc:{lobby}:m", "rc:{lobby}:p", "rc:{lobby}:pv", "rc:{lobby}:s"];
    assert_eq!(keys, expected);
    for key in expected {
        let ttl: i64 = server.command(&["PTTL", key]);
        // Members are not forgotten by the clock: nodes hold leases on them.
        assert_eq!(ttl > 0, !key.contains(":p"), "{key} lives for {ttl} ms");
    }
    a.presence(&room, call(&[leave(client, "Ann")], 0)).await.expect("presence");
    for key in ["rc:{lobby}:p", "rc:{lobby}:pv"] {
        assert_eq!(server.command::<i64>(&["EXISTS", key]), 0);
    }
}

#[tokio::test(flavor = "local")]
async fn hostile_payloads_are_counted_and_ignored() {
    let server = Server::start(&[]);
    let metrics = Metrics::new();
    let (sender, mut events) = Events::channel("node-a", 64);
    let a = RedisBroker::connect(&server.options("node-a"), sender, BrokerStats::new(&metrics)).expect("good options");
    let (room, policy) = (room("lobby"), policy());
    a.subscribe(&room).await.expect("subscribed");
    let payloads = [
        ("", "version"),
        ("hello", "version"),
        ("RC9 D lobby evil 0a 1 1 1\n", "version"),
        ("RC1 D other evil 0a 1 1 1\n", "room"),
        ("RC1 D lobby evil 0a 99999999999999999999 1 1\n", "number"),
        ("RC1 D lobby evil 0a 1 1 1000000\n", "count"),
        ("RC1 D lobby evil 0a 1 1 1\n\u{7f}\u{7f}\u{7f}\u{7f}", "length"),
        ("RC1 E lobby e{v}il 1 1\n", "header"),
    ];
    for (payload, _) in payloads {
        assert_eq!(server.command::<i64>(&["PUBLISH", "rc:{lobby}", payload]), 1);
    }
    let (b, _from_b) = connect(&server.options("node-b"), 64).await;
    b.publish(&room, &policy, &plains(0..1)).await.expect("published");
    assert_eq!(first_seq(&events.messages().await), 1);
    let ignored = |reason: &str| metrics.broker.ignored.with_label_values(&[reason]).get();
    for (payload, reason) in payloads {
        let expected = payloads.iter().filter(|(_, other)| *other == reason).count() as u64;
        assert_eq!(ignored(reason), expected, "{payload:?}");
    }
}
