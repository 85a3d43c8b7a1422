//! Who issues tokens: its keys, and what must hold for a token of its to be believed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::key::Key;
use super::token::{Registered, Token};
use super::{AccessError, Claims, Denied, Grant};
use crate::config::{IssuerSettings, RoomPattern, WebUrl};

/// What clocks may differ by.
const LEEWAY: Duration = Duration::from_secs(30);
/// Times behind this are no seconds: some write milliseconds, and would have tokens that never expire. Year 5138.
pub(super) const LAST_SECOND: f64 = 1e11;

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    name: Option<String>,
    audience: Vec<String>,
    defaults: Arc<[RoomPattern]>,
    prefix: String,
    fixed: Vec<Key>,
    pub(super) published: Option<Published>,
}

/// Keys that are fetched.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) url: WebUrl,
    /// None until the first set came.
    keys: RwLock<Option<Arc<[Key]>>>,
}

impl Published {
    /// Puts a new set in the place of the old.
    pub(super) fn set(&self, keys: Vec<Key>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
    }

    fn get(&self) -> Option<Arc<[Key]>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings) -> Result<Self, AccessError> {
        let mut fixed: Vec<Key> =
            settings.secret.iter().map(|secret| Key::secret(secret.expose().as_bytes())).collect();
        if let Some(path) = &settings.public_key {
            let broken = |problem: String| AccessError::PublicKey { path: path.clone(), problem };
            let text = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
            fixed.push(Key::pem(&text).map_err(|problem| broken(problem.to_owned()))?);
        }
        Ok(Self {
            name: settings.name,
            audience: settings.audience,
            defaults: settings.default_rooms.into(),
            prefix: settings.user_prefix,
            fixed,
            published: settings.jwks_url.map(|url| Published { url, keys: RwLock::default() }),
        })
    }

    /// Whether tokens that say they are from `iss` are to be checked as this issuer's.
    pub(super) fn is(&self, iss: Option<&str>) -> bool {
        self.name.is_none() || self.name.as_deref() == iss
    }

    /// What a token gives at `now`, once it is believed. `registered` was read from it.
    pub(super) fn admit(&self, token: &Token<'_>, registered: &Registered, now: SystemTime) -> Result<Grant, Denied> {
        self.check_signature(token)?;
        let aud = registered.aud.as_ref().ok_or(Denied::Claim("aud"))?;
        if !self.audience.iter().any(|one| aud.names(one)) {
            return Err(Denied::Audience);
        }
        let expires = time(registered.exp).ok_or(Denied::Claim("exp"))?;
        if now >= expires + LEEWAY {
            return Err(Denied::Expired);
        }
        if registered.nbf.is_some() && time(registered.nbf).ok_or(Denied::Claim("nbf"))? > now + LEEWAY {
            return Err(Denied::NotYet);
        }
        // Who came in by the leeway stays for what is left of it.
        let ends = if now < expires { expires } else { expires + LEEWAY };
        let claims = Claims::read(&token.payload).map_err(|_| Denied::Claims)?;
        claims.until(ends).grant(&self.defaults, &self.prefix)
    }

    /// The key must be one of this issuer's, for the algorithm of the header, and by the name of the header.
    fn check_signature(&self, token: &Token<'_>) -> Result<(), Denied> {
        let (alg, kid) = (token.header.alg.as_str(), token.header.kid.as_deref());
        let mut fixed = self.fixed.iter().filter(|key| key.is_for(alg)).peekable();
        let is_known = fixed.peek().is_some();
        if fixed.any(|key| key.signed(token.message, token.signature)) {
            return Ok(());
        }
        let without = if is_known { Denied::Signature } else { Denied::Key };
        let Some(published) = &self.published else { return Err(without) };
        let keys = published.get().ok_or(if is_known { Denied::Signature } else { Denied::KeysUnavailable })?;
        let mut named = keys.iter().filter(|key| key.is_for(alg) && (kid.is_none() || key.kid.as_deref() == kid));
        match (named.next(), named.next()) {
            (Some(key), _) if kid.is_some() && key.signed(token.message, token.signature) => Ok(()),
            // Without a name it must be clear which one is meant: not all are tried.
            (Some(key), None) if key.signed(token.message, token.signature) => Ok(()),
            (Some(_), None) => Err(Denied::Signature),
            (Some(_), Some(_)) if kid.is_some() => Err(Denied::Signature),
            _ => Err(without),
        }
    }
}

/// A time of a token: seconds since the Unix epoch.
fn time(seconds: Option<f64>) -> Option<SystemTime> {
    let seconds = seconds.filter(|seconds| (0.0..=LAST_SECOND).contains(seconds))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}
