//! What is still to be done when the last client is gone.

use super::{Client, Node, local, until};
use crate::broker::Broker;
use crate::config::Settings;
use crate::hub::Sight;

#[tokio::test]
async fn workers_end_together_so_that_nobodylast_behind_in_a_room() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (room, away) = (node.room(0), &node.workers[1].shard);
        let last = Client::enter(node.shard(), &room).await;
        let client = Client::connect(away).await;
        away.join(&client.peer, room.clone(), None, Sight::FULL, None);
        away.disconnect(&client.peer);
        assert!(!away.is_settled(), "the other worker does not know yet");
        until("the join to be on its way", || away.is_settled()).await;
        assert!(!away.agree(true), "its seat is to come");
        node.shard().disconnect(&last.peer);
        until("both to agree", || {
            let done: Vec<bool> =
                node.workers.iter().map(|worker| worker.shard.agree(worker.shard.is_settled())).collect();
            done.contains(&true)
        })
        .await;
        let page = node.workers[0].broker.members(&room, None, 10).await.expect("members");
        assert_eq!(page.members, [], "no ghosts");
    })
    .await;
}
