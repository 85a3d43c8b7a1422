//! Shows the settings: as a file for `--config`, and as the table of docs/configuration.md. Must not know single settings.

use std::ffi::OsStr;
use std::fmt::Write;

use clap::CommandFactory;
use roomcast_protocol::Mode;
use toml::Value;

use super::error::expected;
use super::issuers;
use super::password::HIDDEN;
use super::paths;
use super::source::{Cli, Loaded, Setting, origin};
use super::{Rate, RoomPolicies, RoomPolicy, Webhook};

/// The settings in force as a TOML file, each with its origin. What is not set stands there as a comment.
pub(super) fn effective(loaded: &Loaded) -> String {
    let mut text =
        String::from("# Settings in force. Passwords are hidden: put them back before use with --config.\n\n");
    for setting in Setting::all(&loaded.command).filter(|setting| setting.id() != "config") {
        let raw = loaded.matches.get_raw(setting.id()).into_iter().flatten();
        // An empty password is none.
        let raw = raw.filter(|value| !(setting.is_secret() && value.is_empty()));
        let values: Vec<String> = raw.map(|value| shown(&setting, value)).collect();
        if setting.0.is_hide_set() && values.is_empty() {
            continue;
        }
        let origin = origin(&loaded.layer, &loaded.matches, setting.id());
        let _ = match (setting.is_list(), values.first()) {
            (true, _) => writeln!(text, "{} = {} # {origin}", setting.id(), list(values)),
            (false, Some(value)) => writeln!(text, "{} = {} # {origin}", setting.id(), scalar(value)),
            (false, None) => writeln!(text, "# {} is not set", setting.id()),
        };
    }
    text.push_str(&rooms(&loaded.settings.rooms));
    text.push_str(&webhooks(&loaded.settings.outward.webhooks));
    text.push_str(&issuers::shown(&loaded.settings.issuers));
    text
}

/// A path is made absolute: it is read again from a file that may be elsewhere.
fn shown(setting: &Setting<'_>, value: &OsStr) -> String {
    let path = setting.is_path().then(|| paths::absolute(value.as_ref()));
    setting.shown(&path.as_ref().map_or(value, |path| path.as_os_str()).to_string_lossy())
}

fn list(values: Vec<String>) -> String {
    Value::Array(values.into_iter().map(Value::String).collect()).to_string()
}

/// Bare where TOML reads the very same text back, quoted otherwise.
fn scalar(text: &str) -> String {
    let bare = text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        || text.parse::<f64>().is_ok_and(|number| number.is_finite() && format!("{number:?}") == text)
        || matches!(text, "true" | "false");
    if bare { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

fn rooms(policies: &RoomPolicies) -> String {
    policies.rules().fold(String::new(), |mut text, (pattern, policy)| {
        let RoomPolicy { mode, history_size, history_ttl, idempotency_window, unique_names, publish_rate } = policy;
        let mode = match mode {
            Mode::Durable => "durable",
            Mode::Ephemeral => "ephemeral",
        };
        let ttl = humantime::format_duration(*history_ttl);
        let window = humantime::format_duration(*idempotency_window);
        let _ =
            write!(text, "\n[[rooms]]\npattern = \"{pattern}\"\nmode = \"{mode}\"\nhistory_size = {history_size}\n");
        let _ = write!(text, "history_ttl = \"{ttl}\"\nidempotency_window = \"{window}\"\n");
        let _ = writeln!(text, "unique_names = {unique_names}");
        if let Some(Rate { per_second, burst }) = publish_rate {
            let _ = writeln!(text, "publish_rate = {per_second}\npublish_burst = {burst}");
        }
        text
    })
}

/// The one that is made of single settings stands among them.
fn webhooks(webhooks: &[Webhook]) -> String {
    let of_file = webhooks.iter().filter(|webhook| webhook.name != super::webhooks::DEFAULT_NAME);
    of_file.fold(String::new(), |mut text, Webhook { name, url, events, rooms, .. }| {
        let events = list(events.iter().map(ToString::to_string).collect());
        let rooms = list(rooms.iter().map(ToString::to_string).collect());
        let url = Value::String(url.as_str().to_owned());
        let _ = write!(text, "\n[[webhooks]]\nname = \"{name}\"\nurl = {url}\nsecret = \"{HIDDEN}\"\n");
        let _ = writeln!(text, "events = {events}\nrooms = {rooms}");
        text
    })
}

/// The settings of `--help` as a Markdown table: flag, variable, default, bounds, meaning.
pub fn reference_table() -> String {
    let command = Cli::command();
    let mut text = String::from("| Flag | Variable | Default | Accepts | Meaning |\n|---|---|---|---|---|\n");
    for setting in Setting::all(&command).filter(|setting| !setting.0.is_hide_set()) {
        let defaults = setting.0.get_default_values();
        let default = match (setting.id(), defaults.first()) {
            ("workers", _) => "one per core".to_owned(),
            ("node_id", _) => "`n-` and 8 random hex digits".to_owned(),
            (_, Some(value)) => format!("`{}`", value.to_string_lossy()),
            (_, None) => "-".to_owned(),
        };
        let help = setting.0.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.trim_end_matches('.');
        let anything = if setting.is_secret() { "any text" } else { "a path" };
        let accepts = bounds(&command, &setting).unwrap_or_else(|| anything.to_owned()).replace('|', "\\|");
        let (flag, env) = (setting.flag(), setting.env());
        let _ = writeln!(text, "| `{flag}` | `{env}` | {default} | {accepts} | {help}. |");
    }
    text
}

/// What the setting's own parser says it wants, when given what nobody wants.
fn bounds(command: &clap::Command, setting: &Setting<'_>) -> Option<String> {
    let nonsense = format!("{}=\u{1}", setting.flag());
    let error = command.clone().try_get_matches_from(["gateway".to_owned(), nonsense]).err()?;
    let text = expected(&error);
    Some(text.strip_prefix("expected ").unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_read_back_as_the_same_text() {
        for text in ["5", "0.01", "1e5", "007", "true", "10s", "a \"b\"", "-1", "nan", "1.0", "99999999999999999999"] {
            let document: toml::Table = toml::from_str(&format!("x = {}", scalar(text))).expect("valid TOML");
            let back = match &document["x"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(back, text);
        }
    }
}
