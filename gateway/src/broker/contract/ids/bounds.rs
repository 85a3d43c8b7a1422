//! How much is remembered of those who number their messages, for how long, and what a rollback leaves of it.

use super::*;

on_both!(
    the_newest_results_are_always_told,
    what_is_too_long_ago_is_known_all_the_same,
    of_too_many_holes_the_lowest_are_given_up,
    a_producer_is_forgotten_after_its_window,
    a_producer_that_goes_on_is_remembered,
    a_number_that_was_lost_is_stored_again,
    results_name_the_term_of_the_first_time,
    numbers_are_remembered_for_longer_than_the_history,
);

async fn the_newest_results_are_always_told(pair: Pair) {
    let many = RESULTS as u64;
    store_all(&*pair.a, 1..many, 100).await;
    for number in many..many * 3 {
        let records = [numbered("p", number), numbered("p", number - many + 1)];
        let outcomes = publish(&*pair.a, &records[..1]).await.outcomes;
        assert_eq!(stored(&outcomes), [number]);
        let oldest = outcome(&*pair.b, records[1].clone()).await;
        assert!(matches!(oldest, Outcome::Duplicate { seq, .. } if seq == number - many + 1), "{number}: {oldest:?}");
    }
}

async fn what_is_too_long_ago_is_known_all_the_same(pair: Pair) {
    let count = RESULTS as u64 * 5;
    store_all(&*pair.a, 1..=count, 100).await;
    for number in [count - RESULTS as u64 + 1, count - 100, count] {
        let known = outcome(&*pair.b, numbered("p", number)).await;
        assert!(matches!(known, Outcome::Duplicate { seq, .. } if seq == number), "{number}: {known:?}");
    }
    for number in [1, 2, 500] {
        assert_eq!(outcome(&*pair.b, numbered("p", number)).await, Outcome::Known);
    }
    // With nothing but such in a call, also where the room's own keys are gone.
    assert_eq!(outcome(&*pair.b, numbered("p", 0)).await, Outcome::Stored { seq: count + 1 });
    assert_eq!(outcome(&*pair.b, numbered("p", count + 1)).await, Outcome::Stored { seq: count + 2 });
}

async fn of_too_many_holes_the_lowest_are_given_up(pair: Pair) {
    // Every other number: each is a range by itself.
    let count = RESULTS as u64 * 6;
    store_all(&*pair.a, (1..=count).map(|number| number * 2), 100).await;
    let last = count * 2;
    // Neither stored, which may be the second time, nor called a duplicate, which may be a loss.
    assert_eq!(
        publish(&*pair.b, &[numbered("p", 2), numbered("p", 3)]).await.outcomes,
        [Outcome::Stale, Outcome::Stale]
    );
    let latest = last - 2 * (RANGES as u64 - 1);
    assert_eq!(outcome(&*pair.b, numbered("p", latest + 1)).await, Outcome::Stored { seq: count + 1 });
    for number in [latest, latest + 1, last, last - 2 * (RESULTS as u64 - 10)] {
        let known = outcome(&*pair.b, numbered("p", number)).await;
        assert!(matches!(known, Outcome::Duplicate { .. }), "{number}: {known:?}");
    }
    // It harms nobody else, and the producer neither.
    stored(
        &publish(&*pair.b, &[numbered("q", 3), numbered("p", last + 1), by("ann", numbered("p", 3))]).await.outcomes,
    );
    let history = pair.a.history(&room("lobby"), Range::Latest { limit: 1 }).await.expect("history");
    assert_eq!(history.top, count + 4);
}

async fn a_producer_is_forgotten_after_its_window(pair: Pair) {
    let policy = RoomPolicy { idempotency_window: Duration::from_millis(300), ..policy() };
    let publish = async |number| {
        let published = pair.a.publish(&room("lobby"), &policy, &[numbered("p", number)]).await.expect("published");
        published.outcomes[0].clone()
    };
    assert_eq!(publish(1).await, Outcome::Stored { seq: 1 });
    let again = timeout(DEADLINE, async {
        loop {
            match publish(1).await {
                Outcome::Duplicate { seq: 1, .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                outcome => return outcome,
            }
        }
    });
    // Asking does not keep it.
    assert_eq!(again.await.expect("forgotten in time"), Outcome::Stored { seq: 2 });
}

async fn a_producer_that_goes_on_is_remembered(pair: Pair) {
    let window = Duration::from_secs(1);
    let policy = RoomPolicy { idempotency_window: window, ..policy() };
    let publish = async |record: Record| {
        let published = pair.a.publish(&room("lobby"), &policy, &[record]).await.expect("published");
        published.outcomes[0].clone()
    };
    let attempt = async |producer: &str| {
        let begin = std::time::Instant::now();
        stored(&[publish(numbered(producer, 1)).await]);
        let mut number = 1;
        // From when a message is sent, so not later than it is stored, until the next is answered.
        let mut last = begin;
        while begin.elapsed() < window * 2 {
            tokio::time::sleep(window / 20).await;
            let sent = std::time::Instant::now();
            number += 1;
            let outcome = publish(numbered(producer, number)).await;
            if last.elapsed() > window / 2 {
                return false; // The machine stood still: this says nothing.
            }
            stored(&[outcome]);
            last = sent;
        }
        let known = publish(numbered(producer, 1)).await;
        if last.elapsed() > window / 2 {
            return false;
        }
        assert!(matches!(known, Outcome::Duplicate { .. }), "{known:?}");
        true
    };
    let attempts = async {
        let mut tried = 0;
        while !attempt(&format!("p-{tried}")).await {
            tried += 1;
        }
    };
    timeout(DEADLINE * 3, attempts).await.expect("a machine that does not stand still");
}

/// Stream and memory of numbers are of one shard and go back together: what was acked and lost is not a duplicate.
async fn a_number_that_was_lost_is_stored_again(pair: Pair) {
    let lobby = room("lobby");
    store_all(&*pair.a, 1..=5, 5).await;
    let saved = pair.save(&lobby).await;
    store_all(&*pair.a, 6..=700, 100).await;
    pair.restore(&saved);
    let retries = [numbered("p", 5), numbered("p", 6), numbered("p", 400), numbered("p", 700), numbered("p", 6)];
    let published = publish(&*pair.b, &retries).await;
    let seqs: Vec<Option<u64>> = published.outcomes.iter().map(seq_of).collect();
    assert_eq!(seqs, [Some(5), Some(6), Some(7), Some(8), Some(6)]);
    let are_new = published.outcomes.iter().map(|outcome| matches!(outcome, Outcome::Stored { .. }));
    assert_eq!(are_new.collect::<Vec<_>>(), [false, true, true, true, false]);
    let history = pair.a.history(&lobby, Range::Latest { limit: 9 }).await.expect("history");
    let ids: Vec<&str> = history.messages.iter().map(|message| &*message.record.id).collect();
    assert_eq!(ids, ["p#1", "p#2", "p#3", "p#4", "p#5", "p#6", "p#400", "p#700"]);
}

fn seq_of(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Stored { seq } | Outcome::Duplicate { seq, .. } => Some(*seq),
        Outcome::Known | Outcome::Stale => None,
    }
}

async fn results_name_the_term_of_the_first_time(pair: Pair) {
    let mut terms = Vec::new();
    for number in 1..=6 {
        let published = publish(&*pair.a, &[numbered("p", number), numbered("p", number + 100)]).await;
        stored(&published.outcomes);
        terms.push(published.term);
        pair.restore(&pair.save(&room("lobby")).await);
    }
    for (at, term) in terms.iter().enumerate() {
        let (number, seq) = (at as u64 + 1, at as u64 * 2 + 1);
        let duplicate = |seq| Outcome::Duplicate { term: term.clone(), seq };
        let again = publish(&*pair.b, &[numbered("p", number), numbered("p", number + 100)]).await;
        assert_eq!(again.outcomes, [duplicate(seq), duplicate(seq + 1)]);
    }
}

async fn numbers_are_remembered_for_longer_than_the_history(pair: Pair) {
    let policy = RoomPolicy { history_ttl: Duration::from_millis(50), ..policy() };
    let records: Vec<Record> = (1..=700).map(|number| numbered("p", number)).collect();
    let first = pair.a.publish(&room("lobby"), &policy, &records).await.expect("published");
    let gone = async {
        while pair.a.history(&room("lobby"), Range::Latest { limit: 1 }).await.expect("history").term.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, gone).await.expect("the history expires");
    let known = publish(&*pair.b, &[numbered("p", 1), numbered("p", 700)]).await;
    assert_eq!(known.outcomes, [Outcome::Known, Outcome::Duplicate { term: first.term.clone(), seq: 700 }]);
    assert_eq!(publish(&*pair.b, &[numbered("p", 1)]).await.outcomes, [Outcome::Known]);
    let next = publish(&*pair.b, &[numbered("p", 701)]).await;
    assert_eq!((stored(&next.outcomes), next.term == first.term), (vec![1], false));
}

// What only a look into Redis shows.

/// The value of a producer.
fn value(server: &Server, producer: &str) -> Option<String> {
    server.command(&["GET", &format!("rc:{{lobby}}:n::{producer}")])
}

#[tokio::test(flavor = "local")]
async fn what_is_kept_of_a_producer_is_bounded() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    for (producer, step, backwards) in [("run", 1, false), ("holes", 1_000_000_000_000, false), ("back", 3, true)] {
        let mut longest = 0;
        for batch in 0..30 {
            let numbers =
                (batch * 100..batch * 100 + 100).map(|at| if backwards { 9000 - at * step } else { at * step });
            let records: Vec<Record> = numbers.map(|number| numbered(producer, number)).collect();
            publish(&a, &records).await;
            longest = longest.max(value(&server, producer).expect("remembered").len());
        }
        assert!((3000..20_000).contains(&longest), "{producer}: {longest}");
        let ttl: i64 = server.command(&["PTTL", &format!("rc:{{lobby}}:n::{producer}")]);
        assert!((1..=60_000).contains(&ttl), "{producer} lives for {ttl} ms");
    }
    assert!(value(&server, "run").expect("remembered").contains(";0-"), "one range");
}

/// Run with `--nocapture` for the figures.
#[tokio::test(flavor = "local")]
async fn numbers_take_a_fraction_of_what_ids_take() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let memory = |pattern: &str| {
        let keys: Vec<String> = server.command(&["KEYS", pattern]);
        keys.iter().map(|key| server.command::<u64>(&["MEMORY", "USAGE", key])).sum::<u64>()
    };
    for count in [1, 10, 100, 300, 1000] {
        let _: String = server.command(&["FLUSHALL"]);
        for number in 0..count {
            publish(&a, &[idempotent(&format!("0000beef-7-{number}"), "x"), numbered("0000beef-7", number)]).await;
        }
        let (ids, numbers) = (memory("rc:{lobby}:i:*"), memory("rc:{lobby}:n:*"));
        println!("{count} messages: {ids} bytes as ids, {numbers} as numbers");
        assert!(count < 100 || numbers * 5 < ids, "{count} messages: {ids} bytes as ids, {numbers} as numbers");
    }
}

#[tokio::test(flavor = "local")]
async fn no_more_is_given_up_than_has_to_be() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let mut floors = vec![0];
    for number in (0..2000).map(|number| number * 2) {
        stored(&publish(&a, &[numbered("p", number)]).await.outcomes);
        let value = value(&server, "p").expect("remembered");
        let floor: u64 = value.split([' ', ';']).nth(2).expect("a floor").parse().expect("a number");
        if floors.last() != Some(&floor) {
            // The lowest of the 32 highest ranges is `number` - 62, and what was given up ends at `number` - 64.
            assert_eq!(floor, number - 63, "{value}");
            floors.push(floor);
        }
    }
    assert!((3..10).contains(&floors.len()), "seldom: {floors:?}");
}

#[tokio::test(flavor = "local")]
async fn a_call_that_is_refused_leaves_no_number() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    stored(&publish(&a, &[numbered("p", 1)]).await.outcomes);
    let before = value(&server, "p");
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for number in [2, 3] {
        let records = [numbered("p", number), numbered("q", number)];
        let error = a.publish(&room("lobby"), &policy(), &records).await.expect_err("refused");
        assert_eq!(error, BrokerError::StorageFull);
    }
    assert_eq!((value(&server, "p"), value(&server, "q")), (before, None));
    // Who asks again is told all the same.
    assert!(matches!(outcome(&a, numbered("p", 1)).await, Outcome::Duplicate { .. }));
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let records = [numbered("p", 3), numbered("p", 2), numbered("q", 2)];
    assert_eq!(stored(&publish(&a, &records).await.outcomes), [2, 3, 4]);
}

#[tokio::test(flavor = "local")]
async fn a_value_that_is_not_ours_counts_as_none() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let values =
        ["", "x", "0a 4096 0;", "0a 4096 0;;@0a", "0a 4096 0;1-2;@0a 5", ";;@ 1:1", "0a x 0;;@0a 1:1", "\0@ 1:1^"];
    for (at, foreign) in values.iter().enumerate() {
        let _: String = server.command(&["SET", "rc:{lobby}:n::p", foreign]);
        let number = at as u64;
        assert_eq!(stored(&publish(&a, &[numbered("p", number)]).await.outcomes), [number + 1], "{foreign:?}");
        assert!(matches!(outcome(&a, numbered("p", number)).await, Outcome::Duplicate { .. }), "{foreign:?}");
    }
    // One of another type is refused, and nothing is stored.
    let _: i64 = server.command(&["DEL", "rc:{lobby}:n::p"]);
    let _: i64 = server.command(&["RPUSH", "rc:{lobby}:n::p", "x"]);
    let error = a.publish(&room("lobby"), &policy(), &[numbered("p", 99)]).await.expect_err("refused");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
    assert_eq!(stored(&publish(&a, &[numbered("q", 1)]).await.outcomes), [values.len() as u64 + 1]);
}
