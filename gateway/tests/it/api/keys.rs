//! Who may call: no key, a wrong one, one with too little scope, one that is too fast.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{ADMIN, ALL, Backend, Node, READER, WRITER, api_node, get, keys, request};

/// A request of each kind, with the scope that it needs.
const REQUESTS: [(&str, &str, Option<&str>, &str); 8] = [
    ("GET", "/rooms", None, READER),
    ("GET", "/rooms/a", None, READER),
    ("GET", "/rooms/a/members", None, READER),
    ("GET", "/rooms/a/messages", None, READER),
    ("POST", "/rooms/a/messages", Some(r#"{"data":1}"#), WRITER),
    ("POST", "/messages", Some(r#"{"rooms":["a"],"data":1}"#), WRITER),
    ("GET", "/nodes", None, ADMIN),
    ("POST", "/users/ann/disconnect", Some("{}"), ADMIN),
];

#[tokio::test]
async fn each_scope_opens_what_it_names_and_nothing_else() {
    let node = api_node(&[]).await;
    for key in [READER, WRITER, ADMIN, ALL] {
        let mut backend = Backend::connect(node.addr, key).await;
        for (method, path, body, needed) in REQUESTS {
            let answer = backend.exchange(backend.request(method, path, body)).await;
            if key == needed || key == ALL {
                assert_eq!(answer.status, 200, "{key} {method} {path}: {}", answer.json);
            } else {
                assert_eq!((answer.status, answer.problem()), (403, "forbidden".to_owned()), "{key} {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_key_or_with_a_wrong_one_there_is_nothing() {
    let node = api_node(&[]).await;
    for key in ["", "nonsense", "all-keys", "ALL-KEY", "boss", "all-key all-key"] {
        let mut backend = Backend::connect(node.addr, key).await;
        for (method, path, body, _) in REQUESTS.iter().take(2) {
            let answer = backend.exchange(backend.request(method, path, *body)).await;
            assert_eq!((answer.status, answer.problem()), (401, "unauthorized".to_owned()), "{key}: {method} {path}");
            assert_eq!(answer.header("connection"), "close", "strangers do not keep connections");
        }
    }
    // Where a key may not stand: as a password, in the query, in a header given twice.
    let basic = [("authorization", "Basic YWxsLWtleTphbGwta2V5")];
    assert_eq!(request(node.addr, "GET", "/api/v1/rooms", &basic).await.status, 401);
    assert_eq!(get(node.addr, "/api/v1/rooms?key=all-key&token=all-key").await.status, 401);
    let twice = [("authorization", "Bearer all-key"), ("authorization", "Bearer all-key")];
    assert_eq!(request(node.addr, "GET", "/api/v1/rooms", &twice).await.status, 401);
    // What is public needs none.
    assert_eq!(get(node.addr, "/api/v1/openapi.json").await.status, 200);
    assert_eq!(get(node.addr, "/api/v1/client-config").await.text(), r#"{"video":null}"#);
    assert!(!node.log().contains("all-key"), "keys are not logged");
}

#[tokio::test]
async fn guessing_ends_for_an_address() {
    let node = api_node(&["--trusted-proxies", "127.0.0.0/8"]).await;
    let from = |address: &'static str, key: &str| {
        let bearer = format!("Bearer {key}");
        async move {
            let headers = [("x-forwarded-for", address), ("authorization", bearer.as_str())];
            request(node.addr, "GET", "/api/v1/rooms", &headers).await.status
        }
    };
    assert_eq!(from("203.0.113.1", "all-key").await, 200);
    // All at once: one is forgiven every five seconds.
    let guesses: Vec<String> = (0..40).map(|guess| format!("guess-{guess}")).collect();
    let statuses = join_all(guesses.iter().map(|guess| from("203.0.113.1", guess))).await;
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused >= 10, "{refused}");
    assert_eq!(from("203.0.113.1", "all-key").await, 200, "who was there before goes on");
    assert_eq!(from("203.0.113.1", "reader-key").await, 429, "a right guess comes too late");
    assert_eq!(from("203.0.113.2", "reader-key").await, 200, "other addresses are not concerned");
}

#[tokio::test]
async fn a_key_has_a_rate() {
    let mut keys = keys();
    *keys.last_mut().expect("the rate") = "5".to_owned();
    let args: Vec<&str> = keys.iter().map(String::as_str).collect();
    let node = Node::start(&args).await;
    let mut backend = Backend::connect(node.addr, READER).await;
    let mut slow_down = None;
    for _ in 0..200 {
        let answer = backend.get("/rooms").await;
        if answer.status == 429 {
            slow_down = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let slow_down = slow_down.expect("5 a second are less than this");
    assert_eq!((slow_down.problem().as_str(), slow_down.header("connection")), ("rate_limited", ""));
    // Another key has a rate of its own.
    Backend::connect(node.addr, ALL).await.get("/rooms").await.expect(200);
    node.reaches("roomcast_api_requests_total", &["route=\"listRooms\"", "status=\"429\""], 1.0).await;
}

#[tokio::test]
async fn without_keys_the_api_is_closed() {
    let node = Node::start(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    for (method, path, body, _) in REQUESTS {
        let answer = backend.exchange(backend.request(method, path, body)).await;
        assert_eq!((answer.status, answer.problem()), (403, "api_disabled".to_owned()), "{method} {path}");
    }
    assert_eq!(get(node.addr, "/api/v1/openapi.json").await.status, 200);
    let body = json!({ "clientId": "0b9a1f3e-7c4d-4f0a-9b43-2f6d8c1e5a70" });
    assert_eq!(backend.post("/rooms/a/video-token", &body).await.problem(), "not_found");
}
