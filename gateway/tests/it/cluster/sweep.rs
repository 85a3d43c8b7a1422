//! What the bus loses without a trace is found by the sweep.

use serde_json::json;

use crate::support::{Client, Node, Redis, room};

/// No later message shows that this one is missing, and the subscription never broke.
#[tokio::test]
async fn a_lost_last_message_arrives_all_the_same() {
    let redis = Redis::start().await;
    let sound = Node::join(&redis, "n-1", &[]).await;
    let deaf = Node::join(&redis, "n-2", &["--sabotage", "lose-bus=1"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&sound, &name).await;
    let (mut bo, _) = Client::enter(&deaf, &name).await;
    assert_eq!(ana.publish(&name, json!("the last")).await.seq(), 1);
    let heard = bo.find("what ana said", |f| ["message", "reset"].contains(&f.kind())).await;
    assert_eq!((heard.kind(), heard.seq(), &heard["data"]), ("message", 1, &json!("the last")), "{}", heard.text);
    deaf.reaches("roomcast_sweep_finds_total", &["reason=\"behind\""], 1.0).await;
    assert!(sound.metric("roomcast_sweep_finds_total", &[]).await < 1.0, "nothing was lost there");
}
