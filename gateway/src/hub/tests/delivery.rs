//! Who waits for whom when members lag.

use bytes::Bytes;
use tokio::time::timeout;

use super::super::peer::{Delivered, Stop};
use super::{Client, DEADLINE, Node, QUEUE_LIMIT, local, run};
use crate::config::Settings;

/// Leaves bytes queued for a client that does not read.
fn clog(client: &Client) {
    let buffer = socket2::SockRef::from(client.peer.stream());
    buffer.set_send_buffer_size(4096).expect("set");
    while client.peer.deliver(&Bytes::from_static(&[0; 4096]), 1) == Delivered::Written {}
    assert!(client.peer.backlog() > 0);
}

#[tokio::test]
async fn members_that_do_not_read_do_not_slow_down_the_others_away_from_home() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (room, away) = (node.room(0), &node.workers[1].shard);
        let mut reader = Client::enter(away, &room).await;
        let stuck = [Client::enter(away, &room).await, Client::enter(away, &room).await];
        stuck.iter().for_each(clog);
        for _ in 0..2 {
            assert_eq!(reader.next().await["type"], "presence");
        }
        let home = node.shard().home(&room).expect("open");
        // One by one, as they come from other nodes: 40 s of waiting if each waited for most members to catch up.
        for seq in 1..=400 {
            node.shard().offer(&home, run("t", seq, 1));
            node.shard().seal(&home);
        }
        let read = async {
            for seq in 1..=400 {
                assert_eq!(reader.expect("message").await["seq"], seq);
            }
        };
        timeout(DEADLINE, read).await.expect("no wait for each batch");
    })
    .await;
}

#[tokio::test]
async fn a_draining_member_that_misses_a_batch_gets_none_behind_it() {
    local(async {
        let node = Node::start(1, Settings::default());
        let client = Client::enter(node.shard(), &node.room(0)).await;
        client.peer.request_stop(Stop::Draining);
        clog(&client);
        let large = Bytes::from(vec![0; QUEUE_LIMIT]);
        assert_eq!(client.peer.deliver(&large, 1), Delivered::Gone);
        let queued = client.peer.backlog();
        assert_eq!(client.peer.deliver(&Bytes::from_static(b"behind the gap"), 1), Delivered::Gone);
        assert!(!client.peer.post(Bytes::from_static(b"behind the gap"), 1));
        assert_eq!(client.peer.backlog(), queued);
    })
    .await;
}
