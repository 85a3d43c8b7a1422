//! Messages from backends, among those of clients.

use serde_json::{Value, json};

use super::pair;
use crate::support::{Backend, Client, Frame, Node, Redis, WRITER, keys, room};

#[tokio::test]
async fn a_message_reaches_the_members_of_all_nodes_once_and_in_order() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &["--publish-rate", "0"]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&one, &name).await;
    let (mut bob, _) = Client::enter(&two, &name).await;
    let mut backends = [Backend::connect(one.addr, WRITER).await, Backend::connect(two.addr, WRITER).await];
    let path = format!("/rooms/{name}/messages");
    let mut placed = Vec::new();
    for number in 0..30 {
        // Through both nodes in turns, and between what a client says.
        let answer = backends[number % 2].post(&path, &json!({ "data": { "n": number } })).await.expect(200);
        assert_eq!(answer["duplicate"], false, "{answer}");
        assert!(answer["ts"].as_u64().is_some_and(|ts| ts > 1_600_000_000_000), "{answer}");
        placed.push(answer);
        if number % 3 == 0 {
            ann.publish(&name, json!("from a client")).await;
        }
    }
    let total = 30 + 10;
    let (at_ann, at_bob) = (ann.messages(&name, total).await, bob.messages(&name, total).await);
    let seqs_of = |frames: &[Frame]| frames.iter().map(Frame::seq).collect::<Vec<_>>();
    assert_eq!(seqs_of(&at_ann), (1..=total as u64).collect::<Vec<_>>());
    assert_eq!(seqs_of(&at_bob), seqs_of(&at_ann));
    for (number, answer) in placed.iter().enumerate() {
        let seq = answer["seq"].as_u64().expect("a seq");
        let frame = &at_bob[usize::try_from(seq).unwrap() - 1];
        assert_eq!((&frame["id"], &frame["data"]["n"]), (&answer["id"], &json!(number)), "{}", frame.text);
        assert_eq!(frame["from"], json!({ "id": "00000000-0000-0000-0000-000000000000", "name": "writer" }));
        assert_eq!(frame["ts"], answer["ts"]);
    }
    assert!(
        ann.settle().await.iter().chain(&bob.settle().await).all(|frame| frame.kind() != "message"),
        "nothing twice"
    );
}

#[tokio::test]
async fn an_id_is_stored_once_through_whichever_node() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&one, &name).await;
    let mut here = Backend::connect(one.addr, WRITER).await;
    let mut there = Backend::connect(two.addr, WRITER).await;
    let path = format!("/rooms/{name}/messages");
    let body = json!({ "data": 1, "id": "order-7", "name": "Shop" });
    let first = here.post(&path, &body).await.expect(200);
    let again = there.post(&path, &body).await.expect(200);
    assert_eq!((&first["id"], &first["seq"], &first["duplicate"]), (&json!("order-7"), &json!(1), &json!(false)));
    assert_eq!((&again["seq"], &again["term"], &again["duplicate"]), (&first["seq"], &first["term"], &json!(true)));
    // The header says the same, bare or in quotes.
    for header in ["order-7", "\"order-7\""] {
        let head = there.head("POST", &path);
        let body = r#"{"data":1}"#;
        let request = format!(
            "{head}idempotency-key: {header}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(there.exchange(request).await.expect(200)["duplicate"], true);
    }
    let message = ann.expect("message").await;
    assert_eq!((&message["from"]["name"], message.seq()), (&json!("Shop"), 1));
    // A client's ids are its own: the same text is another message.
    ann.send(json!({ "type": "publish", "room": name, "data": 2, "id": "order-7", "ref": 1 })).await;
    assert_eq!(ann.answer(&json!(1)).await["seq"], 2);
    // Numbered ids, far behind their producer's latest.
    let ahead: String = (1..=1000)
        .map(|number| here.request("POST", &path, Some(&format!(r#"{{"data":1,"id":"p#{}"}}"#, number * 2))))
        .collect();
    here.send(ahead).await;
    for _ in 0..1000 {
        here.answer().await.expect(200);
    }
    let stale = there.post(&path, &json!({ "data": 1, "id": "p#3" })).await;
    assert_eq!((stale.status, stale.problem()), (409, "stale_id".to_owned()));
}

#[tokio::test]
async fn one_message_goes_to_many_rooms_with_an_outcome_each() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let names: Vec<String> = (0..5).map(|_| room()).collect();
    let (mut ann, _) = Client::enter(&one, &names[0]).await;
    let (mut bob, _) = Client::enter(&two, &names[4]).await;
    let mut backend = Backend::connect(one.addr, WRITER).await;
    let answer = backend.post("/messages", &json!({ "rooms": names, "data": "news", "id": "n-1" })).await.expect(200);
    assert_eq!((&answer["accepted"], &answer["failed"]), (&json!(5), &json!(0)), "{answer}");
    let outcomes = answer["outcomes"].as_array().expect("a list");
    for (outcome, name) in outcomes.iter().zip(&names) {
        assert_eq!((&outcome["room"], &outcome["status"]), (&json!(name), &json!(200)), "{outcome}");
        assert_eq!((&outcome["message"]["seq"], &outcome["message"]["id"]), (&json!(1), &json!("n-1")), "{outcome}");
    }
    assert_eq!(
        (ann.expect("message").await.raw("data"), bob.expect("message").await.raw("data")),
        ("\"news\"".to_owned(), "\"news\"".to_owned())
    );
    // Again as a whole, with one room more: only that one gets it.
    let mut more = names.clone();
    more.push(room());
    let answer = backend.post("/messages", &json!({ "rooms": more, "data": "news", "id": "n-1" })).await.expect(200);
    let duplicates: Vec<&Value> =
        answer["outcomes"].as_array().expect("a list").iter().map(|outcome| &outcome["message"]["duplicate"]).collect();
    assert_eq!(duplicates, [&json!(true), &json!(true), &json!(true), &json!(true), &json!(true), &json!(false)]);
    for (body, code) in [
        (json!({ "rooms": [], "data": 1 }), "invalid"),
        (json!({ "rooms": ["a", "a"], "data": 1 }), "invalid"),
        (json!({ "rooms": ["a", "b c"], "data": 1 }), "bad_room"),
        (json!({ "rooms": (0..101).map(|n| format!("r{n}")).collect::<Vec<_>>(), "data": 1 }), "invalid"),
        (json!({ "rooms": "a", "data": 1 }), "invalid"),
    ] {
        assert_eq!(backend.post("/messages", &body).await.problem(), code, "{body}");
    }
    assert!(ann.settle().await.iter().all(|frame| frame.kind() != "message"), "nothing twice");
}

/// The broker is away: what was not stored is said so, and that it may be tried again.
#[tokio::test]
async fn without_a_broker_the_answer_is_503() {
    let mut redis = Redis::start().await;
    let [one, _two] = pair(&redis, &[]).await;
    let mut backend = Backend::connect(one.addr, WRITER).await;
    let path = format!("/rooms/{}/messages", room());
    backend.post(&path, &json!({ "data": 1, "id": "a" })).await.expect(200);
    redis.stop().await;
    one.wait_ready(false).await;
    let answer = backend.post(&path, &json!({ "data": 1, "id": "b" })).await;
    assert!(matches!(answer.status, 503 | 504), "{}", answer.json);
    let code = answer.problem();
    assert!(code == "broker_unavailable" || code == "undecided", "{code}");
    assert_eq!(answer.json["retryable"], true);
    let many = backend.post("/messages", &json!({ "rooms": ["a", "b"], "data": 1 })).await.expect(207);
    assert_eq!((&many["accepted"], &many["failed"]), (&json!(0), &json!(2)), "{many}");
    let problem = &many["outcomes"][0]["problem"];
    assert_eq!((&problem["retryable"], &problem["status"]), (&json!(true), &many["outcomes"][0]["status"]), "{many}");
}

#[tokio::test]
async fn ephemeral_rooms_have_no_positions() {
    let keys = keys();
    let args: Vec<&str> = keys.iter().map(String::as_str).collect();
    let node = Node::start_with(&args, "[[rooms]]\npattern = \"cursor-*\"\nmode = \"ephemeral\"\n").await;
    let (mut ann, _) = Client::enter(&node, "cursor-1").await;
    let mut backend = Backend::connect(node.addr, WRITER).await;
    let answer = backend.post("/rooms/cursor-1/messages", &json!({ "data": [1] })).await.expect(200);
    assert!(answer.get("seq").is_none() && answer.get("term").is_none() && answer["ts"].is_u64(), "{answer}");
    assert_eq!(ann.expect("message").await.raw("data"), "[1]");
}
