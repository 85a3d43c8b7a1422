//! What becomes of events whose receiver is away, slow or hostile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{assert_unique, start};
use crate::support::{Client, Node, Receiver, Reply, eventually, room, until_logged};

/// Publishes numbers one after the other, from a client that is in the room alone.
async fn publish(client: &mut Client, name: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(client.publish(name, json!(number)).await.kind(), "ack");
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["message"]["data"].as_u64()).collect()
}

async fn dropped(node: &Node, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    node.metric("roomcast_webhook_events_dropped_total", &[&label]).await.round() as u64
}

#[tokio::test]
async fn a_receiver_that_was_away_misses_nothing() {
    let mut receiver = Receiver::start().await;
    let node = start(&receiver, &["--webhook-batch", "7"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    receiver.until_count(2).await;
    receiver.stop().await;
    publish(&mut ana, &name, 0..40).await;
    until_logged(&node, "cannot be reached").await;
    receiver.resume();
    let events = receiver.until_count(42).await;
    assert_eq!(numbers(&events), (0..40).collect::<Vec<u64>>(), "in order, each once");
    assert_unique(&events);
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| call.body["events"].as_array().unwrap().len() <= 7));
    assert!(calls.len() >= 7 && receiver.most_open() == 1);
    assert_eq!(dropped(&node, "").await, 0);
}

/// Seen at each scrape, whatever the sender does: at first it waits for an answer, then it sleeps for as long as it was
/// asked to.
#[tokio::test]
async fn how_long_events_wait_shows_before_any_is_lost() {
    const AGE: &str = "roomcast_webhook_oldest_event_age_seconds";
    let receiver = Receiver::start().await;
    let answer = Arc::new(Notify::new());
    receiver.answer_next([Reply::Held(Arc::clone(&answer), String::new())]);
    let node = start(&receiver, &["--webhook-batch", "2"]).await;
    let rises = async || {
        let age = node.reaches(AGE, &["webhook=\"default\""], 0.1).await;
        node.reaches(AGE, &["webhook=\"default\""], age + 0.1).await;
    };
    assert!(node.metric(AGE, &[]).await.abs() < f64::EPSILON, "nothing happened yet");
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    rises().await;
    answer.notify_one();
    receiver.until_count(2).await;
    eventually("nothing to wait", || async { (node.metric(AGE, &[]).await == 0.0).then_some(()) }).await;
    receiver.answer_next([Reply::Status(503, vec![("retry-after", "300".to_owned())], String::new())]);
    publish(&mut ana, &name, 0..1).await;
    rises().await;
    assert_eq!(dropped(&node, "").await, 0);
}

#[tokio::test]
async fn who_asks_for_time_gets_it_and_what_failed_comes_again() {
    let receiver = Receiver::start().await;
    let after = |status, seconds: &str| Reply::Status(status, vec![("retry-after", seconds.to_owned())], String::new());
    receiver.answer_next([
        Reply::status(500),
        Reply::status(408),
        after(429, "2"),
        after(503, "Sun, 06 Nov 1994 08:49:37 GMT"),
        Reply::status(200),
    ]);
    let node = start(&receiver, &[]).await;
    let (_ana, _) = Client::enter(&node, &room()).await;
    let events = receiver.until_count(2).await;
    assert_eq!((&events[0]["type"], &events[1]["type"]), (&json!("room_occupied"), &json!("member_joined")));
    let calls = receiver.calls();
    let first = &calls[0].body["events"][0]["id"];
    assert!(calls[..5].iter().all(|call| call.body["events"][0]["id"] == *first), "the same event, under one id");
    assert!(calls[3].at - calls[2].at >= Duration::from_secs(2), "two seconds were asked for");
    // The second event travels with the first, or behind it.
    let taken = calls.iter().filter(|call| call.status == 200).count() as f64;
    for (outcome, count) in [("taken", taken), ("later", 4.0), ("refused", 0.0)] {
        let label = format!("outcome=\"{outcome}\"");
        let counted = node.reaches("roomcast_webhook_calls_total", &[&label], count).await;
        assert!(counted < count + 0.5, "{outcome}: {counted}");
    }
}

/// A redirect could lead a signed call to a place that the operator did not name.
#[tokio::test]
async fn what_is_refused_is_dropped_and_redirects_are_not_followed() {
    let (receiver, inside) = (Receiver::start().await, Receiver::start().await);
    let to = |status, place: &str| Reply::Status(status, vec![("location", place.to_owned())], String::new());
    receiver.answer_next([
        Reply::status(400),
        Reply::status(410),
        to(302, &inside.url()),
        to(307, "file:///etc/passwd"),
        to(308, "http://169.254.169.254/latest/meta-data/"),
    ]);
    let node = start(&receiver, &["--webhook-batch", "1"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    publish(&mut ana, &name, 0..4).await;
    let events = receiver.until_count(1).await;
    assert_eq!(numbers(&events), [3], "the others were refused");
    let calls = receiver.calls();
    assert_eq!(calls.len(), 6);
    assert_eq!(calls[5].body["dropped"], 5, "the receiver is told how many it missed");
    assert_eq!(dropped(&node, "refused").await, 5);
    assert!(inside.calls().is_empty());
    until_logged(&node, "refused events").await;
}

#[tokio::test]
async fn a_hostile_receiver_costs_nothing_but_its_own_events() {
    let receiver = Receiver::start().await;
    receiver.answer_next([Reply::Endless, Reply::Never, Reply::Endless]);
    // Long enough for all that are answered, however busy the machine is.
    let node = start(&receiver, &["--webhook-timeout", "5s", "--webhook-batch", "1"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (before, _) = node.memory();
    publish(&mut ana, &name, 0..50).await;
    // The first event was taken with its status; the second is tried again.
    let events = receiver.until_count(52).await;
    assert_eq!(numbers(&events), (0..50).collect::<Vec<u64>>());
    assert_unique(&events);
    assert_eq!(receiver.calls().len(), 53);
    let (after, _) = node.memory();
    assert!(after < before + 64 * 1024 * 1024, "{before} then {after} bytes");
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_and_counts() {
    let receiver = Receiver::start().await;
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    receiver.answer(move |_| Reply::status(if open.load(Ordering::Relaxed) { 200 } else { 503 }));
    let node = start(&receiver, &["--webhook-queue", "10", "--webhook-batch", "5"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    receiver.until_calls(1).await;
    publish(&mut ana, &name, 0..100).await;
    assert!(node.metric("roomcast_webhook_queue_events", &[]).await < 10.5);
    gate.store(true, Ordering::Relaxed);
    let events = receiver
        .until("the last one", |events| events.last().is_some_and(|event| event["message"]["data"] == 99))
        .await;
    let came = numbers(&events);
    assert_eq!(came[came.len() - 10..], (90..100).collect::<Vec<u64>>()[..], "the newest are kept");
    let lost = dropped(&node, "full").await;
    assert_eq!(events.len() as u64 + lost, 102, "each event came or is counted");
    let told: u64 = receiver
        .calls()
        .iter()
        .filter(|call| call.status == 200)
        .map(|call| call.body["dropped"].as_u64().unwrap())
        .sum();
    assert_eq!(told, lost, "and the receiver knows");
}

#[tokio::test]
async fn what_fails_for_too_long_is_given_up() {
    let receiver = Receiver::start().await;
    let bad =
        |body: &Value| body["events"].as_array().is_some_and(|all| all.iter().any(|e| e["message"]["data"] == "bad"));
    receiver.answer(move |body| Reply::status(if bad(body) { 500 } else { 200 }));
    let node = start(&receiver, &["--webhook-batch", "1", "--webhook-give-up", "1s"]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    ana.publish(&name, json!("bad")).await;
    publish(&mut ana, &name, 0..1).await;
    assert_eq!(numbers(&receiver.until_count(3).await), [0]);
    assert_eq!(dropped(&node, "given_up").await, 1);
}

#[tokio::test]
async fn many_events_travel_together() {
    let receiver = Receiver::start().await;
    let gate = Arc::new(Notify::new());
    receiver.answer_next([Reply::Held(Arc::clone(&gate), String::new())]);
    let node = start(&receiver, &[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    publish(&mut ana, &name, 0..60).await;
    gate.notify_one();
    receiver.until_count(62).await;
    let calls = receiver.calls();
    assert!(calls.len() <= 2, "{} calls for 62 events", calls.len());
    assert!(calls.iter().all(|call| call.peer == calls[0].peer), "over one connection");
}

/// A self-signed certificate for `localhost`: its PEM, and what a server needs.
fn certificate() -> (String, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (certificate.pem(), config)
}

#[tokio::test]
async fn a_certificate_is_verified() {
    let (pem, config) = certificate();
    let receiver = Receiver::start_tls(config).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let trusting = start(&receiver, &["--outbound-ca", file.path().to_str().unwrap()]).await;
    let (_ana, _) = Client::enter(&trusting, &room()).await;
    receiver.until_count(2).await;

    // Without it, only the public roots are trusted.
    let strange = start(&receiver, &[]).await;
    let (_bo, _) = Client::enter(&strange, &room()).await;
    strange.reaches("roomcast_webhook_calls_total", &["outcome=\"unreachable\""], 1.0).await;
    assert_eq!(receiver.events().len(), 2);
    until_logged(&strange, "certificate").await;
    assert!(!strange.log().contains("/hook"), "said why, and not the URL: {}", strange.log());
}
