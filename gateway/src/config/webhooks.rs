//! Where events are told: the webhooks of the settings and of `[[webhooks]]` in the file. Checked here; must not know how
//! they are called.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::Value;

use super::{ConfigError, Password, RoomPattern, WebUrl};

/// Webhooks of one node: each has a queue, and every event is matched against each.
pub const MAX_WEBHOOKS: usize = 16;
/// Bytes of a secret. A key that can be guessed signs nothing.
pub(super) const MIN_SECRET: usize = 16;
/// The name of the webhook that is made of single settings.
pub(super) const DEFAULT_NAME: &str = "default";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// What can be told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As in the settings and in `type` of an event.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// A room that was empty has a member.
    RoomOccupied, "room_occupied";
    /// A room's last member left.
    RoomVacated, "room_vacated";
    /// Someone is a member of a room.
    MemberJoined, "member_joined";
    /// Someone no longer is.
    MemberLeft, "member_left";
    /// A message was taken.
    MessagePublished, "message_published";
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
        let found = Self::ALL.iter().find(|kind| kind.as_str() == text);
        found.copied().ok_or_else(|| format!("expected events, comma-separated: {}", names.join(", ")))
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One receiver of events.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// In logs and metrics, unique on the node.
    pub name: String,
    /// May hold what is secret in its path, so it is not for logs.
    pub url: WebUrl,
    /// Signs every call.
    pub secret: Password,
    /// What it is told.
    pub events: Vec<EventKind>,
    /// Of which rooms.
    pub rooms: Vec<RoomPattern>,
}

/// One `[[webhooks]]` of the file. What is left out is as the settings have it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) url: WebUrl,
    pub(super) secret: Option<Password>,
    pub(super) events: Option<Vec<EventKind>>,
    pub(super) rooms: Option<Vec<RoomPattern>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    url: String,
    secret: Option<String>,
    secret_file: Option<std::path::PathBuf>,
    events: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
}

pub(super) fn entries(path: &Path, values: Vec<Value>) -> Result<Vec<Entry>, ConfigError> {
    if values.len() > MAX_WEBHOOKS {
        let problem = format!("{} [[webhooks]]: expected at most {MAX_WEBHOOKS}", values.len());
        return Err(ConfigError::File { path: path.to_owned(), problem });
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(values.len());
    let mut names = HashSet::from([DEFAULT_NAME.to_owned()]);
    for (index, value) in values.into_iter().enumerate() {
        let broken = |problem| ConfigError::Webhooks { path: path.to_owned(), index: index + 1, problem };
        Password::must_be_text(&value).map_err(broken)?;
        let raw: Raw = value.try_into().map_err(|error: toml::de::Error| broken(error.message().to_owned()))?;
        let entry = checked(path, index + 1, raw).map_err(broken)?;
        if !names.insert(entry.name.clone()) {
            return Err(broken(format!("name is {:?}: expected another one for each webhook", entry.name)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn checked(path: &Path, number: usize, raw: Raw) -> Result<Entry, String> {
    let name = raw.name.unwrap_or_else(|| number.to_string());
    let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !(1..=32).contains(&name.len()) || !name.chars().all(word) {
        return Err(format!("name is {name:?}: expected 1 to 32 of the characters A-Z a-z 0-9 _ . -"));
    }
    let secret = raw.secret.map(Password::new);
    let secret = Password::or_of_file(secret, raw.secret_file.as_deref(), path)?;
    if secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
        return Err(format!("secret: expected at least {MIN_SECRET} bytes"));
    }
    let events = raw.events.map(|events| events.iter().map(|event| event.parse()).collect()).transpose();
    let rooms = raw.rooms.map(|rooms| rooms.iter().map(|room| room.parse()).collect()).transpose();
    Ok(Entry {
        name,
        url: raw.url.parse().map_err(|expected| format!("url: {expected}"))?,
        secret,
        events: events.map_err(|expected: String| format!("events: {expected}"))?,
        rooms: rooms.map_err(|expected: String| format!("rooms: {expected}"))?,
    })
}
