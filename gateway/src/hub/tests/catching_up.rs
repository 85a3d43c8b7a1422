//! The stream is read when the bus may have lost something.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;

use super::{Client, Node, local, record, run, until};
use crate::broker::{Broker, Event, Published};
use crate::config::Settings;
use crate::hub::Sight;

/// Stores messages without a word on the bus; returns their term.
async fn store(node: &Node, room: &roomcast_protocol::RoomName, texts: &[&str]) -> String {
    let records: Vec<_> = texts.iter().map(|text| record(text)).collect();
    let policy = node.shard().parts.settings.rooms.policy(room);
    let stored: Published = node.workers[0].broker.inner.publish(room, &policy, &records).await.expect("stored");
    stored.term.to_string()
}

#[tokio::test]
async fn a_subscription_that_comes_back_while_a_crossing_is_awaited_is_caught_up() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, room) = (node.shard(), node.room(0));
        let mut member = Client::enter(shard, &room).await;
        let home = shard.home(&room).expect("open");
        let term = store(&node, &room, &["a", "b", "c"]).await;
        shard.offer(&home, run(&term, 2, 1));
        assert!(home.state.borrow().repairing, "waits for what may cross");
        shard.offer(&home, run(&term, 1, 1));
        node.workers[0].events.send(Event::Resubscribed).await.expect("taken");
        for seq in 1..=3 {
            assert_eq!(member.expect("message").await["seq"], seq);
        }
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_comes_back_while_a_room_is_opened_is_caught_up() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, room) = (node.shard(), node.room(0));
        let worker = &node.workers[0];
        worker.broker.reads.forget_permits(1 << 20);
        let mut member = Client::connect(shard).await;
        shard.join(&member.peer, room.clone(), None, Sight::FULL, None);
        until("a read to be under way", || worker.broker.waiting.get() == 1).await;
        store(&node, &room, &["a"]).await;
        worker.events.send(Event::Resubscribed).await.expect("taken");
        until("the news to be read", || worker.events.capacity() == worker.events.max_capacity()).await;
        tokio::task::yield_now().await;
        worker.broker.reads.add_permits(1 << 20);
        // The read may be quicker than the seat.
        if member.expect("joined").await["seq"] == 0 {
            assert_eq!(member.expect("message").await["seq"], 1);
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_given_up_for_lost_by_a_read_that_was_too_early() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, room) = (node.shard(), node.room(0));
        let worker = &node.workers[0];
        let mut member = Client::enter(shard, &room).await;
        let home = shard.home(&room).expect("open");
        let term = store(&node, &room, &["a"]).await;
        shard.offer(&home, run(&term, 1, 1));
        assert_eq!(member.next().await["seq"], 1);
        worker.broker.reads.forget_permits(1 << 20);
        let (shard, held) = (Rc::clone(shard), Rc::clone(&home));
        spawn_local(async move { shard.repair(&held).await });
        until("a read to be under way", || worker.broker.waiting.get() == 1).await;
        store(&node, &room, &["b", "c"]).await;
        node.shard().offer(&home, run(&term, 3, 1));
        worker.broker.reads.add_permits(1 << 20);
        for seq in 2..=3 {
            let frame = member.next().await;
            assert_eq!((&frame["type"], &frame["seq"]), (&"message".into(), &seq.into()));
        }
    })
    .await;
}

#[tokio::test]
async fn the_last_message_that_the_bus_lost_is_found() {
    local(async {
        let node = Node::start(1, Settings { sweep_interval: Duration::from_millis(100), ..Settings::default() });
        let (shard, room) = (node.shard(), node.room(0));
        let mut member = Client::enter(shard, &room).await;
        // The first of a room, then one more: nothing ever comes over the bus.
        for (text, seq) in [("first", 1), ("last", 2)] {
            store(&node, &room, &[text]).await;
            let message = member.expect("message").await;
            assert_eq!((&message["seq"], &message["data"]), (&seq.into(), &text.into()));
        }
        let finds = &shard.parts.totals.hub.sweep_finds;
        assert_eq!(finds.with_label_values(&["behind"]).get(), 2);
        assert_eq!(finds.with_label_values(&["ahead"]).get() + finds.with_label_values(&["term"]).get(), 0);
    })
    .await;
}

#[tokio::test]
async fn only_rooms_that_missed_something_are_read_after_a_break() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, worker) = (node.shard(), &node.workers[0]);
        let (quiet, behind) = (node.room(0), node.room(0));
        let mut members = Vec::new();
        for room in [&quiet, &behind] {
            members.push(Client::enter(shard, room).await);
        }
        let home = |room| shard.home(room).expect("open");
        let term = store(&node, &quiet, &["a"]).await;
        shard.offer(&home(&quiet), run(&term, 1, 1));
        store(&node, &behind, &["a"]).await;
        worker.broker.reads.forget_permits(1 << 20);
        worker.events.send(Event::Resubscribed).await.expect("taken");
        until("a read to be under way", || worker.broker.waiting.get() == 1).await;
        assert!(home(&behind).state.borrow().repairing && !home(&quiet).state.borrow().repairing);
        worker.broker.reads.add_permits(1 << 20);
        assert_eq!(members[1].expect("message").await["seq"], 1);
    })
    .await;
}
