//! What happens in rooms, told to a service over HTTP: what is told, by which node, and what becomes of it when the
//! service is away.

mod cluster;
mod delivery;
mod ending;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Client, Node, Receiver, SECRET, eventually, room, within};

/// Everything, and without waiting for company.
const ALL: &str = "room_occupied,room_vacated,member_joined,member_left,message_published";

/// The settings of a node that tells `receiver` everything.
fn args(receiver: &Receiver) -> Vec<String> {
    let url = receiver.url();
    ["--webhook-url", &url, "--webhook-secret", SECRET, "--webhook-events", ALL, "--webhook-linger", "0s"]
        .map(str::to_owned)
        .into()
}

/// A node alone that tells `receiver` everything.
async fn start(receiver: &Receiver, more: &[&str]) -> Node {
    let args = args(receiver);
    let all: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Node::start(&all).await
}

/// Of each event its type and, if it is a member's or a message, whose.
fn facts(events: &[Value]) -> Vec<(String, String)> {
    let id = |event: &Value| {
        let id = event["member"]["id"].as_str().or(event["message"]["id"].as_str());
        id.unwrap_or_default().to_owned()
    };
    events.iter().map(|event| (event["type"].as_str().unwrap().to_owned(), id(event))).collect()
}

fn fact(kind: &str, id: &str) -> (String, String) {
    (kind.to_owned(), id.to_owned())
}

/// Every event has an id that no other has.
fn assert_unique(events: &[Value]) {
    let ids: BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
}

#[tokio::test]
async fn a_rooms_life_is_told_in_order() {
    let receiver = Receiver::start().await;
    let node = start(&receiver, &["--node-id", "n-1"]).await;
    let name = room();
    let mut ana = Client::connect(&node, &format!("/ws/{name}?name=Ana")).await;
    ana.expect("joined").await;
    let (mut bo, _) = Client::enter(&node, &name).await;
    ana.send(json!({"type": "rename", "name": "Anna"})).await;
    bo.presence("rename").await;
    ana.send(json!({"type": "publish", "room": name, "id": "m-1", "data": {"text": "h\u{e9}"}, "ref": 1})).await;
    let ack = ana.answer(&json!(1)).await;
    ana.send(json!({"type": "publish", "room": name, "id": "m-1", "data": "again", "ref": 2})).await;
    assert_eq!(ana.answer(&json!(2)).await["duplicate"], true);
    let (ana_id, bo_id) = (ana.id().to_owned(), bo.id().to_owned());
    bo.leave().await;
    ana.presence("leave").await;
    ana.leave().await;

    let events = receiver.until("the end", |events| events.last().is_some_and(|e| e["type"] == "room_vacated")).await;
    assert_eq!(
        facts(&events),
        [
            fact("room_occupied", ""),
            fact("member_joined", &ana_id),
            fact("member_joined", &bo_id),
            fact("message_published", "m-1"),
            fact("member_left", &bo_id),
            fact("member_left", &ana_id),
            fact("room_vacated", ""),
        ]
    );
    assert_unique(&events);
    assert!(events.iter().all(|event| event["room"] == *name && event["ts"].as_u64() > Some(1_700_000_000_000)));
    assert_eq!((&events[1]["member"]["name"], &events[1]["online"]), (&json!("Ana"), &json!(1)));
    assert_eq!((&events[5]["member"]["name"], &events[5]["online"]), (&json!("Anna"), &json!(0)));
    let message = &events[3]["message"];
    assert_eq!(message["data"], json!({"text": "h\u{e9}"}));
    assert_eq!((&message["seq"], &message["term"]), (&ack["seq"], &ack["term"]));
    assert_eq!(message["from"], json!({"id": ana_id, "name": "Anna"}));
    let versions: Vec<u64> = events.iter().filter_map(|event| event["version"].as_u64()).collect();
    assert!(versions.is_sorted() && versions.len() == 6, "{versions:?}");
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| call.body["node"] == "n-1" && call.body["dropped"] == 0 && call.status == 200));
    assert_eq!(receiver.most_open(), 1);
    let sent = node.reaches("roomcast_webhook_events_sent_total", &["webhook=\"default\""], 7.0).await;
    assert!((6.5..7.5).contains(&sent), "{sent}");
    assert!(!node.log().contains(SECRET));
}

#[tokio::test]
async fn ephemeral_messages_are_told_too() {
    let receiver = Receiver::start().await;
    let args = args(&receiver);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let node = Node::start_with(&args, "[[rooms]]\npattern = \"*\"\nmode = \"ephemeral\"\n").await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    ana.publish(&name, json!([1, 2.50])).await;
    let events = receiver.until_count(3).await;
    assert_eq!((&events[2]["type"], &events[2]["message"]["data"]), (&json!("message_published"), &json!([1, 2.5])));
    assert!(events[2]["message"].get("seq").is_none());
}

/// Each with what it wants, as the file has it.
#[tokio::test]
async fn several_webhooks_get_what_they_asked_for() {
    let (chats, games, all) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let file = format!(
        "webhook_linger = \"0s\"\nwebhook_secret = \"{SECRET}\"\n\
         [[webhooks]]\nname = \"chats\"\nurl = \"{}\"\nrooms = [\"chat-*\"]\nevents = [\"message_published\"]\n\
         [[webhooks]]\nurl = \"{}\"\nsecret_file = \"{}\"\nrooms = [\"game-?\", \"play-*\"]\n\
         [[webhooks]]\nname = \"all\"\nurl = \"{}\"\nevents = [\"member_joined\"]\n",
        chats.url(),
        games.url(),
        secret.path().display(),
        all.url(),
    );
    let node = Node::start_with(&[], &file).await;
    for name in ["chat-1", "game-1", "game-10", "play-", "other"] {
        let (mut client, _) = Client::enter(&node, name).await;
        client.publish(name, json!(name)).await;
        client.leave().await;
    }
    let joined = all.until_count(5).await;
    assert!(joined.iter().all(|event| event["type"] == "member_joined"));
    let games = games.until_count(8).await;
    assert!(games.iter().all(|event| event["type"] != "message_published"), "not by default");
    let rooms: BTreeSet<&str> = games.iter().map(|event| event["room"].as_str().unwrap()).collect();
    assert_eq!(rooms, BTreeSet::from(["game-1", "play-"]));
    let chats = chats.until_count(1).await;
    assert_eq!((chats.len(), &chats[0]["message"]["data"]), (1, &json!("chat-1")));
    let sent = node.reaches("roomcast_webhook_events_sent_total", &["webhook=\"2\""], 8.0).await;
    assert!((7.5..8.5).contains(&sent), "{sent}");
}

#[tokio::test]
async fn what_is_not_signed_with_the_same_secret_is_not_taken() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let node = Node::start(&["--webhook-url", &url, "--webhook-secret", "another secret, no less long"]).await;
    let (_client, _) = Client::enter(&node, &room()).await;
    let calls = receiver.until_calls(1).await;
    assert_eq!((calls[0].status, receiver.events().len()), (401, 0));
}

/// The port that a process listens at, once it does.
fn listens_at(pid: u32) -> Option<u16> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let own: BTreeSet<String> =
        links.filter_map(|link| Some(link.ok()?.path().read_link().ok()?.to_str()?.to_owned())).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // 0A is for listening; the tenth word is the inode.
        let is_own = words.get(3) == Some(&"0A") && own.contains(&format!("socket:[{}]", words.get(9)?));
        let (_, port) = words.get(1)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok().filter(|_| is_own)
    })
}

/// The receivers that docs/webhooks.md shows check signatures as they should, in both languages.
#[tokio::test]
async fn the_documented_receivers_work() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/webhooks.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (file, program) in [("receive.py", "python3"), ("receive.mjs", "node")] {
        let (_, rest) = text.split_once(&format!("<!-- tested: {file} -->")).expect("it is marked");
        let (_, rest) = rest.split_once('\n').unwrap().1.split_once('\n').expect("a block");
        let (code, _) = rest.split_once("```").expect("its end");
        assert!(code.contains("9000"));
        let path = directory.path().join(file);
        std::fs::write(&path, code.replace("9000", "0")).unwrap();
        let mut command = tokio::process::Command::new(program);
        command.arg(&path).stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let pid = process.id().expect("it runs");
        let port = eventually("it to listen", || async { listens_at(pid) }).await;

        let url = format!("http://127.0.0.1:{port}/");
        let args =
            |secret| ["--webhook-url", &url, "--webhook-linger", "0s", "--webhook-secret", secret].map(str::to_owned);
        let (wrong, right) = (args("change-me-change-yo"), args("change-me-change-me"));
        let stranger = Node::start(&wrong.each_ref().map(String::as_str)).await;
        let (_client, _) = Client::enter(&stranger, &room()).await;
        stranger.reaches("roomcast_webhook_calls_total", &["outcome=\"refused\""], 1.0).await;
        let node = Node::start(&right.each_ref().map(String::as_str)).await;
        let name = room();
        let _client = Client::connect(&node, &format!("/ws/{name}?name=Ann")).await;
        let mut told = Vec::new();
        while told.len() < 2 {
            told.push(within(program, lines.next_line()).await.unwrap().expect("it runs").trim().to_owned());
        }
        assert_eq!(told, [format!("room_occupied {name}"), format!("member_joined {name} Ann")]);
    }
}
