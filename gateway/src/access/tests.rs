//! Tokens, good and hostile. The good ones were made by another implementation (`scripts/jwt-samples.sh`).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roomcast_protocol::RoomName;
use serde_json::{Value, json};

use super::key::Key;
use super::*;
use crate::config::IssuerSettings;

const SECRET: &str = "a secret of these tests, which is long enough";
/// What the tests call now, seconds.
const NOW: u64 = 1_800_000_000;

fn samples() -> Value {
    serde_json::from_str(include_str!("samples.json")).expect("JSON")
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn issuer() -> IssuerSettings {
    IssuerSettings {
        name: None,
        audience: vec!["roomcast".to_owned()],
        secret: None,
        public_key: None,
        jwks_url: None,
        default_rooms: Vec::new(),
        user_prefix: String::new(),
    }
}

fn access(issuers: impl IntoIterator<Item = IssuerSettings>) -> Access {
    let issuers = issuers.into_iter().map(|issuer| Issuer::new(issuer).expect("good keys")).collect();
    Access { issuers, metrics: None }
}

fn by_secret() -> Access {
    access([IssuerSettings { secret: SECRET.parse().ok(), ..issuer() }])
}

/// An access that fetched the set of the samples.
fn by_set() -> Access {
    let access = access([IssuerSettings { jwks_url: "https://id.example/keys".parse().ok(), ..issuer() }]);
    let set = Key::set(samples()["jwks"].to_string().as_bytes()).expect("keys");
    access.issuers[0].published.as_ref().expect("given").set(set);
    access
}

fn claims() -> Value {
    json!({"sub": "ann", "aud": "roomcast", "exp": NOW + 60, "rooms": ["lobby"]})
}

/// The usual claims with some replaced; null takes one away.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
    }
    claims
}

fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("signed")
}

/// A token by the secret, of any header and any claims.
fn raw(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signed");
    format!("{message}.{signature}")
}

fn verdict(access: &Access, token: &str) -> Result<(), Denied> {
    access.verify_at(token, now()).map(|_| ())
}

fn may(grant: &Grant, right: Right, room: &str) -> bool {
    grant.may(right, &RoomName::new(room).expect("a name"))
}

#[test]
fn tokens_of_another_implementation_are_read() {
    let samples = samples();
    let directory = tempfile::tempdir().expect("a directory");
    let by_pem = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, samples["pem"][name].as_str().expect("PEM")).expect("written");
        access([IssuerSettings { public_key: Some(file), ..issuer() }])
    };
    let secret = samples["secret"].as_str().expect("text").parse().ok();
    let by_secret = access([IssuerSettings { secret, ..issuer() }]);
    let token = |name: &str| samples["tokens"][name].as_str().expect("a token").to_owned();
    let mut grants = vec![by_secret.verify_at(&token("HS256"), now()).expect("HS256")];
    for name in ["RS256", "ES256", "EdDSA"] {
        grants.push(by_pem(name).verify_at(&token(name), now()).expect(name));
        grants.push(by_set().verify_at(&token(name), now()).expect(name));
        for other in ["RS256", "ES256", "EdDSA", "HS256"].iter().filter(|other| **other != name) {
            assert_eq!(verdict(&by_pem(name), &token(other)), Err(Denied::Key), "{other} by the key of {name}");
        }
    }
    for grant in grants {
        assert_eq!(grant.user().map(|user| &**user), Some("ann@example.org"));
        assert_eq!(grant.name().map(|name| &**name), Some("Ann Ünal"));
        let info: Value = serde_json::from_str(grant.info().expect("given")).expect("JSON");
        assert_eq!(info, json!({"avatar": "https://a.example/ann.png", "level": 7}));
        assert_eq!(grant.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_hours(4_102_444_800 / 3600)));
        assert!(may(&grant, Right::Join, "lobby") && !may(&grant, Right::Publish, "lobby"));
        assert!(may(&grant, Right::Publish, "team-1") && !may(&grant, Right::Presence, "lobby"));
    }
}

#[test]
fn attacks_on_the_algorithm_come_to_nothing() {
    let samples = samples();
    let directory = tempfile::tempdir().expect("a directory");
    let pem = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, samples["pem"][name].as_str().expect("PEM")).expect("written");
        Some(file)
    };
    let secret = samples["secret"].as_str().expect("text").parse().ok();
    let all = [
        access([IssuerSettings { public_key: pem("RS256"), ..issuer() }]),
        access([IssuerSettings { public_key: pem("ES256"), ..issuer() }]),
        // With a secret beside the public key, HS256 is known: but not by the public key.
        access([IssuerSettings { public_key: pem("RS256"), secret, ..issuer() }]),
        by_set(),
        by_secret(),
    ];
    for (name, token) in samples["attacks"].as_object().expect("an object") {
        for access in &all {
            let verdict = verdict(access, token.as_str().expect("a token"));
            assert!(matches!(verdict, Err(Denied::Key | Denied::Signature)), "{name}: {verdict:?}");
        }
    }
    let payload = claims().to_string();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"nOnE","typ":"JWT"}"#, r#"{"alg":""}"#] {
        let signed = raw(header, &payload);
        let unsigned = format!("{}.", signed.rsplit_once('.').expect("parts").0);
        assert_eq!(verdict(&by_secret(), &signed), Err(Denied::Key), "{header}");
        assert_eq!(verdict(&by_secret(), &unsigned), Err(Denied::Key), "{header}");
    }
    // The secret is not of the published set, although the set tried to publish it.
    let by_sample = access([IssuerSettings { jwks_url: "https://id.example/".parse().ok(), ..issuer() }]);
    by_sample.issuers[0]
        .published
        .as_ref()
        .expect("given")
        .set(Key::set(samples["jwks"].to_string().as_bytes()).expect("keys"));
    assert_eq!(verdict(&by_sample, samples["tokens"]["HS256"].as_str().expect("a token")), Err(Denied::Key));
}

#[test]
fn only_usable_keys_are_taken() {
    let samples = samples();
    let set = Key::set(samples["jwks"].to_string().as_bytes()).expect("keys");
    let mut kids: Vec<&str> = set.iter().filter_map(|key| key.kid.as_deref()).collect();
    kids.sort_unstable();
    assert_eq!(kids, ["key-ES256", "key-EdDSA", "key-RS256"]);
    for (name, pem) in samples["badPem"].as_object().expect("an object") {
        assert!(Key::pem(pem.as_str().expect("PEM").as_bytes()).is_err(), "{name}");
    }
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert!(Key::pem(pem.as_bytes()).is_err(), "{pem}");
    }
    let many = json!({"keys": vec![samples["jwks"]["keys"][1].clone(); 65]}).to_string();
    for set in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#, r#"{"keys":["x"]}"#, &many] {
        assert!(Key::set(set.as_bytes()).is_err(), "{set}");
    }
}

#[test]
fn a_key_is_found_by_its_name_and_nothing_else() {
    let payload = claims().to_string();
    let by_set = by_set();
    for kid in [
        "../../../../etc/passwd",
        "https://evil.example/keys.json",
        "key-ES256' OR '1'='1",
        "key-RS256\u{0}",
        "",
        "KEY-RS256",
    ] {
        for alg in ["RS256", "ES256", "EdDSA"] {
            let header =
                json!({"alg": alg, "kid": kid, "jku": "https://evil.example/", "x5u": "https://evil.example/"});
            assert_eq!(verdict(&by_set, &raw(&header.to_string(), &payload)), Err(Denied::Key), "{kid} {alg}");
        }
    }
    let long = json!({"alg": "RS256", "kid": "k".repeat(257)}).to_string();
    assert_eq!(verdict(&by_set, &raw(&long, &payload)), Err(Denied::Malformed));
    // A key of its own in the header is not looked at.
    let own = json!({"alg": "ES256", "kid": "key-ES256", "jwk": samples()["jwks"]["keys"][1]}).to_string();
    assert_eq!(verdict(&by_set, &raw(&own, &payload)), Err(Denied::Signature));
    // Without a name the one key of that kind is meant.
    let unnamed = samples()["tokens"]["ES256"].as_str().expect("a token").to_owned();
    let (header, rest) = unnamed.split_once('.').expect("parts");
    assert!(String::from_utf8(URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("text").contains("kid"));
    let nameless = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#));
    assert_eq!(verdict(&by_set, &nameless), Err(Denied::Signature), "the name is signed, too");
    assert_eq!(verdict(&by_set, &unnamed), Ok(()));
}

#[test]
fn times_are_held_to_with_half_a_minute_of_leeway() {
    let access = by_secret();
    let until = |changes: Value| {
        let grant = access.verify_at(&sign(&with(&changes)), now());
        grant.map(|grant| {
            grant.expires_at().expect("given").duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs()
        })
    };
    assert_eq!(until(json!({"exp": NOW + 60})), Ok(NOW + 60));
    assert_eq!(until(json!({"exp": NOW + 1})), Ok(NOW + 1), "whoever came in time goes in time");
    assert_eq!(until(json!({"exp": NOW})), Ok(NOW + 30), "whoever came by the leeway has what is left of it");
    assert_eq!(until(json!({"exp": NOW - 29})), Ok(NOW + 1));
    assert_eq!(until(json!({"exp": NOW - 30})), Err(Denied::Expired));
    assert_eq!(until(json!({"exp": 0})), Err(Denied::Expired));
    assert_eq!(until(json!({"nbf": NOW + 30})), Ok(NOW + 60));
    assert_eq!(until(json!({"nbf": NOW + 31})), Err(Denied::NotYet));
    assert_eq!(until(json!({"nbf": NOW - 1})), Ok(NOW + 60));
    assert_eq!(until(json!({"exp": NOW * 1000})), Err(Denied::Claim("exp")), "milliseconds would never end");
    assert_eq!(until(json!({"exp": -1})), Err(Denied::Claim("exp")));
    assert_eq!(until(json!({"exp": null})), Err(Denied::Claim("exp")));
    for wrong in [json!((NOW + 60).to_string()), json!(true), json!([NOW + 60]), json!({})] {
        assert_eq!(until(json!({"exp": wrong})), Err(Denied::Malformed), "{wrong}");
        assert_eq!(until(json!({"nbf": wrong})), Err(Denied::Malformed), "{wrong}");
    }
}

#[test]
fn a_token_must_be_for_us() {
    let access = by_secret();
    let verdict = |aud: Value| verdict(&access, &sign(&with(&json!({"aud": aud}))));
    assert_eq!(verdict(json!("roomcast")), Ok(()));
    assert_eq!(verdict(json!(["other", "roomcast"])), Ok(()));
    assert_eq!(verdict(json!(null)), Err(Denied::Claim("aud")));
    for wrong in [json!("other"), json!(""), json!([]), json!(["Roomcast"]), json!("roomcast ")] {
        assert_eq!(verdict(wrong.clone()), Err(Denied::Audience), "{wrong}");
    }
    for wrong in [json!(1), json!({"roomcast": 1}), json!(["roomcast", 1])] {
        assert_eq!(verdict(wrong.clone()), Err(Denied::Malformed), "{wrong}");
    }
}

#[test]
fn issuers_have_their_own_keys_audiences_and_users() {
    const OTHER: &str = "the other issuer's secret, long enough as well";
    let one = IssuerSettings { name: Some("one".to_owned()), secret: SECRET.parse().ok(), ..issuer() };
    let two = IssuerSettings {
        name: Some("two".to_owned()),
        secret: OTHER.parse().ok(),
        audience: vec!["second".to_owned()],
        user_prefix: "two/".to_owned(),
        default_rooms: vec!["open-*".parse().expect("a pattern")],
        ..issuer()
    };
    let access = access([one, two]);
    let signed_by_two = |changes: Value| {
        let key = EncodingKey::from_secret(OTHER.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &with(&changes), &key).expect("signed")
    };
    let user = |token: String| access.verify_at(&token, now()).map(|grant| grant.user().expect("given").to_string());
    assert_eq!(user(sign(&with(&json!({"iss": "one"})))), Ok("ann".to_owned()));
    assert_eq!(user(signed_by_two(json!({"iss": "two", "aud": "second"}))), Ok("two/ann".to_owned()));
    assert_eq!(user(signed_by_two(json!({"iss": "one"}))), Err(Denied::Signature), "with the name of the other");
    assert_eq!(user(signed_by_two(json!({"iss": "two"}))), Err(Denied::Audience), "with the audience of the other");
    for iss in [json!("three"), json!(null), json!("")] {
        assert_eq!(user(sign(&with(&json!({"iss": iss})))), Err(Denied::Issuer), "{iss}");
    }
    assert_eq!(user(sign(&with(&json!({"iss": ["one"]})))), Err(Denied::Malformed));
    let grant = access.verify_at(&signed_by_two(json!({"iss": "two", "aud": "second", "rooms": null})), now());
    assert!(may(&grant.expect("good"), Right::Join, "open-1"));
}

#[test]
fn what_is_no_token_is_refused() {
    let access = by_secret();
    let good = sign(&claims());
    assert_eq!(verdict(&access, &good), Ok(()));
    let parts: Vec<&str> = good.split('.').collect();
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{good}."),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.{}", parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
        format!("{}. {}.{}", parts[0], parts[1], parts[2]),
        raw("[]", &claims().to_string()),
        raw("{}", &claims().to_string()),
        raw(r#"{"alg":"HS256","alg":"HS256"}"#, &claims().to_string()),
        raw(r#"{"alg":"HS256","crit":["exp"]}"#, &claims().to_string()),
        raw(r#"{"alg":"HS256"}"#, "[]"),
        raw(r#"{"alg":"HS256"}"#, "7"),
        raw(r#"{"alg":"HS256"}"#, &format!("{}1{}", "[".repeat(3000), "]".repeat(3000))),
    ] {
        assert_eq!(verdict(&access, &bad), Err(Denied::Malformed), "{bad}");
    }
    let changed =
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(with(&json!({"sub": "root"})).to_string()), parts[2]);
    assert_eq!(verdict(&access, &changed), Err(Denied::Signature));
    assert_eq!(verdict(&access, &format!("{}.{}.", parts[0], parts[1])), Err(Denied::Signature));
    let huge = sign(&with(&json!({"padding": "x".repeat(8000)})));
    assert_eq!(verdict(&access, &huge), Err(Denied::TooLong));
    assert_eq!(access.admit(None).err(), Some(Denied::Missing));
}

#[test]
fn claims_that_are_there_twice_are_refused() {
    let access = by_secret();
    let twice = |claim: &str| {
        let text = claims().to_string();
        raw(r#"{"alg":"HS256"}"#, &format!("{{{claim},{}", &text[1..]))
    };
    assert_eq!(verdict(&access, &twice(r#""x":1,"x":2"#)), Ok(()), "not ours");
    for claim in [r#""exp":1"#, r#""aud":"other""#] {
        assert_eq!(verdict(&access, &twice(claim)), Err(Denied::Malformed), "{claim}");
    }
    for claim in [r#""sub":"root""#, r#""rooms":["*"]"#] {
        assert_eq!(verdict(&access, &twice(claim)), Err(Denied::Claims), "{claim}");
    }
    assert_eq!(verdict(&access, &sign(&with(&json!({"sub": 7})))), Err(Denied::Claims));
    assert_eq!(verdict(&access, &sign(&with(&json!({"name": "x\ny"})))), Err(Denied::Claim("name")));
}

#[test]
fn keys_that_were_never_fetched_are_no_verdict_on_a_token() {
    let settings = IssuerSettings { jwks_url: "https://id.example/keys".parse().ok(), ..issuer() };
    let access = access([settings]);
    let token = samples()["tokens"]["RS256"].as_str().expect("a token").to_owned();
    assert_eq!(verdict(&access, &token), Err(Denied::KeysUnavailable));
    access.issuers[0].published.as_ref().expect("given").set(Vec::new());
    assert_eq!(verdict(&access, &token), Err(Denied::Key));
}

#[test]
fn words_hold_nothing_of_the_token_and_labels_differ() {
    let all = [
        Denied::Missing,
        Denied::TooLong,
        Denied::Malformed,
        Denied::Issuer,
        Denied::Key,
        Denied::Signature,
        Denied::Expired,
        Denied::NotYet,
        Denied::Audience,
        Denied::Claims,
        Denied::KeysUnavailable,
    ];
    let labels: std::collections::HashSet<&str> = all.iter().map(|denied| denied.label()).collect();
    assert_eq!(labels.len(), all.len());
    let shown = format!("{:?}", by_secret());
    assert!(!shown.contains("a secret of"), "{shown}");
}
