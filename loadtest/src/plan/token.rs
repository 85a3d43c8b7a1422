//! How clients prove who they are. Asked by each client before it connects; the only user of the JWT library, and it
//! must never show a secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

/// How clients prove who they are.
#[derive(Clone, Default)]
pub enum Token {
    #[default]
    None,
    /// The same for all.
    Fixed(Arc<str>),
    /// One for each client, signed with HS256.
    Minted(Arc<Mint>),
}

/// What is needed to mint tokens.
pub struct Mint {
    /// Of the plan; part of `sub`.
    pub run: u32,
    pub secret: Vec<u8>,
    pub audience: Option<String>,
    pub issuer: Option<String>,
    pub lifetime: Duration,
    /// Further claims; in strings, `{client}` stands for the client's index and `{room}` for its room.
    pub claims: Map<String, Value>,
}

impl Token {
    /// The token of one client, valid from `now_s` (seconds since the Unix epoch). Minting costs a few microseconds.
    ///
    /// # Errors
    /// When the claims cannot be signed.
    pub fn text(&self, client: u32, room: &str, now_s: u64) -> anyhow::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(text) => Ok(Some(text.to_string())),
            Self::Minted(mint) => mint.sign(client, room, now_s).map(Some),
        }
    }
}

impl Mint {
    fn sign(&self, client: u32, room: &str, now_s: u64) -> anyhow::Result<String> {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), format!("loadtest-{:08x}-{client}", self.run).into());
        claims.insert("iat".to_owned(), now_s.into());
        claims.insert("exp".to_owned(), now_s.saturating_add(self.lifetime.as_secs()).into());
        claims.extend(self.audience.iter().map(|text| ("aud".to_owned(), text.as_str().into())));
        claims.extend(self.issuer.iter().map(|text| ("iss".to_owned(), text.as_str().into())));
        // What is asked for by name wins, so that any kind of token can be tried.
        claims.extend(self.claims.iter().map(|(name, value)| (name.clone(), fill(value, client, room))));
        let key = EncodingKey::from_secret(&self.secret);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).context("cannot sign a token")
    }
}

fn fill(value: &Value, client: u32, room: &str) -> Value {
    match value {
        Value::String(text) => text.replace("{client}", &client.to_string()).replace("{room}", room).into(),
        Value::Array(items) => items.iter().map(|item| fill(item, client, room)).collect(),
        Value::Object(map) => map.iter().map(|(name, item)| (name.clone(), fill(item, client, room))).collect(),
        other => other.clone(),
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(..)",
            Self::Minted(_) => "Minted(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 4_000_000_000;

    fn mint(claims: Value) -> Token {
        let Value::Object(claims) = claims else { panic!("an object") };
        Token::Minted(Arc::new(Mint {
            run: 0xabc,
            secret: b"geheim".to_vec(),
            audience: Some("rooms".to_owned()),
            issuer: Some("tests".to_owned()),
            lifetime: Duration::from_hours(1),
            claims,
        }))
    }

    fn decoded(token: &Token) -> Value {
        let text = token.text(7, "r-1", NOW).expect("signed").expect("a token");
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&["rooms"]);
        rules.set_issuer(&["tests"]);
        jsonwebtoken::decode::<Value>(&text, &DecodingKey::from_secret(b"geheim"), &rules).expect("valid").claims
    }

    #[test]
    fn a_minted_token_says_who_and_how_long() {
        let claims = decoded(&mint(json!({})));
        let expected =
            json!({"sub": "loadtest-00000abc-7", "iat": NOW, "exp": NOW + 3600, "aud": "rooms", "iss": "tests"});
        assert_eq!(claims, expected);
    }

    #[test]
    fn templates_are_filled_at_any_depth_and_may_replace_claims() {
        let claims =
            decoded(&mint(json!({"rooms": ["{room}"], "of": {"n": 1, "who": "u{client}"}, "sub": "x{client}"})));
        assert_eq!(claims["rooms"], json!(["r-1"]));
        assert_eq!(claims["of"], json!({"n": 1, "who": "u7"}));
        assert_eq!(claims["sub"], "x7");
    }

    #[test]
    fn the_other_kinds_and_no_secret_in_debug() {
        assert_eq!(Token::None.text(1, "r", 0).expect("none"), None);
        assert_eq!(Token::Fixed("abc".into()).text(1, "r", 0).expect("fixed").as_deref(), Some("abc"));
        assert_eq!(format!("{:?} {:?}", Token::Fixed("geheim".into()), mint(json!({}))), "Fixed(..) Minted(..)");
    }
}
