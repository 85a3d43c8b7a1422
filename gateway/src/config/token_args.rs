//! The options of `gateway token`. Part of the command line, but no settings: they say what one token is to hold.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::parse;

/// What the ids of these options begin with.
const IDS: &str = "token_";

/// What `gateway token` puts into the token.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArgs {
    /// With token: the user (`sub`)
    #[arg(long = "user", id = "token_user")]
    pub user: Option<String>,

    /// With token: the display name, which the user then cannot change
    #[arg(long = "name", id = "token_name")]
    pub name: Option<String>,

    /// With token: the rooms in which everything is allowed, such as 'lobby,team-*'; or JSON with a list for each of
    /// join, publish, history and presence
    #[arg(long = "rooms", id = "token_rooms")]
    pub rooms: Option<String>,

    /// With token: JSON about the user for other members
    #[arg(long = "info", id = "token_info")]
    pub info: Option<String>,

    /// With token: how long it holds
    #[arg(long = "expires", id = "token_expires", default_value = "1h", value_parser = parse::duration("1s", "3650days"))]
    pub expires: Duration,

    /// With token: the key's name in a published set (`kid`)
    #[arg(long = "kid", id = "token_kid")]
    pub kid: Option<String>,

    /// With token: file with a PEM private key to sign with, instead of --jwt-secret
    #[arg(long = "key", id = "token_key")]
    pub key: Option<PathBuf>,
}

impl TokenArgs {
    /// Whether the id is one of these options'.
    pub(super) fn is_id(id: &str) -> bool {
        id.starts_with(IDS)
    }

    /// Whether any of them was typed.
    pub(super) fn are_given(typed: &ArgMatches) -> bool {
        typed
            .ids()
            .any(|id| Self::is_id(id.as_str()) && typed.value_source(id.as_str()) == Some(ValueSource::CommandLine))
    }
}
