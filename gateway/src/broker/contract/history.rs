//! Reading a room's history: ranges, trimming, expiry, terms.

use super::*;
use crate::broker::{BrokerError, History, MAX_TOPS, Range, Top};

everywhere!(
    ranges_cut_batches_at_both_ends,
    an_unknown_room_has_no_history,
    what_is_read_is_what_was_published,
    old_messages_are_trimmed,
    history_expires_and_a_new_term_begins,
    numbers_beyond_reason_are_harmless,
    many_rooms_say_where_they_stand,
);

fn seqs(history: &History) -> Vec<u64> {
    history.messages.iter().map(|message| message.seq).collect()
}

async fn ranges_cut_batches_at_both_ends(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    // Batches end at 5, 6, 16 and 20.
    for batch in [0..5, 5..6, 6..16, 16..20] {
        pair.a.publish(&room, &policy, &plains(batch)).await.expect("published");
    }
    let cases = [
        (Range::Latest { limit: 3 }, 18..=20),
        (Range::Latest { limit: 8 }, 13..=20),
        (Range::Latest { limit: 500 }, 1..=20),
        (Range::After { seq: 0, limit: 3 }, 1..=3),
        (Range::After { seq: 3, limit: 4 }, 4..=7),
        (Range::After { seq: 5, limit: 1 }, 6..=6),
        (Range::After { seq: 15, limit: 100 }, 16..=20),
        (Range::Before { seq: 21, limit: 2 }, 19..=20),
        (Range::Before { seq: 16, limit: 3 }, 13..=15),
        (Range::Before { seq: 4, limit: 100 }, 1..=3),
        (Range::Before { seq: 900, limit: 2 }, 19..=20),
    ];
    for (range, expected) in cases {
        for broker in [&pair.a, &pair.b] {
            let history = broker.history(&room, range).await.expect("history");
            assert_eq!(seqs(&history), expected.clone().collect::<Vec<u64>>(), "{range:?}");
            assert_eq!((history.first, history.top), (1, 20));
            for message in &history.messages {
                assert_eq!(message.record.data, format!("\"{}\"", message.seq - 1));
            }
        }
    }
    for range in [Range::After { seq: 20, limit: 5 }, Range::Before { seq: 1, limit: 5 }, Range::Latest { limit: 0 }] {
        let history = pair.b.history(&room, range).await.expect("history");
        assert_eq!((seqs(&history), history.top), (vec![], 20), "{range:?}");
        assert!(history.term.is_some());
    }
}

async fn an_unknown_room_has_no_history(pair: Pair) {
    for range in [Range::Latest { limit: 5 }, Range::After { seq: 3, limit: 5 }, Range::Before { seq: 3, limit: 5 }] {
        let history = pair.a.history(&room("nowhere"), range).await.expect("history");
        assert_eq!(history, History::default());
    }
}

async fn what_is_read_is_what_was_published(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    let signed = Record { user: Some("ann@example.com \"Zoë\"".into()), ..plain("c") };
    let longest = Record { user: Some("u".repeat(128).into()), name: "n".repeat(64).into(), ..plain("d") };
    let records = [idempotent("i", "a"), Record { echo: false, ..plain("b") }, signed, longest];
    let published = pair.a.publish(&room, &policy, &records).await.expect("published");
    let history = pair.b.history(&room, Range::Latest { limit: 5 }).await.expect("history");
    assert_eq!(history.term.as_ref(), Some(&published.term));
    for (seq, (message, record)) in (1..).zip(history.messages.iter().zip(&records)) {
        assert_eq!((message.seq, message.ts, &message.term), (seq, published.ts, &published.term));
        assert_eq!(message.record, *record);
    }
}

async fn old_messages_are_trimmed(pair: Pair) {
    let room = room("lobby");
    let policy = RoomPolicy { history_size: 10, ..policy() };
    for batch in 0..20 {
        pair.a.publish(&room, &policy, &plains(batch * 4..batch * 4 + 4)).await.expect("published");
        let history = pair.b.history(&room, Range::Latest { limit: 100 }).await.expect("history");
        let top = batch as u64 * 4 + 4;
        // At least what is promised, at most the batch that reaches over its edge.
        assert_eq!(history.top, top);
        assert!((top.min(10)..=13).contains(&(history.messages.len() as u64)), "{}", history.messages.len());
        assert_eq!(history.messages.first().map(|message| message.seq), Some(history.first));
        assert_eq!(seqs(&history), (history.first..=top).collect::<Vec<u64>>());
    }
    let missed = pair.b.history(&room, Range::After { seq: 0, limit: 100 }).await.expect("history");
    assert!(missed.first > 1 && missed.first <= 71);
}

async fn history_expires_and_a_new_term_begins(pair: Pair) {
    let room = room("lobby");
    let policy = RoomPolicy { history_ttl: Duration::from_millis(300), ..policy() };
    let before = pair.a.publish(&room, &policy, &[idempotent("i", "x"), plain("y")]).await.expect("published");
    let gone = timeout(DEADLINE, async {
        while pair.b.history(&room, Range::Latest { limit: 1 }).await.expect("history") != History::default() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("expired in time");
    // The id is remembered for longer than the history; alone it does not bring the room back.
    let again = pair.b.publish(&room, &policy, &[idempotent("i", "x")]).await.expect("published");
    let duplicate = Outcome::Duplicate { term: before.term.clone(), seq: 1 };
    assert_eq!((again.outcomes, again.term), (vec![duplicate], before.term.clone()));
    assert_eq!(pair.b.history(&room, Range::Latest { limit: 1 }).await.expect("history"), History::default());
    let after = pair.b.publish(&room, &policy, &[plain("z")]).await.expect("published");
    assert_ne!(after.term, before.term);
    assert_eq!(stored(&after.outcomes), [1]);
}

async fn numbers_beyond_reason_are_harmless(pair: Pair) {
    let (room, policy) = (room("lobby"), policy());
    pair.a.publish(&room, &policy, &plains(0..3)).await.expect("published");
    let (seq, limit) = (u64::MAX, usize::MAX);
    for (range, count) in [
        (Range::Latest { limit }, 3),
        (Range::After { seq, limit }, 0),
        (Range::After { seq: 0, limit }, 3),
        (Range::Before { seq, limit }, 3),
        (Range::Before { seq: 0, limit }, 0),
    ] {
        let history = pair.a.history(&room, range).await.expect("history");
        assert_eq!((history.messages.len(), history.top), (count, 3), "{range:?}");
    }
}

async fn many_rooms_say_where_they_stand(pair: Pair) {
    let rooms: Vec<RoomName> = (0..MAX_TOPS).map(|number| room(&format!("r-{number}"))).collect();
    let term = pair.a.publish(&rooms[7], &policy(), &plains(0..3)).await.expect("published").term;
    pair.b.publish(&rooms[255], &policy(), &plains(0..1)).await.expect("published");
    let tops: Vec<Top> = pair.b.tops(&rooms).await.expect("tops").into_iter().flatten().collect();
    assert_eq!(tops.len(), MAX_TOPS);
    assert_eq!(tops[7], Top { term: Some(term), seq: 3 });
    assert_eq!(tops[255].seq, 1);
    assert_eq!(tops.iter().filter(|top| **top == Top::default()).count(), MAX_TOPS - 2);
    assert_eq!(pair.a.tops(&[]).await.expect("nothing"), []);
    let more: Vec<RoomName> = rooms.iter().cloned().chain([room("one-more")]).collect();
    assert!(matches!(pair.a.tops(&more).await, Err(BrokerError::Rejected(_))));
}

#[tokio::test(flavor = "local")]
async fn a_foreign_key_hides_no_other_room() {
    let server = Server::start(&[]);
    let (a, _from_a) = connect(&server.options("node-a"), 64).await;
    let rooms = [room("spoiled"), room("sound")];
    let _: String = server.command(&["SET", "rc:{spoiled}:m", "not a hash"]);
    a.publish(&rooms[1], &policy(), &plains(0..2)).await.expect("published");
    let seqs: Vec<u64> = a.tops(&rooms).await.expect("tops").iter().flatten().map(|top| top.seq).collect();
    assert_eq!(seqs, [0, 2]);
}
