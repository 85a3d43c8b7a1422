//! When Redis dies, hangs, comes back, or the hub is too slow.

use super::*;
use crate::broker::{BrokerError, Range};

const AOF: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A broker with short timeouts.
fn hasty(server: &Server, name: &str) -> RedisOptions {
    RedisOptions { timeout: Duration::from_millis(1500), ..server.options(name) }
}

async fn unavailable(broker: &RedisBroker, room: &RoomName) {
    let started = tokio::time::Instant::now();
    loop {
        match broker.publish(room, &policy(), &plains(0..1)).await {
            Err(BrokerError::Unavailable(_)) => return,
            Ok(_) | Err(BrokerError::Undecided(_)) if started.elapsed() < DEADLINE => {}
            other => panic!("expected unavailable or undecided, got {other:?}"),
        }
    }
}

async fn publish_when_back(broker: &RedisBroker, room: &RoomName) -> crate::broker::Published {
    until("the broker is up again", || broker.is_up()).await;
    broker.publish(room, &policy(), &[plain("after")]).await.expect("published")
}

#[tokio::test(flavor = "local")]
async fn redis_dies_and_comes_back_with_its_data() {
    let mut server = Server::start(&AOF);
    let (a, mut from_a) = connect(&hasty(&server, "node-a"), 64).await;
    let (b, mut from_b) = connect(&hasty(&server, "node-b"), 64).await;
    let room = room("lobby");
    a.subscribe(&room).await.expect("subscribed");
    b.subscribe(&room).await.expect("subscribed");
    let before = a.publish(&room, &policy(), &[idempotent("i", "before")]).await.expect("published");
    assert_eq!(first_seq(&from_b.messages().await), 1);

    server.kill();
    unavailable(&a, &room).await;
    until("it notices", || !a.is_up() && !b.is_up()).await;
    // Down, every call fails at once and is known not to have been sent.
    for _ in 0..3 {
        assert!(matches!(a.history(&room, Range::Latest { limit: 1 }).await, Err(BrokerError::Unavailable(_))));
        assert!(matches!(a.broadcast(&room, &plains(0..1)).await, Err(BrokerError::Unavailable(_))));
        assert!(matches!(a.presence(&room, call(&[], 0)).await, Err(BrokerError::Unavailable(_))));
        assert!(matches!(a.members(&room, None, 1).await, Err(BrokerError::Unavailable(_))));
    }
    let late = super::room("late");
    assert!(matches!(b.subscribe(&late).await, Err(BrokerError::Unavailable(_))));

    server.restart();
    from_a.resubscribed().await;
    from_b.resubscribed().await;
    let again = a.publish(&room, &policy(), &[idempotent("i", "before")]).await;
    let again = if let Ok(again) = again {
        again
    } else {
        until("the broker is up again", || a.is_up()).await;
        a.publish(&room, &policy(), &[idempotent("i", "before")]).await.expect("published")
    };
    assert_eq!(again.outcomes, [Outcome::Duplicate { term: before.term.clone(), seq: 1 }]);
    let after = publish_when_back(&a, &room).await;
    // Nothing was lost, but that shows only in where the term before ended: what a restart brings may be older.
    assert_ne!(after.term, before.term);
    let history = a.history(&room, Range::Latest { limit: 9 }).await.expect("history");
    let ended: Vec<_> = history.boundaries.iter().map(|ended| (&ended.term, ended.start)).collect();
    assert_eq!(ended, [(&before.term, 1)]);
    assert_eq!(history.boundaries[0].end + 1, history.start);
    let Outcome::Stored { seq } = after.outcomes[0] else { panic!("a duplicate") };
    let envelope = from_b.messages().await;
    assert_eq!(first_seq(&envelope), seq);
    // A subscription that failed meanwhile was still wanted.
    a.broadcast(&late, &plains(0..1)).await.expect("sent");
    assert_eq!(from_b.messages().await.room, late);
}

#[tokio::test(flavor = "local")]
async fn a_broker_starts_without_redis_and_finds_it_later() {
    let mut server = Server::start(&[]);
    server.kill();
    let options = hasty(&server, "node-a");
    let (sender, mut events) = Events::channel("node-a", 64);
    let broker = RedisBroker::connect(&options, sender, stats()).expect("good options");
    let room = room("lobby");
    assert!(!broker.is_up());
    unavailable(&broker, &room).await;
    assert!(matches!(broker.subscribe(&room).await, Err(BrokerError::Unavailable(_))));
    server.restart();
    // Who was told of a failure is told that it is over.
    events.resubscribed().await;
    assert_eq!(stored(&publish_when_back(&broker, &room).await.outcomes), [1]);
}

#[tokio::test(flavor = "local")]
async fn a_killed_subscription_is_made_anew() {
    let server = Server::start(&[]);
    let (a, _from_a) = connect(&server.options("node-a"), 64).await;
    let (b, mut from_b) = connect(&server.options("node-b"), 64).await;
    // More rooms than one SUBSCRIBE takes.
    let rooms: Vec<RoomName> = (0..1200).map(|number| room(&format!("r-{number}"))).collect();
    for rooms in rooms.chunks(300) {
        let wait = rooms.iter().map(|room| b.subscribe(room));
        for subscribed in wait {
            subscribed.await.expect("subscribed");
        }
    }
    for _ in 0..2 {
        until("both hear themselves", || a.is_up() && b.is_up()).await;
        assert_eq!(server.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 2);
        from_b.resubscribed().await;
        for room in [&rooms[0], &rooms[600], &rooms[1199]] {
            a.broadcast(room, &plains(0..1)).await.expect("sent");
            assert_eq!(from_b.messages().await.room, *room);
        }
    }
    assert!(a.paths_up().0, "the other connection was not touched");
}

#[tokio::test(flavor = "local")]
async fn a_hanging_redis_leaves_calls_undecided_and_is_dropped() {
    let server = Server::start(&[]);
    let (a, mut from_a) = connect(&hasty(&server, "node-a"), 64).await;
    let room = room("lobby");
    a.subscribe(&room).await.expect("subscribed");
    server.signal("STOP");
    let error = a.publish(&room, &policy(), &plains(0..1)).await.expect_err("no answer");
    assert!(matches!(error, BrokerError::Undecided(_)), "{error}");
    until("both paths are found dead", || a.paths_up() == (false, false)).await;
    unavailable(&a, &room).await;
    server.signal("CONT");
    from_a.resubscribed().await;
    publish_when_back(&a, &room).await;
}

#[tokio::test(flavor = "local")]
async fn too_many_calls_are_refused() {
    let server = Server::start(&[]);
    let (a, _from_a) = connect(&hasty(&server, "node-a"), 64).await;
    let room = room("lobby");
    server.signal("STOP");
    let a = std::rc::Rc::new(a);
    let calls: Vec<_> = (0..1100)
        .map(|_| {
            let (a, room) = (std::rc::Rc::clone(&a), room.clone());
            tokio::task::spawn_local(async move { a.broadcast(&room, &plains(0..1)).await })
        })
        .collect();
    let (mut overloaded, mut undecided) = (0, 0);
    for call in calls {
        match call.await.expect("no panic") {
            Err(BrokerError::Overloaded) => overloaded += 1,
            Err(BrokerError::Undecided(_)) => undecided += 1,
            other => panic!("expected overloaded or undecided, got {other:?}"),
        }
    }
    assert_eq!((overloaded, undecided), (76, 1024));
    server.signal("CONT");
}

#[tokio::test(flavor = "local")]
async fn a_replica_is_left_alone() {
    let server = Server::start(&[]);
    let (a, _from_a) = connect(&server.options("node-a"), 64).await;
    let room = room("lobby");
    let _: String = server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = a.publish(&room, &policy(), &plains(0..1)).await.expect_err("read only");
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error}");
    let _: String = server.command(&["REPLICAOF", "NO", "ONE"]);
    let wait = async {
        while a.publish(&room, &policy(), &plains(0..1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("reconnected to the master");
}

/// A hub that does not read loses events, is told so, and hears what comes later.
async fn slow_hub(a: &dyn Broker, b: &dyn Broker, mut from_b: Events, overruns: impl Fn() -> u64) {
    let room = room("lobby");
    b.subscribe(&room).await.expect("subscribed");
    for _ in 0..50 {
        a.publish(&room, &policy(), &plains(0..1)).await.expect("published");
    }
    until("the overrun is counted", || overruns() > 0).await;
    // It may take a few rounds until nothing more is on the way.
    from_b.resubscribed().await;
    let history = b.history(&room, Range::After { seq: 0, limit: 100 }).await.expect("history");
    assert_eq!(history.messages.len(), 50);
    let wait = async {
        loop {
            a.publish(&room, &policy(), &plains(0..1)).await.expect("published");
            if let Event::Messages(envelope) = from_b.next().await
                && first_seq(&envelope) > 50
            {
                return;
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("hears again");
}

#[tokio::test(flavor = "local")]
async fn a_slow_hub_over_redis() {
    let server = Server::start(&[]);
    let metrics = Metrics::new();
    let (a, _from_a) = connect(&server.options("node-a"), 1024).await;
    let (sender, from_b) = Events::channel("node-b", 8);
    let b = RedisBroker::connect(&server.options("node-b"), sender, BrokerStats::new(&metrics)).expect("good options");
    slow_hub(&a, &b, from_b, || metrics.broker.overruns.get()).await;
}

#[tokio::test(flavor = "local")]
async fn a_slow_hub_over_memory() {
    let (store, metrics) = (Memory::new(), Metrics::new());
    let (to_a, _from_a) = Events::channel("node-a", 1024);
    let (to_b, from_b) = Events::channel("node-b", 8);
    let a = store.handle(node("node-a"), to_a, stats());
    let b = store.handle(node("node-b"), to_b, BrokerStats::new(&metrics));
    slow_hub(&a, &b, from_b, || metrics.broker.overruns.get()).await;
}

#[tokio::test(flavor = "local")]
async fn an_idle_memory_is_empty() {
    let store = Memory::new();
    let (to_a, _from_a) = Events::channel("node-a", 1024);
    let a = store.handle(node("node-a"), to_a, stats());
    let policy = RoomPolicy {
        history_ttl: Duration::from_millis(50),
        idempotency_window: Duration::from_millis(80),
        ..policy()
    };
    let client = ClientId::random();
    for number in 0..100 {
        let room = room(&format!("r-{number}"));
        a.subscribe(&room).await.expect("subscribed");
        a.publish(&room, &policy, &[idempotent("i", "x")]).await.expect("published");
        a.broadcast(&room, &plains(0..1)).await.expect("sent");
        a.presence(&room, call(&[enter(client, "Ann")], 0)).await.expect("presence");
        a.presence(&room, call(&[leave(client, "Ann")], 0)).await.expect("presence");
        a.history(&super::room("only-read"), Range::Latest { limit: 1 }).await.expect("history");
    }
    assert_eq!(store.rooms(), 100);
    (0..50).for_each(|number| a.unsubscribe(&room(&format!("r-{number}"))));
    until("history and ids expired", || {
        store.sweep();
        store.rooms() == 50
    })
    .await;
    drop(a);
    until("the rest expired", || {
        store.sweep();
        store.rooms() == 0
    })
    .await;
}
