//! What operators put right: members removed, users disconnected, on whichever node they are.

use serde_json::{Value, json};

use super::pair;
use crate::support::{ADMIN, Backend, Client, Redis, room};

/// How many nodes live, and how many of them answered.
fn nodes(answered: u32) -> Value {
    json!({ "living": 2, "answered": answered })
}

#[tokio::test]
async fn a_client_is_removed_from_a_room_wherever_it_is() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&one, &name).await;
    let (mut bob, _) = Client::enter(&two, &name).await;
    let mut backend = Backend::connect(one.addr, ADMIN).await;
    let path = format!("/rooms/{name}/members/{}?reason=be+kind", bob.id());
    let answer = backend.delete(&path).await.expect(200);
    assert_eq!((&answer["removed"], &answer["nodes"]), (&json!(1), &nodes(2)));
    let left = bob.expect("left").await;
    assert_eq!((&left["room"], &left["reason"]), (&json!(name), &json!("removed")), "{}", left.text);
    assert!(left.text.contains("be kind"), "{}", left.text);
    assert_eq!(ann.presence("leave").await["member"]["id"], bob.id());
    // It is connected still, and no member any more.
    bob.send(json!({ "type": "publish", "room": name, "data": 1, "ref": 1 })).await;
    assert_eq!(bob.answer(&json!(1)).await["code"], "not_joined");
    // Once more: nobody is there, which is no error.
    let answer = backend.delete(&path).await.expect(200);
    assert_eq!((&answer["removed"], &answer["nodes"]), (&json!(0), &nodes(2)));
}

#[tokio::test]
async fn a_connection_is_closed_wherever_it_is() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&one, &name).await;
    let (mut bob, _) = Client::enter(&two, &name).await;
    let (mut eve, _) = Client::enter(&two, &name).await;
    let mut backend = Backend::connect(one.addr, ADMIN).await;
    let answer = backend.delete(&format!("/connections/{}?reconnect=true", bob.id())).await.expect(200);
    assert_eq!((&answer["disconnected"], &answer["nodes"]), (&json!(1), &nodes(2)));
    bob.expect("reconnect").await;
    assert_eq!(bob.close_code().await, 1012);
    let answer = backend.delete(&format!("/connections/{}", eve.id())).await.expect(200);
    assert_eq!(answer["disconnected"], 1);
    assert_eq!(eve.close_code().await, 4409);
    let mut gone = [ann.presence("leave").await, ann.presence("leave").await]
        .map(|frame| frame["member"]["id"].as_str().expect("an id").to_owned());
    gone.sort();
    let mut expected = [bob.id().to_owned(), eve.id().to_owned()];
    expected.sort();
    assert_eq!(gone, expected);
    assert_eq!(backend.delete(&format!("/connections/{}?reconnect=1", ann.id())).await.problem(), "bad_request");
    // In open access nobody has a name of their own: nobody is hit.
    let answer = backend.post("/users/ann/disconnect", &json!({ "reconnect": false })).await.expect(200);
    assert_eq!((&answer["disconnected"], &answer["nodes"]), (&json!(0), &nodes(2)));
    ann.publish(&name, json!("still here")).await;
}

/// A node that hangs: the answer says that not all did it, and does not wait for ever.
#[tokio::test]
async fn a_node_that_does_not_answer_is_told_of() {
    let redis = Redis::start().await;
    let [one, two] = pair(&redis, &[]).await;
    let name = room();
    let (mut ann, _) = Client::enter(&one, &name).await;
    let (bob, _) = Client::enter(&two, &name).await;
    let mut backend = Backend::connect(one.addr, ADMIN).await;
    two.signal(rustix::process::Signal::STOP);
    let answer = backend.delete(&format!("/rooms/{name}/members/{}", bob.id())).await.expect(202);
    assert_eq!((&answer["removed"], &answer["nodes"]), (&json!(0), &nodes(1)));
    two.signal(rustix::process::Signal::CONT);
    // What it heard late it still does.
    assert_eq!(ann.presence("leave").await["member"]["id"], bob.id());
}
