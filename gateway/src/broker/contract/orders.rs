//! Orders to all nodes and their answers.

use super::*;
use crate::broker::{Answer, BrokerError, Order, Target, Task};

everywhere!(all_who_listen_are_told, answers_are_kept, what_breaks_a_bound_is_not_sent);

fn order(client: ClientId) -> Order {
    let task = Task::Remove { room: room("lobby"), target: Target::Client(client), words: Some("bye".into()) };
    Order::new(node("node-a"), task)
}

async fn next_order(events: &mut Events) -> Order {
    match events.next().await {
        Event::Order(order) => order,
        other => panic!("expected an order, got {other:?}"),
    }
}

async fn all_who_listen_are_told(mut pair: Pair) {
    // Nobody hears it, and nobody is told later.
    pair.a.order(&order(ClientId::random())).await.expect("ordered");
    for broker in [&pair.a, &pair.b] {
        broker.listen().await.expect("listening");
        broker.listen().await.expect("again is no harm");
    }
    pair.b.subscribe(&room("lobby")).await.expect("subscribed");
    let orders = [(); 3].map(|()| order(ClientId::random()));
    for order in &orders {
        pair.a.order(order).await.expect("ordered");
    }
    for order in &orders {
        assert_eq!(next_order(&mut pair.from_a).await, *order, "who gave it, too");
        assert_eq!(next_order(&mut pair.from_b).await, *order);
    }
    pair.a.broadcast(&room("lobby"), &plains(0..1)).await.expect("sent");
    pair.from_b.messages().await;
}

async fn answers_are_kept(pair: Pair) {
    let (one, other) = (order(ClientId::random()).id, order(ClientId::random()).id);
    assert_eq!(pair.a.answers(one).await.expect("answers"), []);
    pair.a.answer(one, Answer::Done { hit: 2 }).await.expect("answered");
    pair.b.answer(one, Answer::Unknown).await.expect("answered");
    pair.b.answer(other, Answer::Overloaded).await.expect("answered");
    let mut answers = pair.b.answers(one).await.expect("answers");
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(answers, [(node("node-a"), Answer::Done { hit: 2 }), (node("node-b"), Answer::Unknown)]);
    assert_eq!(pair.a.answers(other).await.expect("answers"), [(node("node-b"), Answer::Overloaded)]);
}

async fn what_breaks_a_bound_is_not_sent(pair: Pair) {
    let target = Target::User("u".repeat(200).into());
    let order = Order::new(node("node-a"), Task::Disconnect { target, may_return: true, words: None });
    let error = pair.a.order(&order).await.expect_err("too long");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
}

/// The channel is wanted over reconnects, like a room.
#[tokio::test(flavor = "local")]
async fn orders_are_heard_again_after_an_outage() {
    let server = Server::start(&[]);
    let (a, mut from_a) = connect(&server.options("node-a"), 64).await;
    a.listen().await.expect("listening");
    let _: i64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    from_a.resubscribed().await;
    let order = order(ClientId::random());
    a.order(&order).await.expect("ordered");
    assert_eq!(next_order(&mut from_a).await, order);
}

#[tokio::test(flavor = "local")]
async fn orders_follow_the_slot_they_are_in() {
    let group = Sharded::start_ready();
    let (a, mut from_a) = connect(&group.options("node-a"), 64).await;
    a.listen().await.expect("listening");
    let listeners = |at: usize| -> Vec<String> { group.servers[at].command(&["PUBSUB", "SHARDCHANNELS", "rc:{!}*"]) };
    let from = (0..3).find(|&at| !listeners(at).is_empty()).expect("one has the channel");
    let to = (from + 1) % 3;
    let slot = group.servers[0].command::<i64>(&["CLUSTER", "KEYSLOT", "{!}"]).to_string();
    let heir: String = group.servers[to].command(&["CLUSTER", "MYID"]);
    for at in [to, from, (from + 2) % 3] {
        let _: String = group.servers[at].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &heir]);
    }
    from_a.resubscribed().await;
    let order = order(ClientId::random());
    a.order(&order).await.expect("sent on");
    assert_eq!(next_order(&mut from_a).await, order);
    assert_eq!((listeners(from).len(), listeners(to).len()), (0, 1));
}

#[tokio::test(flavor = "local")]
async fn strangers_on_the_channel_stop_nobody() {
    let server = Server::start(&[]);
    let (a, mut from_a) = connect(&server.options("node-a"), 64).await;
    a.listen().await.expect("listening");
    let huge = format!("{{\"v\":1,\"words\":\"{}\"}}", "w".repeat(1 << 20));
    for text in ["", "nonsense", "{}", "RC1 D a b c", r#"{"v":1,"id":"x","from":"n","do":"disconnect"}"#, &huge] {
        let _: i64 = server.command(&["PUBLISH", "rc:{!}:orders", text]);
    }
    let order = order(ClientId::random());
    let _: i64 =
        server.command(&["HSET", &format!("rc:{{!}}:answers:{}", order.id), "bad node", "done 1", "n", "done x"]);
    a.order(&order).await.expect("ordered");
    assert_eq!(next_order(&mut from_a).await, order);
    a.answer(order.id, Answer::Done { hit: 0 }).await.expect("answered");
    assert_eq!(a.answers(order.id).await.expect("answers"), [(node("node-a"), Answer::Done { hit: 0 })]);
    let left: i64 = server.command(&["PTTL", &format!("rc:{{!}}:answers:{}", order.id)]);
    assert!((1..=10_000).contains(&left), "answers expire: {left}");
}
