//! Users with fewer rights than needed, and values that somebody else wrote where producers are remembered.

use super::*;

/// The value of a producer.
const KEY: &str = "rc:{lobby}:n::p";

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

#[tokio::test(flavor = "local")]
async fn a_hostile_value_counts_as_none_and_does_not_grow() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 1024).await;
    let numbers =
        |from: u64, to: u64| (from..to).map(|number| format!(" {number}:{number}")).collect::<Vec<_>>().concat();
    let many = numbers(1, 700);
    let huge = "9".repeat(400);
    let values = [
        // What is to be read as an entry's section, number or seq is none, or is of no use.
        format!("0a 4096 0;;@{many}"),
        format!("0a 4096 0;;@-{many}"),
        format!("0a 4096 0;;@0a x:1{many}"),
        format!("0a 4096 0;;@0a @{many}"),
        format!("0a 4096 0;;@0a @-{many}"),
        format!("0a 4096 0;;@0a 5:x{many}"),
        format!("0a 4096 0;;@0A{many}"),
        format!("0a 4096 0;;@{}{many}", "a".repeat(5000)),
        // Numbers beyond all bounds.
        format!("0a {huge} 0;;@0a{many}"),
        format!("0a 4096 {huge};;@0a{many}"),
        format!("0a 4096 0;1-{huge};@0a{many}"),
        format!("0a 4096 0;{huge}-{huge},;@0a{many}"),
        format!("0a 4096 0;;@0a{many} {huge}:1 2:2"),
        format!("0a 4096 0;;@0a{many}^{huge}"),
        // Far longer than any of ours.
        format!("0a 900000 0;;@0a{}", numbers(1, 20_000)),
        format!("0a 900000 0;{};@0a 700:1", "1-2,".repeat(50_000)),
    ];
    for (at, hostile) in values.iter().enumerate() {
        let _: String = server.command(&["SET", KEY, hostile]);
        let shown = &hostile[..hostile.len().min(60)];
        // Asked for what may stand there, then with what is new.
        for number in [5, 300, 699] {
            let asked = a.publish(&room("lobby"), &policy(), &[numbered("p", number)]).await;
            assert!(asked.is_ok(), "{at} {shown} {number}: {asked:?}");
        }
        let mut longest = 0;
        for batch in 0..20 {
            let first = 30_000 + batch * 100;
            let records: Vec<Record> = (first..first + 100).map(|number| numbered("p", number)).collect();
            let published = a.publish(&room("lobby"), &policy(), &records).await;
            let published = published.unwrap_or_else(|error| panic!("{at} {shown}: {error}"));
            stored(&published.outcomes);
            let again = publish(&a, &records[..1]).await.outcomes;
            assert!(matches!(again[..], [Outcome::Duplicate { .. }]), "{at} {shown}: {again:?}");
            longest = longest.max(server.command::<usize>(&["STRLEN", KEY]));
        }
        assert!(longest <= 64 << 10, "{at} {shown}: {longest} bytes");
    }
}
