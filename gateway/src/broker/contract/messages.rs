//! Publishing, deduplication, broadcasting, subscriptions.

use super::*;
use crate::broker::{BrokerError, MAX_BATCH};
use crate::telemetry::trace::TraceParent;

everywhere!(
    seqs_start_at_one_and_have_no_holes,
    a_batch_is_contiguous_and_arrives_whole,
    a_retry_on_another_node_is_a_duplicate,
    duplicates_within_a_batch_are_found,
    an_id_is_forgotten_after_its_window,
    generated_ids_are_not_remembered,
    ephemeral_messages_reach_the_others,
    unsubscribing_ends_events,
    subscribing_twice_delivers_once,
    subscriptions_survive_churn,
    rooms_do_not_meet,
    batches_out_of_bounds_are_rejected,
);

async fn seqs_start_at_one_and_have_no_holes(mut pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    pair.b.subscribe(&room).await.expect("subscribed");
    let publish = async |broker: &dyn Broker| {
        let mut seqs = Vec::new();
        for number in 0..50 {
            let published = broker.publish(&room, &policy, &[plain(&number.to_string())]).await.expect("published");
            seqs.extend(stored(&published.outcomes));
        }
        seqs
    };
    let (of_a, of_b) = tokio::join!(publish(&*pair.a), publish(&*pair.b));
    assert!(of_a.is_sorted() && of_b.is_sorted());
    let mut all = [of_a.clone(), of_b].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<u64>>());
    for seq in of_a {
        assert_eq!(first_seq(&pair.from_b.messages().await), seq);
    }
}

async fn a_batch_is_contiguous_and_arrives_whole(mut pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    pair.b.subscribe(&room).await.expect("subscribed");
    pair.a.publish(&room, &policy, &[plain("before")]).await.expect("published");
    let mut records = plains(0..16);
    records[3].trace = Some(TraceParent([9; 25]));
    records[4].echo = false;
    records[5] = idempotent("an id: {with} anything\r\n☃", "text");
    let published = pair.a.publish(&room, &policy, &records).await.expect("published");
    assert_eq!(stored(&published.outcomes), (2..=17).collect::<Vec<u64>>());

    assert_eq!(first_seq(&pair.from_b.messages().await), 1);
    let envelope = pair.from_b.messages().await;
    let kind = Kind::Durable { term: published.term, first_seq: 2, ts: published.ts };
    assert_eq!(envelope, Envelope { node: node("node-a"), room, kind, records });
}

async fn a_retry_on_another_node_is_a_duplicate(mut pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    pair.b.subscribe(&room).await.expect("subscribed");
    pair.a.subscribe(&room).await.expect("subscribed");
    pair.a.publish(&room, &policy, &[plain("first")]).await.expect("published");
    let first = pair.a.publish(&room, &policy, &[idempotent("id", "x")]).await.expect("published");
    assert_eq!(first.outcomes, [Outcome::Stored { seq: 2 }]);
    let again = pair.b.publish(&room, &policy, &[idempotent("id", "x")]).await.expect("published");
    assert_eq!(again.outcomes, [Outcome::Duplicate { term: first.term.clone(), seq: 2 }]);
    assert_eq!(again.term, first.term);
    // The same id elsewhere is another message.
    let elsewhere = super::room("elsewhere");
    let other = pair.b.publish(&elsewhere, &policy, &[idempotent("id", "x")]).await.expect("published");
    assert_eq!(other.outcomes, [Outcome::Stored { seq: 1 }]);

    let mixed = [idempotent("id", "x"), plain("new"), idempotent("id-2", "y")];
    let mixed = pair.b.publish(&room, &policy, &mixed).await.expect("published");
    let duplicate = Outcome::Duplicate { term: first.term, seq: 2 };
    assert_eq!(mixed.outcomes, [duplicate, Outcome::Stored { seq: 3 }, Outcome::Stored { seq: 4 }]);
    // Nothing of a duplicate was delivered: what follows the first two on either node is the new batch.
    let envelope = pair.from_a.messages().await;
    assert_eq!((first_seq(&envelope), envelope.records.len()), (3, 2));
    assert_eq!(first_seq(&pair.from_b.messages().await), 1);
    assert_eq!(first_seq(&pair.from_b.messages().await), 2);
    let history = pair.a.history(&room, crate::broker::Range::Latest { limit: 10 }).await.expect("history");
    assert_eq!(history.messages.len(), 4);
}

async fn duplicates_within_a_batch_are_found(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    let records = [idempotent("x", "1"), plain("2"), idempotent("x", "1"), idempotent("y", "3"), idempotent("x", "1")];
    let published = pair.a.publish(&room, &policy, &records).await.expect("published");
    let duplicate = Outcome::Duplicate { term: published.term, seq: 1 };
    let stored = |seq| Outcome::Stored { seq };
    assert_eq!(published.outcomes, [stored(1), stored(2), duplicate.clone(), stored(3), duplicate]);
}

async fn an_id_is_forgotten_after_its_window(pair: Pair) {
    let room = room("lobby");
    let policy = RoomPolicy { idempotency_window: Duration::from_millis(300), ..policy() };
    let publish = async || {
        let published = pair.a.publish(&room, &policy, &[idempotent("id", "x")]).await.expect("published");
        published.outcomes[0].clone()
    };
    assert_eq!(publish().await, Outcome::Stored { seq: 1 });
    assert!(matches!(publish().await, Outcome::Duplicate { seq: 1, .. }));
    let again = timeout(DEADLINE, async {
        loop {
            match publish().await {
                Outcome::Duplicate { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                outcome => return outcome,
            }
        }
    });
    assert_eq!(again.await.expect("forgotten in time"), Outcome::Stored { seq: 2 });
}

async fn generated_ids_are_not_remembered(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    let record = plain("x");
    let published = pair.a.publish(&room, &policy, &[record.clone(), record]).await.expect("published");
    assert_eq!(stored(&published.outcomes), [1, 2]);
}

async fn ephemeral_messages_reach_the_others(mut pair: Pair) {
    let room = room("cursors");
    pair.b.subscribe(&room).await.expect("subscribed");
    let records = plains(0..3);
    pair.a.broadcast(&room, &records).await.expect("sent");
    let envelope = pair.from_b.messages().await;
    assert!(matches!(envelope.kind, Kind::Ephemeral { ts } if ts > 1_600_000_000_000));
    assert_eq!((envelope.node, envelope.room, envelope.records), (node("node-a"), room.clone(), records));
    let history = pair.b.history(&room, crate::broker::Range::Latest { limit: 10 }).await.expect("history");
    assert_eq!(history, crate::broker::History::default());
}

async fn unsubscribing_ends_events(mut pair: Pair) {
    let (left, kept) = (room("left"), room("kept"));
    pair.b.subscribe(&left).await.expect("subscribed");
    pair.a.broadcast(&left, &plains(0..1)).await.expect("sent");
    assert_eq!(pair.from_b.messages().await.room, left);
    pair.b.unsubscribe(&left);
    // Wishes are followed in order: with this acknowledged, the other is gone.
    pair.b.subscribe(&kept).await.expect("subscribed");
    pair.b.subscribe(&room("later")).await.expect("subscribed");
    pair.a.broadcast(&left, &plains(0..1)).await.expect("sent");
    pair.a.broadcast(&kept, &plains(0..1)).await.expect("sent");
    assert_eq!(pair.from_b.messages().await.room, kept);
    pair.b.subscribe(&left).await.expect("subscribed");
    pair.a.broadcast(&left, &plains(0..1)).await.expect("sent");
    assert_eq!(pair.from_b.messages().await.room, left);
}

async fn subscribing_twice_delivers_once(mut pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    let (one, two) = tokio::join!(pair.b.subscribe(&room), pair.b.subscribe(&room));
    one.and(two).expect("subscribed");
    pair.b.subscribe(&room).await.expect("subscribed");
    for seq in 1..=3 {
        pair.a.publish(&room, &policy, &[plain("x")]).await.expect("published");
        assert_eq!(first_seq(&pair.from_b.messages().await), seq);
    }
}

async fn subscriptions_survive_churn(mut pair: Pair) {
    let room = room("lobby");
    pair.b.subscribe(&room).await.expect("subscribed");
    for round in 0..200_usize {
        // Coming back at every moment of leaving, from not begun to done.
        pair.b.unsubscribe(&room);
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        if round % 3 == 0 {
            tokio::time::sleep(Duration::from_micros(round as u64 * 5)).await;
        }
        pair.b.subscribe(&room).await.expect("subscribed");
        pair.a.broadcast(&room, &plains(round..round + 1)).await.expect("sent");
        assert_eq!(pair.from_b.messages().await.records[0].data, format!("\"{round}\""));
    }
}

async fn rooms_do_not_meet(mut pair: Pair) {
    let policy = policy();
    let names: Vec<RoomName> = (0..40).map(|number| room(&format!("r-{number}"))).collect();
    for room in &names[..20] {
        pair.b.subscribe(room).await.expect("subscribed");
    }
    for room in names.iter().rev() {
        let published = pair.a.publish(room, &policy, &[plain(room.as_str())]).await.expect("published");
        assert_eq!(stored(&published.outcomes), [1]);
    }
    // There is no order across rooms: on a cluster they come from several servers.
    let mut heard = Vec::new();
    for _ in 0..20 {
        heard.push(pair.from_b.messages().await.room);
    }
    heard.sort_by_key(|room| names.iter().position(|name| name == room));
    assert_eq!(heard, names[..20]);
}

async fn batches_out_of_bounds_are_rejected(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    let long_id = Record { id: "i".repeat(129).into(), ..plain("x") };
    let long_user = Record { user: Some("u".repeat(129).into()), ..plain("x") };
    let no_user = Record { user: Some("".into()), ..plain("x") };
    let long_name = Record { name: "n".repeat(65).into(), ..plain("x") };
    let too_many = plains(0..MAX_BATCH + 1);
    for records in [vec![], too_many, vec![long_id], vec![long_name], vec![long_user], vec![no_user]] {
        let error = pair.a.publish(&room, &policy, &records).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
        let error = pair.a.broadcast(&room, &records).await.expect_err("refused");
        assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
    }
    let published = pair.a.publish(&room, &policy, &plains(0..MAX_BATCH)).await.expect("published");
    assert_eq!(stored(&published.outcomes).last(), Some(&(MAX_BATCH as u64)));
}
