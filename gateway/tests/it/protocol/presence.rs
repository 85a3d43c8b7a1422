//! Who is in a room: events, counts, `members`, `rename`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, room, upgrade};

on_both_brokers!(
    coming_and_going_is_told,
    a_new_name_is_told_and_used,
    a_lost_connection_is_a_leave,
    a_session_leaves_all_its_rooms,
    members_are_paged,
    a_strange_cursor_is_the_clients_mistake,
    joined_lists_only_some,
    a_crowd_is_counted,
);

async fn coming_and_going_is_told(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let mut ana = Client::connect(&node, &format!("/ws/{name}?name=Ana")).await;
    ana.expect("joined").await;
    let mut bo = Client::connect(&node, &format!("/ws/{name}?name=Bo")).await;
    let joined = bo.expect("joined").await;
    assert_eq!(joined["online"], 2);
    let listed: BTreeSet<_> = joined.list("members").iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(listed, BTreeSet::from(["Ana", "Bo"]));

    let came = ana.find("Bo's join", |f| f["event"] == "join" && f["member"]["id"] == bo.id()).await;
    assert_eq!((&came["room"], &came["member"]["name"], &came["online"]), (&json!(name), &json!("Bo"), &json!(2)));
    let id = bo.id().to_owned();
    bo.leave().await;
    let went = ana.presence("leave").await;
    assert_eq!((&went["member"], &went["online"]), (&json!({"id": id, "name": "Bo"}), &json!(1)));
}

async fn a_new_name_is_told_and_used(site: Site) {
    let node = site.node(&[]).await;
    let (one, two) = (room(), room());
    let mut ana = Client::connect(&node, &format!("/ws?room={one}&room={two}&name=Ana")).await;
    let (mut bo, _) = Client::enter(&node, &one).await;
    let (mut cleo, _) = Client::enter(&node, &two).await;
    ana.send(json!({"type": "rename", "name": "Zoë \"the\" 2nd"})).await;
    for (other, name) in [(&mut bo, &one), (&mut cleo, &two)] {
        let told = other.presence("rename").await;
        assert_eq!((&told["room"], &told["online"]), (&json!(name), &json!(2)));
        assert_eq!(told["member"], json!({"id": ana.id(), "name": "Zoë \"the\" 2nd"}));
    }
    ana.publish(&one, json!(1)).await;
    assert_eq!(bo.expect("message").await["from"]["name"], "Zoë \"the\" 2nd");
    bo.send(json!({"type": "members", "room": one, "ref": 1})).await;
    let members = bo.answer(&json!(1)).await;
    assert!(members.list("members").iter().any(|m| m["name"] == "Zoë \"the\" 2nd"), "{}", members.text);
}

async fn a_lost_connection_is_a_leave(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (_, raw) = upgrade(node.addr, &format!("/ws/{name}?name=Gone"), &[]).await;
    ana.presence("join").await;
    drop(raw); // no close frame
    let went = ana.presence("leave").await;
    assert_eq!((&went["member"]["name"], &went["online"]), (&json!("Gone"), &json!(1)));
}

async fn a_session_leaves_all_its_rooms(site: Site) {
    let node = site.node(&[]).await;
    let rooms = [room(), room(), room()];
    let path = format!("/ws?room={}&room={}&room={}", rooms[0], rooms[1], rooms[2]);
    let mut ana = Client::connect(&node, &path).await;
    let mut bo = Client::connect(&node, &path).await;
    for client in [&mut ana, &mut bo] {
        for _ in &rooms {
            client.expect("joined").await;
        }
    }
    bo.leave().await;
    let mut left = BTreeSet::new();
    for _ in &rooms {
        let went = ana.presence("leave").await;
        assert_eq!(went["online"], 1);
        left.insert(went.str("room").to_owned());
    }
    assert_eq!(left, rooms.into_iter().collect());
}

async fn members_are_paged(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let mut clients = Vec::new();
    for number in 0..25 {
        let mut client = Client::connect(&node, &format!("/ws/{name}?name=m{number}")).await;
        client.expect("joined").await;
        clients.push(client);
    }
    let expected: BTreeSet<String> = clients.iter().map(|client| client.id().to_owned()).collect();
    let client = &mut clients[0];
    let (mut found, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let mut ask = json!({"type": "members", "room": name, "limit": 10, "ref": pages});
        if !cursor.is_null() {
            ask["cursor"] = cursor;
        }
        client.send(ask).await;
        let page = client.answer(&json!(pages)).await;
        assert_eq!((page.kind(), &page["online"]), ("members", &json!(25)), "{}", page.text);
        found.extend(page.list("members").iter().map(|member| member["id"].as_str().unwrap().to_owned()));
        pages += 1;
        assert!(pages < 50, "the walk does not end");
        cursor = page["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let unique: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(unique, expected, "everyone");
    assert_eq!(found.len(), 25, "each once");
    assert!(pages > 1, "a page holds about what was asked for");
}

async fn a_strange_cursor_is_the_clients_mistake(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    for cursor in ["garbage", "", "99999999999999999999999"] {
        client.send(json!({"type": "members", "room": name, "cursor": cursor, "ref": cursor})).await;
        crate::support::assert_error(&client.answer(&json!(cursor)).await, "bad_frame", &json!(cursor));
    }
}

async fn joined_lists_only_some(site: Site) {
    let node = site.node(&["--members-cap", "5"]).await;
    let name = room();
    let mut clients = Vec::new();
    for number in 1..=8 {
        let (client, joined) = Client::enter(&node, &name).await;
        assert_eq!(joined["online"], number);
        assert_eq!(joined.list("members").len() as u64, number.min(5), "{}", joined.text);
        clients.push(client);
    }
}

async fn a_crowd_is_counted(site: Site) {
    let node = site.node(&["--presence-fold-above", "5"]).await;
    let name = room();
    let (mut first, _) = Client::enter(&node, &name).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::enter(&node, &name).await.0);
    }
    let counted = first.find("a count of 21", |f| f["event"] == "count" && f["online"] == 21).await;
    assert!(counted["member"].is_null(), "only the count is told: {}", counted.text);
    let joins = first.settle().await.into_iter().filter(|frame| frame["event"] == "join").count();
    assert!(joins < 20, "folded into counts above five: {joins} joins");
    // Down again: whatever the form, the number in the end is right.
    clients.truncate(1);
    first.find("two online", |f| f.kind() == "presence" && f["online"] == 2).await;
}
