//! Each fault is committed exactly as it is described, and none unless asked for.

use roomcast_protocol::{Mode, RoomName};
use serde_json::json;

use super::{Client, Node, local, record, run, until};
use crate::broker::{Envelope, Event, Kind};
use crate::config::{Action, RoomPolicies, RoomPolicy, Settings};

/// Settings with those faults. All rooms are durable.
fn with(faults: &str) -> Settings {
    let env = [("ROOMCAST_SABOTAGE", faults), ("ROOMCAST_REDIS", "redis://not-used")];
    let env = env.map(|(name, value)| (name.into(), value.into()));
    match Settings::load(["gateway".into()], env, std::path::Path::new("/nonexistent")) {
        Ok(Action::Run(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

/// What a member of `room` gets, in short, until a message says "end".
async fn seen(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let frame = client.next().await;
        match (frame["type"].as_str(), frame["data"].as_str()) {
            (Some("message"), Some("end")) => return seen,
            (Some("message"), Some(text)) => seen.push(format!("{}{text}", frame["seq"])),
            (Some("presence"), _) => {}
            _ => seen.push(frame.to_string()),
        }
    }
}

/// Offers messages a, b, c, ... with seqs from 1, each by itself, and a last one.
fn offer(node: &Node, room: &RoomName, texts: &[&str]) {
    let home = node.shard().home(room).expect("open");
    for (seq, text) in (1..).zip(texts.iter().chain(&["end"])) {
        let mut one = run("t", seq, 0);
        one.records.push(record(text));
        node.shard().offer(&home, one);
    }
}

#[tokio::test]
async fn every_so_manyth_message_is_hit() {
    for (faults, expected) in [
        ("", &["1a", "2b", "3c", "4d", "5e", "6f"][..]),
        ("drop=2", &["1a", "3c", "5e"]),
        ("repeat=2", &["1a", "2b", "2b", "3c", "4d", "4d", "5e", "6f", "6f"]),
        ("swap=2", &["1a", "3c", "2b", "5e", "4d"]),
        ("swap=1", &["2b", "1a", "4d", "3c", "6f", "5e"]),
        ("corrupt=3", &["1a", "2b", "3d", "4d", "5e", "6g"]),
        ("drop=5,repeat=3", &["1a", "2b", "3c", "3c", "4d", "6f", "6f"]),
        ("no-repair,no-dedupe,keep-echo", &["1a", "2b", "3c", "4d", "5e", "6f"]),
    ] {
        local(async move {
            let node = Node::start(1, with(faults));
            let room = node.room(0);
            let mut member = Client::enter(node.shard(), &room).await;
            offer(&node, &room, &["a", "b", "c", "d", "e", "f"]);
            assert_eq!(seen(&mut member).await, expected, "{faults}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_message_that_nothing_follows_is_late_but_comes() {
    local(async {
        let node = Node::start(1, with("swap=2"));
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        offer(&node, &room, &["a"]);
        assert_eq!(seen(&mut member).await, ["1a"]);
    })
    .await;
}

#[tokio::test]
async fn a_message_goes_astray_with_the_name_of_its_own_room() {
    local(async {
        let node = Node::start(1, with("misroute=2"));
        let (room, other) = (node.room(0), node.room(0));
        let mut member = Client::enter(node.shard(), &room).await;
        let mut stranger = Client::enter(node.shard(), &other).await;
        offer(&node, &room, &["a", "b", "c"]);
        assert_eq!(seen(&mut member).await, ["1a", "2b", "3c"]);
        let frame = stranger.next().await;
        assert_eq!((&frame["room"], &frame["data"]), (&json!(room.as_str()), &json!("b")));
    })
    .await;
}

#[tokio::test]
async fn what_was_seen_is_delivered_again_without_dedupe() {
    for (faults, expected) in [("", &["1m", "2m"][..]), ("no-dedupe", &["1m", "2m", "1m", "2m"])] {
        local(async move {
            let node = Node::start(1, with(faults));
            let room = node.room(0);
            let mut member = Client::enter(node.shard(), &room).await;
            let home = node.shard().home(&room).expect("open");
            node.shard().offer(&home, run("t", 1, 2));
            node.shard().offer(&home, run("t", 1, 2));
            let mut end = run("t", 3, 0);
            end.records.push(record("end"));
            node.shard().offer(&home, end);
            assert_eq!(seen(&mut member).await, expected, "{faults}");
        })
        .await;
    }
}

#[tokio::test]
async fn ids_are_not_checked_without_dedupe() {
    for (faults, expected) in [("", &["1m"][..]), ("no-dedupe", &["1m", "2m"])] {
        local(async move {
            let node = Node::start(1, with(faults));
            let room = node.room(0);
            let mut member = Client::enter(node.shard(), &room).await;
            for text in ["m", "m", "end"] {
                let mut record = record(text);
                record.idempotent = true;
                node.shard().publish(&member.peer, &room, record, None, None);
            }
            assert_eq!(seen(&mut member).await, expected, "{faults}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_gap_is_passed_over_in_silence_without_repair() {
    local(async {
        let node = Node::start(1, with("no-repair"));
        let room = node.room(0);
        let mut member = Client::enter(node.shard(), &room).await;
        let home = node.shard().home(&room).expect("open");
        node.shard().offer(&home, run("t", 1, 1));
        node.shard().offer(&home, run("t", 4, 1));
        for seq in [1, 4] {
            let frame = member.next().await;
            assert_eq!((&frame["type"], &frame["seq"]), (&json!("message"), &json!(seq)));
        }
    })
    .await;
}

#[tokio::test]
async fn own_ephemeral_messages_come_again_with_their_echo() {
    for (faults, expected) in [("", 0), ("keep-echo", 1)] {
        local(async move {
            let ephemeral = RoomPolicy { mode: Mode::Ephemeral, ..Default::default() };
            let rooms = RoomPolicies::new([("*".into(), ephemeral)]);
            let node = Node::start(1, Settings { rooms, ..with(faults) });
            let (shard, events) = (node.shard(), &node.workers[0].events);
            let room = node.room(0);
            let mut member = Client::enter(shard, &room).await;
            let kind = Kind::Ephemeral { ts: 1 };
            let echo =
                Envelope { room: room.clone(), node: shard.parts.node.clone(), kind, records: vec![record("m")] };
            events.send(Event::Messages(echo)).await.expect("taken");
            until("the echo to be read", || events.capacity() == events.max_capacity()).await;
            shard.publish(&member.peer, &room, record("end"), None, None);
            assert_eq!(seen(&mut member).await, vec!["nullm"; expected], "{faults}");
        })
        .await;
    }
}
