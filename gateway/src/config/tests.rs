//! The loader from outside: layers, origins, errors.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::*;

fn os(text: &str) -> OsString {
    text.into()
}

fn load_in(directory: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Action, ConfigError> {
    let args = std::iter::once("gateway").chain(args.iter().copied()).map(os);
    Settings::load(args, env.iter().map(|(name, value)| (os(name), os(value))), directory)
}

fn load(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, String> {
    match load_in(Path::new("/nonexistent"), args, env) {
        Ok(Action::Run(settings)) => Ok(*settings),
        Ok(Action::Print(text)) => panic!("printed {text}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let settings = Settings::default();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin_listen.to_string(), "0.0.0.0:8081");
    assert!(settings.redis.is_none() && !settings.echo && settings.allowed_origins.is_empty());
    assert_eq!((settings.max_message_bytes, settings.outbound_queue_bytes), (65_536, 262_144));
    assert_eq!((settings.ping_interval, settings.ping_timeout), (Duration::from_secs(25), Duration::from_secs(45)));
    assert!(settings.workers >= 1);
    assert!(settings.node_id.as_str().starts_with("n-") && settings.node_id.as_str().len() == 10);
    assert_ne!(settings.node_id, Settings::default().node_id, "each process has a name of its own");
}
