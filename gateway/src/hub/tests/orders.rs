//! Orders to all nodes: whom they reach, and what the caller is told.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use roomcast_protocol::{ErrorCode, NodeId, RoomName};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::super::peer::Stop;
use super::{Client, DEADLINE, Node, local, until};
use crate::broker::{
    Answer, Beat, Broker, BrokerStats, Directory as _, Event, Incarnation, MemoryBroker, NodeNote, Order, Orders as _,
    Target, Task,
};
use crate::config::Settings;
use crate::hub::{Carried, Identity, Shard, Sight};
use crate::telemetry::metrics::Metrics;

/// Another node of the cluster, with nothing behind it.
struct Other {
    broker: MemoryBroker,
    events: mpsc::Receiver<Event>,
}

impl Other {
    async fn start(node: &Node, name: &str) -> Self {
        Self::start_for(node, name, Duration::from_mins(1)).await
    }

    async fn start_for(node: &Node, name: &str, expiry: Duration) -> Self {
        let (sender, events) = mpsc::channel(64);
        let name = NodeId::new(name).expect("valid");
        let broker = node.memory.handle(name.clone(), sender, BrokerStats::new(&Metrics::new()));
        broker.listen().await.expect("listening");
        let incarnation = &Incarnation::new(&name);
        let said = NodeNote { node: &name, connections: 0, rooms: 0, max_connections: 1, load: 0.0, version: "9" };
        let beat = Beat { incarnation, expiry, number: 1, answered: 0, note: said, working_on: &[], most_claims: 0 };
        broker.beat(&beat).await.expect("a beat");
        Self { broker, events }
    }

    async fn answer(&mut self, answer: Answer) -> Order {
        let next = timeout(DEADLINE, self.events.recv()).await.expect("an order in time");
        let Some(Event::Order(order)) = next else { panic!("expected an order, got {next:?}") };
        self.broker.answer(order.id, answer).await.expect("answered");
        order
    }
}

/// Waits until the node lives and hears orders.
async fn lives(node: &Node) {
    until("the lease to run", || node.shard().parts.post.lease().holds()).await;
}

fn done(nodes: usize, hit: u64) -> Carried {
    Carried { nodes, answered: nodes, refused: 0, hit }
}

async fn remove(shard: &Rc<Shard>, room: &RoomName, target: Target) -> Carried {
    shard.remove_member(room, target, Some("enough")).await.expect("given")
}

fn of_user(user: &str) -> Identity {
    Identity { user: Some(user.into()), info: None }
}

#[tokio::test]
async fn a_member_is_removed_wherever_it_is() {
    local(async {
        let node = Node::start(2, Settings::default());
        lives(&node).await;
        for (home, at, from) in [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 0)] {
            let (room, other) = (node.room(home), node.room(0));
            let shard = &node.workers[at].shard;
            let mut watcher = Client::enter(node.shard(), &room).await;
            let mut member = Client::enter(shard, &room).await;
            shard.join(&member.peer, other.clone(), None, Sight::FULL, None);
            member.expect("joined").await;
            let target = || Target::Client(member.peer.id);
            assert_eq!(remove(&node.workers[from].shard, &room, target()).await, done(1, 1));
            assert_eq!(remove(node.shard(), &room, target()).await, done(1, 0), "not there any more");
            let left = member.expect("left").await;
            let name = room.as_str();
            let expected = serde_json::json!({"type": "left", "room": name, "reason": "removed", "message": "enough"});
            assert_eq!(left, expected);
            loop {
                let presence = watcher.expect("presence").await;
                if presence["event"] == "leave" {
                    assert_eq!(presence["member"]["id"], member.peer.id.to_string());
                    break;
                }
            }
            assert_eq!((member.peer.rooms(), member.peer.stop()), (vec![other], None), "it stays connected");
            // It is removed, not banned.
            shard.join(&member.peer, room.clone(), None, Sight::FULL, None);
            member.expect("joined").await;
        }
    })
    .await;
}

#[tokio::test]
async fn users_are_found_by_their_names() {
    local(async {
        let node = Node::start(2, Settings::default());
        lives(&node).await;
        let (room, elsewhere) = (node.room(0), node.room(1));
        let mut clients = Vec::new();
        for (worker, user, room) in [(0, "ann", &room), (1, "ann", &room), (1, "bob", &room), (0, "ann", &elsewhere)] {
            let mut client = Client::connect_as(&node.workers[worker].shard, "n", of_user(user)).await;
            client.shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            client.expect("joined").await;
            clients.push(client);
        }
        let ann = || Target::User("ann".into());
        assert_eq!(remove(node.shard(), &room, ann()).await, done(1, 2));
        let are_in = |clients: &[Client]| clients.iter().map(|client| client.peer.room_count()).collect::<Vec<_>>();
        assert_eq!(are_in(&clients), [0, 0, 1, 1]);
        let carried = node.shard().disconnect_everywhere(ann(), false, None).await.expect("given");
        assert_eq!(carried, done(1, 3));
        let stops: Vec<_> = clients.iter().map(|client| client.peer.stop()).collect();
        assert_eq!(stops, [Some(Stop::Removed), Some(Stop::Removed), None, Some(Stop::Removed)]);
        let nobody = node.shard().disconnect_everywhere(Target::User("an".into()), false, None).await;
        assert_eq!(nobody.expect("given"), done(1, 0));
    })
    .await;
}

#[tokio::test]
async fn connections_are_ended_everywhere() {
    local(async {
        let node = Node::start(2, Settings::default());
        lives(&node).await;
        let clients = [Client::connect(node.shard()).await, Client::connect(&node.workers[1].shard).await];
        let words: Arc<str> = "see you".into();
        for (client, may_return, stop) in [(&clients[0], true, Stop::Requested), (&clients[1], false, Stop::Removed)] {
            let target = || Target::Client(client.peer.id);
            let shard = node.shard();
            let carried = shard.disconnect_everywhere(target(), may_return, Some(&words)).await.expect("given");
            assert_eq!((carried, client.peer.stop()), (done(1, 1), Some(stop)));
            let again = shard.disconnect_everywhere(target(), may_return, None).await.expect("given");
            assert_eq!(again, done(1, 0), "it is ending");
            assert_eq!(client.peer.take_words().as_ref(), Some(&words));
        }
        // Whoever was to come back and is removed meanwhile is not asked back.
        let target = Target::Client(clients[0].peer.id);
        let carried = node.shard().disconnect_everywhere(target, false, None).await.expect("given");
        assert_eq!((carried, clients[0].peer.stop()), (done(1, 1), Some(Stop::Removed)));
    })
    .await;
}

#[tokio::test]
async fn the_caller_hears_of_every_node() {
    local(async {
        let node = Node::start(1, Settings::default());
        lives(&node).await;
        let (mut good, mut old) = (Other::start(&node, "good").await, Other::start(&node, "old").await);
        let room = node.room(0);
        let client = Client::enter(node.shard(), &room).await;
        let give = || remove(node.shard(), &room, Target::Client(client.peer.id));
        let (carried, order, _) =
            tokio::join!(give(), good.answer(Answer::Done { hit: 5 }), old.answer(Answer::Unknown));
        assert_eq!(carried, Carried { nodes: 3, answered: 2, refused: 1, hit: 6 });
        let whom = Target::Client(client.peer.id);
        assert_eq!(order.task, Task::Remove { room: room.clone(), target: whom, words: Some("enough".into()) });
        let (carried, ..) = tokio::join!(give(), good.answer(Answer::Overloaded), old.answer(Answer::Done { hit: 1 }));
        assert_eq!(carried, Carried { nodes: 3, answered: 2, refused: 1, hit: 1 });
        // One that lives and says nothing is waited for, but not for ever.
        let (carried, _) = tokio::join!(give(), good.answer(Answer::Done { hit: 0 }));
        assert_eq!(carried, Carried { nodes: 3, answered: 2, refused: 0, hit: 0 });
        assert!(!carried.is_complete());
        let cluster = &node.shard().parts.totals.cluster;
        assert_eq!(cluster.orders_given.with_label_values(&["unanswered"]).get(), 3);
        assert_eq!(cluster.orders_taken.with_label_values(&["done"]).get(), 3);
    })
    .await;
}

/// Nobody answers for a dead node: until its lease runs out that shows, and from then on it is not expected to.
#[tokio::test]
async fn a_dead_node_counts_until_its_lease_runs_out() {
    local(async {
        let node = Node::start(1, Settings::default());
        lives(&node).await;
        let _dead = Other::start_for(&node, "dead", Duration::from_secs(4)).await;
        let give = async || {
            let nobody = Target::User("nobody".into());
            node.shard().disconnect_everywhere(nobody, true, None).await.expect("given")
        };
        assert_eq!(give().await, Carried { nodes: 2, answered: 1, refused: 0, hit: 0 });
        let alone = async {
            while node.workers[0].broker.nodes().await.expect("nodes").len() > 1 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, alone).await.expect("the lease to run out");
        assert_eq!(give().await, done(1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_ordered_is_refused() {
    local(async {
        let node = Node::start(1, Settings::default());
        lives(&node).await;
        let (shard, long) = (node.shard(), "x".repeat(200));
        for (user, words) in [("", None), (&*long, None), ("a\nb", None), ("u", Some(&*long)), ("u", Some("a\nb"))] {
            let refused = shard.disconnect_everywhere(Target::User(user.into()), true, words).await;
            assert_eq!(refused.expect_err("refused").code, ErrorCode::BadFrame, "{user:?} {words:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_of_a_later_version_is_answered() {
    local(async {
        let node = Node::start(1, Settings::default());
        lives(&node).await;
        let later = Order::new(NodeId::new("n").expect("valid"), Task::Unknown);
        let broker = &node.workers[0].broker;
        node.workers[0].events.send(Event::Order(later.clone())).await.expect("taken");
        let answers = async {
            loop {
                let answers = broker.answers(later.id).await.expect("answers");
                if !answers.is_empty() {
                    return answers;
                }
                tokio::task::yield_now().await;
            }
        };
        let answers = timeout(DEADLINE, answers).await.expect("an answer in time");
        assert_eq!(answers, [(node.shard().parts.node.clone(), Answer::Unknown)]);
    })
    .await;
}
