//! Rooms whose broker went back in time, and clients that come back to them.

use std::rc::Rc;

use roomcast_protocol::{RoomName, Since, Term};
use serde_json::{Value, json};

use super::{Client, Node, local, record, until};
use crate::broker::{Broker, Event, Published};
use crate::config::Settings;
use crate::hub::Sight;

/// Stores messages as another node does; this one hears of them over the bus if `told`.
async fn store(node: &Node, room: &RoomName, count: usize, told: bool) -> Published {
    let records: Vec<_> = (0..count).map(|number| record(&number.to_string())).collect();
    let policy = node.shard().parts.settings.rooms.policy(room);
    let published = node.workers[0].broker.inner.publish(room, &policy, &records).await.expect("stored");
    if told {
        let first = match published.outcomes[0] {
            crate::broker::Outcome::Stored { seq } => seq,
            ref known => panic!("not new: {known:?}"),
        };
        let term = published.term.clone();
        let run = super::Run { term, first_seq: first, ts: 0, records, own: false };
        node.shard().offer(&node.shard().home(room).expect("open"), run);
    }
    published
}

async fn come_back(node: &Node, room: &RoomName, term: &Term, seq: u64) -> (Client, Value) {
    let mut client = Client::connect(node.shard()).await;
    client.shard.join(&client.peer, room.clone(), Some(Since { term: term.clone(), seq }), Sight::FULL, None);
    let joined = client.expect("joined").await;
    (client, joined)
}

fn seqs(joined: &Value) -> Vec<u64> {
    joined["messages"].as_array().expect("a list").iter().map(|one| one["seq"].as_u64().expect("a seq")).collect()
}

/// The next message or reset, shortly.
async fn told(client: &mut Client) -> String {
    loop {
        let frame = client.next().await;
        match frame["type"].as_str() {
            Some("message") => return format!("{}", frame["seq"]),
            Some("reset") => {
                return format!("{} {} {}", frame["reason"].as_str().unwrap_or("?"), frame["term"], frame["seq"]);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_term_that_ended_where_members_stand_goes_on_without_a_word() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        store(&node, &room, 3, true).await;
        node.memory.restore(&room, Some(3));
        let reads = node.workers[0].broker.asked.get();
        store(&node, &room, 2, true).await;
        for seq in 1..=5 {
            assert_eq!(told(&mut member).await, seq.to_string());
        }
        // One look when the term is new, and none from then on.
        assert_eq!(node.workers[0].broker.asked.get(), reads + 1);
        store(&node, &room, 2, true).await;
        assert_eq!([told(&mut member).await, told(&mut member).await], ["6", "7"]);
        assert_eq!(node.workers[0].broker.asked.get(), reads + 1);
    })
    .await;
}

/// The seqs go on without a hole at this node: 11 follows 10. But 9 and 10 are others now.
#[tokio::test]
async fn a_term_that_begins_right_behind_but_replaces_messages_is_told() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        let old = store(&node, &room, 10, true).await.term;
        node.memory.restore(&room, Some(8));
        store(&node, &room, 2, false).await;
        store(&node, &room, 1, true).await;
        for seq in 1..=10 {
            assert_eq!(told(&mut member).await, seq.to_string());
        }
        assert_eq!(told(&mut member).await, format!("diverged \"{old}\" 8"));
        for seq in 9..=11 {
            assert_eq!(told(&mut member).await, seq.to_string());
        }
        // Who obeys the reset, and lost its connection right behind it, resumes.
        let (_, joined) = come_back(&node, &room, &old, 8).await;
        assert_eq!((&joined["recovery"], seqs(&joined)), (&json!("resumed"), vec![9, 10, 11]));
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_comes_back_finds_what_was_lost_before_anybody_speaks() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        let old = store(&node, &room, 3, true).await.term;
        for (top, expected) in [(Some(2), format!("diverged \"{old}\" 2")), (None, "unknown_term null 0".into())] {
            node.memory.restore(&room, top);
            node.workers[0].events.send(Event::Resubscribed).await.expect("taken");
            while told(&mut member).await != expected {}
        }
        let new = store(&node, &room, 1, true).await.term;
        assert_ne!(new, old);
        assert_eq!(told(&mut member).await, "1");
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_is_told_by_term_and_seq() {
    local(async {
        let node = Node::start(1, Settings { join_history: 2, ..Settings::default() });
        let room = node.room(0);
        let first = store(&node, &room, 10, false).await.term;
        node.memory.restore(&room, Some(8));
        let second = store(&node, &room, 2, false).await.term;
        node.memory.restore(&room, Some(10));
        let third = store(&node, &room, 2, false).await.term;
        let recent = vec![11, 12];
        for (term, seq, recovery, messages) in [
            (&first, 6, "resumed", (7..=12).collect()),
            (&first, 8, "resumed", (9..=12).collect()),
            (&first, 9, "diverged", recent.clone()),
            (&second, 9, "resumed", (10..=12).collect()),
            (&second, 10, "resumed", recent.clone()),
            (&second, 11, "diverged", recent.clone()),
            (&third, 12, "resumed", vec![]),
            (&third, 13, "diverged", recent.clone()),
            (&Term::random(), 5, "unknown_term", recent.clone()),
        ] {
            let (_, joined) = come_back(&node, &room, term, seq).await;
            assert_eq!((joined["recovery"].as_str(), seqs(&joined)), (Some(recovery), messages), "{joined}");
            assert_eq!((&joined["term"], &joined["seq"]), (&json!(third.as_str()), &json!(12)));
            let end = [(&first, 8), (&second, 10), (&third, 12)].into_iter().find(|(one, _)| *one == term);
            let rollback =
                end.filter(|_| recovery == "diverged").map(|(term, seq)| json!({"term": term.as_str(), "seq": seq}));
            assert_eq!(joined.get("rollback"), rollback.as_ref());
        }
        let joins = &node.shard().parts.totals.hub.joins;
        let counts =
            ["fresh", "resumed", "gap", "diverged", "unknown_term"].map(|one| joins.with_label_values(&[one]).get());
        assert_eq!(counts, [0, 5, 0, 3, 1]);
    })
    .await;
}

/// Another node had delivered what has not come here yet. That is no loss.
#[tokio::test]
async fn a_node_that_is_behind_calls_nobody_lost() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        let first = store(&node, &room, 3, true).await.term;
        store(&node, &room, 2, false).await;
        let (_, joined) = come_back(&node, &room, &first, 5).await;
        assert_eq!((&joined["recovery"], &joined["seq"]), (&json!("resumed"), &json!(5)), "{joined}");
        node.memory.restore(&room, Some(5));
        let second = store(&node, &room, 2, false).await.term;
        let (_, joined) = come_back(&node, &room, &second, 6).await;
        assert_eq!((&joined["recovery"], seqs(&joined)), (&json!("resumed"), vec![7]), "{joined}");
        for seq in 1..=7 {
            assert_eq!(told(&mut member).await, seq.to_string());
        }
    })
    .await;
}

/// A hundred clients of a node that died, at different places; more is missing than rooms usually keep.
#[tokio::test]
async fn a_storm_of_resumes_costs_one_read() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let _member = Client::enter(node.shard(), &room).await;
        let term = store(&node, &room, 500, true).await.term;
        let broker = Rc::clone(&node.workers[0].broker);
        until("quiet", || !node.shard().home(&room).expect("open").state.borrow().repairing).await;
        let reads = broker.asked.get();
        let mut clients = Vec::new();
        for number in 0..100 {
            let client = Client::connect(node.shard()).await;
            let since = Since { term: term.clone(), seq: 100 + number };
            client.shard.join(&client.peer, room.clone(), Some(since), Sight::FULL, None);
            clients.push((client, 100 + number));
        }
        for (client, since) in &mut clients {
            let joined = client.expect("joined").await;
            assert_eq!(joined["recovery"], "resumed");
            let mut seen = seqs(&joined);
            while seen.last() != Some(&500) {
                let frame = client.next().await;
                if frame["type"] == "message" {
                    seen.push(frame["seq"].as_u64().expect("a seq"));
                }
            }
            assert_eq!(seen, (*since + 1..=500).collect::<Vec<_>>());
        }
        assert_eq!(broker.asked.get(), reads + 1, "one read for all");
    })
    .await;
}

/// What nobody has any more is asked for once, too; and so is a term that nobody knows.
#[tokio::test]
async fn a_storm_of_the_lost_costs_little_more() {
    local(async {
        let node = Node::start(1, Settings::default());
        let room = node.room(0);
        let _member = Client::enter(node.shard(), &room).await;
        let kept = node.shard().parts.settings.rooms.policy(&room).history_size as usize;
        let mut term = Term::random();
        for _ in 0..3 {
            term = store(&node, &room, kept / 2, true).await.term;
        }
        let broker = Rc::clone(&node.workers[0].broker);
        for (term, recovery, most) in [(term, "gap", 1), (Term::random(), "unknown_term", 2)] {
            until("quiet", || !node.shard().home(&room).expect("open").state.borrow().repairing).await;
            let reads = broker.asked.get();
            let mut clients = Vec::new();
            for _ in 0..100 {
                let client = Client::connect(node.shard()).await;
                client.shard.join(
                    &client.peer,
                    room.clone(),
                    Some(Since { term: term.clone(), seq: 1 }),
                    Sight::FULL,
                    None,
                );
                clients.push(client);
            }
            for client in &mut clients {
                assert_eq!(client.expect("joined").await["recovery"], recovery);
            }
            let asked = broker.asked.get() - reads;
            assert!((1..=most).contains(&asked), "{recovery}: {asked} reads");
            let joins = &node.shard().parts.totals.hub.joins;
            assert_eq!(joins.with_label_values(&[recovery]).get(), 100);
        }
    })
    .await;
}
