//! Paths in the file are beside it; those given otherwise are in the working directory.

use std::path::{Path, PathBuf};

use super::super::{Action, Settings};
use super::{load, load_in};

const FILE: &str = "redis = \"rediss://h\"\nredis_ca = \"ca/redis.pem\"\njwt_public_key = \"../key.pem\"\n\
                    jwt_audience = [\"us\"]\njwt_issuer = \"own\"\noutbound_ca = \"/etc/ours.pem\"\n\
                    [[issuers]]\nissuer = \"a\"\npublic_key = \"a.pem\"\n\
                    [[issuers]]\nissuer = \"b\"\npublic_key = \"/etc/b.pem\"\n";

/// A folder, and in it a file with these settings.
fn written(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("node.toml");
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    (directory, file)
}

/// Redis's and the others' authorities, and the issuers' keys.
fn paths(settings: &Settings) -> Vec<PathBuf> {
    let own = [settings.redis_ca.clone(), settings.outbound_ca.clone()];
    let keys = settings.issuers().into_iter().map(|issuer| issuer.public_key);
    own.into_iter().chain(keys).flatten().collect()
}

#[test]
fn those_of_the_file_are_beside_it() {
    let (directory, file) = written(FILE);
    let beside = |name: &str| directory.path().join(name);
    let expected =
        [beside("ca/redis.pem"), "/etc/ours.pem".into(), beside("../key.pem"), beside("a.pem"), "/etc/b.pem".into()];
    assert_eq!(paths(&load(&["--config", &file], &[]).expect("valid")), expected);
    // Where the file is named from does not matter.
    let working = std::env::current_dir().expect("a working directory");
    let up: PathBuf = working.components().skip(1).map(|_| "..").collect();
    let relative = up.join(file.trim_start_matches('/'));
    let found = paths(&load(&["--config", relative.to_str().expect("UTF-8")], &[]).expect("valid"));
    assert!(found.iter().all(|path| path.is_absolute()), "{found:?}");
    assert!(found[3].ends_with(file.trim_start_matches('/').replace("node.toml", "a.pem")), "{found:?}");
}

#[test]
fn those_of_flags_and_variables_are_as_they_were_given() {
    let (_directory, file) = written(FILE);
    let env = [("ROOMCAST_OUTBOUND_CA", "ours.pem")];
    let settings = load(&["--config", &file, "--redis-ca=redis.pem"], &env).expect("valid");
    assert_eq!(paths(&settings)[..2], [Path::new("redis.pem"), Path::new("ours.pem")]);
    let settings = load(&["--config", &file], &[("ROOMCAST_REDIS_CA", "")]);
    assert_eq!(settings.map(|settings| settings.redis_ca), Ok(None), "an empty one unsets it");
}

#[test]
fn printed_settings_mean_the_same_files_from_anywhere() {
    let (_directory, file) = written(FILE);
    let print = |args: &[&str]| match load_in(Path::new("/nonexistent"), args, &[]) {
        Ok(Action::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    let expected = load(&["--config", &file], &[]).expect("valid");
    let (_elsewhere, copy) = written(&print(&["config", "--config", &file]));
    assert_eq!(paths(&load(&["--config", &copy], &[]).expect("valid")), paths(&expected));
    let (_elsewhere, copy) = written(&print(&["config", "--config", &file, "--outbound-ca=ours.pem"]));
    let working = std::env::current_dir().expect("a working directory");
    assert_eq!(load(&["--config", &copy], &[]).expect("valid").outbound_ca, Some(working.join("ours.pem")));
}
