//! Keys that tokens are checked with. Each is for one algorithm, which comes from the key itself and never from a token.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest `kid` that is kept or looked up, in bytes.
pub(super) const MAX_KID_BYTES: usize = 256;
/// Most keys of one published set.
const MAX_KEYS: usize = 64;
/// Bounds of an RSA modulus, in bytes: 2048 to 4096 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// Shortest DER of an RSA public key of 2048 bits, in bytes.
const RSA_DER_BYTES: usize = 266;

/// One key, and what it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Its name in a published set; keys that were configured have none.
    pub(super) kid: Option<Box<str>>,
    algorithm: Algorithm,
    material: DecodingKey,
}

/// A key of a published set, as far as we care.
#[derive(Deserialize)]
struct Published<'a> {
    kty: &'a str,
    #[serde(default)]
    kid: Option<Box<str>>,
    #[serde(default)]
    alg: Option<&'a str>,
    #[serde(default, rename = "use")]
    usage: Option<&'a str>,
    #[serde(default)]
    crv: Option<&'a str>,
    #[serde(default)]
    n: Option<&'a str>,
    #[serde(default)]
    e: Option<&'a str>,
    #[serde(default)]
    x: Option<&'a str>,
    #[serde(default)]
    y: Option<&'a str>,
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl Key {
    /// A secret for HS256.
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self { kid: None, algorithm: Algorithm::HS256, material: DecodingKey::from_secret(secret) }
    }

    /// A public key in PEM: RSA, P-256 or Ed25519.
    pub(super) fn pem(text: &[u8]) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a PEM public key: RSA of 2048 to 4096 bits, P-256 or Ed25519";
        let label = b"PUBLIC KEY-----";
        if !text.windows(label.len()).any(|window| window == label) {
            return Err(EXPECTED);
        }
        let rsa = || {
            let key = DecodingKey::from_rsa_pem(text).ok()?;
            let is_long = key.try_get_as_bytes().is_ok_and(|der| der.len() >= RSA_DER_BYTES);
            is_long.then_some((Algorithm::RS256, key))
        };
        let ec = || DecodingKey::from_ec_pem(text).ok().map(|key| (Algorithm::ES256, key));
        let ed = || DecodingKey::from_ed_pem(text).ok().map(|key| (Algorithm::EdDSA, key));
        let made = rsa().or_else(ec).or_else(ed).and_then(|(algorithm, key)| Self::made(None, algorithm, key));
        made.ok_or(EXPECTED)
    }

    /// The usable keys of a published set. Others in it are left out: sets hold what is for other services, too.
    pub(super) fn set(json: &[u8]) -> Result<Vec<Self>, &'static str> {
        let set: Set<'_> = serde_json::from_slice(json).map_err(|_| "not a JSON Web Key Set")?;
        if set.keys.len() > MAX_KEYS {
            return Err("too many keys in the set");
        }
        let keys: Vec<Self> =
            set.keys.iter().filter_map(|raw| Self::published(&serde_json::from_str(raw.get()).ok()?)).collect();
        if keys.is_empty() { Err("no usable key in the set") } else { Ok(keys) }
    }

    fn published(of: &Published<'_>) -> Option<Self> {
        let fits =
            of.usage.is_none_or(|usage| usage == "sig") && of.kid.as_ref().is_none_or(|kid| kid.len() <= MAX_KID_BYTES);
        // Never a secret: what is published is none.
        let (algorithm, name, key) = match (of.kty, of.crv) {
            ("RSA", _) => {
                let (n, e) = (of.n?, of.e?);
                RSA_BYTES.contains(&(n.len() * 3 / 4)).then_some(())?;
                (Algorithm::RS256, "RS256", DecodingKey::from_rsa_components(n, e).ok()?)
            }
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", DecodingKey::from_ec_components(of.x?, of.y?).ok()?),
            ("OKP", Some("Ed25519")) => {
                let key = DecodingKey::from_ed_components(of.x?).ok()?;
                key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32).then_some(())?;
                (Algorithm::EdDSA, "EdDSA", key)
            }
            _ => return None,
        };
        let is_meant = of.alg.is_none_or(|alg| alg == name || (name == "EdDSA" && alg == "Ed25519"));
        (fits && is_meant).then(|| Self::made(of.kid.clone(), algorithm, key)).flatten()
    }

    /// None if the library cannot work with it.
    fn made(kid: Option<Box<str>>, algorithm: Algorithm, material: DecodingKey) -> Option<Self> {
        crypto::verify("AA", b"", &material, algorithm).ok()?;
        Some(Self { kid, algorithm, material })
    }

    /// Whether this key is for what a token's header names.
    pub(super) fn is_for(&self, alg: &str) -> bool {
        match self.algorithm {
            Algorithm::HS256 => alg == "HS256",
            Algorithm::RS256 => alg == "RS256",
            Algorithm::ES256 => alg == "ES256",
            Algorithm::EdDSA => alg == "EdDSA",
            _ => false,
        }
    }

    /// Whether `signature` (base64url) is this key's of `message`.
    pub(super) fn signed(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.material, self.algorithm).unwrap_or(false)
    }
}
