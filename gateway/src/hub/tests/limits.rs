//! Rates and counts of the whole cluster, as one node keeps them: what costs a call, what waits, and what holds when the
//! broker does not answer.

use async_trait::async_trait;
use roomcast_protocol::{ErrorCode, RoomName};
use serde_json::Value;
use tokio::time::timeout;

use super::{Client, DEADLINE, Faulty, Node, local, record, until};
use crate::broker::{
    Beat, Broker, BrokerError, Bucket, Claim, Farewell, Incarnation, NodeNote, Quotas, Subject, Taken,
};
use crate::config::{Rate, RoomPolicies, RoomPolicy, Settings};
use crate::hub::{Posting, Seat, Spending};

impl Faulty {
    fn quotas(&self) -> Result<(), BrokerError> {
        self.calls.set(self.calls.get() + 1);
        if self.quotas_fail.get() { Err(BrokerError::Undecided("away".into())) } else { Ok(()) }
    }
}

#[async_trait(?Send)]
impl Quotas for Faulty {
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError> {
        self.quotas()?;
        self.inner.take(bucket, rate, wanted).await
    }

    async fn claim(&self, incarnation: &Incarnation, claim: Claim) -> Result<u32, BrokerError> {
        self.quotas()?;
        self.inner.claim(incarnation, claim).await
    }

    async fn set_users(&self, incarnation: &Incarnation, counts: &[(Subject, u32)]) -> Result<(), BrokerError> {
        self.quotas()?;
        self.inner.set_users(incarnation, counts).await
    }
}

fn limited_room(per_second: u32, burst: u32) -> Settings {
    let policy = RoomPolicy { publish_rate: Some(Rate { per_second, burst }), ..RoomPolicy::default() };
    Settings { rooms: RoomPolicies::new([("*".to_owned(), policy)]), ..Settings::default() }
}

fn publish(client: &Client, room: &RoomName, text: &str) {
    client.shard.publish(&client.peer, room, record(text), Some(&format!("{text:?}")), None);
}

/// Answers to publishes, and the messages that came, until `count` were answered.
async fn answers(client: &mut Client, count: usize) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut acked, mut refused, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    while acked.len() + refused.len() < count || seen.len() < acked.len() {
        let frame = client.next().await;
        let text = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        match text("type").as_str() {
            "ack" => acked.push(text("ref")),
            "error" => {
                assert_eq!((text("code").as_str(), &frame["retryable"]), ("rate_limited", &Value::Bool(true)));
                refused.push(text("ref"));
            }
            "message" => seen.push(text("data")),
            _ => {}
        }
    }
    (acked, refused, seen)
}

#[tokio::test]
async fn a_room_takes_its_burst_and_refuses_the_rest() {
    local(async {
        let node = Node::start(2, limited_room(1, 5));
        // At home here, and on the other worker.
        for home in [0, 1] {
            let room = node.room(home);
            let mut client = Client::enter(node.shard(), &room).await;
            let began = std::time::Instant::now();
            let texts: Vec<String> = (0..50).map(|number| number.to_string()).collect();
            for text in &texts {
                publish(&client, &room, text);
            }
            let (acked, refused, seen) = answers(&mut client, 50).await;
            let most = 5 + began.elapsed().as_secs() as usize + 1;
            assert!((5..=most).contains(&acked.len()), "{} of a burst of 5", acked.len());
            assert_eq!(acked[..5], texts[..5], "who came first is first");
            assert_eq!((&seen, acked.len() + refused.len()), (&acked, 50));
        }
        let refused = node.shard().parts.totals.render();
        assert!(refused.contains("roomcast_rate_limited_total{limit=\"room\"} "), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn an_allowance_spares_the_broker_most_calls() {
    local(async {
        let node = Node::start(1, limited_room(10_000, 10_000));
        let (broker, room) = (&node.workers[0].broker, node.room(0));
        let mut client = Client::enter(node.shard(), &room).await;
        let began = std::time::Instant::now();
        for number in 0..500 {
            publish(&client, &room, &number.to_string());
            assert_eq!(answers(&mut client, 1).await.1, [""; 0]);
        }
        // Each asks for twice as much as the last: nine for 500, and nine again for each that a slow machine lets lapse.
        let lapsed = began.elapsed().as_millis() as usize / 250;
        assert!(broker.calls.get() <= 9 + 9 * lapsed, "{} calls for 500 publishes", broker.calls.get());
    })
    .await;
}

#[tokio::test]
async fn without_limits_nobody_is_asked() {
    local(async {
        let node = Node::start(1, Settings::default());
        let (broker, room) = (&node.workers[0].broker, node.room(0));
        let mut client = Client::enter(node.shard(), &room).await;
        for number in 0..100 {
            publish(&client, &room, &number.to_string());
        }
        assert_eq!(answers(&mut client, 100).await.0.len(), 100);
        assert!(node.shard().user_allowance(Subject::of("ann")).is_none() && !node.shard().counts(Subject::of("ann")));
        assert_eq!(broker.calls.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_user_spends_on_all_connections_together() {
    local(async {
        let settings = Settings { user_publish_rate: 1, user_publish_burst: 7, ..Settings::default() };
        let node = Node::start(2, settings);
        let began = std::time::Instant::now();
        let user = Subject::of("ann");
        assert!(node.shard().user_allowance(Subject::NOBODY).is_none(), "who has no name is nobody in common");
        let mut spent = 0;
        for worker in &node.workers {
            let shard = &worker.shard;
            let allowance = shard.user_allowance(user).expect("limited");
            assert!(std::rc::Rc::ptr_eq(&allowance, &shard.user_allowance(user).expect("limited")));
            let clients = [Client::connect(shard).await, Client::connect(shard).await];
            for turn in 0..20 {
                let peer = &clients[turn % 2].peer;
                loop {
                    match shard.spend(&allowance, peer) {
                        Spending::Done => spent += 1,
                        Spending::Refused => {}
                        Spending::Waits => {
                            assert!(!peer.may_read(), "nothing is read from it meanwhile");
                            until("the broker to answer", || peer.may_read()).await;
                            continue;
                        }
                    }
                    break;
                }
            }
        }
        let most = 7 + began.elapsed().as_secs() + 1;
        assert!((7..=most).contains(&spent), "{spent} of a burst of 7");
        // Another user is not concerned.
        let bob = node.shard().user_allowance(Subject::of("bob")).expect("limited");
        let client = Client::connect(node.shard()).await;
        assert_eq!(node.shard().spend(&bob, &client.peer), Spending::Waits);
        until("the broker to answer", || client.peer.may_read()).await;
        assert_eq!(node.shard().spend(&bob, &client.peer), Spending::Done);
    })
    .await;
}

#[tokio::test]
async fn users_who_have_gone_are_forgotten() {
    local(async {
        let settings = Settings { user_publish_rate: 1, ..Settings::default() };
        let node = Node::start(1, settings);
        let stays = node.shard().user_allowance(Subject::of("stays")).expect("limited");
        for number in 0..5000 {
            node.shard().user_allowance(Subject::of(&number.to_string())).expect("limited");
        }
        assert!(std::rc::Rc::ptr_eq(&stays, &node.shard().user_allowance(Subject::of("stays")).expect("limited")));
        assert!(node.shard().user_allowances.len() <= 256);
    })
    .await;
}

#[tokio::test]
async fn without_an_answer_the_rate_holds_for_the_node_alone() {
    local(async {
        let node = Node::start(2, limited_room(1, 5));
        node.workers.iter().for_each(|worker| worker.broker.quotas_fail.set(true));
        let began = std::time::Instant::now();
        let room = node.room(0);
        let (mut one, mut two) = (Client::enter(node.shard(), &room).await, Client::enter(node.shard(), &room).await);
        let mut acked = 0;
        for client in [&mut one, &mut two] {
            for number in 0..20 {
                publish(client, &room, &number.to_string());
            }
        }
        for client in [&mut one, &mut two] {
            let mut answered = 0;
            while answered < 20 {
                let frame = client.next().await;
                answered += usize::from(frame["type"] == "ack" || frame["type"] == "error");
                acked += u64::from(frame["type"] == "ack");
            }
        }
        assert!((5..=5 + began.elapsed().as_secs() + 1).contains(&acked), "{acked} of a burst of 5");
        let calls = node.workers[0].broker.calls.get();
        let most = 1 + began.elapsed().as_secs() as usize;
        assert!((1..=most).contains(&calls), "{calls} calls: who does not answer is not asked by each");
    })
    .await;
}

fn few_connections(most: u32) -> Settings {
    Settings { max_connections_per_user: most, ..Settings::default() }
}

fn note(node: &Node) -> NodeNote<'_> {
    let node = &node.shard().parts.node;
    NodeNote { node, connections: 0, rooms: 0, max_connections: 0, load: 0.0, version: "0" }
}

/// What another node finds left of ann's connections.
async fn left(node: &Node, most: u32) -> u32 {
    let broker = &node.workers[0].broker.inner;
    let other = Incarnation::new(&node.shard().parts.node);
    let beat = Beat {
        incarnation: &other,
        expiry: std::time::Duration::from_mins(1),
        number: 1,
        answered: 0,
        note: note(node),
        working_on: &[],
        most_claims: 0,
    };
    broker.beat(&beat).await.expect("a beat");
    let claim = Claim { user: Subject::of("ann"), own: 0, wanted: most, most };
    let left = broker.claim(&other, claim).await.expect("counted");
    broker.bury(&other, Farewell::Clean).await.expect("buried");
    left
}

async fn until_left(node: &Node, expected: u32) {
    let wait = async {
        while left(node, 3).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{expected} to be left"));
}

#[tokio::test]
async fn of_many_at_once_as_many_get_a_seat_as_there_are() {
    local(async {
        let node = Node::start(2, few_connections(3));
        let ann = Subject::of("ann");
        let asked = (0..40).map(|number| node.workers[number % 2].shard.seat_user(ann));
        let mut seats: Vec<Seat> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        assert_eq!(seats.len(), 3);
        until_left(&node, 0).await;
        assert!(node.shard().seat_user(Subject::of("bob")).await.is_some(), "another user is not concerned");
        // Who goes makes room, on whatever worker; who loses patience takes none.
        drop(seats.pop());
        let patient = node.workers[1].shard.seat_user(ann);
        let seat = timeout(DEADLINE, async {
            let mut patient = Box::pin(patient);
            loop {
                match patient.await {
                    Some(seat) => return seat,
                    None => patient = Box::pin(node.workers[1].shard.seat_user(ann)),
                }
            }
        })
        .await
        .expect("a seat");
        drop((seats, seat));
        for _ in 0..10 {
            let mut asked = Box::pin(node.workers[1].shard.seat_user(ann));
            assert!(futures_util::poll!(&mut asked).is_pending());
            drop(asked);
        }
        until_left(&node, 3).await;
        until("nobody to be remembered", || node.shard().users.len() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_new_life_counts_anew() {
    local(async {
        let node = Node::start(2, few_connections(3));
        let seat = node.workers[1].shard.seat_user(Subject::of("ann")).await.expect("a seat");
        until_left(&node, 2).await;
        let old = node.shard().life.incarnation().expect("a life");
        node.workers[0].broker.inner.bury(&old, Farewell::Clean).await.expect("buried");
        // The next beat finds out; a call made before it is refused, and set right behind it.
        let new = Incarnation::new(&node.shard().parts.node);
        let beat = Beat {
            incarnation: &new,
            expiry: std::time::Duration::from_mins(1),
            number: 1,
            answered: 0,
            note: note(&node),
            working_on: &[],
            most_claims: 0,
        };
        node.workers[0].broker.inner.beat(&beat).await.expect("a beat");
        node.workers.iter().for_each(|worker| worker.shard.begin_life(new.clone()));
        until_left(&node, 2).await;
        drop(seat);
        until_left(&node, 3).await;
    })
    .await;
}

#[tokio::test]
async fn without_an_answer_the_nodes_own_connections_count() {
    local(async {
        let node = Node::start(2, few_connections(3));
        let (broker, ann) = (&node.workers[0].broker, Subject::of("ann"));
        broker.quotas_fail.set(true);
        let mut seats = Vec::new();
        for turn in 0..5 {
            seats.extend(node.workers[turn % 2].shard.seat_user(ann).await);
        }
        assert_eq!(seats.len(), 3);
        drop(seats.pop());
        until("a place", || node.shard().users.seated(ann) == 2).await;
        assert_eq!(left(&node, 3).await, 3, "the broker could not be told");
        broker.quotas_fail.set(false);
        until_left(&node, 1).await;
        seats.extend(node.shard().seat_user(ann).await);
        assert_eq!(seats.len(), 3);
        until_left(&node, 0).await;
    })
    .await;
}

#[tokio::test]
async fn what_no_session_sends_counts_as_what_members_send() {
    local(async {
        let node = Node::start(2, limited_room(1, 5));
        let (room, began) = (node.room(1), std::time::Instant::now());
        let mut taken = 0;
        // Once while nobody is here, and once into the room that is open.
        for turn in 0..2 {
            for _ in 0..10 {
                let data = bytes::Bytes::from_static(b"1");
                let posting = Posting { id: None, subject: Subject::NOBODY, name: "b".into(), user: None, data };
                match node.shard().publish_for(&room, posting).await {
                    Ok(_) => taken += 1,
                    Err(refused) => assert_eq!(refused.code, ErrorCode::RateLimited),
                }
            }
            if turn == 0 {
                assert!(taken >= 5, "{taken} of a burst of 5");
                Client::enter(&node.workers[0].shard, &room).await;
            }
        }
        let most = 5 + began.elapsed().as_secs() + 1;
        assert!(taken <= most, "{taken} of a burst of 5");
    })
    .await;
}

#[tokio::test]
async fn postings_do_not_each_ask_a_broker_that_does_not_answer() {
    local(async {
        let node = Node::start(1, limited_room(1, 5));
        let broker = &node.workers[0].broker;
        broker.quotas_fail.set(true);
        let began = std::time::Instant::now();
        for number in 0..20 {
            let data = bytes::Bytes::from_static(b"1");
            let posting = Posting { id: None, subject: Subject::NOBODY, name: "b".into(), user: None, data };
            let placed = node.shard().publish_for(&node.room(0), posting).await;
            assert!(placed.is_ok(), "{number}: each room has its own rate: {placed:?}");
        }
        let most = 1 + began.elapsed().as_secs() as usize;
        assert!((1..=most).contains(&broker.calls.get()), "{} calls", broker.calls.get());
    })
    .await;
}

#[tokio::test]
async fn who_came_before_the_first_life_is_counted_in_it() {
    local(async {
        let settings = Settings { redis_timeout: std::time::Duration::from_millis(10), ..few_connections(3) };
        let node = Node::start(2, settings);
        node.workers[0].broker.beat_fails.set(true);
        let seats =
            [node.shard().seat_user(Subject::of("ann")).await, node.shard().seat_user(Subject::of("ann")).await];
        assert!(seats.iter().all(Option::is_some) && node.shard().life.incarnation().is_none());
        node.workers[0].broker.beat_fails.set(false);
        until_left(&node, 1).await;
        drop(seats);
    })
    .await;
}
