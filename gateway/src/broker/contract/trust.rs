//! Who the broker trusts, and as whom it comes: ACL users, TLS, options that cannot work.

use std::path::PathBuf;

use super::*;
use crate::broker::redis::ACL_COMMANDS;
use crate::broker::redis::test_tls::Authority;
use crate::broker::{
    Answer, Beat, BrokerError, Bucket, Claim, Farewell, Order, Quotas, Range, RoomsQuestion, Target, Task,
};
use crate::config::Rate;

/// Every kind of call once.
pub(super) async fn works(options: &RedisOptions) {
    let (a, _from_a) = connect(options, 64).await;
    let (b, mut from_b) = connect(&RedisOptions { node: node("node-b"), ..options.clone() }, 64).await;
    let room = room("lobby");
    b.subscribe(&room).await.expect("subscribed");
    a.publish(&room, &policy(), &[idempotent("i", "x")]).await.expect("published");
    assert_eq!(first_seq(&from_b.messages().await), 1);
    a.broadcast(&room, &plains(0..1)).await.expect("sent");
    from_b.messages().await;
    a.history(&room, Range::Latest { limit: 1 }).await.expect("history");
    assert_eq!(a.tops(std::slice::from_ref(&room)).await.expect("tops")[0].as_ref().map(|top| top.seq), Some(1));
    let client = ClientId::random();
    let ops = [enter(client, "Ann"), leave(client, "Ann")];
    a.presence(&room, call(&ops, 5)).await.expect("presence");
    a.members(&room, None, 5).await.expect("members");
    let life = Incarnation::new(&node("node-a"));
    a.hold(&life, std::slice::from_ref(&room)).await.expect("hold");
    let name_of_a = node("node-a");
    let beat = Beat {
        incarnation: &life,
        expiry: Duration::from_secs(15),
        number: 1,
        answered: 0,
        note: note(&name_of_a),
        working_on: std::slice::from_ref(&life),
        most_claims: 1,
    };
    a.beat(&beat).await.expect("beat");
    let (ann, bob) = (Subject::of("ann"), Subject::of("bob"));
    for bucket in [Bucket::User(ann), Bucket::Room(room.clone())] {
        a.take(&bucket, Rate { per_second: 9, burst: 9 }, 1).await.expect("taken");
    }
    assert_eq!(a.claim(&life, Claim { user: ann, own: 0, wanted: 1, most: 1 }).await, Ok(1));
    a.set_users(&life, &[(ann, 1), (bob, 0)]).await.expect("set");
    a.beat(&Beat { number: 2, answered: 9, ..beat }).await.expect("beat");
    a.evict(&room, &life, None).await.expect("evict");
    assert_eq!(a.member(&room, client).await.expect("member"), None);
    a.rooms(RoomsQuestion { after: None, prefix: Some(&room), limit: 9 }).await.expect("rooms");
    a.nodes().await.expect("nodes");
    b.listen().await.expect("listening");
    let task = Task::Disconnect { target: Target::Client(client), may_return: false, words: None };
    let order = Order::new(node("node-a"), task);
    a.order(&order).await.expect("ordered");
    while from_b.next().await != Event::Order(order.clone()) {}
    b.answer(order.id, Answer::Done { hit: 1 }).await.expect("answered");
    assert_eq!(a.answers(order.id).await.expect("answers"), [(node("node-b"), Answer::Done { hit: 1 })]);
    assert_eq!(a.held(&life, 9).await.expect("held"), std::slice::from_ref(&room));
    a.release(&life, std::slice::from_ref(&room)).await.expect("release");
    a.bury(&life, Farewell::InHaste).await.expect("bury");
    a.bury(&life, Farewell::Clean).await.expect("bury");
    b.unsubscribe(&room);
    b.subscribe(&super::room("other")).await.expect("subscribed");
}

/// Whether it comes up within some attempts; `is_up` alone would only be early.
pub(super) async fn stays_down(options: &RedisOptions) {
    let (sender, _events) = Events::channel("node-a", 64);
    let options = RedisOptions { timeout: Duration::from_millis(700), ..options.clone() };
    let broker = RedisBroker::connect(&options, sender, stats()).expect("good options");
    let error = broker.subscribe(&room("lobby")).await.expect_err("no way in");
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error}");
    assert!(!broker.is_up());
}

#[tokio::test(flavor = "local")]
async fn an_acl_user_with_few_rights_is_enough() {
    let server = Server::start(&[]);
    let mut rule = vec!["ACL", "SETUSER", "roomcast", "on", ">s3cret", "~rc:*", "resetchannels", "&rc:*", "-@all"];
    rule.extend(ACL_COMMANDS.split_whitespace());
    let _: String = server.command(&rule);
    let _: String = server.command(&["ACL", "SETUSER", "default", "resetpass", ">other"]);
    let at =
        |user: &str| RedisOptions { url: format!("redis://{user}@127.0.0.1:{}", server.port), ..server.options("a") };
    works(&at("roomcast:s3cret")).await;
    let (counting, _events) = connect(&at("roomcast:s3cret"), 64).await;
    for number in 0..60 {
        let record = idempotent(&format!("p#{number}"), "x");
        stored(&counting.publish(&room("numbers"), &policy(), &[record]).await.expect("published").outcomes);
    }
    stays_down(&at("roomcast:wrong")).await;
    let foreign = RedisOptions { prefix: "other".into(), ..at("roomcast:s3cret") };
    let (sender, _events) = Events::channel("node-a", 64);
    let broker = RedisBroker::connect(&foreign, sender, stats()).expect("good options");
    until("it can send", || broker.paths_up().0).await;
    let error = broker.publish(&room("lobby"), &policy(), &plains(0..1)).await.expect_err("no right");
    assert!(!broker.is_up(), "nor does it hear itself");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
}

#[tokio::test(flavor = "local")]
async fn a_password_and_a_database_are_enough() {
    let server = Server::start(&["--requirepass", "p@ss word"]);
    let url = format!("redis://:p%40ss%20word@127.0.0.1:{}/3", server.port);
    works(&RedisOptions { url, ..server.options("node-a") }).await;
    stays_down(&server.options("node-a")).await;
}

fn secure(server: &Server, ca_pem: Option<PathBuf>) -> RedisOptions {
    let url = format!("rediss://127.0.0.1:{}", server.port);
    RedisOptions { url, ca_pem, ..server.options("node-a") }
}

#[tokio::test(flavor = "local")]
async fn tls_is_verified() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (ours_pem, theirs_pem) = (ours.write(&dir, "ours.pem"), theirs.write(&dir, "theirs.pem"));
    let server = ours.server("127.0.0.1");
    works(&secure(&server, Some(ours_pem.clone()))).await;
    stays_down(&secure(&server, Some(theirs_pem))).await;
    // The public authorities do not know it either.
    stays_down(&secure(&server, None)).await;
    // Neither does a good signature help under another name.
    let other = ours.server("redis.example");
    stays_down(&secure(&other, Some(ours_pem))).await;
}

#[tokio::test(flavor = "local")]
async fn options_that_cannot_work_are_refused() {
    let good = RedisOptions::new("redis://127.0.0.1:1", node("node-a"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = Some(dir.path().join("missing.pem"));
    let nonsense = dir.path().join("nonsense.pem");
    std::fs::write(&nonsense, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    let secure = "rediss://127.0.0.1:1".to_owned();
    for options in [
        RedisOptions { url: "http://s3cret@example.com".into(), ..good.clone() },
        RedisOptions { url: "redis://u:s3cret@h:99999999".into(), ..good.clone() },
        RedisOptions { url: "rediss://127.0.0.1:1/#insecure".into(), ..good.clone() },
        RedisOptions { ca_pem: missing.clone(), ..good.clone() },
        RedisOptions { url: secure.clone(), ca_pem: missing, ..good.clone() },
        RedisOptions { url: secure, ca_pem: Some(nonsense), ..good.clone() },
        RedisOptions { prefix: String::new(), ..good.clone() },
        RedisOptions { prefix: "a{b".into(), ..good.clone() },
        RedisOptions { prefix: "p".repeat(33), ..good },
    ] {
        let (sender, _events) = Events::channel("node-a", 1);
        match RedisBroker::connect(&options, sender, stats()) {
            Err(BrokerError::Misconfigured(words)) => assert!(!words.contains("s3cret"), "{words}"),
            other => panic!("{}: {:?}", options.url, other.map(|_| ())),
        }
    }
}
