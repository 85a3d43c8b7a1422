//! `publish`, `ack`, `message`.

use serde_json::{Value, json};

use super::{Site, on_both_brokers};
use crate::support::{Client, Frame, assert_error, room};

on_both_brokers!(
    a_message_reaches_everyone_with_all_its_fields,
    a_ref_comes_back_as_it_was,
    acks_come_in_the_order_sent,
    without_echo_the_sender_hears_nothing,
    the_room_may_be_left_out_when_it_is_the_only_one,
    data_passes_byte_for_byte,
    unknown_keys_are_ignored,
    an_id_is_stored_once,
    ephemeral_rooms_have_no_seq,
);

async fn a_message_reaches_everyone_with_all_its_fields(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let mut ana = Client::connect(&node, &format!("/ws/{name}?name=Ana")).await;
    let (mut bo, _) = Client::enter(&node, &name).await;
    ana.send(json!({"type": "publish", "room": name, "data": {"text": "hi"}, "ref": "r"})).await;
    let ack = ana.expect("ack").await;
    assert_eq!((&ack["ref"], &ack["room"], ack.seq()), (&json!("r"), &json!(name), 1));
    assert!(!ack.str("term").is_empty());
    assert!(ack["duplicate"].is_null() || ack["duplicate"] == false, "{}", ack.text);
    for client in [&mut ana, &mut bo] {
        let message = client.expect("message").await;
        assert_eq!((&message["room"], message.seq()), (&json!(name), 1));
        assert_eq!((message.str("id"), message.str("term")), (ack.str("id"), ack.str("term")));
        assert_eq!(message["data"], json!({"text": "hi"}));
        assert_eq!(message["from"]["name"], "Ana");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let ts = message["ts"].as_u64().expect("milliseconds");
        assert!(ts > now - 3_600_000 && ts < now + 3_600_000, "not milliseconds since the epoch: {ts}");
        assert!(message["ref"].is_null());
    }
    assert_eq!(bo.publish(&name, json!(2)).await.seq(), 2);
    assert_eq!(ana.expect("message").await["from"]["id"], bo.id());
}

async fn a_ref_comes_back_as_it_was(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    for reference in [r#""text""#, "7", "0", "-1", "1.50", "18446744073709551616", r#""\u00e9\"""#] {
        client.send_text(&format!(r#"{{"type":"publish","data":1,"ref":{reference}}}"#)).await;
        assert_eq!(client.expect("ack").await.raw("ref"), reference);
        client.send_text(&format!(r#"{{"type":"ping","ref":{reference}}}"#)).await;
        assert_eq!(client.expect("pong").await.raw("ref"), reference);
    }
    client.send_text(r#"{"type":"ping"}"#).await;
    assert!(!client.expect("pong").await.text.contains("ref"));
}

async fn acks_come_in_the_order_sent(site: Site) {
    let node = site.node(&["--publish-rate", "0"]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    for reference in 0..200 {
        client.send(json!({"type": "publish", "data": reference, "ref": reference})).await;
    }
    for reference in 0..200 {
        let ack = client.expect("ack").await;
        assert_eq!((&ack["ref"], ack.seq()), (&json!(reference), reference + 1), "{}", ack.text);
    }
    for (count, message) in client.messages(&name, 200).await.iter().enumerate() {
        assert_eq!((&message["data"], message.seq()), (&json!(count), count as u64 + 1));
    }
    // No ref, no ack: what is acked next is what asked for it.
    client.send(json!({"type": "publish", "data": "quiet"})).await;
    assert_eq!(client.publish(&name, json!("marker")).await.seq(), 202);
    let acks = client.settle().await.into_iter().filter(|frame| frame.kind() == "ack").count();
    assert_eq!(acks, 0);
}

async fn without_echo_the_sender_hears_nothing(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (mut bo, _) = Client::enter(&node, &name).await;
    ana.send(json!({"type": "publish", "data": "silent", "echo": false, "ref": 1})).await;
    assert_eq!(ana.expect("ack").await.seq(), 1);
    ana.send(json!({"type": "publish", "data": "loud", "echo": true, "ref": 2})).await;
    let heard = ana.expect("message").await;
    assert_eq!((&heard["data"], heard.seq()), (&json!("loud"), 2), "the first was its own, without echo");
    assert_eq!(bo.expect("message").await["data"], "silent");
    assert_eq!(bo.expect("message").await["data"], "loud");
    // History has it for everyone, the sender too.
    ana.send(json!({"type": "history", "room": name, "after": 0, "ref": 3})).await;
    assert_eq!(ana.expect("history").await.list("messages").len(), 2);
}

async fn the_room_may_be_left_out_when_it_is_the_only_one(site: Site) {
    let node = site.node(&[]).await;
    let (one, two) = (room(), room());
    let mut client = Client::connect(&node, "/connect").await;
    let publish = json!({"type": "publish", "data": 1, "ref": 1});
    client.send(publish.clone()).await;
    assert_eq!(client.answer(&json!(1)).await.kind(), "error", "no room is joined");

    client.send(json!({"type": "join", "room": one, "ref": "j"})).await;
    client.answer(&json!("j")).await;
    client.send(publish.clone()).await;
    let ack = client.answer(&json!(1)).await;
    assert_eq!((ack.kind(), &ack["room"]), ("ack", &json!(one)));

    client.send(json!({"type": "join", "room": two, "ref": "j"})).await;
    client.answer(&json!("j")).await;
    client.send(publish.clone()).await;
    let refused = client.answer(&json!(1)).await;
    assert_eq!((refused.kind(), &refused["retryable"]), ("error", &json!(false)), "two are joined: {}", refused.text);

    client.send(json!({"type": "leave", "room": one, "ref": "l"})).await;
    client.answer(&json!("l")).await;
    client.send(publish).await;
    let ack = client.answer(&json!(1)).await;
    assert_eq!((ack.kind(), &ack["room"]), ("ack", &json!(two)));
}

async fn data_passes_byte_for_byte(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut ana, _) = Client::enter(&node, &name).await;
    let (mut bo, _) = Client::enter(&node, &name).await;
    let written = [
        "1.50",
        "-0.0",
        "1E+2",
        "1e400",
        "123456789012345678901234567890",
        "null",
        "true",
        r#""""#,
        "[]",
        r#"{"z":1,"a":2,"z":3}"#,
        r#"{"nested":{"b":[1.0,{"":null}],"a":"x"}}"#,
        r#""\u0041\u00e9\ud83d\ude00 é😀 \/ \t""#,
        r#""</script><img src=x onerror=alert(1)>""#,
        r#""\u0000\u2028""#,
        "[ 1 ,  2 ]",
        r#"{"type":"ack","ref":1,"room":"x"}"#,
    ];
    for data in written {
        ana.send_text(&format!(r#"{{"type":"publish","data":{data},"ref":1}}"#)).await;
        let ack = ana.answer(&json!(1)).await;
        assert_eq!(ack.kind(), "ack", "{data}: {}", ack.text);
        for client in [&mut ana, &mut bo] {
            assert_eq!(client.expect("message").await.raw("data"), data);
        }
    }
    // As stored, too: in `history`, and in what a newcomer gets.
    ana.send(json!({"type": "history", "room": name, "after": 0, "limit": 100, "ref": "h"})).await;
    let stored = ana.expect("history").await;
    let mut late = Client::connect(&node, &format!("/ws/{name}")).await;
    for frame in [stored, late.expect("joined").await] {
        assert_eq!(raw_data(&frame), written, "{}", frame.text);
    }
}

/// The untouched `data` of each of a frame's `messages`.
fn raw_data(frame: &Frame) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct OnlyData<'a> {
        #[serde(borrow)]
        data: &'a serde_json::value::RawValue,
    }
    let messages = frame.raw("messages");
    let list: Vec<OnlyData<'_>> = serde_json::from_str(&messages).unwrap();
    list.iter().map(|message| message.data.get().to_owned()).collect()
}

async fn unknown_keys_are_ignored(site: Site) {
    let node = site.node(&[]).await;
    let name = room();
    let (mut client, _) = Client::enter(&node, &name).await;
    client
        .send(
            json!({"type": "publish", "data": 1, "ref": 1, "from": {"id": "forged"}, "seq": 99, "x": [{}], "ts": "y"}),
        )
        .await;
    assert_eq!(client.expect("ack").await.seq(), 1);
    let message = client.expect("message").await;
    assert_eq!((message.seq(), &message["from"]["id"]), (1, &json!(client.id())), "nothing of it is believed");
    assert!(message["x"].is_null());
    client.send(json!({"type": "ping", "ref": 2, "new": {"deep": [1, 2]}})).await;
    client.expect("pong").await;
}

async fn an_id_is_stored_once(site: Site) {
    let node = site.node(&[]).await;
    let (name, other) = (room(), room());
    let mut client = Client::connect(&node, &format!("/ws?room={name}&room={other}")).await;
    let publish =
        |room: &str, id: &str, data: Value| json!({"type": "publish", "room": room, "id": id, "data": data, "ref": id});
    client.send(publish(&name, "k-1", json!("first"))).await;
    let first = client.answer(&json!("k-1")).await;
    assert_eq!((first.str("id"), first.seq()), ("k-1", 1));
    client.send(publish(&name, "k-1", json!("again"))).await;
    let again = client.answer(&json!("k-1")).await;
    assert_eq!((again.kind(), &again["duplicate"], again.seq()), ("ack", &json!(true), 1), "{}", again.text);
    assert_eq!((again.str("id"), again.str("term")), ("k-1", first.str("term")));

    // Several in flight at once: still one.
    for _ in 0..10 {
        client.send(publish(&name, "k-2", json!("second"))).await;
    }
    let mut duplicates = 0;
    for _ in 0..10 {
        let ack = client.answer(&json!("k-2")).await;
        assert_eq!(ack.seq(), 2, "{}", ack.text);
        duplicates += u32::from(ack["duplicate"] == true);
    }
    assert_eq!(duplicates, 9);

    // Another room has ids of its own.
    client.send(publish(&other, "k-1", json!("elsewhere"))).await;
    let elsewhere = client.answer(&json!("k-1")).await;
    assert!(elsewhere["duplicate"] != true && elsewhere.seq() == 1, "{}", elsewhere.text);

    client.publish(&name, json!("marker")).await;
    let heard: Vec<_> = client.messages(&name, 3).await.iter().map(|m| m["data"].clone()).collect();
    assert_eq!(heard, ["first", "second", "marker"]);
}

async fn ephemeral_rooms_have_no_seq(site: Site) {
    let toml = "[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n";
    let node = site.node_with(&[], toml).await;
    let name = format!("live-{}", room());
    let (mut ana, joined) = Client::enter(&node, &name).await;
    assert_eq!((&joined["mode"], &joined["seq"], &joined["term"]), (&json!("ephemeral"), &json!(null), &json!(null)));
    let (mut bo, _) = Client::enter(&node, &name).await;
    ana.send(json!({"type": "publish", "data": {"x": 1}, "ref": 1})).await;
    let ack = ana.answer(&json!(1)).await;
    assert_eq!((ack.kind(), &ack["seq"], &ack["term"]), ("ack", &json!(null), &json!(null)), "{}", ack.text);
    ana.send(json!({"type": "publish", "data": {"x": 2}, "echo": false})).await;
    ana.send(json!({"type": "publish", "data": {"x": 3}})).await;
    for (client, heard) in [(&mut bo, [1, 2, 3].as_slice()), (&mut ana, &[1, 3])] {
        for x in heard {
            let message = client.expect("message").await;
            assert_eq!(message["data"]["x"], *x, "{}", message.text);
            assert!(message["seq"].is_null() && message["term"].is_null(), "{}", message.text);
            assert_eq!(message["from"]["id"].as_str().map(str::len), Some(36));
        }
    }
    // The other rooms stay durable.
    let (_, joined) = Client::enter(&node, &room()).await;
    assert_eq!(joined["mode"], "durable");
    // Nothing is kept for those who come later.
    let (mut late, joined) = Client::enter(&node, &name).await;
    assert_eq!(joined.list("messages").len(), 0);
    late.send(json!({"type": "publish", "room": "elsewhere", "data": 1, "ref": 1})).await;
    assert_error(&late.answer(&json!(1)).await, "not_joined", &json!(1));
}
