//! The admin listener, and the page.

use serde_json::json;

use crate::support::{Client, Node, Redis, eventually, get, request, room};

#[tokio::test]
async fn health_version_and_nothing_else() {
    let node = Node::start(&[]).await;
    assert_eq!(get(node.admin, "/healthz").await.status, 200);
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    let version = get(node.admin, "/version").await;
    assert_eq!(version.status, 200);
    assert!(version.text().contains(env!("CARGO_PKG_VERSION")), "{}", version.text());
    assert_eq!(get(node.admin, "/nothing").await.status, 404);
    // Neither listener shows what belongs to the other.
    assert_eq!(get(node.addr, "/metrics").await.status, 404);
    assert_ne!(get(node.admin, "/app.js").await.status, 200);
}

#[tokio::test]
async fn a_node_without_its_redis_is_not_ready_but_lives() {
    let mut redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    node.reaches("roomcast_broker_up", &[], 1.0).await;

    redis.stop().await;
    node.wait_ready(false).await;
    assert_eq!(get(node.admin, "/healthz").await.status, 200);
    client.send(json!({"type": "publish", "data": 1, "ref": 1})).await;
    let refused = client.answer(&json!(1)).await;
    assert_eq!((refused.kind(), &refused["retryable"]), ("error", &json!(true)), "{}", refused.text);
    let code = refused.str("code");
    assert!(["broker_unavailable", "undecided", "overloaded"].contains(&code), "{code}");

    redis.resume().await;
    node.wait_ready(true).await;
    client.publish(&name, json!("it stayed connected")).await;
}

#[tokio::test]
async fn metrics_are_well_formed_and_name_nobody() {
    let redis = Redis::start().await;
    let node = Node::join(&redis, "n-1", &[]).await;
    let name = "a-room-name-not-to-be-found";
    let mut ana = Client::connect(&node, &format!("/ws/{name}?name=a-person-not-to-be-found")).await;
    let (mut bo, _) = Client::enter(&node, name).await;
    for number in 0..5 {
        ana.publish(name, json!(number)).await;
    }
    bo.messages(name, 5).await;
    ana.send_text("nonsense").await;
    ana.expect("error").await;
    bo.leave().await;
    ana.presence("leave").await;

    let response = get(node.admin, "/metrics").await;
    assert!(response.header("content-type").starts_with("text/plain"), "{response:?}");
    let text = response.text();
    for secret in [name, "a-person-not-to-be-found", ana.id()] {
        assert!(!text.contains(secret), "{secret} is in /metrics");
    }
    for line in text.lines().filter(|line| !line.is_empty()) {
        assert!(is_metric_line(line), "not in the text format: {line}");
    }
    for (metric, labels, least) in [
        ("roomcast_connections", &[][..], 1.0),
        ("roomcast_rooms", &[], 1.0),
        ("roomcast_members", &[], 1.0),
        ("roomcast_messages_received_total", &["kind=\"publish\""], 5.0),
        ("roomcast_deliveries_total", &[], 10.0),
        ("roomcast_publishes_total", &[], 5.0),
        ("roomcast_publish_seconds_count", &[], 1.0),
        ("roomcast_delivery_seconds_count", &["local"], 1.0),
        ("roomcast_handshakes_total", &[], 2.0),
        ("roomcast_closes_total", &[], 1.0),
        ("roomcast_bytes_received_total", &[], 100.0),
        ("roomcast_bytes_sent_total", &[], 100.0),
        ("roomcast_frames_per_write_count", &[], 1.0),
        ("roomcast_protocol_errors_total", &["bad_frame"], 1.0),
        ("roomcast_broker_up", &[], 1.0),
        ("roomcast_broker_commands_total", &[], 5.0),
        ("roomcast_deduplicated_total", &["echo"], 1.0),
        ("process_resident_memory_bytes", &[], 1.0),
    ] {
        // Workers fold their counts in from time to time.
        node.reaches(metric, labels, least).await;
    }
    eventually("one of the two to have left", || async {
        (node.metric("roomcast_connections", &[]).await < 1.5).then_some(())
    })
    .await;
}

/// `# ...` or `name{label="value",...} number`.
fn is_metric_line(line: &str) -> bool {
    if line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
        return true;
    }
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let name = series.split('{').next().unwrap_or("");
    let closed = series.contains('{') == series.ends_with('}');
    let known = name.starts_with("roomcast_") || name.starts_with("process_");
    known && closed && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && value.parse::<f64>().is_ok()
}

#[tokio::test]
async fn the_page_comes_with_a_strict_policy() {
    let node = Node::start(&[]).await;
    // From the page on, whatever a file names is followed, so that none is forgotten when one is added.
    let (mut waiting, mut seen, mut bytes) = (vec!["/".to_owned()], Vec::new(), 0);
    while let Some(path) = waiting.pop() {
        let response = get(node.addr, &path).await;
        assert_eq!(response.status, 200, "{path}");
        let kind = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript",
            Some((_, "css")) => "text/css",
            _ => "text/html",
        };
        assert!(response.header("content-type").starts_with(kind), "{path}: {response:?}");
        let policy = response.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        assert!(response.body.len() > 1000, "{path} is empty");
        bytes += response.body.len();
        let text = response.text();
        let named =
            [" href=\"/", " src=\"/", " from \"./", " from \"/"].iter().flat_map(|before| text.split(before).skip(1));
        let paths: Vec<String> =
            named.filter_map(|rest| rest.split('"').next()).map(|name| format!("/{name}")).collect();
        seen.push(path);
        waiting.extend(paths.into_iter().filter(|path| !seen.contains(path)));
        waiting.sort();
        waiting.dedup();
    }
    for known in ["/app.js", "/roomcast.js", "/rooms.js", "/russian.js", "/style.css"] {
        assert!(seen.iter().any(|path| path == known), "{known} not among {seen:?}");
    }
    assert!(bytes < 160_000, "the page has grown to {bytes} bytes");
    let page = get(node.addr, "/").await.text();
    for inline in ["<script>", "<style", " style=", " onclick=", " onload="] {
        assert!(!page.contains(inline), "the policy would stop {inline}");
    }
    let head = request(node.addr, "HEAD", "/", &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!((400..500).contains(&request(node.addr, "DELETE", "/", &[]).await.status));
}
