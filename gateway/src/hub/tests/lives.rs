//! A life of the node ends and another begins: who is here is entered under it, wherever its join stands.

use super::super::mail::JoinRequest;
use super::{Client, Node, local, until};
use crate::broker::{Broker, Incarnation, PresenceCall, PresenceOp};
use crate::config::Settings;
use crate::hub::Sight;

#[tokio::test]
async fn members_and_joins_under_way_are_entered_under_a_new_life() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (here, away, room) = (node.shard(), &node.workers[1].shard, node.room(0));
        let _near = Client::enter(here, &room).await;
        let _far = Client::enter(away, &room).await;
        let (mut late, mut later) = (Client::connect(here).await, Client::connect(away).await);
        let home = here.home(&room).expect("open");
        let old = here.life.incarnation().expect("a life");
        let new = Incarnation::new(&here.parts.node);
        for worker in &node.workers {
            worker.shard.begin_life(new.clone());
        }
        let broker = &node.workers[0].broker;
        let left_of_the_old = async || broker.evict(&room, &old, None).await.expect("evicted").online;
        while left_of_the_old().await != 2 {
            tokio::task::yield_now().await;
        }
        // Two were entered under the old life and have their seats only now.
        let ops = [&late, &later].map(|client| PresenceOp::Enter(client.peer.member()));
        let call = PresenceCall { incarnation: &old, ops: &ops, unique_names: false, want_members: 0 };
        broker.presence(&room, call).await.expect("presence");
        let joins = [&late, &later].map(|client| {
            let (from, member) = (client.shard.address(&client.peer), client.peer.member());
            JoinRequest { room: room.clone(), from, member, since: None, sight: Sight::FULL, reference: None, life: 1 }
        });
        here.seat(&home, joins.into(), &[]);
        late.expect("joined").await;
        later.expect("joined").await;
        until("all to be told", || {
            let state = home.state.borrow();
            state.roll.movements.is_empty() && !state.roll.calling
        })
        .await;
        assert_eq!(left_of_the_old().await, 4);
        assert_eq!(broker.held(&new, 9).await.expect("held"), [room]);
    })
    .await;
}

#[tokio::test]
async fn rooms_that_were_let_go_are_released_and_held_again() {
    local(async {
        let settings = Settings { unsubscribe_delay: std::time::Duration::from_millis(250), ..Settings::default() };
        let node = Node::start(1, settings);
        let (shard, room) = (node.shard(), node.room(0));
        let broker = &node.workers[0].broker;
        for _ in 0..2 {
            let client = Client::enter(shard, &room).await;
            let life = shard.life.incarnation().expect("a life");
            assert_eq!(broker.held(&life, 9).await.expect("held"), std::slice::from_ref(&room));
            shard.leave(&client.peer, &room, None);
            until("the room to be let go", || shard.home(&room).is_none()).await;
            until("the broker to be told", || shard.life.is_quiet()).await;
            while !broker.held(&life, 9).await.expect("held").is_empty() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

/// Whoever enters while the lease may have run out would be nobody's if the node died now.
#[tokio::test]
async fn nobody_enters_without_a_lease() {
    local(async {
        let millis = std::time::Duration::from_millis;
        let (lease_beat, lease_expiry) = (millis(100), millis(300));
        let settings = Settings { lease_beat, lease_expiry, redis_timeout: millis(200), ..Settings::default() };
        let node = Node::start(1, settings);
        let (shard, room) = (node.shard(), node.room(0));
        let broker = &node.workers[0].broker;
        let _member = Client::enter(shard, &room).await;
        broker.beat_fails.set(true);
        until("the lease to be doubtful", || !shard.parts.post.lease().holds()).await;
        let mut client = Client::connect(shard).await;
        shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
        assert_eq!(client.expect("error").await["code"], "broker_unavailable");
        broker.beat_fails.set(false);
        until("the lease to run", || shard.parts.post.lease().holds()).await;
        shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
        assert_eq!(client.expect("joined").await["online"], 2);
    })
    .await;
}
