//! Reads the TOML file: settings by key, `[[rooms]]`, `[[issuers]]` and `[[webhooks]]`. Called by the loader; must not
//! know single settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_protocol::Mode;
use serde::Deserialize;
use toml::Value;

use super::error::most_similar;
use super::issuers;
use super::paths::beside;
use super::source::{Given, Layer, Setting};
use super::{ConfigError, IssuerTable, Origin, Rate, RoomPattern, RoomPolicies, RoomPolicy, webhooks};

/// Rules a file may hold: each costs a match for every room that is opened.
const MAX_RULES: usize = 1000;

/// Highest rate, and highest burst, of publishes.
const MAX_RATE: u32 = 1_000_000;

/// What a file holds.
pub(super) struct Content {
    pub(super) layer: Layer,
    pub(super) rooms: RoomPolicies,
    pub(super) issuers: Vec<IssuerTable>,
    pub(super) webhooks: Vec<webhooks::Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    pattern: String,
    mode: Option<RuleMode>,
    history_size: Option<u64>,
    history_ttl: Option<String>,
    idempotency_window: Option<String>,
    unique_names: Option<bool>,
    publish_rate: Option<u64>,
    publish_burst: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RuleMode {
    Durable,
    Ephemeral,
}

pub(super) fn read(command: &clap::Command, path: &Path) -> Result<Content, ConfigError> {
    let broken = |problem: String| ConfigError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| broken(located(&text, &error)))?;
    let rooms = match table.remove("rooms") {
        Some(Value::Array(entries)) => rules(path, entries)?,
        Some(_) => return Err(broken("rooms: expected [[rooms]] tables".to_owned())),
        None => RoomPolicies::default(),
    };
    let webhooks = match table.remove("webhooks") {
        Some(Value::Array(entries)) => webhooks::entries(path, entries)?,
        Some(_) => return Err(broken("webhooks: expected [[webhooks]] tables".to_owned())),
        None => Vec::new(),
    };
    let issuers = match table.remove("issuers") {
        Some(Value::Array(entries)) => issuers::tables(path, entries)?,
        Some(_) => return Err(broken("issuers: expected [[issuers]] tables".to_owned())),
        None => Vec::new(),
    };
    let mut layer = Layer::new();
    for (key, value) in table {
        let Some(setting) = Setting::all(command).find(|setting| setting.id() == key && key != "config") else {
            let keys = Setting::all(command).map(|setting| setting.id().to_owned()).filter(|id| id != "config");
            let similar = most_similar(&key, keys);
            return Err(ConfigError::Unknown { name: key, origin: Origin::File(path.to_owned()), similar });
        };
        let mut values = texts(&setting, &value)
            .ok_or_else(|| broken(format!("{key}: expected {}, not {}", kind(&setting), value.type_str())))?;
        if setting.is_path() {
            for name in &mut values {
                *name =
                    text_of(beside(path, Path::new(name))).map_err(|problem| broken(format!("{key}: {problem}")))?;
            }
        }
        layer.insert(key, Given { values, origin: Origin::File(path.to_owned()) });
    }
    Ok(Content { layer, rooms, issuers, webhooks })
}

/// Where and what, without the line itself, which may be the one with the password.
fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) = (before.split('\n').count(), before.rsplit('\n').next().unwrap_or_default().chars().count());
    format!("line {line}, column {}: {}", column + 1, error.message())
}

fn kind(setting: &Setting<'_>) -> &'static str {
    match setting {
        _ if setting.is_list() => "a list of texts",
        _ if setting.is_secret() => "a text in quotes",
        _ => "a text, a number or a boolean",
    }
}

/// Settings are texts, whatever the name of the file's folder is.
fn text_of(path: PathBuf) -> Result<String, String> {
    path.into_os_string().into_string().map_err(|path| format!("{} is no UTF-8 text", path.display()))
}

/// The value as the texts that a flag would have; none if it is of the wrong kind.
fn texts(setting: &Setting<'_>, value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) if setting.is_list() => {
            items.iter().map(|item| item.as_str().filter(|text| !text.contains(',')).map(str::to_owned)).collect()
        }
        Value::String(text) if text.is_empty() && setting.is_optional() => Some(Vec::new()),
        Value::String(text) => Some(vec![text.clone()]),
        // Written as a number, a password may not read back as the same characters.
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) if setting.is_secret() => None,
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Float(number) => Some(vec![number.to_string()]),
        Value::Boolean(flag) => Some(vec![flag.to_string()]),
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => None,
    }
}

fn rules(path: &Path, entries: Vec<Value>) -> Result<RoomPolicies, ConfigError> {
    if entries.len() > MAX_RULES {
        let problem = format!("{} [[rooms]]: expected at most {MAX_RULES}", entries.len());
        return Err(ConfigError::File { path: path.to_owned(), problem });
    }
    let mut rules = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let broken = |problem| ConfigError::Rooms { path: path.to_owned(), index: index + 1, problem };
        let rule: Rule = entry.try_into().map_err(|error: toml::de::Error| broken(error.message().to_owned()))?;
        rules.push(checked(rule).map_err(broken)?);
    }
    Ok(RoomPolicies::new(rules))
}

fn checked(rule: Rule) -> Result<(String, RoomPolicy), String> {
    let defaults = RoomPolicy::default();
    rule.pattern.parse::<RoomPattern>().map_err(|expected| format!("pattern is {:?}: {expected}", rule.pattern))?;
    let history_size = rule.history_size.unwrap_or(defaults.history_size);
    if !(1..=1_000_000).contains(&history_size) {
        return Err(format!("history_size is {history_size}: expected a whole number from 1 to 1000000"));
    }
    let policy = RoomPolicy {
        mode: match rule.mode {
            Some(RuleMode::Ephemeral) => Mode::Ephemeral,
            Some(RuleMode::Durable) | None => Mode::Durable,
        },
        history_size,
        history_ttl: duration("history_ttl", rule.history_ttl, defaults.history_ttl, "1s", "365days")?,
        idempotency_window: duration(
            "idempotency_window",
            rule.idempotency_window,
            defaults.idempotency_window,
            "1s",
            "24h",
        )?,
        unique_names: rule.unique_names.unwrap_or(defaults.unique_names),
        publish_rate: publish_rate(rule.publish_rate, rule.publish_burst)?,
    };
    Ok((rule.pattern, policy))
}

/// A burst of two seconds' worth unless another is given, as for one client.
fn publish_rate(rate: Option<u64>, burst: Option<u64>) -> Result<Option<Rate>, String> {
    let count = |key: &str, value: u64, min: u32| {
        let number = u32::try_from(value).ok().filter(|number| (min..=MAX_RATE).contains(number));
        number.ok_or_else(|| format!("{key} is {value}: expected a whole number from {min} to {MAX_RATE}"))
    };
    let burst = burst.map(|burst| count("publish_burst", burst, 1)).transpose()?;
    match (count("publish_rate", rate.unwrap_or(0), 0)?, burst) {
        (0, Some(_)) => Err("publish_burst: expected nothing, unless publish_rate is given".to_owned()),
        (0, None) => Ok(None),
        (per_second, burst) => Ok(Some(Rate { per_second, burst: burst.unwrap_or(2 * per_second) })),
    }
}

fn duration(
    key: &str,
    text: Option<String>,
    default: Duration,
    min: &'static str,
    max: &'static str,
) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(default) };
    super::parse::duration(min, max)(&text).map_err(|expected| format!("{key} is {text:?}: {expected}"))
}
