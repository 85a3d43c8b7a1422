//! The operator's own service decides who may connect, and what they may do.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    ADMIN, Backend, Client, Node, Receiver, Reply, SECRET, assert_error, eventually, get, keys, room, until_logged,
    upgrade, within,
};

/// A node that asks `receiver`.
async fn start(receiver: &Receiver, more: &[&str]) -> Node {
    let url = receiver.url();
    let args = ["--authorize-url", &url, "--authorize-secret", SECRET];
    Node::start(&args.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()).await
}

fn allow() -> Reply {
    Reply::json(&json!({"allow": true}))
}

async fn decided(node: &Node, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    node.metric("roomcast_authorize_decisions_total", &[&label]).await.round() as u64
}

/// The status of a handshake, and the words of a refusal.
async fn knock(node: &Node, path: &str) -> (u16, String) {
    let (answer, _) = upgrade(node.addr, path, &[]).await;
    if answer.status == 503 {
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=5).contains(&seconds)));
    }
    (answer.status, answer.text())
}

#[tokio::test]
async fn what_the_service_says_holds() {
    let receiver = Receiver::start().await;
    receiver.answer(|question| {
        let rooms = json!({"join": ["team-*"], "publish": ["team-1"], "history": ["*"], "presence": ["*"]});
        match question["token"].as_str() {
            Some("canary-ann") => Reply::json(&json!({"allow": true, "sub": "ann", "name": "Ann", "rooms": rooms})),
            _ => Reply::json(&json!({"allow": false, "reason": "no such\r\nuser"})),
        }
    });
    let node = start(&receiver, &["--node-id", "n-1", "--log", "trace"]).await;
    let headers = [("origin", "http://page.example"), ("host", "page.example"), ("authorization", "Bearer canary-ann")];
    let (answer, _) = upgrade(node.addr, "/ws/team-1?name=x&room=team-2", &headers).await;
    assert_eq!(answer.status, 101);
    let question = receiver.calls()[0].body.clone();
    assert_eq!(
        question,
        json!({"nodeId": "n-1", "token": "canary-ann", "name": "x", "rooms": ["team-1", "team-2"],
               "address": "127.0.0.1", "origin": "http://page.example"})
    );

    let mut ann = Client::connect(&node, "/ws/team-1?token=canary-ann&name=x").await;
    assert_eq!(ann.welcome["name"], "Ann", "the name is given");
    ann.expect("joined").await;
    assert_eq!(ann.publish("team-1", json!(1)).await.kind(), "ack");
    for (number, (frame, code)) in [
        (json!({"type": "join", "room": "other"}), "forbidden"),
        (json!({"type": "rename", "name": "y"}), "forbidden"),
        // A token is not looked at here, and does not lift what was decided.
        (json!({"type": "join", "room": "team-2"}), ""),
        (json!({"type": "publish", "room": "team-2", "data": 1}), "forbidden"),
        (json!({"type": "refresh", "token": "canary-other"}), ""),
        (json!({"type": "join", "room": "other"}), "forbidden"),
        (json!({"type": "publish", "room": "team-2", "data": 1}), "forbidden"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frame = frame;
        frame["ref"] = json!(number);
        ann.send(frame).await;
        let answer = ann.answer(&json!(number)).await;
        if code.is_empty() {
            assert_ne!(answer.kind(), "error", "{}", answer.text);
        } else {
            assert_error(&answer, code, &json!(number));
        }
    }
    assert_eq!(knock(&node, "/ws/other?token=canary-ann").await.0, 403, "not a room that is given");
    assert_eq!(knock(&node, "/ws/team-1?token=canary-bob").await, (403, "no suchuser\n".to_owned()));
    assert_eq!(knock(&node, "/ws/team-1").await.0, 403);
    assert_eq!((decided(&node, "allowed").await, decided(&node, "denied").await), (3, 2));
    let refused = node.reaches("roomcast_handshakes_total", &["outcome=\"not_authorized\""], 2.0).await;
    assert!((1.5..2.5).contains(&refused), "{refused}");
    let log = node.log();
    assert!(!log.contains("canary") && !log.contains(SECRET), "tokens and secrets are not for logs");
}

/// An answer without rooms is about those that were asked for.
#[tokio::test]
async fn a_plain_yes_is_no_more_than_was_asked_for() {
    let receiver = Receiver::start().await;
    receiver.answer(|_| allow());
    let node = start(&receiver, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    assert_eq!(ana.publish(&name, json!(1)).await.kind(), "ack");
    ana.send(json!({"type": "join", "room": room(), "ref": 1})).await;
    assert_error(&ana.answer(&json!(1)).await, "forbidden", &json!(1));
    let mut bare = Client::connect(&node, "/connect").await;
    bare.send(json!({"type": "join", "room": name, "ref": 1})).await;
    assert_error(&bare.answer(&json!(1)).await, "forbidden", &json!(1));
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time() {
    let receiver = Receiver::start().await;
    receiver.answer(|question| match question["token"].as_str() {
        Some("each") => Reply::json(&json!({"allow": true, "cacheSeconds": 0})),
        Some("no") => Reply::json(&json!({"allow": false})),
        _ => allow(),
    });
    let node = start(&receiver, &[]).await;
    let asked = || receiver.calls().len();
    for _ in 0..3 {
        assert_eq!(knock(&node, "/ws/a?token=one").await.0, 101);
    }
    assert_eq!(asked(), 1);
    for (path, status) in
        [("/ws/a?token=two", 101), ("/ws/b?token=one", 101), ("/ws/a?token=one&name=x", 101), ("/ws/a?token=no", 403)]
    {
        assert_eq!(knock(&node, path).await.0, status);
    }
    assert_eq!(asked(), 5);
    assert_eq!(knock(&node, "/ws/a?token=no").await.0, 403);
    assert_eq!(asked(), 5, "a no is kept, too");
    for _ in 0..3 {
        assert_eq!(knock(&node, "/ws/a?token=each").await.0, 101);
    }
    assert_eq!(asked(), 8);
    let cached = node.reaches("roomcast_authorize_cached_total", &[], 3.0).await;
    assert!((2.5..3.5).contains(&cached), "{cached}");

    let short = start(&receiver, &["--authorize-cache", "300ms"]).await;
    assert_eq!(knock(&short, "/ws/a").await.0, 101);
    let before = asked();
    eventually("the answer to be asked for again", || async {
        assert_eq!(knock(&short, "/ws/a").await.0, 101);
        (asked() > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn equal_questions_are_one_call() {
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::Status(200, vec![], json!({"allow": true, "cacheSeconds": 0}).to_string()));
    receiver.answer_next([Reply::Late(Duration::from_secs(1), 200)]);
    let node = start(&receiver, &["--authorize-timeout", "10s", "--workers", "2"]).await;
    let (addr, mut knocks) = (node.addr, tokio::task::JoinSet::new());
    for _ in 0..50 {
        knocks.spawn(async move { upgrade(addr, "/ws/same?token=t", &[]).await.0.status });
    }
    // 200 without a body is no answer, for none of them.
    let statuses = knocks.join_all().await;
    assert!(statuses.iter().all(|status| [101, 503].contains(status)));
    assert!(statuses.iter().filter(|status| **status == 503).count() >= 2, "they shared it: {statuses:?}");
    assert!(receiver.calls().len() <= 49, "{} calls", receiver.calls().len());
}

/// Closed, whatever is wrong with the service; and what is wrong is not kept.
#[tokio::test]
async fn without_an_answer_nobody_comes_in() {
    let mut receiver = Receiver::start().await;
    let inside = Receiver::start().await;
    receiver.answer(|_| allow());
    let node = start(&receiver, &["--authorize-timeout", "4s"]).await;
    let to = |place: &str| Reply::Status(302, vec![("location", place.to_owned())], String::new());
    for reply in [
        Reply::Never,
        Reply::Endless,
        Reply::Late(Duration::from_secs(6), 200),
        Reply::status(500),
        Reply::status(404),
        Reply::status(204),
        to(&inside.url()),
        to("file:///etc/passwd"),
        Reply::Status(200, vec![], "{\"allow\":\"yes\"}".to_owned()),
        Reply::Status(200, vec![], "{\"allow\":true,\"rooms\":\"canary\"}".to_owned()),
        Reply::Status(200, vec![], "true".to_owned()),
        Reply::json(&json!({"allow": true, "exp": 1})),
        Reply::json(&json!({"allow": true, "sub": "x".repeat(129)})),
    ] {
        let what = format!("{reply:?}");
        receiver.answer_next([reply]);
        assert_eq!(knock(&node, "/ws/a").await.0, 503, "{what}");
    }
    assert!(inside.calls().is_empty());
    for reply in [Reply::status(403), Reply::status(401)] {
        receiver.answer_next([reply]);
        let path = format!("/ws/{}", room());
        assert_eq!(knock(&node, &path).await.0, 403, "a service may say no in HTTP's words");
    }
    assert_eq!(knock(&node, "/ws/a").await.0, 101);
    receiver.stop().await;
    assert_eq!(knock(&node, "/ws/b").await.0, 503);
    assert_eq!(knock(&node, "/ws/a").await.0, 101, "what was said still holds");
    receiver.resume();
    assert_eq!(knock(&node, "/ws/b").await.0, 101);
    assert_eq!(decided(&node, "failed").await, 14);
    until_logged(&node, "authorize-url answers again").await;
    let log = node.log();
    assert!(log.contains("authorize-url gives no answer"));
    assert!(!log.contains("canary") && !log.contains("/hook"), "{log}");
}

/// Who waits for a slow service takes no place from those who need none of it.
#[tokio::test]
async fn a_slow_service_stops_nobody_else() {
    let receiver = Receiver::start().await;
    receiver.answer(|question| if question["token"] == "known" { allow() } else { Reply::Never });
    let node = start(&receiver, &["--authorize-timeout", "30s", "--workers", "1"]).await;
    assert_eq!(knock(&node, "/ws/a?token=known").await.0, 101);
    let (addr, mut knocks) = (node.addr, tokio::task::JoinSet::new());
    for number in 0..1000 {
        knocks.spawn(async move { upgrade(addr, &format!("/ws/a?token=slow-{number}"), &[]).await.0.status });
    }
    let mut refused = 0;
    within("all but those who are asked about", async {
        while refused < 1000 - 128 {
            assert_eq!(knocks.join_next().await.expect("more").expect("no panic"), 503);
            refused += 1;
        }
    })
    .await;
    eventually("all the others to be asked about", || async { (receiver.most_open() >= 128).then_some(()) }).await;
    assert_eq!(receiver.most_open(), 128);
    assert_eq!(knock(&node, "/ws/a?token=known").await.0, 101);
    assert_eq!(get(node.addr, "/").await.status, 200);
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    assert_eq!(decided(&node, "busy").await, 1000 - 128);
    let mut known = Client::connect(&node, "/ws/a?token=known").await;
    known.expect("joined").await;
    assert_eq!(known.publish("a", json!(1)).await.kind(), "ack");
    drop(knocks);
}

/// A time that the service gives ends the connection.
#[tokio::test]
async fn what_is_allowed_may_end() {
    let receiver = Receiver::start().await;
    receiver.answer(|_: &Value| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        Reply::json(&json!({"allow": true, "exp": now + 8.0}))
    });
    let node = start(&receiver, &[]).await;
    let (mut ana, _) = Client::enter(&node, &room()).await;
    assert_eq!(ana.close_code().await, 4401);
}

/// A token must be good before anybody is asked, and then both must allow it.
#[tokio::test]
async fn a_token_and_a_decision_hold_together() {
    const KEY: &str = "the-secret-of-these-tests-is-long-enough";
    let token = |sub: &str, rooms: &[&str]| {
        let exp = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 3600;
        let claims = json!({"aud": "roomcast", "exp": exp, "sub": sub, "rooms": rooms});
        let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let receiver = Receiver::start().await;
    receiver.answer(|question| match question["rooms"][0].as_str() {
        Some("b") => Reply::json(&json!({"allow": true, "rooms": ["b", "c"]})),
        _ => allow(),
    });
    let node = start(&receiver, &["--jwt-secret", KEY, "--jwt-audience", "roomcast"]).await;
    assert_eq!(knock(&node, "/ws/b?token=bad").await.0, 401);
    assert_eq!(knock(&node, "/ws/b").await.0, 401);
    assert_eq!(knock(&node, &format!("/ws/c?token={}", token("ann", &["b"]))).await.0, 403);
    assert!(receiver.calls().is_empty(), "nobody is asked about a bad token, or a room that it does not give");

    let mut ann = Client::connect(&node, &format!("/ws/b?token={}", token("ann", &["a", "b"]))).await;
    ann.expect("joined").await;
    let question = receiver.calls()[0].body.clone();
    assert_eq!(question["user"], "ann");
    let ask = async |ann: &mut Client, frame: Value| {
        ann.send(frame).await;
        ann.answer(&json!(1)).await
    };
    for room in ["a", "c"] {
        let answer = ask(&mut ann, json!({"type": "join", "room": room, "ref": 1})).await;
        assert_error(&answer, "forbidden", &json!(1));
    }
    // A wider token is narrowed as the first one was, and another user's is refused.
    let answer = ask(&mut ann, json!({"type": "refresh", "token": token("bob", &["*"]), "ref": 1})).await;
    assert_error(&answer, "unauthorized", &json!(1));
    let answer = ask(&mut ann, json!({"type": "refresh", "token": token("ann", &["*"]), "ref": 1})).await;
    assert_eq!(answer.kind(), "refreshed", "{}", answer.text);
    let answer = ask(&mut ann, json!({"type": "join", "room": "a", "ref": 1})).await;
    assert_error(&answer, "forbidden", &json!(1));
    assert_eq!(ask(&mut ann, json!({"type": "join", "room": "c", "ref": 1})).await.kind(), "joined");

    // Without rooms in the answer the token's hold.
    let mut bare = Client::connect(&node, &format!("/connect?token={}", token("cleo", &["x"]))).await;
    assert_eq!(ask(&mut bare, json!({"type": "join", "room": "x", "ref": 1})).await.kind(), "joined");
    let answer = ask(&mut bare, json!({"type": "join", "room": "y", "ref": 1})).await;
    assert_error(&answer, "forbidden", &json!(1));
}

/// Whose connection it will be is not known before the service says so.
#[tokio::test]
async fn whoever_is_being_asked_about_is_disconnected_too() {
    let receiver = Receiver::start().await;
    let yes = json!({"allow": true, "sub": "ann"});
    let always = yes.clone();
    receiver.answer(move |_| Reply::json(&always));
    let keys = keys();
    let more = ["--authorize-timeout", "20s", "--authorize-cache", "0s", "--workers", "2"];
    let node = start(&receiver, &more.into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>()).await;
    let mut backend = Backend::connect(node.addr, ADMIN).await;
    for (may_return, code) in [(false, 4409), (true, 1012)] {
        let (held, calls) = (Arc::new(Notify::new()), receiver.calls().len());
        receiver.answer_next([Reply::Held(Arc::clone(&held), yes.to_string())]);
        let addr = node.addr;
        let knock = tokio::spawn(async move { upgrade(addr, "/ws/a?token=t", &[]).await });
        receiver.until_calls(calls + 1).await;
        for user in ["ann", "bob"] {
            backend.post(&format!("/users/{user}/disconnect"), &json!({"reconnect": may_return})).await.expect(200);
        }
        held.notify_one();
        let (answer, mut socket) = knock.await.unwrap();
        assert_eq!((answer.status, socket.close_code().await), (101, Some(code)));
        // Disconnected, not banned.
        let mut again = Client::connect(&node, "/ws/a?token=t").await;
        assert_eq!(again.expect("joined").await["online"], 1, "the other was never in");
        again.leave().await;
    }
}
