//! Whose session somebody is: shown to others wherever a member or a message is, and kept through whatever happens.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Value, json};

use super::{Client, Faulty, Node, local, record, until, with_rooms};
use crate::broker::{Broker, BrokerError, Incarnation, Member, Record};
use crate::config::Settings;
use crate::hub::{Identity, Question, Sight};

const INFO: &str = r#"{"role": "host", "level":1.50}"#;

fn identity() -> Identity {
    Identity { user: Some("u-\"ann\"".into()), info: Some(INFO.into()) }
}

/// Ann as others are to see her.
fn shown(ann: &Client, name: &str) -> Value {
    json!({"id": ann.peer.id.to_string(), "name": name, "user": "u-\"ann\"", "info": {"role": "host", "level": 1.50}})
}

fn nobody(client: &Client) -> Value {
    json!({"id": client.peer.id.to_string(), "name": "n"})
}

async fn ask(client: &mut Client, room: &roomcast_protocol::RoomName, question: Question) -> Value {
    let kind = if matches!(question, Question::Members { .. }) { "members" } else { "history" };
    client.shard.ask(&client.peer, room, question, None);
    client.expect(kind).await
}

#[tokio::test]
async fn others_see_who_somebody_is_on_every_worker() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (here, away, room) = (node.shard(), &node.workers[1].shard, node.room(0));
        let (mut near, mut far) = (Client::enter(here, &room).await, Client::enter(away, &room).await);
        near.expect("presence").await;
        let ann = &mut Client::connect_as(away, "Ann", identity()).await;
        away.join(&ann.peer, room.clone(), None, Sight::FULL, None);
        let joined = ann.expect("joined").await;
        let listed = joined["members"].as_array().expect("a list");
        assert!(listed.contains(&shown(ann, "Ann")) && listed.contains(&nobody(&near)), "{joined}");
        for client in [&mut near, &mut far] {
            assert_eq!(client.expect("presence").await["member"], shown(ann, "Ann"));
        }

        let said = Record { from: ann.peer.id, name: "Ann".into(), user: ann.peer.user().cloned(), ..record("hi") };
        away.publish(&ann.peer, &room, said, None, None);
        let from = json!({"id": ann.peer.id.to_string(), "name": "Ann", "user": "u-\"ann\""});
        for client in [&mut near, &mut far] {
            assert_eq!(client.next().await["from"], from);
        }
        let history = Question::History { before: None, after: None, limit: 5 };
        assert_eq!(ask(&mut near, &room, history).await["messages"][0]["from"], from);
        let page = ask(&mut far, &room, Question::Members { cursor: None, limit: 5 }).await;
        assert!(page["members"].as_array().expect("a list").contains(&shown(ann, "Ann")), "{page}");

        away.rename(&ann.peer, &"Zoë".into(), None);
        assert_eq!(near.expect("presence").await["member"], shown(ann, "Zoë"));
        // Under a newer token something else may be told.
        assert!(!ann.peer.set_info(Some(INFO.into())) && ann.peer.set_info(None));
        away.show(&ann.peer);
        let without = json!({"id": ann.peer.id.to_string(), "name": "Zoë", "user": "u-\"ann\""});
        assert_eq!(near.expect("presence").await["member"], without);
        ann.peer.set_info(Some(INFO.into()));
        away.disconnect(&ann.peer);
        let leave = near.expect("presence").await;
        assert_eq!((&leave["event"], &leave["member"]), (&json!("leave"), &shown(ann, "Zoë")));
    })
    .await;
}

#[tokio::test]
async fn a_new_life_of_the_node_keeps_who_its_members_are() {
    local(async {
        let node = Node::start(2, Settings::default());
        let (here, away, room) = (node.shard(), &node.workers[1].shard, node.room(0));
        let mut ann = Client::connect_as(away, "Ann", identity()).await;
        away.join(&ann.peer, room.clone(), None, Sight::FULL, None);
        ann.expect("joined").await;
        let (home, broker) = (here.home(&room).expect("open"), &node.workers[0].broker);
        let (old, new) = (here.life.incarnation().expect("a life"), Incarnation::new(&here.parts.node));
        for worker in &node.workers {
            worker.shard.begin_life(new.clone());
        }
        until("all to be told", || {
            let state = home.state.borrow();
            home.held.get() == 2 && state.roll.movements.is_empty() && !state.roll.calling
        })
        .await;
        // Under the old life nobody is left, also if the broker is only told now.
        while broker.evict(&room, &old, None).await.expect("evicted").online != 1 {
            tokio::task::yield_now().await;
        }
        until("she has entered", || home.state.borrow().roll.movements.is_empty()).await;
        assert_eq!(members(broker, &room).await, [ann.peer.member()]);
        assert_eq!(ann.peer.member().info.as_deref(), Some(INFO));
    })
    .await;
}

async fn members(broker: &Rc<Faulty>, room: &roomcast_protocol::RoomName) -> Vec<Member> {
    broker.members(room, None, 1000).await.expect("members").members
}

#[tokio::test]
async fn an_outage_forgets_nobody() {
    local(async {
        let node = Node::start(1, with_rooms("[[rooms]]\npattern = \"*\"\nmode = \"ephemeral\"\n"));
        let (shard, room, broker) = (node.shard(), node.room(0), &node.workers[0].broker);
        let mut member = Client::enter(shard, &room).await;
        broker.presence_fails.replace(Some(BrokerError::Unavailable("away".into())));
        let mut ann = Client::connect_as(shard, "Ann", identity()).await;
        shard.join(&ann.peer, room.clone(), None, Sight::FULL, None);
        assert_eq!(ann.expect("joined").await["members"], json!([shown(&ann, "Ann")]));
        assert_eq!(member.expect("presence").await["member"], shown(&ann, "Ann"));
        shard.rename(&ann.peer, &"Zoë".into(), None);
        let home = shard.home(&room).expect("open");
        until("one word to be left about her", || {
            let movements = &home.state.borrow().roll.movements;
            movements.len() == 1 && &*movements[0].op.member().name == "Zoë"
        })
        .await;
        broker.presence_fails.replace(None);
        until("all to be told", || {
            let state = home.state.borrow();
            state.roll.movements.is_empty() && !state.roll.calling
        })
        .await;
        assert!(members(broker, &room).await.contains(&ann.peer.member()));
        assert_eq!(&*ann.peer.name(), "Zoë");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_given_back_takes_nothing_along() {
    local(async {
        let node = Node::start(1, with_rooms("[[rooms]]\npattern = \"*\"\nunique_names = true\n"));
        let (shard, first, second) = (node.shard(), node.room(0), node.room(0));
        let mut ann = Client::connect_as(shard, "Ann", identity()).await;
        for room in [&first, &second] {
            shard.join(&ann.peer, room.clone(), None, Sight::FULL, None);
            ann.expect("joined").await;
        }
        let mut bob = Client::connect_as(shard, "Bob", Identity::default()).await;
        shard.join(&bob.peer, second.clone(), None, Sight::FULL, None);
        bob.expect("joined").await;
        shard.rename(&ann.peer, &"Bob".into(), None);
        assert_eq!(ann.expect("error").await["code"], "name_taken");
        let broker = &node.workers[0].broker;
        let all_told = || {
            let homes = shard.homes.borrow();
            homes.values().all(|home| {
                let state = home.state.borrow();
                state.roll.movements.is_empty() && !state.roll.calling
            })
        };
        until("all to be told", all_told).await;
        assert_eq!(members(broker, &first).await, [ann.peer.member()]);
        assert!(members(broker, &second).await.contains(&ann.peer.member()));
        // A name that can be had is had with all that belongs to it.
        shard.rename(&ann.peer, &"Zoë".into(), None);
        until("it to be hers", || &*ann.peer.name() == "Zoë").await;
        until("all to be told", all_told).await;
        assert_eq!(members(broker, &first).await, [ann.peer.member()]);
        assert!(members(broker, &second).await.contains(&ann.peer.member()));
    })
    .await;
}

/// Where names are unique, too: nobody has to be asked for what is no name.
#[tokio::test]
async fn what_is_new_about_somebody_is_shown_once_the_broker_is_back() {
    local(async {
        let node = Node::start(1, with_rooms("[[rooms]]\npattern = \"*\"\nunique_names = true\n"));
        let (shard, room, broker) = (node.shard(), node.room(0), &node.workers[0].broker);
        let mut ann = Client::connect_as(shard, "Ann", identity()).await;
        shard.join(&ann.peer, room.clone(), None, Sight::FULL, None);
        ann.expect("joined").await;
        broker.presence_fails.replace(Some(BrokerError::Unavailable("away".into())));
        assert!(ann.peer.set_info(Some("\"new\"".into())));
        shard.show(&ann.peer);
        let home = shard.home(&room).expect("open");
        until("the broker to have failed", || home.state.borrow().roll.resting).await;
        broker.presence_fails.replace(None);
        until("all to be told", || home.state.borrow().roll.movements.is_empty()).await;
        until("the answer", || !home.state.borrow().roll.calling).await;
        assert_eq!(members(broker, &room).await, [ann.peer.member()]);
        assert_eq!(ann.peer.member().info.as_deref(), Some("\"new\""));
    })
    .await;
}

/// A list of members is no reason to be closed as a slow consumer.
#[tokio::test]
async fn members_with_much_to_tell_come_in_pages_that_fit() {
    local(async {
        let settings = Settings { members_cap: 1000, ..Settings::default() };
        let node = Node::start(1, settings);
        let (shard, room) = (node.shard(), node.room(0));
        let half = shard.replay_bytes();
        let mut last = Client::enter(shard, &room).await;
        let mut there = BTreeSet::from([last.peer.id.to_string()]);
        let mut clients = Vec::new();
        for _ in 0..400 {
            let info = format!("\"{}\"", "i".repeat(1022));
            let identity = Identity { user: Some("\"".repeat(128).into()), info: Some(info.into()) };
            let client = Client::connect_as(shard, "n", identity).await;
            shard.join(&client.peer, room.clone(), None, Sight::FULL, None);
            there.insert(client.peer.id.to_string());
            clients.push(client);
        }
        for client in &mut clients {
            let joined = client.expect("joined").await;
            let size = joined["members"].to_string().len();
            let few = joined["online"] == joined["members"].as_array().map_or(0, Vec::len);
            assert!(size <= half / 2 && (few || size > half / 2 - 2000), "{size} bytes of {half}");
        }
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = ask(&mut last, &room, Question::Members { cursor, limit: 200 }).await;
            let some = page["members"].as_array().expect("a list");
            assert!(page["members"].to_string().len() <= half);
            found.extend(some.iter().map(|member| member["id"].as_str().expect("an id").to_owned()));
            pages += 1;
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        assert!(pages > 3, "{pages} pages");
        assert_eq!((found.len(), found.into_iter().collect()), (401, there));
    })
    .await;
}
