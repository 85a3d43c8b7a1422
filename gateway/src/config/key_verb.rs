//! `gateway key`: makes a key of the HTTP API. Called by the loader before anything is read, since it needs no settings.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::ConfigError;
use super::api_keys::{ApiKey, Scope};
use super::source::Action;

/// Makes a key of the HTTP API and prints it once, with the line for the settings of every node.
#[derive(Debug, Parser)]
#[command(name = "gateway key", max_term_width = 110)]
struct KeyVerb {
    /// Who is to have it: 1 to 64 of the characters A-Z a-z 0-9 _ . -
    name: String,

    /// What it may do, comma-separated: read (rooms, members, messages), publish, admin (nodes, removing, disconnecting)
    #[arg(long, required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
}

/// The key that `args` ask for, if they ask for one: `gateway key ...`.
pub(super) fn asked(args: &[OsString]) -> Option<Result<Action, ConfigError>> {
    args.get(1).filter(|verb| *verb == "key")?;
    Some(make(args.get(1..).unwrap_or_default()))
}

/// The verb behind something else.
pub(super) fn misplaced() -> ConfigError {
    ConfigError::Usage("key comes first: gateway key NAME --scopes read".to_owned())
}

fn make(args: &[OsString]) -> Result<Action, ConfigError> {
    let asked = match KeyVerb::try_parse_from(args) {
        Ok(asked) => asked,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Action::Print(error.render().to_string()));
        }
        Err(error) => {
            let text = error.render().to_string();
            return Err(ConfigError::Usage(text.trim_start_matches("error: ").trim_end().to_owned()));
        }
    };
    let (key, line) = ApiKey::generate(&asked.name, &asked.scopes).map_err(ConfigError::Usage)?;
    Ok(Action::Print(format!(
        "# Shown once, and kept nowhere. For the backend: Authorization: Bearer <key>\n{key}\n\
         # For the nodes: a value of --api-keys (ROOMCAST_API_KEYS), which are comma-separated\n{line}\n"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(args: &[&str]) -> Result<String, String> {
        let args: Vec<OsString> = ["gateway", "key"].iter().chain(args).map(OsString::from).collect();
        match asked(&args).expect("it is asked for") {
            Ok(Action::Print(text)) => Ok(text),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_key_and_its_line_are_printed() {
        let text = ask(&["shop", "--scopes", "publish,read"]).expect("a key");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let [key, line] = lines[..] else { panic!("{text}") };
        let parsed: ApiKey = line.parse().expect("valid");
        assert_eq!(parsed.digest(), &super::super::api_keys::hash(key));
        assert!(line.starts_with("shop:read+publish:"), "{line}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for (args, words) in [
            (&["shop"][..], "--scopes"),
            (&["shop", "--scopes", "write"], "read, publish and admin"),
            (&["a b", "--scopes", "read"], "expected name:scope"),
            (&["--scopes", "read"], "<NAME>"),
        ] {
            let error = ask(args).expect_err("refused");
            assert!(error.contains(words), "{args:?}: {error}");
        }
        assert!(ask(&["--help"]).expect("help").contains("Makes a key"));
        assert!(asked(&["gateway".into(), "config".into()]).is_none());
    }
}
