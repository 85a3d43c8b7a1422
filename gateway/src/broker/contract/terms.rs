//! Terms: when a new one begins, where seq goes on, and what is remembered of those before.

use super::*;
use crate::broker::{Boundary, History, Published, Range};
use roomcast_protocol::Term;

on_both!(
    a_room_that_went_back_goes_on_in_a_new_term,
    a_room_that_lost_nothing_ends_its_term_where_it_stood,
    a_room_that_is_gone_begins_anew,
    ended_terms_are_remembered_but_not_endlessly,
    duplicates_alone_begin_no_term,
);

async fn publish(broker: &dyn Broker, count: usize) -> Published {
    broker.publish(&room("lobby"), &policy(), &plains(0..count)).await.expect("published")
}

async fn read(broker: &dyn Broker, after: u64) -> History {
    broker.history(&room("lobby"), Range::After { seq: after, limit: 100 }).await.expect("history")
}

fn ended(term: &Term, start: u64, end: u64) -> Boundary {
    Boundary { term: term.clone(), start, end }
}

fn order(history: &History) -> Vec<(&Term, u64)> {
    history.messages.iter().map(|message| (&message.term, message.seq)).collect()
}

async fn a_room_that_went_back_goes_on_in_a_new_term(pair: Pair) {
    let first = publish(&*pair.a, 8).await;
    let saved = pair.save(&room("lobby")).await;
    assert_eq!(stored(&publish(&*pair.a, 2).await.outcomes), [9, 10]);
    pair.restore(&saved);
    // Until somebody publishes it is the old term, and shorter than some have seen.
    let history = read(&*pair.b, 0).await;
    assert_eq!((history.term.as_ref(), history.top, history.boundaries), (Some(&first.term), 8, vec![]));
    let second = publish(&*pair.b, 3).await;
    assert_ne!(second.term, first.term, "9 and 10 would stand for two messages each");
    assert_eq!(stored(&second.outcomes), [9, 10, 11]);
    let history = read(&*pair.a, 7).await;
    assert_eq!((history.term.as_ref(), history.start, history.top), (Some(&second.term), 9, 11));
    assert_eq!(history.boundaries, [ended(&first.term, 1, 8)]);
    let terms = [(&first.term, 8), (&second.term, 9), (&second.term, 10), (&second.term, 11)];
    assert_eq!(order(&history), terms);
    // And it stays so.
    assert_eq!(publish(&*pair.a, 1).await.term, second.term);
    assert_eq!(read(&*pair.a, 11).await.boundaries, [ended(&first.term, 1, 8)]);
}

async fn a_room_that_lost_nothing_ends_its_term_where_it_stood(pair: Pair) {
    let first = publish(&*pair.a, 8).await;
    pair.restore(&pair.save(&room("lobby")).await);
    let second = publish(&*pair.a, 1).await;
    assert_ne!(second.term, first.term);
    let history = read(&*pair.b, 0).await;
    assert_eq!((history.boundaries, history.start, history.messages.len()), (vec![ended(&first.term, 1, 8)], 9, 9));
}

async fn a_room_that_is_gone_begins_anew(pair: Pair) {
    let nothing = pair.save(&room("lobby")).await;
    let first = publish(&*pair.a, 8).await;
    pair.restore(&nothing);
    assert_eq!(read(&*pair.b, 0).await, History::default());
    let second = publish(&*pair.a, 1).await;
    assert_ne!(second.term, first.term);
    assert_eq!(stored(&second.outcomes), [1]);
    let history = read(&*pair.b, 0).await;
    assert_eq!((history.boundaries, history.start), (vec![], 1), "nobody can say where {} ended", first.term);
}

async fn ended_terms_are_remembered_but_not_endlessly(pair: Pair) {
    let mut terms = Vec::new();
    for _ in 0..20 {
        terms.push(publish(&*pair.a, 2).await.term);
        pair.restore(&pair.save(&room("lobby")).await);
    }
    publish(&*pair.a, 1).await;
    let history = read(&*pair.b, 0).await;
    let expected = (4..20).map(|at| ended(&terms[at], at as u64 * 2 + 1, at as u64 * 2 + 2));
    assert_eq!(history.boundaries, expected.collect::<Vec<_>>());
    assert_eq!((history.start, history.top, history.messages.len()), (41, 41, 41));
}

async fn duplicates_alone_begin_no_term(pair: Pair) {
    let (room, policy, records) = (room("lobby"), policy(), [idempotent("i", "x")]);
    let first = pair.a.publish(&room, &policy, &records).await.expect("published");
    pair.restore(&pair.save(&room).await);
    let again = pair.b.publish(&room, &policy, &records).await.expect("published");
    assert_eq!(again.outcomes, [Outcome::Duplicate { term: first.term.clone(), seq: 1 }]);
    let history = read(&*pair.a, 0).await;
    assert_eq!((history.term, history.boundaries, history.top), (Some(first.term), vec![], 1));
}

// What only Redis can do to a room.

async fn one(server: &Server, name: &str) -> (RedisBroker, Events) {
    connect(&server.options(name), 1024).await
}

async fn publish_in_the_end(broker: &RedisBroker, count: usize) -> Published {
    let wait = async {
        loop {
            match broker.publish(&room("lobby"), &policy(), &plains(0..count)).await {
                Ok(published) => return published,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("published in time")
}

/// The dump of an earlier moment is put in place of the present one while the server is down.
#[tokio::test(flavor = "local")]
async fn an_older_dump_is_put_back() {
    let mut server = Server::start(&["--dbfilename", "dump.rdb"]);
    let (a, _events) = one(&server, "node-a").await;
    let first = publish(&a, 8).await;
    let _: String = server.command(&["SAVE"]);
    publish(&a, 2).await;
    server.restart();
    let second = publish_in_the_end(&a, 1).await;
    assert_ne!(second.term, first.term);
    assert_eq!(stored(&second.outcomes), [9]);
    assert_eq!(read(&a, 0).await.boundaries, [ended(&first.term, 1, 8)]);
    // And again the same dump: what the second term had is gone, and so is all memory of it.
    server.restart();
    let third = publish_in_the_end(&a, 1).await;
    assert_ne!(third.term, second.term);
    assert_eq!(read(&a, 0).await.boundaries, [ended(&first.term, 1, 8)]);
}

#[tokio::test(flavor = "local")]
async fn everything_is_flushed() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server, "node-a").await;
    let first = publish(&a, 8).await;
    let _: String = server.command(&["FLUSHALL"]);
    let second = publish(&a, 1).await;
    assert_ne!(second.term, first.term);
    assert_eq!(stored(&second.outcomes), [1]);
}

#[tokio::test(flavor = "local")]
async fn lost_metadata_leaves_the_end_of_the_term_in_the_stream() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server, "node-a").await;
    let first = publish(&a, 5).await;
    publish(&a, 2).await;
    let _: i64 = server.command(&["DEL", "rc:{lobby}:m"]);
    let second = publish(&a, 2).await;
    assert_eq!(stored(&second.outcomes), [8, 9]);
    // The term's beginning is not to be had any more; its end is what counts.
    let history = read(&a, 0).await;
    assert_eq!((history.boundaries, history.start), (vec![ended(&first.term, 6, 7)], 8));
}

#[tokio::test(flavor = "local")]
async fn a_lost_stream_breaks_no_term() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server, "node-a").await;
    let first = publish(&a, 5).await;
    let _: i64 = server.command(&["DEL", "rc:{lobby}:s"]);
    let history = read(&a, 2).await;
    assert_eq!((history.top, history.first, history.messages.len()), (5, 0, 0));
    let second = publish(&a, 1).await;
    assert_eq!((second.term, stored(&second.outcomes)), (first.term, vec![6]));
    assert_eq!(read(&a, 2).await.first, 6);
}

#[tokio::test(flavor = "local")]
async fn a_foreign_id_does_not_count_as_the_old_terms_end() {
    let server = Server::start(&[]);
    let (a, _events) = one(&server, "node-a").await;
    let first = publish(&a, 2).await;
    let _: String = server.command(&["XADD", "rc:{lobby}:s", "1700000000000-7", "what", "ever"]);
    let second = publish(&a, 2).await;
    assert_eq!(stored(&second.outcomes), [1_700_000_000_001, 1_700_000_000_002]);
    let history = read(&a, 2).await;
    assert_eq!((history.boundaries, history.start), (vec![ended(&first.term, 1, 2)], 1_700_000_000_001));

    // The same where the metadata is lost, too, or the identity changed: both were before the next publish.
    for fault in [0, 1] {
        let _: String = server.command(&["FLUSHALL"]);
        let first = publish(&a, 2).await;
        let _: String = server.command(&["XADD", "rc:{lobby}:s", "1700000000000-7", "what", "ever"]);
        match fault {
            0 => assert_eq!(server.command::<i64>(&["DEL", "rc:{lobby}:m"]), 1),
            _ => server.change_identity(),
        }
        let second = publish(&a, 1).await;
        assert_eq!(stored(&second.outcomes), [1_700_000_000_001]);
        let ends: Vec<_> = read(&a, 2).await.boundaries;
        assert_eq!(ends, [ended(&first.term, 1, 2)]);
    }
}

/// Both go on alone, then the old master follows the new one, and later takes over again.
#[tokio::test(flavor = "local")]
async fn two_masters_and_a_return() {
    let (left, right) = (Server::start(&[]), Server::start(&[]));
    let (a, _from_a) = one(&left, "node-a").await;
    // The identity changes also when a server gets its first replica. That costs a term, and nobody anything.
    follow(&right, &left).await;
    let first = publish(&a, 10).await;
    in_step(&right, &left).await;
    let _: String = right.command(&["REPLICAOF", "NO", "ONE"]);
    let (b, _from_b) = one(&right, "node-b").await;
    assert_eq!(publish(&a, 5).await.term, first.term, "the old master does not know");
    let second = publish(&b, 2).await;
    assert_eq!(stored(&second.outcomes), [11, 12]);
    assert_eq!(read(&b, 0).await.boundaries, [ended(&first.term, 1, 10)], "11 to 15 of the first are lost");

    follow(&left, &right).await;
    // Who still asks the old master is not told of an old state, but sent away.
    assert!(a.history(&room("lobby"), Range::Latest { limit: 1 }).await.is_err());
    let _: String = left.command(&["REPLICAOF", "NO", "ONE"]);
    let third = publish_in_the_end(&a, 1).await;
    assert_eq!(stored(&third.outcomes), [13]);
    let terms = [ended(&first.term, 1, 10), ended(&second.term, 11, 12)];
    let (c, _from_c) = one(&left, "node-c").await;
    assert_eq!(read(&c, 0).await.boundaries, terms);
    assert!(![&first.term, &second.term].contains(&&third.term));
}

async fn follow(replica: &Server, master: &Server) {
    let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    in_step(replica, master).await;
}

async fn in_step(replica: &Server, master: &Server) {
    let offset = |server: &Server, field: &str| {
        let info: String = server.command(&["INFO", "replication"]);
        info.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<i64>().ok())
    };
    until("the replica has everything", || {
        let info: String = replica.command(&["INFO", "replication"]);
        info.contains("master_link_status:up")
            && offset(replica, "slave_repl_offset:") == offset(master, "master_repl_offset:")
    })
    .await;
}

/// As on managed servers: first no INFO within scripts, then none at all.
#[tokio::test(flavor = "local")]
async fn without_info_in_scripts_the_identity_is_read_on_connecting() {
    let server = Server::start(&[]);
    let (commands, user) = (crate::broker::redis::ACL_COMMANDS, "gateway");
    let allow = |info: &[&str]| {
        let words = ["ACL", "SETUSER", user, "reset", "on", ">secret", "~rc:*", "resetchannels", "&rc:*"].into_iter();
        let rules = commands.split_whitespace().filter(|rule| *rule != "+info");
        let _: String = server.command(&words.chain(rules).chain(info.iter().copied()).collect::<Vec<_>>());
    };
    allow(&[]);
    let mut options = server.options("node-a");
    options.url = format!("redis://{user}:secret@127.0.0.1:{}", server.port);
    let (blind, _events) = connect(&options, 64).await;
    let first = publish(&blind, 2).await;
    server.change_identity();
    assert_eq!(publish(&blind, 1).await.term, first.term, "nothing says that the dataset is another");
    drop(blind);

    let _: String = server.command(&["FLUSHALL"]);
    // Scripts run with their caller's rights, so what only scripts may not is shown by two who read it outside.
    allow(&["+info"]);
    let (a, _from_a) = connect(&options, 64).await;
    let (b, _from_b) = connect(&RedisOptions { node: node("node-b"), ..options.clone() }, 64).await;
    a.read_identity_outside().await;
    b.read_identity_outside().await;
    let first = publish(&a, 2).await;
    assert_eq!(publish(&b, 1).await.term, first.term);
    server.change_identity();
    let (c, _from_c) = connect(&RedisOptions { node: node("node-c"), ..options.clone() }, 64).await;
    c.read_identity_outside().await;
    let second = publish(&c, 1).await;
    assert_ne!(second.term, first.term, "an identity that differs from the room's begins a term");
    for broker in [&a, &b, &c] {
        assert_eq!(publish(broker, 1).await.term, second.term, "who has an old one reads it again");
    }
    assert_eq!(read(&b, 0).await.boundaries, [ended(&first.term, 1, 3)]);
}
