//! A new member's place in the room's order.

use super::super::mail::{Address, JoinRequest};
use super::{Client, Node, local, run};
use crate::config::Settings;

fn request(node: &Node, client: &Client, room: &roomcast_protocol::RoomName) -> JoinRequest {
    let from: Address = node.shard().address(&client.peer);
    JoinRequest { room: room.clone(), from, name: client.peer.name(), since: None, reference: None }
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
