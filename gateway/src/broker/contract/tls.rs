//! Sentinels, their servers and clusters that speak nothing but TLS, with certificates of an authority of our own.

use super::failover::publish_at_last;
use super::trust::{stays_down, works};
use super::*;
use crate::broker::redis::test_tls::Authority;

/// The same over TLS, trusting what the servers of this directory have as their authority.
fn secured(plain: RedisOptions, server: &Server) -> RedisOptions {
    let url = plain.url.replace("redis+", "rediss+");
    RedisOptions { url, ca_pem: Some(server.dir.path().join("ca.pem")), ..plain }
}

/// Neither without TLS nor with trust in somebody else.
async fn stays_shut(plain: RedisOptions) {
    stays_down(&plain).await;
    let stranger = Authority::new().server("127.0.0.1");
    stays_down(&secured(plain, &stranger)).await;
}

#[tokio::test(flavor = "local")]
async fn sentinels_and_their_servers() {
    let mut group = Watched::start_ready_over_tls(&Authority::new());
    let options = secured(group.options("node-a"), &group.sentinels[0]);
    works(&options).await;
    stays_shut(group.options("node-a")).await;

    let (a, _from_a) = connect(&options, 64).await;
    let (b, mut from_b) = connect(&RedisOptions { node: node("node-b"), ..options }, 64).await;
    let room = room("over-tls");
    b.subscribe(&room).await.expect("subscribed");
    group.servers[0].kill();
    publish_at_last(&a, &room).await;
    from_b.resubscribed().await;
    assert!(group.servers[1].is_master());
    assert!(a.signs().upheavals() > 0, "what the old master had not passed on is lost");
    let seq = stored(&publish_at_last(&a, &room).await.outcomes)[0];
    while first_seq(&from_b.messages().await) != seq {}
}

#[tokio::test(flavor = "local")]
async fn a_cluster() {
    let mut group = Sharded::start_ready_over_tls(&Authority::new());
    for server in &group.servers {
        let _: String = server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let options = secured(group.options("node-a"), &group.servers[5]);
    works(&options).await;
    stays_shut(group.options("node-a")).await;

    let (a, _from_a) = connect(&options, 64).await;
    let (b, mut from_b) = connect(&RedisOptions { node: node("node-b"), ..options }, 64).await;
    // One in each third of the slots.
    let rooms = ["b", "c", "a"].map(room);
    for room in &rooms {
        b.subscribe(room).await.expect("subscribed");
        a.publish(room, &policy(), &plains(0..1)).await.expect("published");
        assert_eq!(from_b.messages().await.room, *room);
    }
    group.servers[0].kill();
    publish_at_last(&a, &rooms[0]).await;
    from_b.resubscribed().await;
    let seq = stored(&publish_at_last(&a, &rooms[0]).await.outcomes)[0];
    while first_seq(&from_b.messages().await) != seq {}
}
