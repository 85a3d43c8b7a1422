//! Issuers of tokens that stand in the file.

use std::path::Path;

use super::super::{Action, Password, Settings};
use super::{load, load_in};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Loads a file beside which one called `key` holds `secret`.
fn from_file(text: &str, secret: &str) -> Result<Settings, String> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("key"), secret).expect("written");
    let file = directory.path().join("x.toml");
    std::fs::write(&file, text).expect("written");
    load(&["--config", file.to_str().expect("UTF-8"), "--jwt-audience=us"], &[])
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let settings = from_file("[[issuers]]\nissuer = \"a\"\nsecret_file = \"key\"\n", &format!("{SECRET}\n"));
    let issuers = settings.expect("valid").issuers();
    let [issuer] = &issuers[..] else { panic!("{issuers:?}") };
    assert_eq!(issuer.secret.as_ref().map(Password::expose), Some(SECRET));
    assert!(!format!("{issuers:?}").contains(SECRET));
}

#[test]
fn secrets_that_cannot_be_used_are_refused_and_not_shown() {
    for (text, secret, words) in [
        (
            &format!("secret = \"{SECRET}\"\nsecret_file = \"key\"")[..],
            SECRET,
            "expected secret or secret_file, not both",
        ),
        ("secret_file = \"nowhere\"", SECRET, "nowhere: No such file"),
        ("secret_file = \"key\"", "hunter2", "secret: expected at least 32 bytes"),
        ("secret_file = \"key\"", "\n", "expected secret, secret_file, public_key or jwks_url"),
        ("secret_file = 7", SECRET, "invalid type"),
    ] {
        let error = from_file(&format!("[[issuers]]\nissuer = \"a\"\n{text}\n"), secret).expect_err(text);
        assert!(error.contains("[[issuers]] number 1") && error.contains(words), "{text}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(SECRET), "{error}");
    }
}

#[test]
fn a_secret_of_a_file_is_not_printed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    std::fs::write(directory.path().join("key"), SECRET).expect("written");
    std::fs::write(&file, "[[issuers]]\nissuer = \"a\"\nsecret_file = \"key\"\n").expect("written");
    let args = ["config", "--jwt-audience=us", "--config", file.to_str().expect("UTF-8")];
    let Ok(Action::Print(text)) = load_in(Path::new("/nonexistent"), &args, &[]) else { panic!("config prints") };
    assert!(text.contains("[[issuers]]\nissuer = \"a\"\nsecret = \"***\"") && !text.contains(SECRET), "{text}");
}
