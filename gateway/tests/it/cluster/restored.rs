//! A Redis that comes back as it was a moment ago: who came or went since is known again, although no beat was lost.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::nodes;
use crate::support::{Client, Redis, room, within};

/// What is noted of the nodes, with the number of their last beat each.
async fn beats(redis: &Redis) -> String {
    redis.command("HGETALL rc:{!}:nodes").await.expect("it runs")
}

#[tokio::test]
async fn who_came_and_went_since_the_last_save_is_told_right_again() {
    let mut redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &["--lease-beat", "6s", "--lease-expiry", "12s"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    // Between the save and the crash there must be no beat, whose number would tell.
    let bo = loop {
        let (gone, _) = Client::enter(&nodes[0], &name).await;
        let id = gone.id().to_owned();
        let before = beats(&redis).await;
        redis.command("SAVE").await.expect("saved");
        let (bo, joined) = Client::enter(&nodes[1], &name).await;
        assert_eq!(joined["online"], 3);
        gone.leave().await;
        ana.find("one to be gone", |f| f["event"] == "leave" && f["member"]["id"] == id).await;
        if beats(&redis).await == before {
            break bo;
        }
        let id = bo.id().to_owned();
        bo.leave().await;
        ana.find("the other, too", |f| f["event"] == "leave" && f["member"]["id"] == id).await;
    };
    redis.stop().await;
    redis.resume().await;

    let here: BTreeSet<String> = [&ana, &bo].map(|client| client.id().to_owned()).into();
    within("the members to be those who are there", async {
        loop {
            ana.send(json!({"type": "members", "room": name, "ref": "who"})).await;
            let answer = ana.answer(&json!("who")).await;
            let members = answer["members"].as_array().into_iter().flatten();
            let known = members.map(|one| one["id"].as_str().unwrap_or_default().to_owned());
            if known.collect::<BTreeSet<_>>() == here {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    for node in &nodes {
        // By a life that Redis never heard of before.
        node.reaches("roomcast_leases_lost_total", &["reason=\"dataset\""], 1.0).await;
    }
}
