//! Questions and answers, without a server.

use roomcast_protocol::RoomName;

use super::*;

fn question() -> Question {
    Question {
        token: Some("t".into()),
        user: None,
        name: None,
        rooms: vec!["lobby".into()],
        address: [127, 0, 0, 1].into(),
        origin: None,
        has_rights: false,
    }
}

fn authorizer() -> Arc<Authorizer> {
    let options = AuthorizeOptions {
        node: NodeId::new("n-1").expect("valid"),
        url: "http://127.0.0.1:1/".into(),
        secret: "0123456789abcdef".into(),
        timeout: Duration::from_secs(1),
        cache: Duration::from_secs(30),
    };
    let metrics = crate::telemetry::metrics::Metrics::new();
    Authorizer::new(options, Outbound::new(None).expect("made"), metrics.webhooks.authorize.clone())
}

#[test]
fn different_questions_have_different_keys() {
    let keys = [
        question(),
        Question { token: None, ..question() },
        Question { token: Some(String::new()), ..question() },
        Question { name: Some("t".into()), ..question() },
        Question { token: None, user: Some("t".into()), ..question() },
        Question { origin: Some("https://a".into()), ..question() },
        Question { rooms: vec![], ..question() },
        Question { rooms: vec!["lob".into(), "by".into()], ..question() },
        Question { address: [127, 0, 0, 2].into(), ..question() },
    ]
    .map(|question| question.key());
    let distinct: std::collections::HashSet<Key> = keys.into();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(question().key(), keys[0]);
}

#[tokio::test]
async fn answers_are_read_strictly() {
    let authorizer = authorizer();
    let read = |text: &str| authorizer.read(text.as_bytes(), &question());
    let room = |name| RoomName::new(name).expect("valid");
    let may = |grant: &Grant, name| grant.may(crate::access::Right::Publish, &room(name));
    let Ok((Verdict::Allowed(grant), holds)) = read(r#"{"allow":true,"sub":"ann","cacheSeconds":5}"#) else {
        panic!("allowed")
    };
    assert_eq!((grant.user().map(|user| &**user), holds), (Some("ann"), Duration::from_secs(5)));
    assert!(may(&grant, "lobby") && !may(&grant, "lobby2"), "what was asked for, and no more");
    let Ok((Verdict::Allowed(grant), holds)) = read(r#"{"allow":true,"rooms":["team-*"],"cacheSeconds":1e9}"#) else {
        panic!("allowed")
    };
    assert!(may(&grant, "team-1") && !may(&grant, "lobby"));
    assert_eq!(holds, Duration::from_secs(30), "never longer than the setting says");
    let Ok((Verdict::Denied(reason), _)) = read("{\"allow\":false,\"reason\":\"a\\r\\nb\\u001bc\"}") else {
        panic!("denied")
    };
    assert_eq!(&*reason, "abc");
    let Ok((Verdict::Denied(reason), _)) = read(&format!("{{\"allow\":false,\"reason\":\"{}\"}}", "é".repeat(999)))
    else {
        panic!("denied")
    };
    assert_eq!(reason.chars().count(), LONGEST_REASON);
    for bad in [
        "",
        "true",
        "{}",
        "[true]",
        r#"{"allow":"true"}"#,
        r#"{"allow":1}"#,
        r#"{"allow":true,"allow":false}"#,
        r#"{"allow":true,"rooms":["a b"]}"#,
        r#"{"allow":true,"sub":7}"#,
        r#"{"allow":true,"exp":1}"#,
        r#"{"allow":true,"exp":"4000000000"}"#,
        r#"{"allow":true,"cacheSeconds":-1}"#,
        r#"{"allow":true} x"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
