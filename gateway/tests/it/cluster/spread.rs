//! 50 rooms of 20 members each, spread over the nodes, all talking at once.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::nodes;
use crate::support::{Client, Frame, Node, Redis, room, within};

const ROOMS: usize = 50;
const MEMBERS: usize = 20;
const EACH: usize = 5;

/// What one member saw.
struct Seen {
    room: String,
    member: usize,
    id: String,
    node: String,
    online_at_last: u64,
    messages: Vec<Frame>,
    acks: Vec<Frame>,
    strays: Vec<String>,
}

/// Lets every member of every room publish, and returns what each has seen.
async fn talk(nodes: Vec<Node>, rooms: Vec<String>) -> Vec<Seen> {
    let nodes = Arc::new(nodes);
    let gate = Arc::new(Semaphore::new(50));
    let mut entering = JoinSet::new();
    for (number, room) in rooms.into_iter().enumerate() {
        for member in 0..MEMBERS {
            let (nodes, gate, room) = (Arc::clone(&nodes), Arc::clone(&gate), room.clone());
            entering.spawn(async move {
                let _turn = gate.acquire().await.unwrap();
                let node = &nodes[(number + member) % nodes.len()];
                let (client, _) = Client::enter(node, &room).await;
                (room, member, client)
            });
        }
    }
    let everyone = entering.join_all().await;
    assert_eq!(everyone.len(), ROOMS * MEMBERS);
    let mut talking = JoinSet::new();
    for (room, member, client) in everyone {
        talking.spawn(one(client, room, member));
    }
    let mut seen = talking.join_all().await;
    drop(nodes);
    seen.sort_by(|a, b| (&a.room, a.member).cmp(&(&b.room, b.member)));
    seen
}

async fn one(mut client: Client, room: String, member: usize) -> Seen {
    // All are in the room since before anyone came here: whichever node is asked, it counts them all.
    client.send(json!({"type": "members", "room": room, "limit": 1, "ref": "count"})).await;
    let online_at_last = client.answer(&json!("count")).await["online"].as_u64().unwrap_or(0);
    for number in 0..EACH {
        client.send(json!({"type": "publish", "data": [member, number], "ref": number})).await;
    }
    let messages = client.messages(&room, MEMBERS * EACH).await;
    let mut acks = Vec::new();
    for _ in 0..EACH {
        acks.push(client.expect("ack").await);
    }
    let (id, node) = (client.id().to_owned(), client.welcome.str("nodeId").to_owned());
    let strays = client.settle().await.into_iter().filter(|frame| frame.kind() != "presence").map(|f| f.text).collect();
    Seen { room, member, id, node, online_at_last, messages, acks, strays }
}

fn by_room(seen: &[Seen]) -> BTreeMap<&str, Vec<&Seen>> {
    let mut rooms: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for one in seen {
        rooms.entry(&one.room).or_default().push(one);
    }
    assert_eq!(rooms.len(), ROOMS);
    rooms
}

/// What holds in every room, durable or not: each message once, each sender's in its order, and nothing else.
fn assert_exactly_once(seen: &[Seen]) {
    for (room, members) in by_room(seen) {
        let ids: BTreeMap<usize, &str> = members.iter().map(|one| (one.member, one.id.as_str())).collect();
        for one in &members {
            let who = format!("{room}, member {} on {}", one.member, one.node);
            assert!(one.strays.is_empty(), "{who}: more than was said: {:?}", one.strays);
            assert_eq!(one.online_at_last, MEMBERS as u64, "{who}");
            let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for message in &one.messages {
                let (by, number) = (message["data"][0].as_u64().unwrap(), message["data"][1].as_u64().unwrap());
                numbers.entry(by).or_default().push(number);
                assert_eq!(message["from"]["id"], ids[&(by as usize)], "{who}");
            }
            assert_eq!(numbers.len(), MEMBERS, "{who}: heard of some not at all");
            for (by, numbers) in numbers {
                assert_eq!(numbers, (0..EACH as u64).collect::<Vec<_>>(), "{who}: of member {by}");
            }
        }
    }
}

/// And in durable rooms: one order, seq without a hole, and the acks agree with it.
fn assert_one_order(seen: &[Seen]) {
    for (room, members) in by_room(seen) {
        let order = |one: &Seen| -> Vec<Value> { one.messages.iter().map(|message| message["id"].clone()).collect() };
        let first = order(members[0]);
        for one in &members {
            let who = format!("{room}, member {} on {}", one.member, one.node);
            assert_eq!(order(one), first, "{who}: another order than member 0 on {}", members[0].node);
            let seqs: Vec<u64> = one.messages.iter().map(Frame::seq).collect();
            assert_eq!(seqs, (1..=(MEMBERS * EACH) as u64).collect::<Vec<_>>(), "{who}");
            for ack in &one.acks {
                let message = &one.messages[ack.seq() as usize - 1];
                assert_eq!((&message["id"], &message["term"]), (&ack["id"], &ack["term"]), "{who}");
                assert_eq!(message["data"], json!([one.member, ack["ref"]]), "{who}");
            }
        }
    }
}

async fn durable_rooms(count: usize) {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, count, &[]).await;
    let seen = talk(nodes, (0..ROOMS).map(|_| room()).collect()).await;
    assert_exactly_once(&seen);
    assert_one_order(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_exactly_once_in_one_order() {
    durable_rooms(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_exactly_once_in_one_order() {
    durable_rooms(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_rooms_keep_each_senders_order() {
    let redis = Redis::start().await;
    let url = redis.url();
    let toml = "[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n";
    let mut nodes = Vec::new();
    for id in ["n-1", "n-2"] {
        nodes.push(Node::start_with(&["--redis", &url, "--node-id", id], toml).await);
    }
    let seen = talk(nodes, (0..ROOMS).map(|_| format!("live-{}", room())).collect()).await;
    assert_exactly_once(&seen);
    assert!(seen.iter().flat_map(|one| &one.messages).all(|message| message["seq"].is_null()));
}

#[tokio::test]
async fn presence_spans_nodes() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 3, &[]).await;
    let name = room();
    let mut ana = Client::connect(&nodes[0], &format!("/ws/{name}?name=Ana")).await;
    ana.expect("joined").await;
    let mut others = Vec::new();
    for (count, node) in [(2, &nodes[1]), (3, &nodes[2]), (4, &nodes[0])] {
        let (other, joined) = Client::enter(node, &name).await;
        assert_eq!(joined["online"], count, "counted over all nodes at once: {}", joined.text);
        assert_eq!(joined.list("members").len(), count, "{}", joined.text);
        let came = ana.find("a join", |f| f["event"] == "join" && f["member"]["id"] == other.id()).await;
        assert_eq!(came["online"], count);
        others.push(other);
    }
    others[0].send(json!({"type": "rename", "name": "Renamed afar"})).await;
    assert_eq!(ana.presence("rename").await["member"], json!({"id": others[0].id(), "name": "Renamed afar"}));
    for online in [3, 2, 1] {
        let id = others[0].id().to_owned();
        others.remove(0).leave().await;
        let went = ana.presence("leave").await;
        assert_eq!((&went["member"]["id"], &went["online"]), (&json!(id), &json!(online)));
    }
}

#[tokio::test]
async fn an_id_is_stored_once_over_all_nodes() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    let (mut bo, _) = Client::enter(&nodes[1], &name).await;
    let publish = json!({"type": "publish", "id": "once", "data": 1, "ref": "r"});
    ana.send(publish.clone()).await;
    let first = ana.answer(&json!("r")).await;
    bo.send(publish).await; // as a client would that came back on another node
    let again = bo.answer(&json!("r")).await;
    assert_eq!((again.kind(), &again["duplicate"], again.seq()), ("ack", &json!(true), first.seq()), "{}", again.text);
    bo.publish(&name, json!("marker")).await;
    for client in [&mut ana, &mut bo] {
        let seqs: Vec<_> = client.messages(&name, 2).await.iter().map(Frame::seq).collect();
        assert_eq!(seqs, [1, 2]);
    }
}

#[tokio::test]
async fn what_was_said_on_one_node_can_be_read_on_another() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 2, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&nodes[0], &name).await;
    let mut term = Value::Null;
    for number in 1..=10 {
        term = ana.publish(&name, json!(number)).await["term"].clone();
    }
    let mut bo = Client::connect(&nodes[1], "/connect").await;
    bo.send(json!({"type": "join", "room": name, "since": {"term": term, "seq": 4}, "ref": 1})).await;
    let joined = bo.answer(&json!(1)).await;
    assert_eq!(joined["recovery"], "resumed");
    let mut seqs = crate::support::seqs(joined.list("messages"));
    while seqs.last() != Some(&10) {
        seqs.push(bo.expect("message").await.seq());
    }
    assert_eq!(seqs, (5..=10).collect::<Vec<_>>());
    bo.send(json!({"type": "history", "room": name, "after": 0, "limit": 100, "ref": 2})).await;
    assert_eq!(crate::support::seqs(bo.answer(&json!(2)).await.list("messages")), (1..=10).collect::<Vec<_>>());
}

/// A storm of joins is worked through, not refused: 48 clients ask for 64 rooms each, no two the same.
#[tokio::test]
async fn thousands_of_rooms_are_joined_at_once() {
    let redis = Redis::start().await;
    let node = Arc::new(nodes(&redis, 1, &["--workers", "1"]).await.remove(0));
    let mut joining = JoinSet::new();
    for client in 0..48 {
        let node = Arc::clone(&node);
        joining.spawn(async move {
            let rooms: Vec<String> = (0..64).map(|number| format!("room=storm-{client}-{number}")).collect();
            let mut client = Client::connect(&node, &format!("/ws?{}", rooms.join("&"))).await;
            for _ in 0..64 {
                client.expect("joined").await;
            }
            client
        });
    }
    let clients = joining.join_all().await;
    within("all memberships are counted", async { while node.metric("roomcast_members", &[]).await < 48.0 * 64.0 {} })
        .await;
    drop(clients);
}
