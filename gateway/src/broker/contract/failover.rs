//! When another server becomes the master.

use super::*;
use crate::broker::{BrokerError, Published};

/// Publishes until it succeeds; everything before must be an error that may be retried.
pub(super) async fn publish_at_last(broker: &RedisBroker, room: &RoomName) -> Published {
    let wait = async {
        loop {
            match broker.publish(room, &policy(), &[plain("at last")]).await {
                Ok(published) => return published,
                Err(BrokerError::Unavailable(_) | BrokerError::Undecided(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(other) => panic!("expected unavailable or undecided, got {other:?}"),
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("the broker finds the new master")
}

/// Waits until what `a` publishes reaches `b`.
async fn reaches(a: &RedisBroker, from_b: &mut Events, room: &RoomName) {
    let seq = stored(&publish_at_last(a, room).await.outcomes)[0];
    while first_seq(&from_b.messages().await) != seq {}
}

/// Two nodes that use the old master, and a room on both.
async fn start(group: &Watched) -> (RedisBroker, (RedisBroker, Events), Events, RoomName) {
    let hasty = |name: &str| RedisOptions { timeout: Duration::from_millis(1500), ..group.options(name) };
    let (a, from_a) = connect(&hasty("node-a"), 64).await;
    let (b, mut from_b) = connect(&hasty("node-b"), 64).await;
    let room = room("lobby");
    b.subscribe(&room).await.expect("subscribed");
    reaches(&a, &mut from_b, &room).await;
    (a, (b, from_a), from_b, room)
}

#[tokio::test(flavor = "local")]
async fn a_planned_failover_is_followed() {
    let group = Watched::start_ready();
    let (a, _b, mut from_b, room) = start(&group).await;
    let _: String = group.sentinels[0].command(&["SENTINEL", "FAILOVER", "main"]);
    from_b.resubscribed().await;
    until("the sentinel names the other", || group.master() == group.servers[1].port).await;
    reaches(&a, &mut from_b, &room).await;
    // Beside the canary.
    until("the room is subscribed to on the replica", || {
        let clients: String = group.servers[1].command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.lines().filter(|line| line.contains("sub=2") && !line.contains("name=sentinel")).count() == 1
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn a_killed_master_is_replaced() {
    let mut group = Watched::start_ready();
    let (a, _b, mut from_b, room) = start(&group).await;
    group.servers[0].kill();
    from_b.resubscribed().await;
    assert_eq!(group.master(), group.servers[1].port);
    reaches(&a, &mut from_b, &room).await;

    // The old one comes back, believes to be a master, and is not believed.
    group.servers[0].restart();
    for _ in 0..20 {
        reaches(&a, &mut from_b, &room).await;
    }
}

/// Nobody tells the node: no connection broke, the old master still answers. Only the sentinels know better.
#[tokio::test(flavor = "local")]
async fn a_master_that_hangs_is_left() {
    let group = Watched::start_ready();
    let (a, _b, mut from_b, room) = start(&group).await;
    group.servers[0].signal("STOP");
    from_b.resubscribed().await;
    reaches(&a, &mut from_b, &room).await;
    group.servers[0].signal("CONT");
    reaches(&a, &mut from_b, &room).await;
}

/// It names a server that is a master, but not the one that the others mean.
#[tokio::test(flavor = "local")]
async fn one_sentinel_that_is_wrong_does_no_harm() {
    let group = Watched::start_ready();
    let stray = Server::start(&[]);
    let _: String = group.sentinels[0].command(&["SENTINEL", "REMOVE", "main"]);
    let _: String =
        group.sentinels[0].command(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &stray.port.to_string(), "3"]);
    for _ in 0..5 {
        let (a, _b, mut from_b, room) = start(&group).await;
        reaches(&a, &mut from_b, &room).await;
    }
    assert_eq!(stray.command::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test(flavor = "local")]
async fn one_sentinel_that_is_left_is_enough() {
    let mut group = Watched::start_ready();
    group.sentinels[0].kill();
    group.sentinels[1].kill();
    let (a, _b, mut from_b, room) = start(&group).await;
    reaches(&a, &mut from_b, &room).await;
}

#[tokio::test(flavor = "local")]
async fn sentinels_and_servers_with_passwords() {
    let group = Watched::start_ready();
    for sentinel in &group.sentinels {
        let _: String = sentinel.command(&["SENTINEL", "SET", "main", "auth-pass", "s3cret"]);
        let _: String = sentinel.command(&["ACL", "SETUSER", "default", "resetpass", ">wa/tch"]);
    }
    for server in &group.servers {
        let _: String = server.command(&["CONFIG", "SET", "masterauth", "s3cret"]);
        let _: String = server.command(&["CONFIG", "SET", "requirepass", "s3cret"]);
    }
    let url = group.options("node-a").url.replace("://", "://:s3cret@") + "?sentinel_password=wa%2Ftch";
    let (a, _events) = connect(&RedisOptions { url, ..group.options("node-a") }, 64).await;
    publish_at_last(&a, &room("lobby")).await;
}
