//! Makes tokens for trying things out. Called by main for `gateway token`; a node itself issues none.

use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::AccessError;
use crate::config::{IssuerSettings, Settings, TokenArgs};

/// A signed token for the first issuer of `settings` that has what is needed.
///
/// # Errors
/// [`AccessError::Mint`] when there is no secret to sign with, or an option cannot be used.
pub fn mint(settings: &Settings, options: &TokenArgs) -> Result<String, AccessError> {
    let issuers = settings.issuers();
    let (algorithm, key, issuer) = if let Some(path) = &options.key {
        let broken = |problem: &str| AccessError::Mint(format!("--key {}: {problem}", path.display()));
        let text = std::fs::read(path).map_err(|error| broken(&error.to_string()))?;
        let expected = "expected a PEM private key: RSA, or P-256 or Ed25519 as PKCS #8";
        let (algorithm, key) = private_key(&text).ok_or_else(|| broken(expected))?;
        (algorithm, key, issuers.iter().find(|issuer| issuer.secret.is_none()).or(issuers.first()))
    } else {
        let issuer = issuers.iter().find(|issuer| issuer.secret.is_some());
        let secret = issuer.and_then(|issuer| issuer.secret.as_ref());
        let nothing = "nothing to sign with: give --jwt-secret (ROOMCAST_JWT_SECRET), or --key with a private key";
        let secret = secret.ok_or_else(|| AccessError::Mint(nothing.to_owned()))?;
        (Algorithm::HS256, EncodingKey::from_secret(secret.expose().as_bytes()), issuer)
    };
    let mut header = Header::new(algorithm);
    header.kid.clone_from(&options.kid);
    let signed = jsonwebtoken::encode(&header, &claims(options, issuer)?, &key);
    signed.map_err(|error| AccessError::Mint(format!("cannot sign: {error}")))
}

fn private_key(text: &[u8]) -> Option<(Algorithm, EncodingKey)> {
    let rsa = || EncodingKey::from_rsa_pem(text).ok().map(|key| (Algorithm::RS256, key));
    let ec = || EncodingKey::from_ec_pem(text).ok().map(|key| (Algorithm::ES256, key));
    let ed = || EncodingKey::from_ed_pem(text).ok().map(|key| (Algorithm::EdDSA, key));
    rsa().or_else(ec).or_else(ed)
}

fn claims(options: &TokenArgs, issuer: Option<&IssuerSettings>) -> Result<Map<String, Value>, AccessError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut claims = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    put("sub", options.user.clone().map(Value::from));
    put("name", options.name.clone().map(Value::from));
    put("rooms", options.rooms.as_deref().map(rooms).transpose()?);
    put("info", options.info.as_deref().map(|text| json("--info", text)).transpose()?);
    put("iat", Some(now.into()));
    put("exp", Some(now.saturating_add(options.expires.as_secs()).into()));
    put("iss", issuer.and_then(|issuer| issuer.name.clone()).map(Value::from));
    put("aud", issuer.and_then(|issuer| issuer.audience.first().cloned()).map(Value::from));
    Ok(claims)
}

/// `lobby,team-*`, or an object with a list for each right.
fn rooms(text: &str) -> Result<Value, AccessError> {
    if text.trim_start().starts_with('{') {
        return json("--rooms", text);
    }
    Ok(text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).collect())
}

fn json(flag: &str, text: &str) -> Result<Value, AccessError> {
    serde_json::from_str(text).map_err(|error| AccessError::Mint(format!("{flag}: expected JSON: {error}")))
}
