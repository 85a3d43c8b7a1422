//! Users with fewer rights than needed.

use super::*;

#[tokio::test(flavor = "local")]
async fn what_may_not_be_appended_is_written_anew() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let (b, mut from_b) = connect(&server.options("node-b"), 1024).await;
    b.subscribe(&room("lobby")).await.expect("subscribed");
    // Long enough to be appended to.
    store_all(&a, 1..60, 20).await;
    let _: String = server.command(&["ACL", "SETUSER", "default", "-append"]);
    store_all(&a, 60..62, 1).await;
    for number in [60, 61] {
        let known = outcome(&a, numbered("p", number)).await;
        assert!(matches!(known, Outcome::Duplicate { seq, .. } if seq == number), "{number}: {known:?}");
    }
    while first_seq(&from_b.messages().await) != 61 {}
}

/// The entry cannot be taken back: what follows it is done as far as it may be.
#[tokio::test(flavor = "local")]
async fn a_right_that_is_missing_makes_nothing_stored_twice() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let (b, mut from_b) = connect(&server.options("node-b"), 1024).await;
    b.subscribe(&room("lobby")).await.expect("subscribed");
    let records = [numbered("p", 1), idempotent("i", "x")];
    let _: String = server.command(&["ACL", "SETUSER", "default", "-pexpire"]);
    let error = a.publish(&room("lobby"), &policy(), &records).await.expect_err("it should be heard of");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
    assert_eq!(first_seq(&from_b.messages().await), 1);
    let again = publish(&a, &records).await.outcomes;
    assert!(again.iter().all(|outcome| matches!(outcome, Outcome::Duplicate { .. })), "{again:?}");
}
