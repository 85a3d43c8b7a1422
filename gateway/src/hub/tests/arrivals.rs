//! Orders that meet a client which is about to be a member.

use std::time::{Duration, Instant};

use roomcast_protocol::{RoomName, Since, Term};
use socket2::SockRef;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::super::peer::Stop;
use super::{Client, DEADLINE, Node, local, until};
use crate::broker::{Broker as _, Record, Target, Task};
use crate::config::Settings;
use crate::hub::{Identity, Sight};

/// Waits until the broker knows of so many members.
async fn members(node: &Node, room: &RoomName, expected: usize) {
    let known = async {
        while node.shard().members_of(room, None, 10).await.expect("a page").members.len() != expected {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, known).await.unwrap_or_else(|_| panic!("deadline passed, waiting for {expected} members"));
}

async fn remove(node: &Node, room: &RoomName, target: Target) -> u64 {
    let carried = node.shard().remove_member(room, target, Some("enough")).await.expect("given");
    assert!(carried.is_complete());
    carried.hit
}

async fn node_that_lives() -> Node {
    let node = Node::start(2, Settings { outbound_queue_bytes: 64 * 1024, ..Settings::default() });
    until("the lease to run", || node.shard().parts.post.lease().holds()).await;
    node
}

/// While the room is opened, and while the broker is told, on either worker.
#[tokio::test]
async fn whoever_is_joining_is_removed_too() {
    local(async {
        let node = node_that_lives().await;
        for (home, at, by_user, is_opening) in
            [(0, 0, true, true), (0, 1, false, true), (1, 1, false, false), (1, 0, true, false)]
        {
            let (room, other) = (node.room(home), node.room(0));
            let broker = &node.workers[home].broker;
            let gate = if is_opening { &broker.reads } else { &broker.presences };
            let identity = Identity { user: Some("ann".into()), info: None };
            let mut client = Client::connect_as(&node.workers[at].shard, "n", identity).await;
            let held = gate.acquire_many(1 << 20).await.expect("open");
            client.shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            let target = || if by_user { Target::User("ann".into()) } else { Target::Client(client.peer.id) };
            assert_eq!(remove(&node, &other, target()).await, 0, "that is another room");
            assert_eq!(remove(&node, &room, Target::User("bob".into())).await, 0, "that is another user");
            assert_eq!(remove(&node, &room, target()).await, 1);
            assert_eq!(remove(&node, &room, target()).await, 0, "it was removed");
            drop(held);
            assert_eq!(client.next().await["type"], "joined");
            let left = client.expect("left").await;
            let name = room.as_str();
            let expected = serde_json::json!({"type": "left", "room": name, "reason": "removed", "message": "enough"});
            assert_eq!((left, client.peer.room_count()), (expected, 0));
            members(&node, &room, 0).await;
            // It is removed, not banned.
            client.shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            client.expect("joined").await;
            members(&node, &room, 1).await;
        }
    })
    .await;
}

/// Others see it as a member from the beginning of that, and it may take as long as the client likes.
#[tokio::test]
async fn whoever_is_still_sent_what_it_missed_is_removed_at_once() {
    local(async {
        let node = node_that_lives().await;
        for (home, at) in [(0, 0), (0, 1)] {
            let room = node.room(home);
            let text = "x".repeat(2000);
            let records: Vec<_> =
                (0..100).map(|id: u32| Record::sample(&id.to_string(), format!("{text:?}"))).collect();
            let policy = node.shard().parts.settings.rooms.policy(&room);
            let term = node.workers[0].broker.publish(&room, &policy, &records).await.expect("stored").term;
            let mut slow = Client::connect(&node.workers[at].shard).await;
            SockRef::from(slow.peer.stream()).set_send_buffer_size(4096).expect("set");
            SockRef::from(&slow.socket).set_recv_buffer_size(4096).expect("set");
            let since = Since { term: Term::clone(&term), seq: 0 };
            slow.shard.join(&slow.peer, room.clone(), Some(since), Sight::FULL, None);
            until("it to be behind", || slow.peer.awaits_writable()).await;
            members(&node, &room, 1).await;
            assert_eq!(remove(&node, &room, Target::Client(slow.peer.id)).await, 1);
            members(&node, &room, 0).await;
            // It reads on, as a client would whose session writes when the socket takes more.
            let (shard, peer) = (slow.shard.clone(), slow.peer.clone());
            let writing = spawn_local(async move {
                loop {
                    shard.flush(&peer);
                    sleep(Duration::from_millis(1)).await;
                }
            });
            let joined = slow.next().await;
            assert_eq!((&joined["type"], &joined["recovery"]), (&"joined".into(), &"resumed".into()));
            let left = loop {
                let frame = slow.next().await;
                // What is on its way comes before.
                if frame["type"] != "message" {
                    break frame;
                }
            };
            assert_eq!((&left["type"], &left["reason"]), (&"left".into(), &"removed".into()));
            assert!(slow.peer.is_settled());
            slow.shard.join(&slow.peer, room.clone(), None, Sight::FULL, None);
            slow.expect("joined").await;
            members(&node, &room, 1).await;
            writing.abort();
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_was_coming_in_is_disconnected_too() {
    local(async {
        let node = node_that_lives().await;
        let shard = node.shard();
        let disconnect = |user: &str, may_return, words: Option<&str>| {
            let (target, words) = (Target::User(user.into()), words.map(Into::into));
            shard.obey(&Task::Disconnect { target, may_return, words })
        };
        let come = async |user: &str, asked| {
            let identity = Identity { user: Some(user.into()), info: None };
            let client = Client::connect_as(shard, "n", identity).await;
            shard.end_if_dismissed(&client.peer, asked);
            (client.peer.stop(), client.peer.take_words())
        };
        let before = Instant::now();
        assert_eq!(disconnect("ann", true, None) + disconnect("ann", false, Some("enough")), 0);
        assert_eq!(come("ann", before).await, (Some(Stop::Removed), Some("enough".into())), "the last word holds");
        assert_eq!(come("bob", before).await, (None, None));
        assert_eq!(come("ann", Instant::now()).await, (None, None), "it asked later");
        // More than is remembered: whoever asked before may be one of them.
        let among = Instant::now();
        (0..255).for_each(|number| _ = disconnect(&format!("user-{number}"), false, None));
        assert_eq!(come("bob", among).await, (None, None));
        disconnect("the last", false, None);
        assert_eq!(come("bob", among).await, (Some(Stop::Requested), None));
        assert_eq!(come("the last", among).await, (Some(Stop::Removed), None));
        assert_eq!(come("bob", Instant::now()).await, (None, None));
    })
    .await;
}
