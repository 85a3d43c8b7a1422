//! A new member's place in the room's order.

use std::rc::Rc;

use super::super::mail::{Address, JoinRequest};
use super::{Client, Node, local, run};
use crate::config::Settings;
use crate::hub::Sight;

fn request(node: &Node, client: &Client, room: &roomcast_protocol::RoomName) -> JoinRequest {
    let from: Address = node.shard().address(&client.peer);
    JoinRequest {
        room: room.clone(),
        from,
        member: client.peer.member(),
        since: None,
        sight: Sight::FULL,
        reference: None,
        life: 1,
    }
}

#[tokio::test]
async fn a_batch_sealed_right_behind_a_seat_reaches_the_new_member() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (shard, room) = (node.shard(), node.room(0));
        let mut old = Client::enter(shard, &room).await;
        let mut new = Client::connect(shard).await;
        let home = shard.home(&room).expect("open");
        // What three tasks may do in one pass of the runtime, before the turn: seat one, take a message, seat another.
        shard.seat(&home, vec![request(&node, &new, &room)], &[]);
        shard.offer(&home, run("t", 1, 1));
        shard.seal(&home);
        assert_eq!(old.expect("message").await["seq"], 1);
        assert_eq!(new.expect("joined").await["seq"], 0);
        shard.offer(&home, run("t", 2, 1));
        assert_eq!(new.expect("message").await["seq"], 1, "nothing is missing behind `joined`");
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_forgotten_late_does_not_take_its_successor_along() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (room, away) = (node.room(0), &node.workers[1].shard);
        let first = Client::enter(away, &room).await;
        // The room is still in some task's hands, as it is while it is held.
        let old = away.room(&room);
        away.leave(&first.peer, &room, None);
        let mut second = Client::enter(away, &room).await;
        assert!(!Rc::ptr_eq(&old, &away.room(&room)));
        away.forget_if_empty(&old);
        let home = node.shard().home(&room).expect("open");
        node.shard().offer(&home, run("t", 1, 1));
        assert_eq!(second.expect("message").await["seq"], 1);
    })
    .await;
}
