//! Keys of the HTTP API: how they are written in the settings, and how a new one is made. Asked by the server for each
//! request; must not know HTTP.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::password::HIDDEN;

/// What each new key begins with, so that scanners of source code can tell one.
const KEY_PREFIX: &str = "rck_";
/// Random bytes of a new key. Only their hash is kept, without salt: nobody can guess 256 bits.
const KEY_BYTES: usize = 32;
/// Longest name of a key, in bytes. It is also the name that members see on what it publishes.
const MAX_NAME_BYTES: usize = 64;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// See rooms, members and messages.
    Read,
    /// Publish.
    Publish,
    /// See nodes, remove members, disconnect users.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Publish, Self::Admin];

    /// The name in settings and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| "expected scopes out of read, publish and admin".to_owned())
    }
}

/// One key, without the key itself. Shows itself without its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    name: String,
    scopes: Vec<Scope>,
    digest: [u8; SHA256_OUTPUT_LEN],
}

impl ApiKey {
    /// Its name: for logs, and on what it publishes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the key.
    pub fn digest(&self) -> &[u8; SHA256_OUTPUT_LEN] {
        &self.digest
    }

    /// Whether it may do this.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// A new random key and what the settings say of it.
    ///
    /// # Errors
    /// A name outside its rule, or a system without random numbers.
    pub(super) fn generate(name: &str, scopes: &[Scope]) -> Result<(String, String), String> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
        let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let digest = hash(&key).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let scopes: Vec<&str> =
            Scope::ALL.into_iter().filter(|scope| scopes.contains(scope)).map(Scope::as_str).collect();
        let line = format!("{name}:{}:{digest}", scopes.join("+"));
        // What is printed must be what the settings take.
        line.parse::<Self>()?;
        Ok((key, line))
    }

    /// `text` as it may be shown: without the hash, also if it is no valid key.
    pub(super) fn redact(text: &str) -> String {
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(scopes), Some(_)) => format!("{name}:{scopes}:{HIDDEN}"),
            _ => HIDDEN.to_owned(),
        }
    }
}

/// SHA-256 of a key as it came.
pub fn hash(key: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    out
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

fn read_digest(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let mut out = [0; SHA256_OUTPUT_LEN];
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(out)
}

impl FromStr for ApiKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (name, scopes, digest) = (parts.next(), parts.next(), parts.next());
        let read = || {
            let name = name.filter(|name| is_name(name))?.to_owned();
            let scopes = scopes?.split('+').map(Scope::from_str).collect::<Result<Vec<_>, _>>().ok()?;
            Some(Self { name, scopes, digest: read_digest(digest?)? })
        };
        read().ok_or_else(|| {
            "expected name:scope+scope:<64 hex digits of the key's SHA-256>, comma-separated, scopes out of read, \
             publish and admin, as gateway key prints it"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_what_its_line_says() {
        let (key, line) = ApiKey::generate("shop", &[Scope::Publish, Scope::Read]).expect("a key");
        let read: ApiKey = line.parse().expect("valid");
        assert_eq!((read.name(), read.digest()), ("shop", &hash(&key)));
        assert!(read.may(Scope::Read) && read.may(Scope::Publish) && !read.may(Scope::Admin));
        assert!(line.starts_with("shop:read+publish:") && !line.contains(&key));
        let (other, _) = ApiKey::generate("shop", &[Scope::Read]).expect("a key");
        assert!(key.len() == 47 && key != other, "{key}");
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown() {
        let digest = "a".repeat(64);
        assert!(format!("a:read:{digest}").parse::<ApiKey>().is_ok());
        for bad in [
            String::new(),
            format!("a:{digest}"),
            format!("a::{digest}"),
            format!("a:write:{digest}"),
            format!("a:read+:{digest}"),
            format!(":read:{digest}"),
            format!("a b:read:{digest}"),
            format!("a:read:{digest}0"),
            format!("a:read:{}", "g".repeat(64)),
            format!("a:read:{}", "é".repeat(32)),
        ] {
            assert!(bad.parse::<ApiKey>().is_err(), "{bad}");
        }
        assert_eq!(ApiKey::redact(&format!("a:read:{digest}")), "a:read:***");
        assert_eq!(ApiKey::redact(&digest), "***");
        let key: ApiKey = format!("a:read:{digest}").parse().expect("valid");
        assert!(!format!("{key:?}").contains("aaaa"), "{key:?}");
    }
}
