//! What backends look at, page by page: messages both ways, members, rooms, nodes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::pair;
use crate::support::{ALL, Backend, Client, Node, Redis, api_node, eventually, keys, room};

/// All pages behind `path`, whose `next` goes on as `parameter`; messages that go on as `after` begin with the first.
async fn pages(backend: &mut Backend, path: &str, parameter: &str, list: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = if (parameter, list) == ("after", "messages") { "&after=0".to_owned() } else { String::new() };
    loop {
        let page = backend.get(&format!("{path}{next}")).await.expect(200);
        pages.push(page[list].as_array().expect("a list").clone());
        next = match &page["next"] {
            Value::Null => return pages,
            Value::String(text) => format!("&{parameter}={text}"),
            number => format!("&{parameter}={number}"),
        };
        assert!(pages.len() < 1000, "it never ends");
    }
}

fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["seq"].as_u64().expect("a seq")).collect()
}

#[tokio::test]
async fn messages_are_paged_both_ways() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let mut backend = Backend::connect(one.addr, ALL).await;
    let path = format!("/rooms/{name}/messages");
    for number in 1..=25 {
        backend.post(&path, &json!({ "data": number })).await.expect(200);
    }
    // Read through the other node, where nobody is in the room.
    let mut other = Backend::connect(two.addr, ALL).await;
    let newest_first = pages(&mut other, &format!("{path}?limit=10"), "before", "messages").await;
    let found: Vec<Vec<u64>> = newest_first.iter().map(|page| seqs(page)).collect();
    assert_eq!(found, [(16..=25).collect::<Vec<_>>(), (6..=15).collect(), (1..=5).collect()]);
    let oldest_first = pages(&mut other, &format!("{path}?limit=10"), "after", "messages").await;
    let found: Vec<Vec<u64>> = oldest_first.iter().map(|page| seqs(page)).collect();
    assert_eq!(found, [(1..=10).collect::<Vec<_>>(), (11..=20).collect(), (21..=25).collect()]);
    let first = &oldest_first[0][0];
    assert_eq!((&first["type"], &first["room"], &first["data"]), (&json!("message"), &json!(name), &json!(1)));

    let room = other.get(&format!("/rooms/{name}")).await.expect(200);
    assert_eq!((&room["seq"], &room["online"], &room["mode"]), (&json!(25), &json!(0), &json!("durable")), "{room}");
    assert_eq!(room["term"], first["term"]);
    let empty = other.get("/rooms/nobody-was-here").await.expect(200);
    assert_eq!(empty, json!({ "room": "nobody-was-here", "mode": "durable", "online": 0, "seq": 0, "term": null }));
    assert_eq!(other.get("/rooms/nobody-was-here/messages").await.expect(200), json!({ "messages": [], "next": null }));
    for query in ["before=5&after=5", "limit=0", "limit=201", "before=-1", "after=9007199254740992", "since=5"] {
        assert_eq!(other.get(&format!("{path}?{query}")).await.problem(), "bad_request", "{query}");
    }
}

/// Older messages are gone: whoever reads on from where they were meets the first that are left, and misses none.
#[tokio::test]
async fn what_is_gone_does_not_hide_what_is_left() {
    let redis = Redis::start().await;
    let keys = keys();
    let mut args: Vec<&str> = vec!["--redis"];
    let url = redis.url();
    args.push(&url);
    args.extend(keys.iter().map(String::as_str));
    let node = Node::start_with(&args, "[[rooms]]\npattern = \"short-*\"\nhistory_size = 10\n").await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    for number in 1..=300 {
        backend.post("/rooms/short-1/messages", &json!({ "data": number })).await.expect(200);
    }
    let forward = pages(&mut backend, "/rooms/short-1/messages?limit=50", "after", "messages").await.concat();
    let backward = pages(&mut backend, "/rooms/short-1/messages?limit=50", "before", "messages").await.concat();
    assert_eq!(seqs(&forward).last(), Some(&300));
    assert!(seqs(&forward).len() >= 10, "{:?}", seqs(&forward));
    let mut backward = seqs(&backward);
    backward.sort_unstable();
    assert_eq!(seqs(&forward), backward);
}

#[tokio::test]
async fn a_page_of_large_messages_is_cut_and_goes_on() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let large = "x".repeat(60_000);
    for _ in 0..40 {
        backend.post("/rooms/large/messages", &json!({ "data": large })).await.expect(200);
    }
    let found = pages(&mut backend, "/rooms/large/messages?limit=40", "before", "messages").await;
    assert!(found.len() > 1 && found.iter().all(|page| page.len() < 40), "{} pages", found.len());
    let mut all = seqs(&found.concat());
    all.sort_unstable();
    assert_eq!(all, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn members_of_all_nodes_are_listed_once() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let mut clients = Vec::new();
    for number in 0..25 {
        let node = if number % 2 == 0 { &one } else { &two };
        clients.push(Client::enter(node, &name).await.0);
    }
    let mut backend = Backend::connect(one.addr, ALL).await;
    let path = format!("/rooms/{name}/members");
    let found = pages(&mut backend, &format!("{path}?limit=10"), "cursor", "members").await.concat();
    let mut ids: Vec<&str> = found.iter().map(|member| member["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    let mut expected: Vec<&str> = clients.iter().map(Client::id).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!(backend.get(&path).await.expect(200)["online"], 25);
    assert_eq!(backend.get(&format!("{path}?cursor=nonsense%00")).await.problem(), "bad_request");
}

#[tokio::test]
async fn rooms_of_the_cluster_are_listed_by_name() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let stem = room();
    let mut clients = Vec::new();
    for number in 0..25 {
        let node = if number % 2 == 0 { &one } else { &two };
        clients.push(Client::enter(node, &format!("{stem}-{number:02}")).await.0);
    }
    clients.push(Client::enter(&two, &format!("{stem}-00")).await.0);
    clients.push(Client::enter(&one, "another").await.0);
    let mut backend = Backend::connect(two.addr, ALL).await;
    let listed = |found: Vec<Value>| -> BTreeMap<String, u64> {
        let count = found.len();
        let pairs = found.into_iter().map(|entry| {
            (entry["room"].as_str().expect("a name").to_owned(), entry["online"].as_u64().expect("a count"))
        });
        let listed: BTreeMap<String, u64> = pairs.collect();
        assert_eq!(listed.len(), count, "none twice");
        listed
    };
    let expected: BTreeMap<String, u64> =
        (0..25).map(|number| (format!("{stem}-{number:02}"), if number == 0 { 2 } else { 1 })).collect();
    let path = format!("/rooms?limit=7&prefix={stem}-");
    let found = eventually("the rooms to be listed", || {
        let (addr, path) = (backend.addr, path.clone());
        async move {
            let mut backend = Backend::connect(addr, ALL).await;
            let found = pages(&mut backend, &path, "after", "rooms").await.concat();
            (found.len() == 25).then_some(found)
        }
    });
    assert_eq!(listed(found.await), expected);
    let all = listed(pages(&mut backend, "/rooms?limit=200", "after", "rooms").await.concat());
    assert_eq!((all.len(), all["another"]), (26, 1));
    for query in ["prefix=a%20b", "after=%0d%0a", "prefix=", "limit=x"] {
        let code = backend.get(&format!("/rooms?{query}")).await.problem();
        assert!(code == "bad_room" || code == "bad_request", "{query}: {code}");
    }
}

#[tokio::test]
async fn nodes_tell_their_connections() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &["--lease-beat", "200ms", "--lease-expiry", "5s"]).await;
    let (_ann, _) = Client::enter(&one, &room()).await;
    let addr = two.addr;
    let nodes = eventually("both nodes and the connection to be listed", || async move {
        let nodes = Backend::connect(addr, ALL).await.get("/nodes").await.expect(200);
        let nodes = nodes["nodes"].as_array().expect("a list").clone();
        (nodes.len() == 2 && nodes[0]["connections"] == 1 && nodes[0]["rooms"] == 1).then_some(nodes)
    })
    .await;
    assert_eq!((&nodes[0]["id"], &nodes[1]["id"]), (&json!("n-1"), &json!("n-2")));
    for node in &nodes {
        assert_eq!(node["maxConnections"], 20_000, "{node}");
        assert!(node["load"].as_f64().is_some_and(|load| (0.0..=1.0).contains(&load)), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"), "{node}");
    }
    assert_eq!((&nodes[0]["rooms"], &nodes[1]["rooms"]), (&json!(1), &json!(0)));
}
