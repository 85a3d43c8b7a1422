//! Reads a JSON Web Token (RFC 7515, RFC 7519) as text: nothing of it is believed here. Signatures are checked by
//! [`super::key`], what it says by [`super::issuer`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Denied;
use super::key::MAX_KID_BYTES;

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 8192;

/// A token in its parts.
pub(super) struct Token<'a> {
    /// What is signed.
    pub(super) message: &'a str,
    /// In base64url.
    pub(super) signature: &'a str,
    pub(super) header: Header,
    /// The claims: JSON, perhaps.
    pub(super) payload: Vec<u8>,
}

/// What is used of the header. Keys and addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: Option<String>,
    /// What a reader must understand or refuse the token; we understand none of it.
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// The claims that say whether the others hold.
#[derive(Deserialize)]
pub(super) struct Registered {
    #[serde(default)]
    pub(super) iss: Option<String>,
    #[serde(default)]
    pub(super) aud: Option<Audience>,
    #[serde(default)]
    pub(super) exp: Option<f64>,
    #[serde(default)]
    pub(super) nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn names(&self, one: &str) -> bool {
        match self {
            Self::One(name) => name == one,
            Self::Several(names) => names.iter().any(|name| name == one),
        }
    }
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'a str) -> Result<Self, Denied> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denied::TooLong);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Denied::Malformed)?;
        // A dot too many is no base64url, and so refused here.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed);
        let header: Header = object(&decode(header)?).ok_or(Denied::Malformed)?;
        let is_short = header.kid.as_ref().is_none_or(|kid| kid.len() <= MAX_KID_BYTES);
        if header.crit.is_some() || !is_short {
            return Err(Denied::Malformed);
        }
        Ok(Self { message, signature, header, payload: decode(payload)? })
    }

    /// The claims that say whether the others hold.
    pub(super) fn registered(&self) -> Result<Registered, Denied> {
        object(&self.payload).ok_or(Denied::Malformed)
    }
}

/// A JSON object without a key that is there twice, as far as we care about the key.
fn object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok())?
}
