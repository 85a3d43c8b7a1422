//! Coming and going while the broker is away.

use std::time::Duration;

use super::{Client, Node, local, until, with_rooms};
use crate::broker::{Broker, BrokerError};
use crate::config::{RoomPolicy, Settings};
use crate::hub::Sight;

fn ephemeral() -> Settings {
    with_rooms("[[rooms]]\npattern = \"*\"\nmode = \"ephemeral\"\n")
}

#[tokio::test]
async fn whoever_comes_behind_many_who_came_and_went_is_answered() {
    local(async {
        let node = Node::start(1, ephemeral());
        let (shard, room) = (node.shard(), node.room(0));
        let policy: &RoomPolicy = &shard.parts.settings.rooms.policy(&room);
        assert_eq!(policy.mode, roomcast_protocol::Mode::Ephemeral);
        let member = Client::enter(shard, &room).await;
        let broker = &node.workers[0].broker;
        broker.presence_fails.replace(Some(BrokerError::Unavailable("away".into())));
        let mut churn = Vec::new();
        for _ in 0..300 {
            churn.push(Client::connect(shard).await);
        }
        for _ in 0..2 {
            for client in &mut churn {
                shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            }
            for client in &mut churn {
                client.expect("joined").await;
                shard.leave(&client.peer, &room, None);
                client.expect("left").await;
            }
        }
        let mut last = Client::connect(shard).await;
        shard.join(&last.peer, room.clone(), None, Sight::FULL, None);
        last.expect("joined").await;
        let home = shard.home(&room).expect("open");
        until("what cancels out to be forgotten", || home.state.borrow().roll.movements.len() == 1).await;

        broker.presence_fails.replace(None);
        until("all to be told", || home.state.borrow().roll.movements.is_empty()).await;
        let page = broker.members(&room, None, 1000).await.expect("members");
        let mut ids: Vec<_> = page.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        let mut there = [member.peer.id, last.peer.id];
        there.sort_unstable();
        assert_eq!(ids, there, "neither ghosts nor absentees");
    })
    .await;
}

/// Members who were told of a join while the node was alone are not told again when the broker is.
#[tokio::test]
async fn a_join_is_told_once() {
    local(async {
        let node = Node::start(1, ephemeral());
        let (shard, room) = (node.shard(), node.room(0));
        let mut member = Client::enter(shard, &room).await;
        let broker = &node.workers[0].broker;
        broker.presence_fails.replace(Some(BrokerError::Unavailable("away".into())));
        let early = Client::enter(shard, &room).await;
        broker.presence_fails.replace(None);
        let home = shard.home(&room).expect("open");
        until("the broker to be told", || home.state.borrow().roll.movements.is_empty()).await;
        let late = Client::enter(shard, &room).await;
        for client in [&early, &late] {
            let told = member.expect("presence").await;
            assert_eq!((&told["event"], &told["member"]["id"]), (&"join".into(), &client.peer.id.to_string().into()));
        }
    })
    .await;
}

#[tokio::test]
async fn an_undecided_join_leaves_nothing_behind() {
    local(async {
        let settings = Settings { unsubscribe_delay: Duration::from_millis(250), ..Settings::default() };
        let node = Node::start(1, settings);
        let (shard, room) = (node.shard(), node.room(0));
        let broker = &node.workers[0].broker;
        for error in [BrokerError::Undecided("late".into()), BrokerError::Unavailable("away".into())] {
            broker.presence_fails.replace(Some(error));
            let mut client = Client::connect(shard).await;
            shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            assert_eq!(client.expect("error").await["code"], "broker_unavailable");
            broker.presence_fails.replace(None);
            until("the room to be let go", || shard.home(&room).is_none()).await;
        }
        assert!(shard.is_settled());
    })
    .await;
}
