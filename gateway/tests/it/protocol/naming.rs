//! Rooms where names are unique.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Site, on_both_brokers};
use crate::support::{Client, assert_error, room};

on_both_brokers!(
    a_name_that_is_taken_is_refused_to_joiners,
    a_name_that_is_taken_somewhere_is_had_nowhere,
    a_name_given_up_is_free,
    elsewhere_names_do_not_matter,
);

const UNIQUE: &str = "[[rooms]]\npattern = \"one-*\"\nunique_names = true\n";

async fn names(client: &mut Client, room: &str) -> BTreeSet<String> {
    client.send(json!({"type": "members", "room": room, "ref": "who"})).await;
    let page = client.answer(&json!("who")).await;
    page.list("members").iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

async fn a_name_that_is_taken_is_refused_to_joiners(site: Site) {
    let node = site.node_with(&[], UNIQUE).await;
    let (name, other) = (format!("one-{}", room()), room());
    let mut ana = Client::connect(&node, &format!("/ws/{name}?name=Ana")).await;
    ana.expect("joined").await;
    // By the path: the connection stays, and the other room is joined.
    let mut second = Client::connect(&node, &format!("/ws/{name}?room={other}&name=Ana")).await;
    let error = second.expect("error").await;
    assert_eq!((&error["code"], error["ref"].is_null()), (&json!("name_taken"), true), "{}", error.text);
    assert_eq!(second.expect("joined").await["room"], json!(other));
    // By a frame.
    second.send(json!({"type": "join", "room": name, "ref": 1})).await;
    assert_error(&second.answer(&json!(1)).await, "name_taken", &json!(1));
    second.send(json!({"type": "publish", "room": name, "data": 1, "ref": 2})).await;
    assert_error(&second.answer(&json!(2)).await, "not_joined", &json!(2));
    // Nobody was told of it, and another name is welcome.
    assert!(ana.settle().await.iter().all(|frame| frame.kind() != "presence"));
    second.send(json!({"type": "rename", "name": "ana"})).await;
    second.send(json!({"type": "join", "room": name, "ref": 3})).await;
    assert_eq!(second.answer(&json!(3)).await["online"], 2);
    assert_eq!(names(&mut ana, &name).await, BTreeSet::from(["Ana".to_owned(), "ana".to_owned()]));
}

async fn a_name_that_is_taken_somewhere_is_had_nowhere(site: Site) {
    let node = site.node_with(&["--workers", "2"], UNIQUE).await;
    let rooms = [format!("one-{}", room()), format!("one-{}", room()), room()];
    let path = format!("/ws?room={}&room={}&room={}&name=Bo", rooms[0], rooms[1], rooms[2]);
    let mut bo = Client::connect(&node, &path).await;
    for _ in 0..3 {
        bo.expect("joined").await;
    }
    for taken in &rooms[..2] {
        let mut ana = Client::connect(&node, &format!("/ws/{taken}?name=Ana")).await;
        ana.expect("joined").await;
        bo.send(json!({"type": "rename", "name": "Ana", "ref": taken})).await;
        assert_error(&bo.answer(&json!(taken)).await, "name_taken", &json!(taken));
        for name in &rooms {
            let said = bo.publish(name, json!("as who?")).await;
            assert_eq!(said.kind(), "ack", "{}", said.text);
            let heard = bo.find("the own message", |f| f["id"] == said["id"]).await;
            assert_eq!(heard["from"]["name"], "Bo");
            assert!(names(&mut bo, name).await.contains("Bo"));
        }
        ana.leave().await;
    }
    // Where it is free everywhere it is had everywhere.
    bo.send(json!({"type": "rename", "name": "Cleo", "ref": 1})).await;
    for name in &rooms {
        assert_eq!(names(&mut bo, name).await, BTreeSet::from(["Cleo".to_owned()]));
    }
}

async fn a_name_given_up_is_free(site: Site) {
    let node = site.node_with(&[], UNIQUE).await;
    let name = format!("one-{}", room());
    let mut watching = Client::connect(&node, &format!("/ws/{name}?name=Watch")).await;
    watching.expect("joined").await;
    let path = format!("/ws/{name}?name=Ana");
    for _ in 0..3 {
        let mut ana = Client::connect(&node, &path).await;
        assert_eq!(ana.expect("joined").await["online"], 2);
        ana.send(json!({"type": "rename", "name": "Zoe"})).await;
        watching.presence("rename").await;
        let mut other = Client::connect(&node, &path).await;
        assert_eq!(other.expect("joined").await["online"], 3);
        for client in [ana, other] {
            client.leave().await;
            watching.presence("leave").await;
        }
    }
}

async fn elsewhere_names_do_not_matter(site: Site) {
    let node = site.node_with(&[], UNIQUE).await;
    let name = room();
    for online in 1..=3 {
        let mut client = Client::connect(&node, &format!("/ws/{name}?name=Ana")).await;
        let joined = client.expect("joined").await;
        assert!(joined["online"].as_u64().unwrap() <= online);
    }
}
