//! Messages that no session sends: in line with the members' where the room is open, straight to the broker elsewhere.

use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{ClientId, ErrorCode, Mode, NodeId};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::super::publish::MOST_PENDING_BYTES;
use super::{Client, DEADLINE, Node, local, record, until};
use crate::broker::{Broker, BrokerError, BrokerStats, Event, Range, Subject};
use crate::config::{RoomPolicies, RoomPolicy, Settings};
use crate::hub::{Placed, Posting, Sight};
use crate::telemetry::metrics::Metrics;

fn posting(id: Option<&str>, text: &str) -> Posting {
    let (subject, data) = (Subject::of("a key"), Bytes::from(format!("{text:?}")));
    Posting { id: id.map(Into::into), subject, name: "news".into(), user: Some("robot".into()), data }
}

fn seq(placed: &Placed) -> u64 {
    placed.position.as_ref().expect("a position").1
}

fn fail(node: &Node, error: Option<&BrokerError>) {
    for worker in &node.workers {
        *worker.broker.publish_fails.borrow_mut() = error.cloned();
    }
}

/// The next message, whatever comes before it.
async fn message(client: &mut Client) -> Value {
    loop {
        let frame = client.next().await;
        if frame["type"] == "message" {
            return frame;
        }
    }
}

/// On a node of two workers, for a room at home on either, from either.
#[tokio::test]
async fn members_get_what_is_posted_in_the_order_of_all() {
    local(async {
        let node = Node::start(2, Settings::default());
        for (home, from) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let room = node.room(home);
            let mut member = Client::enter(&node.workers[1].shard, &room).await;
            let shard = &node.workers[from].shard;
            let first = shard.publish_for(&room, posting(None, "first")).await.expect("placed");
            assert_eq!(message(&mut member).await["data"], "first");
            member.shard.publish(&member.peer, &room, record("second"), None, None);
            assert_eq!(message(&mut member).await["data"], "second");
            let third = shard.publish_for(&room, posting(Some("key"), "third")).await.expect("placed");
            assert_eq!((seq(&first), seq(&third), &*third.id, third.duplicate), (1, 3, "key", false));
            assert!(third.ts.is_some() && first.id.len() == 36);
            let again = shard.publish_for(&room, posting(Some("key"), "other")).await.expect("placed");
            assert_eq!(again, Placed { duplicate: true, ts: None, ..third });
            shard.publish_for(&room, posting(None, "fourth")).await.expect("placed");
            let third = message(&mut member).await;
            assert_eq!((&third["seq"], &third["data"], &third["id"]), (&3.into(), &"third".into(), &"key".into()));
            let from = serde_json::json!({"id": ClientId::NOBODY.to_string(), "name": "news", "user": "robot"});
            assert_eq!(third["from"], from);
            let fourth = message(&mut member).await;
            assert_eq!((&fourth["seq"], &fourth["data"]), (&4.into(), &"fourth".into()), "nobody got it twice");
        }
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_not_open_is_published_to_all_the_same() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (shard, room) = (node.shard(), node.room(1));
        let placed = shard.publish_for(&room, posting(Some("key"), "one")).await.expect("placed");
        assert_eq!((seq(&placed), placed.duplicate), (1, false));
        assert!(shard.publish_for(&room, posting(Some("key"), "one")).await.expect("placed").duplicate);
        // The key is this caller's: a client's own is another.
        let others = Posting { subject: Subject::NOBODY, ..posting(Some("key"), "two") };
        assert_eq!(seq(&shard.publish_for(&room, others).await.expect("placed")), 2);
        assert!(node.workers.iter().all(|worker| worker.shard.homes.borrow().is_empty()), "nothing is opened for it");
        let history = shard.history_of(&room, Range::Latest { limit: 9 }).await.expect("history");
        assert_eq!(history.messages.len(), 2);
        let mut late = Client::connect(shard).await;
        shard.join(&late.peer, room.clone(), None, Sight::FULL, None);
        assert_eq!(late.expect("joined").await["messages"].as_array().map(Vec::len), Some(2));
    })
    .await;
}

fn node_of_ephemeral_rooms() -> Node {
    let ephemeral = RoomPolicy { mode: Mode::Ephemeral, ..RoomPolicy::default() };
    let rooms = RoomPolicies::new([("*".to_owned(), ephemeral)]);
    Node::start(2, Settings { rooms, ..Settings::default() })
}

#[tokio::test]
async fn ephemeral_rooms_take_postings_too() {
    local(async {
        let node = node_of_ephemeral_rooms();
        let (shard, room) = (node.shard(), node.room(1));
        let (events, mut heard) = mpsc::channel(64);
        let other = NodeId::new("elsewhere").expect("valid");
        let elsewhere = node.memory.handle(other, events, BrokerStats::new(&Metrics::new()));
        elsewhere.subscribe(&room).await.expect("subscribed");
        let mut next = async || loop {
            let event = timeout(DEADLINE, heard.recv()).await.expect("in time").expect("open");
            if let Event::Messages(envelope) = event {
                return envelope.records[0].data.clone();
            }
        };
        let alone = shard.publish_for(&room, posting(None, "alone")).await.expect("placed");
        assert_eq!((alone.position, alone.duplicate, alone.ts.is_some()), (None, false, true));
        assert_eq!(next().await, "\"alone\"");
        let mut member = Client::enter(shard, &room).await;
        shard.publish_for(&room, posting(Some("x"), "open")).await.expect("placed");
        assert_eq!(message(&mut member).await["data"], "open");
        assert_eq!(next().await, "\"open\"");
        fail(&node, Some(&BrokerError::Unavailable("away".into())));
        // Members here have it; where there are none, nobody has.
        shard.publish_for(&room, posting(None, "here")).await.expect("placed");
        assert_eq!(message(&mut member).await["data"], "here");
        let refused = shard.publish_for(&node.room(0), posting(None, "there")).await.expect_err("away");
        assert_eq!(refused.code, ErrorCode::BrokerUnavailable);
    })
    .await;
}

/// Who posts is told only when the broker has the message: whoever is a member by then has it, too, and once.
#[tokio::test]
async fn whoever_comes_in_before_a_posting_is_accepted_gets_it() {
    local(async {
        let node = node_of_ephemeral_rooms();
        for (home, at) in [(0, 0), (0, 1)] {
            let (shard, room) = (node.shard().clone(), node.room(home));
            let gate = node.workers[home].broker.publishes.acquire_many(1 << 20).await.expect("open");
            let place = room.clone();
            let posted = spawn_local(async move { shard.publish_for(&place, posting(None, "first")).await });
            until("it to be under way", || !node.workers[home].shard.postings.is_idle()).await;
            let mut member = Client::enter(&node.workers[at].shard, &room).await;
            drop(gate);
            posted.await.expect("done").expect("placed");
            member.shard.publish(&member.peer, &room, record("second"), None, None);
            assert_eq!(message(&mut member).await["data"], "first");
            assert_eq!(message(&mut member).await["data"], "second", "and nothing twice");
        }
    })
    .await;
}

#[tokio::test]
async fn the_brokers_truth_is_told() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (closed, open) = (node.room(0), node.room(1));
        let _member = Client::enter(node.shard(), &open).await;
        for (error, code) in [
            (BrokerError::Unavailable("x".into()), ErrorCode::BrokerUnavailable),
            (BrokerError::Undecided("x".into()), ErrorCode::Undecided),
            (BrokerError::StorageFull, ErrorCode::StorageFull),
            (BrokerError::NoWrites("x".into()), ErrorCode::BrokerUnavailable),
            (BrokerError::Overloaded, ErrorCode::Overloaded),
            (BrokerError::Rejected("x".into()), ErrorCode::Internal),
        ] {
            fail(&node, Some(&error));
            for room in [&closed, &open] {
                let refused = node.shard().publish_for(room, posting(None, "x")).await.expect_err("refused");
                assert_eq!(refused.code, code);
            }
        }
        fail(&node, None);
        for room in [&closed, &open] {
            // So many holes that the lowest numbers are given up.
            for number in 1..=80 {
                let id = format!("p#{}", number * 2);
                node.shard().publish_for(room, posting(Some(&id), "x")).await.expect("placed");
            }
            let refused = node.shard().publish_for(room, posting(Some("p#1"), "x")).await.expect_err("too old");
            assert_eq!(refused.code, ErrorCode::StaleId);
        }
    })
    .await;
}

/// Whoever posts faster than the broker takes it waits, and beyond the bound is refused.
#[tokio::test]
async fn what_waits_is_bounded() {
    local(async {
        let node = Node::start(1, Settings::default());
        let shard = node.shard();
        let (closed, open) = (node.room(0), node.room(0));
        let _member = Client::enter(shard, &open).await;
        let gate = node.workers[0].broker.publishes.acquire_many(1 << 20).await.expect("open");
        for room in [&closed, &open] {
            let big = "x".repeat(1 << 20);
            let post = || {
                let (shard, room, posting) = (shard.clone(), room.clone(), posting(None, &big));
                spawn_local(async move { shard.publish_for(&room, posting).await })
            };
            let mut waiting: Vec<JoinHandle<_>> = Vec::new();
            let refused = async {
                loop {
                    waiting.push(post());
                    sleep(Duration::from_millis(2)).await;
                    if let Some(at) = waiting.iter().position(JoinHandle::is_finished) {
                        return waiting.remove(at).await.expect("done").expect_err("nothing is let through");
                    }
                }
            };
            let refused = timeout(DEADLINE, refused).await.expect("refused in time");
            assert_eq!(refused.code, ErrorCode::Overloaded);
            // What one call took out of the line, and the one that went over the bound, come on top.
            let most = MOST_PENDING_BYTES >> 20;
            assert!((most..=most + 2).contains(&waiting.len()), "{} wait", waiting.len());
            waiting.iter().for_each(JoinHandle::abort);
        }
        drop(gate);
        until("the line to be empty", || shard.postings.is_idle()).await;
        let placed = shard.publish_for(&closed, posting(None, "x")).await;
        assert!(placed.is_ok(), "what was taken is given back: {placed:?}");
    })
    .await;
}

/// A caller that gave up is no harm, and a room whose last member left still sends what was in line.
#[tokio::test]
async fn nobody_needs_to_wait() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, room) = (node.shard(), node.room(0));
        let member = Client::enter(shard, &room).await;
        let gate = node.workers[0].broker.publishes.acquire_many(1 << 20).await.expect("open");
        let post = |text: &'static str| {
            let (shard, room) = (shard.clone(), room.clone());
            spawn_local(async move { shard.publish_for(&room, posting(None, text)).await })
        };
        let (gone, waits) = (post("gone"), post("waits"));
        until("them to be under way", || shard.home(&room).is_some_and(|home| home.state.borrow().publishing)).await;
        gone.abort();
        shard.leave(&member.peer, &room, None);
        drop(gate);
        let placed = waits.await.expect("done").expect("placed");
        assert_eq!(seq(&placed), 2);
        let history = node.workers[0].broker.history(&room, Range::Latest { limit: 9 }).await.expect("history");
        assert_eq!(history.messages.len(), 2);
    })
    .await;
}
