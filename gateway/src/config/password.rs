//! A password that is a setting of its own, and so may hold any characters. Must not know what it opens.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::paths::beside;

/// What stands for a password wherever settings are shown.
pub(super) const HIDDEN: &str = "***";

/// A password. Shows itself as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// What it is. For those who open something with it; never to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// None if it is empty, which says "not set".
    pub(super) fn given(password: Option<&Self>) -> Option<&Self> {
        password.filter(|password| !password.0.is_empty())
    }

    /// Refuses a table whose `secret` is no text. Said here, since the parser's words would show it.
    pub(super) fn must_be_text(table: &toml::Value) -> Result<(), String> {
        match table.get("secret") {
            Some(secret) if !secret.is_str() => Err("secret: expected a text in quotes".to_owned()),
            _ => Ok(()),
        }
    }

    /// The `secret` of a table, or what stands in its `secret_file`, which is looked for beside `table_file`. A new line at
    /// the end is the editor's.
    pub(super) fn or_of_file(
        secret: Option<Self>,
        secret_file: Option<&Path>,
        table_file: &Path,
    ) -> Result<Option<Self>, String> {
        let Some(name) = secret_file else { return Ok(secret) };
        if secret.is_some() {
            return Err("expected secret or secret_file, not both".to_owned());
        }
        let path = beside(table_file, name);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("secret_file {}: {error}", path.display()))?;
        Ok(Some(Self::new(text.trim_end_matches(['\n', '\r']).to_owned())))
    }

    /// As a part of a URL: everything that may mean something there is escaped.
    pub(super) fn escaped(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        self.0.bytes().fold(String::with_capacity(self.0.len()), |text, byte| match byte {
            byte if plain(byte) => text + char::from(byte).encode_utf8(&mut [0; 4]),
            byte => text + &format!("%{byte:02X}"),
        })
    }
}

impl FromStr for Password {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
