//! Clients and a bus that mean harm. Each loses its own connection, at once and with the right code; the node's memory
//! does not follow what they claim, and those who behave notice nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::interval;

use crate::support::{Client, Node, Raw, Redis, eventually, room, upgrade};

const MIB: u64 = 1 << 20;
/// Pace of those who send one byte after another.
const TRICKLE: Duration = Duration::from_millis(50);
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A connection past its handshake, in `room`.
async fn inside(node: &Node, room: &str) -> Raw {
    let (response, raw) = upgrade(node.addr, &format!("/ws/{room}"), &[]).await;
    assert_eq!(response.status, 101, "{response:?}");
    raw
}

/// The head of a masked frame that announces `length` bytes.
fn claim(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xFF][..], &length.to_be_bytes(), &MASK].concat()
}

/// Fails unless `client` can still publish and hear itself.
async fn check_unharmed(node: &Node, client: &mut Client, room: &str) {
    client.publish(room, json!("unharmed")).await;
    client.messages(room, 1).await;
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_their_code() {
    let node = Node::start(&[]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    let unmasked = [&[0x81, 15][..], br#"{"type":"ping"}"#].concat();
    for (what, bytes, code) in [
        ("an unmasked text", unmasked, 1002),
        ("an unmasked ping", vec![0x89, 0], 1002),
        ("an unmasked close", vec![0x88, 2, 0x03, 0xE8], 1002),
        ("reserved bit 1", vec![0xC1, 0x80], 1002),
        ("reserved bit 2", vec![0xA1, 0x80], 1002),
        ("reserved bit 3", vec![0x91, 0x80], 1002),
        ("reserved bits on a continuation", vec![0xF0, 0x80], 1002),
        ("a length of 2^62", claim(0x81, 1 << 62), 1009),
        ("a length of 2^62 in fragments", claim(0x01, 1 << 62), 1009),
        ("a length with its top bit", claim(0x81, 1 << 63), 1002),
        ("a length of 2^64 - 1", claim(0x82, u64::MAX), 1002),
        ("one byte more than the limit", claim(0x81, 65_537), 1009),
        ("a ping with a long length", claim(0x89, 5), 1002),
    ] {
        let mut raw = inside(&node, &name).await;
        // Nothing follows: the answer cannot wait for what was announced.
        raw.write(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{what}");
    }
    node.reaches("roomcast_closes_total", &[r#"reason="protocol""#], 10.0).await;
    node.reaches("roomcast_closes_total", &[r#"reason="too_big""#], 3.0).await;
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused_before_its_end() {
    let node = Node::start(&[]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    for (what, parts) in [
        ("whole", vec![(0x81, b"\xc3\x28".as_slice())]),
        ("a surrogate", vec![(0x81, b"\xed\xa0\x80")]),
        ("overlong", vec![(0x81, b"\xc0\xaf")]),
        ("cut off at the end", vec![(0x81, b"\xe2\x82")]),
        // The first fragments are the last thing said: the fault is in what is there.
        ("in a fragment", vec![(0x01, b"\"\xff")]),
        ("across fragments", vec![(0x01, b"\xf0\x9f"), (0x00, b"\x28")]),
    ] {
        let mut raw = inside(&node, &name).await;
        for (first, payload) in parts {
            raw.send(first, payload).await;
        }
        assert_eq!(raw.close_code().await, Some(1007), "{what}");
    }
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn crumbs_are_too_many_fragments() {
    let node = Node::start(&[]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    for payload in [b"x".as_slice(), b""] {
        let mut raw = inside(&node, &name).await;
        raw.send(0x01, payload).await;
        for _ in 1..300 {
            raw.send(0x00, payload).await;
        }
        assert_eq!(raw.close_code().await, Some(1009), "{} bytes each", payload.len());
    }
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn memory_does_not_follow_what_is_announced() {
    const CLIENTS: usize = 64;
    const LIMIT: u64 = 16 * MIB;
    let node = Node::start(&["--max-message-bytes", "16777216", "--outbound-queue-bytes", "33554432"]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    let mut honest = Vec::new();
    for _ in 0..CLIENTS {
        honest.push(inside(&node, &name).await);
    }
    witness.settle().await;
    let (resident, mapped) = node.memory();

    let mut liars = Vec::new();
    for _ in 0..CLIENTS {
        let mut raw = inside(&node, &name).await;
        raw.write(&claim(0x81, 1 << 62)).await;
        assert_eq!(raw.close_code().await, Some(1009));
        // Within the limit, so that it may come; it does not.
        let mut raw = inside(&node, &name).await;
        raw.write(&[claim(0x81, LIMIT), vec![MASK[0] ^ b'"']].concat()).await;
        liars.push(raw);
    }
    let wanted = 29.0 * CLIENTS as f64;
    node.reaches("roomcast_bytes_received_total", &[], wanted).await;
    let (resident_then, mapped_then) = node.memory();
    let grown = (resident_then.saturating_sub(resident), mapped_then.saturating_sub(mapped));
    eprintln!("{CLIENTS} claims of {LIMIT} bytes: resident grew by {} bytes, mapped by {}", grown.0, grown.1);
    assert!(grown.0 < 8 * MIB, "resident memory grew by {} bytes", grown.0);
    // What is reserved and not touched is mapped only. The claims together are 1 GiB.
    assert!(grown.1 < 256 * MIB, "mapped memory grew by {} bytes", grown.1);
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn pings_of_one_who_does_not_read_cost_nothing() {
    let node = Node::start(&[]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    let mut flooders = Vec::new();
    for _ in 0..20 {
        flooders.push(inside(&node, &name).await);
    }
    witness.settle().await;
    let (resident, _) = node.memory();
    for raw in &mut flooders {
        for _ in 0..1000 {
            raw.send(0x89, &[b'p'; 125]).await;
        }
    }
    for raw in &mut flooders {
        let mut pongs = 0;
        let mut code = None;
        while pongs < 1000
            && let Some((opcode, payload)) = raw.frame().await
        {
            match opcode {
                0xA => pongs += 1,
                8 => code = Some(u16::from_be_bytes([payload[0], payload[1]])),
                _ => {}
            }
        }
        assert!(pongs == 1000 || code == Some(1008), "{pongs} pongs, then {code:?}");
    }
    let grown = node.memory().0.saturating_sub(resident);
    eprintln!("20,000 pings unread: resident grew by {grown} bytes");
    assert!(grown < 8 * MIB, "resident memory grew by {grown} bytes");
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn control_frames_in_a_flood_are_abuse() {
    let node = Node::start(&[]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    for first in [0x89, 0x8A] {
        let mut raw = inside(&node, &name).await;
        for _ in 0..1000 {
            raw.send(first, b"p").await;
        }
        assert_eq!(raw.close_code().await, Some(1008), "{first:x}");
    }
    node.reaches("roomcast_closes_total", &[r#"reason="abuse""#], 2.0).await;
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn a_message_begun_must_end_in_time() {
    let node = Node::start(&["--message-deadline", "500ms", "--ping-interval", "1s"]).await;
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;

    let mut half_head = inside(&node, &name).await;
    half_head.write(&[0x81]).await;
    let mut no_payload = inside(&node, &name).await;
    no_payload.write(&claim(0x81, 60_000)).await;
    let mut no_end = inside(&node, &name).await;
    no_end.send(0x01, b"{").await;
    for (what, raw) in [("half a head", &mut half_head), ("no payload", &mut no_payload), ("no end", &mut no_end)] {
        assert_eq!(raw.close_code().await, Some(1008), "{what}");
    }

    // More fragments and pings in between buy no time.
    let mut trickle = inside(&node, &name).await;
    trickle.send(0x01, b"{").await;
    let mut pace = interval(TRICKLE);
    let unfinished = [r#"reason="unfinished""#];
    let mut fragments = 0;
    while node.metric("roomcast_closes_total", &unfinished).await < 4.0 {
        assert!(fragments < 250, "250 fragments in 12 s, and it is still there");
        pace.tick().await;
        trickle.send(0x00, b" ").await;
        fragments += 1;
        if fragments % 4 == 0 {
            trickle.send(0x89, b"").await;
        }
    }
    assert_eq!(trickle.close_code().await, Some(1008));
    check_unharmed(&node, &mut witness, &name).await;
}

#[tokio::test]
async fn one_who_is_always_in_the_middle_of_a_message_is_not_unfinished() {
    const DEADLINE: Duration = Duration::from_secs(4);
    let node = Node::start(&["--message-deadline", "4s", "--ping-interval", "1s", "--publish-rate", "0"]).await;
    let mut raw = inside(&node, &room()).await;
    let began = Instant::now();
    let text = br#"{"type":"publish","data":1,"ref":1,"echo":false}"#;
    let frame = [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0][..], text].concat();
    let (front, back) = frame.split_at(20);
    raw.write(front).await;
    let mut pace = interval(TRICKLE);
    // Each message is whole long before the deadline; but the next has always begun.
    while began.elapsed() < 2 * DEADLINE {
        pace.tick().await;
        raw.write(&[back, front].concat()).await;
        loop {
            let (opcode, payload) = raw.frame().await.expect("open");
            assert_ne!(opcode, 8, "closed after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&payload[2..]));
            if payload.starts_with(br#"{"type":"ack""#) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn slow_handshakes_are_cut_off_and_keep_nobody_out() {
    let node = Node::start(&["--header-read-timeout", "2s"]).await;
    let mut slow = Vec::new();
    for number in 0..1000 {
        let mut raw = Raw::connect(node.addr).await;
        // Every fourth says nothing at all.
        if number % 4 > 0 {
            raw.write(b"GET /ws/a HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nx-slow: ").await;
        }
        slow.push(raw);
    }
    let name = room();
    let (mut witness, _) = Client::enter(&node, &name).await;
    let trickle = tokio::spawn(async move {
        let mut pace = interval(TRICKLE);
        let mut sent = 0;
        while slow[1].write(b"x").await {
            sent += 1;
            // Sooner than the time for reading and answering together would end it.
            assert!(sent < 100, "a head that takes 5 s, and it is still read");
            pace.tick().await;
        }
        for raw in &mut slow {
            raw.ended().await;
        }
    });
    trickle.await.unwrap();
    node.reaches("roomcast_handshakes_total", &[r#"outcome="timeout""#], 1000.0).await;
    check_unharmed(&node, &mut witness, &name).await;
}

/// What someone else may shout on a room's channel.
fn noise(room: &str) -> Vec<Vec<u8>> {
    let with = |head: &str, body: &[u8]| [format!("RC1 {head}\n").as_bytes(), body].concat();
    let length = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat();
    // flags, sender, time, id "i", name "n", and then the data
    let message = |data: &[u8]| length(&[&[0; 25][..], &[1, b'i', 1, b'n'], data].concat());
    vec![
        Vec::new(),
        b"hello".to_vec(),
        vec![0; 4096],
        vec![0xFF; 1 << 20],
        br#"{"type":"message","room":"a","data":1}"#.to_vec(),
        format!("RC9 E {room} evil 1 1\n").into_bytes(),
        with(&format!("X {room} evil 1 1"), &message(b"1")),
        with("E another evil 1 1", &message(b"1")),
        with(&format!("E {room} evil 99999999999999999999 1"), &message(b"1")),
        with(&format!("E {room} evil 1 0"), b""),
        with(&format!("E {room} evil 1 4000000000"), &message(b"1")),
        with(&format!("E {room} evil 1 1"), &u32::MAX.to_le_bytes()),
        with(&format!("E {room} evil 1 1"), &message(b"")),
        with(&format!("E {room} evil 1 1"), &message(br#"1},{"type":"message""#)),
        with(&format!("E {room} evil 1 1"), &message(b"\"\xff\"")),
        with(&format!("E {room} evil 1 1"), &[message(b"1"), b"more".to_vec()].concat()),
        with(&format!("D {room} evil 0a 0 1 1"), &message(b"1")),
        with(&format!("P {room} evil 1 1 1"), &length(&[9; 20])),
    ]
}

#[tokio::test]
async fn noise_on_the_bus_is_counted_and_nothing_else() {
    let redis = Redis::start().await;
    let (one, two) = (Node::join(&redis, "n-1", &[]).await, Node::join(&redis, "n-2", &[]).await);
    let name = room();
    let (mut here, _) = Client::enter(&one, &name).await;
    let (mut there, _) = Client::enter(&two, &name).await;
    here.presence("join").await;
    here.publish(&name, json!("before")).await;

    let channels = redis.command("PUBSUB CHANNELS *").await.expect("an answer");
    let channel = channels.lines().find(|line| line.contains(&name)).expect("the room's channel").trim();
    let noise = noise(&name);
    for payload in &noise {
        let heard = redis.call(&[b"PUBLISH", channel.as_bytes(), payload]).await;
        assert_eq!(heard.trim(), ":2", "both nodes hear it");
        here.publish(&name, json!("between")).await;
    }
    for node in [&one, &two] {
        eventually("the noise to be counted", || async {
            (node.metric("roomcast_broker_ignored_total", &[]).await >= noise.len() as f64).then_some(())
        })
        .await;
        assert_eq!(node.metric("roomcast_broker_ignored_total", &[]).await.to_string(), noise.len().to_string());
    }
    for client in [&mut here, &mut there] {
        let seqs: Vec<u64> =
            client.messages(&name, noise.len() + 1).await.iter().map(crate::support::Frame::seq).collect();
        assert_eq!(seqs, (1..=noise.len() as u64 + 1).collect::<Vec<_>>(), "every message, in order, once");
        let rest = client.settle().await;
        assert!(rest.iter().all(|frame| frame.kind() != "message" && frame.kind() != "reset"), "{rest:?}");
    }
    check_unharmed(&one, &mut here, &name).await;
    assert!(!two.log().contains("panicked"));
}
