//! The server pings, and lets go of those who no longer answer.

use crate::support::{Client, Node, eventually, room, upgrade, within};

/// So fast that a test can wait for it, so slow that a busy machine answers.
const FAST: [&str; 4] = ["--ping-interval", "1s", "--ping-timeout", "3s"];

#[tokio::test]
async fn silence_ends_the_session_and_answers_keep_it() {
    let node = Node::start(&FAST).await;
    let name = room();
    let (mut alive, _) = Client::enter(&node, &name).await;
    let (response, mut silent) = upgrade(node.addr, &format!("/ws/{name}?name=Silent"), &[]).await;
    assert_eq!(response.status, 101);
    alive.presence("join").await;

    let mut pings = 0;
    // Reads to the end without answering once. The one who answers goes on reading meanwhile, which answers for it.
    let ((), gone) = tokio::join!(
        async {
            while let Some((opcode, _)) = silent.frame().await {
                pings += u32::from(opcode == 9);
            }
        },
        alive.presence("leave")
    );
    assert!(pings >= 1, "it was asked before it was given up");
    assert_eq!((&gone["member"]["name"], &gone["online"]), (&"Silent".into(), &1.into()));
    eventually("one connection to be left", || async {
        (node.metric("roomcast_connections", &[]).await < 1.5).then_some(())
    })
    .await;

    // The other one has been silent as well, but for its pongs, for longer than the timeout.
    let (_, mut second) = upgrade(node.addr, &format!("/ws/{name}?name=Second"), &[]).await;
    alive.presence("join").await;
    tokio::join!(async { while second.frame().await.is_some() {} }, alive.presence("leave"));
    alive.settle().await;
}

#[tokio::test]
async fn a_pong_by_hand_is_enough() {
    let node = Node::start(&FAST).await;
    let (_, mut raw) = upgrade(node.addr, &format!("/ws/{}", room()), &[]).await;
    // Six intervals are twice the timeout.
    within("six pings", async {
        let mut pings = 0;
        while pings < 6 {
            let (opcode, payload) = raw.frame().await.expect("still open");
            if opcode == 9 {
                assert!(payload.len() <= 125);
                raw.send(0x8A, &payload).await;
                pings += 1;
            }
        }
    })
    .await;
}
