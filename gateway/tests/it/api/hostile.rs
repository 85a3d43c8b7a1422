//! What no well-behaved backend sends.

use serde_json::json;

use crate::support::{ALL, Backend, api_node, get, request};

#[tokio::test]
async fn bodies_that_are_wrong_are_told_so() {
    let node = api_node(&["--max-message-bytes", "4096"]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let nested = |levels: usize| format!("{{\"data\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let long = |field: &str, bytes: usize| format!("{{\"data\":1,\"{field}\":\"{}\"}}", "x".repeat(bytes));
    for (body, status, code) in [
        ("", 400, "bad_request"),
        ("nonsense", 400, "bad_request"),
        ("{", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        ("[1,\"id\",\"name\"]", 400, "bad_request"),
        ("null", 400, "bad_request"),
        ("\u{feff}{\"data\":1}", 400, "bad_request"),
        ("{\"data\":1}{\"data\":1}", 400, "bad_request"),
        ("{\"data\":01}", 400, "bad_request"),
        ("{}", 422, "invalid"),
        ("{\"data\":1,\"data\":2}", 422, "invalid"),
        ("{\"data\":1,\"dat\":2}", 422, "invalid"),
        ("{\"data\":1,\"id\":7}", 422, "invalid"),
        ("{\"data\":1,\"id\":\"\"}", 422, "invalid"),
        ("{\"data\":1,\"name\":\"\"}", 422, "invalid"),
        ("{\"data\":1,\"name\":\"a\\u0000b\"}", 422, "invalid"),
        ("{\"data\":1,\"name\":\"a\\r\\nb\"}", 422, "invalid"),
        (&long("name", 65), 413, "too_large"),
        (&long("id", 129), 413, "too_large"),
        (&nested(129), 413, "too_large"),
        (&nested(2000), 413, "too_large"),
        (&format!("{{\"data\":\"{}\"}}", "x".repeat(4096)), 413, "too_large"),
        (&format!("{{\"data\":\"{}\"}}", "x".repeat(100_000)), 413, "too_large"),
    ] {
        let answer = backend.exchange(backend.request("POST", "/rooms/a/messages", Some(body))).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{shown}: {}", answer.json);
        let detail = answer.json["detail"].as_str().expect("text");
        assert!(detail.len() < 400, "words do not grow with what they quote: {}", detail.len());
    }
    // What is allowed is, to the last level and byte.
    backend.exchange(backend.request("POST", "/rooms/a/messages", Some(&nested(128)))).await.expect(200);
    backend.post("/rooms/a/messages", &json!({ "data": "x".repeat(4094) })).await.expect(200);
    let invalid = [
        backend.head("POST", "/rooms/a/messages").as_bytes(),
        b"content-type: application/json\r\ncontent-length: 12\r\n\r\n{\"data\":\"\xff\"}",
    ]
    .concat();
    assert_eq!(backend.exchange(invalid).await.problem(), "bad_request");
}

#[tokio::test]
async fn heads_that_are_wrong_are_told_so() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let head = backend.head("POST", "/rooms/a/messages");
    for (headers, status, code) in [
        ("", 411, "length_required"),
        ("content-length: 10\r\n", 415, "unsupported_media_type"),
        ("content-type: text/plain\r\ncontent-length: 10\r\n", 415, "unsupported_media_type"),
        ("content-type: application/jsonp\r\ncontent-length: 10\r\n", 415, "unsupported_media_type"),
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n",
            415,
            "unsupported_media_type",
        ),
        ("content-type: application/json\r\ncontent-length: 99999999999\r\n", 413, "too_large"),
    ] {
        // Without the body: that would be read only once it is wanted.
        let answer = backend.exchange(format!("{head}{headers}connection: close\r\n\r\n")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{headers}");
    }
    let unhosted = "GET /api/v1/openapi.json HTTP/1.1\r\n\r\n";
    assert_eq!(backend.exchange(unhosted).await.problem(), "bad_request");
}

#[tokio::test]
async fn chunks_are_counted() {
    let node = api_node(&["--max-message-bytes", "4096"]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let head = format!(
        "{}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        backend.head("POST", "/rooms/a/messages")
    );
    let chunks = "5\r\n{\"dat\r\n5\r\na\":1}\r\n0\r\n\r\n";
    assert_eq!(backend.exchange(format!("{head}{chunks}")).await.expect(200)["seq"], 1);
    assert_eq!(backend.exchange(format!("{head}{chunks}")).await.expect(200)["seq"], 2, "the connection stayed");
    // Far more than it may, and no length that says so.
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    let mut endless = Backend::connect(node.addr, ALL).await;
    endless.send(&head).await;
    for _ in 0..100 {
        if !endless.send(&chunk).await {
            break;
        }
    }
    let answer = endless.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (413, "close"));
    endless.ended().await;
}

#[tokio::test]
async fn names_in_paths_are_checked_after_decoding() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    for name in ["a%20b", "%0d%0aset-cookie:x", "a%2Fb", "%7Ba%7D", "*", "%00", "%C3%A9", &"x".repeat(129), "a+b"] {
        let answer = backend.get(&format!("/rooms/{name}")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_room"), "{name}");
        assert!(answer.header("set-cookie").is_empty(), "{name}");
    }
    for path in ["/rooms/%zz", "/rooms/%ff", "/rooms/a/members/not-a-uuid", "/rooms?limit=%zz", "/connections/x"] {
        let method = if path.contains("uuid") || path.contains("connections") { "DELETE" } else { "GET" };
        let answer = backend.exchange(backend.request(method, path, None)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{path}");
    }
    assert_eq!(backend.get("/rooms/%61").await.expect(200)["room"], "a");
    for path in ["", "/", "/rooms/", "/rooms/a/", "/rooms//messages", "/../rooms", "/rooms/a/b/c", "/ROOMS"] {
        assert_eq!(backend.get(path).await.problem(), "not_found", "{path}");
    }
    for (user, code) in [("", "bad_request"), ("%00", "bad_request"), (&*"u".repeat(129), "too_large")] {
        let answer = backend.delete(&format!("/rooms/a/members?user={user}")).await;
        assert_eq!(answer.problem(), code, "{user}");
    }
    let reason = "%0a";
    let path = format!("/rooms/a/members?user=ann&reason={reason}");
    assert_eq!(backend.delete(&path).await.problem(), "bad_request");
    let reason = json!({ "reason": "x".repeat(124) });
    assert_eq!(backend.post("/users/ann/disconnect", &reason).await.problem(), "too_large");
    let reason = json!({ "reason": "a\nb" });
    assert_eq!(backend.post("/users/ann/disconnect", &reason).await.problem(), "invalid");
}

#[tokio::test]
async fn methods_are_as_http_has_them() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    for (method, path, allow) in [
        ("PUT", "/rooms", "GET, HEAD, OPTIONS"),
        ("POST", "/rooms/a", "GET, HEAD, OPTIONS"),
        ("PATCH", "/rooms/a/messages", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/messages", "POST, OPTIONS"),
    ] {
        let answer = backend.exchange(backend.request(method, path, None)).await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
        assert_eq!(answer.problem(), "method_not_allowed");
    }
    let options = request(node.addr, "OPTIONS", "/api/v1/rooms", &[("origin", "https://evil.example")]).await;
    assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, OPTIONS"));
    let with_origin = [("origin", "https://evil.example"), ("authorization", "Bearer all-key")];
    let answer = request(node.addr, "GET", "/api/v1/rooms", &with_origin).await;
    for answer in [&options, &answer] {
        assert!(answer.header("access-control-allow-origin").is_empty(), "no page of another origin may read this");
    }
    let authorized = [("authorization", "Bearer all-key")];
    let head = request(node.addr, "HEAD", "/api/v1/rooms", &authorized).await;
    let get = request(node.addr, "GET", "/api/v1/rooms", &authorized).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(get.header("cache-control"), "no-store");
}

/// Neither paths nor rooms nor keys make new series.
#[tokio::test]
async fn metrics_do_not_grow_with_what_is_asked_for() {
    let node = api_node(&[]).await;
    let mut backend = Backend::connect(node.addr, ALL).await;
    let series = || async {
        let text = get(node.admin, "/metrics").await.text();
        text.lines().filter(|line| line.starts_with("roomcast_api_requests_total")).count()
    };
    for round in 0..2 {
        let before = series().await;
        for number in 0..50 {
            backend.get(&format!("/rooms/r-{round}-{number}")).await.expect(200);
            backend.get(&format!("/no-{round}-{number}")).await;
            let request = backend.request(&format!("M{round}{number}"), "/rooms", None);
            backend.exchange(request).await;
        }
        if round == 1 {
            assert_eq!(series().await, before);
        }
    }
    node.reaches("roomcast_api_requests_total", &["route=\"getRoom\"", "status=\"200\""], 100.0).await;
}
