//! Who may issue tokens, and by which keys they are known: the one of the `jwt-...` settings, and `[[issuers]]` of the
//! file. Read and checked here; must not know what a token is.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;

use super::paths::beside;
use super::{ConfigError, Password, RoomPattern, Settings, WebUrl};

/// Shortest secret, in bytes: what HS256 signs with, no shorter than what it makes.
const SHORTEST_SECRET: usize = 32;
/// Issuers a file may name.
const MAX_ISSUERS: usize = 32;

/// One issuer of tokens.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// What its tokens have as `iss`; none takes tokens whatever they have.
    pub name: Option<String>,
    /// What its tokens must name as `aud`, any one of these.
    pub audience: Vec<String>,
    /// Secret of HS256.
    pub secret: Option<Password>,
    /// File with a PEM public key.
    pub public_key: Option<PathBuf>,
    /// Where it publishes its keys.
    pub jwks_url: Option<WebUrl>,
    /// Rooms of tokens that name none.
    pub default_rooms: Vec<RoomPattern>,
    /// Put in front of its users' names.
    pub user_prefix: String,
}

/// One `[[issuers]]` table. What it leaves out is taken from the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerTable {
    issuer: String,
    #[serde(default)]
    audience: Option<Audience>,
    #[serde(default, deserialize_with = "password")]
    secret: Option<Password>,
    #[serde(default)]
    secret_file: Option<PathBuf>,
    #[serde(default)]
    public_key: Option<PathBuf>,
    #[serde(default)]
    jwks_url: Option<String>,
    #[serde(default)]
    default_rooms: Option<Vec<String>>,
    #[serde(default)]
    user_prefix: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

fn password<'de, D: serde::Deserializer<'de>>(de: D) -> Result<Option<Password>, D::Error> {
    String::deserialize(de).map(|text| text.parse().ok())
}

impl IssuerTable {
    fn resolve(&self, settings: &Settings) -> Result<IssuerSettings, String> {
        let audience = match &self.audience {
            None => settings.jwt_audience.clone(),
            Some(Audience::One(one)) => vec![one.clone()],
            Some(Audience::Several(several)) => several.clone(),
        };
        let default_rooms = match &self.default_rooms {
            None => settings.jwt_default_rooms.clone(),
            Some(list) => list.iter().map(|text| text.parse()).collect::<Result<_, String>>()?,
        };
        let issuer = IssuerSettings {
            name: Some(self.issuer.clone()),
            audience,
            secret: Password::given(self.secret.as_ref()).cloned(),
            public_key: self.public_key.clone(),
            jwks_url: self.jwks_url.as_deref().map(str::parse).transpose()?,
            default_rooms,
            user_prefix: self.user_prefix.clone(),
        };
        issuer.check(settings)?;
        Ok(issuer)
    }
}

impl IssuerSettings {
    fn check(&self, settings: &Settings) -> Result<(), String> {
        let need = |holds: bool, expected: &str| if holds { Ok(()) } else { Err(expected.to_owned()) };
        need(self.name.as_ref().is_none_or(|name| !name.is_empty()), "issuer is empty")?;
        need(
            self.secret.is_some() || self.public_key.is_some() || self.jwks_url.is_some(),
            "expected secret, secret_file, public_key or jwks_url",
        )?;
        need(!self.audience.is_empty(), "expected an audience, here or as jwt_audience")?;
        need(!self.audience.iter().any(String::is_empty), "an audience is empty")?;
        need(
            self.secret.as_ref().is_none_or(|secret| secret.expose().len() >= SHORTEST_SECRET),
            "secret: expected at least 32 bytes",
        )?;
        need(
            self.user_prefix.len() <= 64 && !self.user_prefix.chars().any(char::is_control),
            "user_prefix: expected at most 64 bytes without control characters",
        )?;
        let exposed = self.jwks_url.as_ref().is_some_and(WebUrl::is_exposed);
        need(!exposed || settings.outbound_http, "jwks_url: expected https://, unless --outbound-http is given")
    }
}

/// Reads the `[[issuers]]` of a file.
pub(super) fn tables(path: &Path, entries: Vec<Value>) -> Result<Vec<IssuerTable>, ConfigError> {
    let broken = |index, problem| ConfigError::Issuers { path: path.to_owned(), index, problem };
    if entries.len() > MAX_ISSUERS {
        return Err(broken(entries.len(), format!("expected at most {MAX_ISSUERS}")));
    }
    let read = |(index, entry): (usize, Value)| {
        Password::must_be_text(&entry).map_err(|problem| broken(index + 1, problem))?;
        let table: Result<IssuerTable, toml::de::Error> = entry.try_into();
        let mut table = table.map_err(|error| broken(index + 1, error.message().to_owned()))?;
        table.secret = Password::or_of_file(table.secret.take(), table.secret_file.as_deref(), path)
            .map_err(|problem| broken(index + 1, problem))?;
        table.public_key = table.public_key.map(|name| beside(path, &name));
        Ok(table)
    };
    entries.into_iter().enumerate().map(read).collect()
}

impl Settings {
    /// All issuers, the one of the settings first.
    pub fn issuers(&self) -> Vec<IssuerSettings> {
        let of_file = self.issuers.iter().filter_map(|table| table.resolve(self).ok());
        self.own_issuer().into_iter().chain(of_file).collect()
    }

    fn own_issuer(&self) -> Option<IssuerSettings> {
        let secret = Password::given(self.jwt_secret.as_ref()).cloned();
        let has_key = secret.is_some() || self.jwt_public_key.is_some() || self.jwt_jwks_url.is_some();
        has_key.then(|| IssuerSettings {
            name: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            secret,
            public_key: self.jwt_public_key.clone(),
            jwks_url: self.jwt_jwks_url.clone(),
            default_rooms: self.jwt_default_rooms.clone(),
            user_prefix: String::new(),
        })
    }

    /// What must hold for the `jwt-...` settings. The error names one and says what it needs.
    pub(super) fn check_keys(&self) -> Result<(), (&'static str, String)> {
        let need = |holds: bool, id, expected: &str| if holds { Ok(()) } else { Err((id, expected.to_owned())) };
        let Some(own) = self.own_issuer() else {
            let key = "nothing, unless --jwt-secret, --jwt-public-key or --jwt-jwks-url is given";
            need(self.jwt_issuer.is_none(), "jwt_issuer", key)?;
            need(self.jwt_audience.is_empty() || !self.issuers.is_empty(), "jwt_audience", key)?;
            return need(self.jwt_default_rooms.is_empty() || !self.issuers.is_empty(), "jwt_default_rooms", key);
        };
        let is_long = own.secret.as_ref().is_none_or(|secret| secret.expose().len() >= SHORTEST_SECRET);
        need(is_long, "jwt_secret", "at least 32 bytes, such as `openssl rand -base64 33` prints")?;
        let audience = "what tokens name as `aud`, such as roomcast: without it, tokens for others would be taken";
        need(own.audience.iter().any(|one| !one.is_empty()), "jwt_audience", audience)?;
        let exposed = own.jwks_url.as_ref().is_some_and(WebUrl::is_exposed);
        need(!exposed || self.outbound_http, "jwt_jwks_url", "https://, unless --outbound-http is given")?;
        let is_named = own.name.as_ref().is_some_and(|name| !name.is_empty());
        need(self.issuers.is_empty() || is_named, "jwt_issuer", "a name, since there are [[issuers]] too")
    }

    /// What must hold for the `[[issuers]]`. The error has the place of one, from 1, and what is wrong.
    pub(super) fn check_issuers(&self) -> Result<(), (usize, String)> {
        let mut names: Vec<Option<&str>> = vec![self.jwt_issuer.as_deref()];
        for (index, table) in self.issuers.iter().enumerate() {
            table.resolve(self).map_err(|problem| (index + 1, problem))?;
            if names.contains(&Some(&table.issuer)) {
                return Err((index + 1, format!("issuer {:?} is there twice", table.issuer)));
            }
            names.push(Some(&table.issuer));
        }
        Ok(())
    }
}

/// The tables as a file has them, without their secrets.
pub(super) fn shown(tables: &[IssuerTable]) -> String {
    use std::fmt::Write;
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    let list = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect()).to_string();
    tables.iter().fold(String::new(), |mut text, table| {
        let _ = writeln!(text, "\n[[issuers]]\nissuer = {}", quoted(&table.issuer));
        let _ = match &table.audience {
            None => Ok(()),
            Some(Audience::One(one)) => writeln!(text, "audience = {}", quoted(one)),
            Some(Audience::Several(several)) => writeln!(text, "audience = {}", list(several)),
        };
        if table.secret.is_some() {
            let _ = writeln!(text, "secret = {}", quoted(super::password::HIDDEN));
        }
        if let Some(path) = &table.public_key {
            let _ = writeln!(text, "public_key = {}", quoted(&path.to_string_lossy()));
        }
        if let Some(url) = &table.jwks_url {
            let _ = writeln!(text, "jwks_url = {}", quoted(url));
        }
        if let Some(rooms) = &table.default_rooms {
            let _ = writeln!(text, "default_rooms = {}", list(rooms));
        }
        if !table.user_prefix.is_empty() {
            let _ = writeln!(text, "user_prefix = {}", quoted(&table.user_prefix));
        }
        text
    })
}
