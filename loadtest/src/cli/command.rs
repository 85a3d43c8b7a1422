//! The command line as a report may show it: one line to copy, without secrets.

use std::ffi::OsString;

use super::environment::{Given, is_option};

const SECRETS: &[&str] = &["--token", "--jwt-secret"];

/// What was typed, preceded by what the environment gave; secrets are `***`.
pub(super) fn shown(arguments: &[OsString], given: &[Given]) -> String {
    let mut words: Vec<String> = given
        .iter()
        .map(|given| {
            let secret = SECRETS.contains(&given.option);
            let value = if secret { "***".to_owned() } else { quoted(&given.value.to_string_lossy()) };
            format!("{}={value}", given.variable)
        })
        .collect();
    words.push("loadtest".to_owned());
    let mut hide_next = false;
    for word in arguments.iter().skip(1) {
        let text = word.to_string_lossy();
        let secret = SECRETS.iter().find(|secret| is_option(word, secret));
        words.push(match secret {
            _ if hide_next => "***".to_owned(),
            Some(secret) if text.len() > secret.len() => format!("{secret}=***"),
            _ => quoted(&text),
        });
        hide_next = !hide_next && secret.is_some_and(|secret| text.len() == secret.len());
    }
    words.join(" ")
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=./:,@%+~[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
