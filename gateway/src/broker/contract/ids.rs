//! Ids: whose they are, and what is remembered of those who number their messages.

use super::*;
use crate::broker::ids::{RANGES, RESULTS};
use crate::broker::{BrokerError, Published, Range};

mod bounds;
mod hostile;
mod model;

everywhere!(
    a_number_is_stored_once_over_all_nodes,
    two_users_do_not_share_their_ids,
    a_hole_is_stored_when_it_is_retried,
    what_only_looks_numbered_is_an_id_like_any_other,
);

fn numbered(producer: &str, number: u64) -> Record {
    idempotent(&format!("{producer}#{number}"), "x")
}

fn by(user: &str, record: Record) -> Record {
    Record { subject: Subject::of(user), ..record }
}

async fn publish(broker: &dyn Broker, records: &[Record]) -> Published {
    broker.publish(&room("lobby"), &policy(), records).await.expect("published")
}

async fn outcome(broker: &dyn Broker, record: Record) -> Outcome {
    publish(broker, &[record]).await.outcomes.remove(0)
}

/// Numbers in batches of at most `step`; all of them are new.
async fn store_all(broker: &dyn Broker, numbers: impl Iterator<Item = u64>, step: usize) {
    let records: Vec<Record> = numbers.map(|number| numbered("p", number)).collect();
    for batch in records.chunks(step) {
        stored(&publish(broker, batch).await.outcomes);
    }
}

async fn a_number_is_stored_once_over_all_nodes(mut pair: Pair) {
    pair.b.subscribe(&room("lobby")).await.expect("subscribed");
    let first = publish(&*pair.a, &[numbered("p", 1), numbered("p", 2)]).await;
    assert_eq!(stored(&first.outcomes), [1, 2]);
    let duplicate = |seq| Outcome::Duplicate { term: first.term.clone(), seq };
    let again = publish(&*pair.b, &[numbered("p", 2), numbered("p", 1)]).await;
    assert_eq!((again.outcomes, again.term), (vec![duplicate(2), duplicate(1)], first.term.clone()));
    // Within a call, out of order, beside others.
    let records = [
        numbered("p", 5),
        numbered("q", 5),
        idempotent("p", "x"),
        numbered("p", 4),
        numbered("p", 5),
        plain("x"),
        numbered("p", 1),
        numbered("q", 5),
        numbered("p", 4),
    ];
    let stored = |seq| Outcome::Stored { seq };
    let expected =
        [stored(3), stored(4), stored(5), stored(6), duplicate(3), stored(7), duplicate(1), duplicate(4), duplicate(6)];
    assert_eq!(publish(&*pair.b, &records).await.outcomes, expected);
    for number in [1, 2, 4, 5] {
        assert!(matches!(outcome(&*pair.a, numbered("p", number)).await, Outcome::Duplicate { .. }), "{number}");
    }
    // Another room has numbers of its own.
    let elsewhere = pair.a.publish(&room("elsewhere"), &policy(), &[numbered("p", 1)]).await.expect("published");
    assert_eq!(elsewhere.outcomes, [stored(1)]);
    let history = pair.a.history(&room("lobby"), Range::Latest { limit: 20 }).await.expect("history");
    assert_eq!((history.top, history.messages.len()), (7, 7));
    assert_eq!(first_seq(&pair.from_b.messages().await), 1);
}

async fn two_users_do_not_share_their_ids(pair: Pair) {
    let users = ["ann", "bo", "", "ann:id", "{lobby}"];
    for id in ["id", "p#7"] {
        let first: Vec<Record> = users.iter().map(|user| by(user, idempotent(id, user))).collect();
        let first = [&first[..], &[idempotent(id, "nobody")]].concat();
        let published = publish(&*pair.a, &first).await;
        let seqs = stored(&published.outcomes);
        // A retry is somebody's own, through whichever node.
        for (record, seq) in first.iter().zip(seqs) {
            let duplicate = Outcome::Duplicate { term: published.term.clone(), seq };
            assert_eq!(outcome(&*pair.b, record.clone()).await, duplicate);
        }
    }
    // What is put together of user and id is not mistaken for another user's.
    for (user, id) in
        [("an", "n:id"), ("ann", ":id"), ("a", "nn:p#7"), ("nobody", "id"), ("bo", &Subject::of("ann").tag())]
    {
        stored(&[outcome(&*pair.a, by(user, idempotent(id, "x"))).await]);
    }
    // Who it was is not passed on.
    let history = pair.b.history(&room("lobby"), Range::Latest { limit: 50 }).await.expect("history");
    assert!(history.messages.iter().all(|message| message.record.subject == Subject::NOBODY));
}

async fn a_hole_is_stored_when_it_is_retried(pair: Pair) {
    store_all(&*pair.a, [1, 2, 4, 6, 7, 8].into_iter(), 2).await;
    assert_eq!(outcome(&*pair.b, numbered("p", 5)).await, Outcome::Stored { seq: 7 });
    assert_eq!(outcome(&*pair.a, numbered("p", 3)).await, Outcome::Stored { seq: 8 });
    for (seq, number) in [1, 2, 4, 6, 7, 8, 5, 3].into_iter().enumerate() {
        let known = outcome(&*pair.b, numbered("p", number)).await;
        assert!(matches!(known, Outcome::Duplicate { seq: known, .. } if known == seq as u64 + 1), "{known:?}");
    }
    let largest = (1 << 53) - 1;
    assert_eq!(outcome(&*pair.b, numbered("p", largest)).await, Outcome::Stored { seq: 9 });
    // Going on below is unusual, and as good.
    assert_eq!(outcome(&*pair.b, numbered("p", 0)).await, Outcome::Stored { seq: 10 });
    assert_eq!(outcome(&*pair.b, numbered("p", 9)).await, Outcome::Stored { seq: 11 });
    for (number, seq) in [(largest, 9), (0, 10), (9, 11)] {
        let known = outcome(&*pair.a, numbered("p", number)).await;
        assert!(matches!(known, Outcome::Duplicate { seq: known, .. } if known == seq), "{number}: {known:?}");
    }
    assert_eq!(outcome(&*pair.a, numbered("p", largest - 1)).await, Outcome::Stored { seq: 12 });
}

async fn what_only_looks_numbered_is_an_id_like_any_other(pair: Pair) {
    let long = "x".repeat(65);
    let ids = [
        "p#",
        "#1",
        "#",
        "p#01",
        "p#-1",
        "p#9007199254740992",
        "p#18446744073709551617",
        "p#1#1",
        "p 1#1",
        "{p}#1",
        "\u{661}#1",
        "p#\u{661}",
        "p:#1",
        "p\0#1",
        &format!("{long}#1"),
        &format!("{long}#2"),
    ];
    let records: Vec<Record> = ids.iter().map(|id| idempotent(id, id)).collect();
    let seqs = stored(&publish(&*pair.a, &records).await.outcomes);
    for (record, seq) in records.iter().zip(seqs) {
        let known = outcome(&*pair.b, record.clone()).await;
        assert!(matches!(known, Outcome::Duplicate { seq: known, .. } if known == seq), "{}: {known:?}", record.id);
    }
    for number in [0, 1, 2] {
        stored(&[outcome(&*pair.b, numbered("p", number)).await]);
    }
}
