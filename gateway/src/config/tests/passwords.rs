//! Passwords that are settings of their own: any characters, never shown.

use super::*;

#[test]
fn passwords_apart_from_the_url_take_any_characters() {
    let odd = " se\"c'r$e#t=\\{},%00 -";
    let url = |args: &[&str], env: &[(&str, &str)]| {
        load(args, env).map(|settings| settings.redis_with_passwords().map(|url| url.as_str().to_owned()))
    };
    let full = "redis://u:%20se%22c%27r%24e%23t%3D%5C%7B%7D%2C%2500%20-@h".to_owned();
    let env = [("ROOMCAST_REDIS_PASSWORD", odd)];
    assert_eq!(url(&["--redis=redis://u:old@h"], &env), Ok(Some(full.clone())));
    assert_eq!(url(&["--redis=redis://u@h", "--redis-password", odd], &[]), Ok(Some(full.clone())));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    let file_name = file.to_str().expect("UTF-8");
    std::fs::write(&file, format!("redis = \"redis://u@h\"\nredis_password = '''{odd}'''\n")).expect("written");
    assert_eq!(url(&["--config", file_name], &[]), Ok(Some(full)));
    assert_eq!(url(&["--redis-password=-x", "--redis=redis://h"], &[]), Ok(Some("redis://:-x@h".into())));
    // Empty is none, also above one.
    for env in [("ROOMCAST_REDIS_PASSWORD", ""), ("ROOMCAST_REDIS_SENTINEL_PASSWORD", "")] {
        assert_eq!(url(&[], &[env]), Ok(None));
    }
    assert_eq!(url(&["--redis=redis://:a@h", "--redis-password="], &env), Ok(Some("redis://:a@h".into())));

    let data = ("ROOMCAST_REDIS_PASSWORD", "secret");
    let sentinels = ("ROOMCAST_REDIS_SENTINEL_PASSWORD", "secret");
    let user_only = "--redis=redis+sentinel://h/m?sentinel_user=u";
    let no_number = format!("{file_name}: redis_password: expected a text in quotes, not integer");
    std::fs::write(&file, "redis_password = 1234").expect("written");
    for (args, env, expected) in [
        (
            &[][..],
            &[data][..],
            "--redis-password (ROOMCAST_REDIS_PASSWORD) is \"***\", from environment: expected nothing, unless --redis \
             is given",
        ),
        (
            &["--redis=redis+cluster://h"],
            &[sentinels],
            "--redis-sentinel-password (ROOMCAST_REDIS_SENTINEL_PASSWORD) is \"***\", from environment: expected \
             nothing, unless --redis is a redis+sentinel:// URL",
        ),
        (
            &[user_only],
            &[data],
            "--redis (ROOMCAST_REDIS) is \"redis+sentinel://h/m?sentinel_user=u\", from command line: expected \
             sentinel_password beside sentinel_user, or --redis-sentinel-password",
        ),
        (&["--config", file_name], &[], &no_number),
    ] {
        assert_eq!(load(args, env).expect_err("refused"), expected);
    }
    load(&[user_only], &[sentinels]).expect("together they are enough");
}

#[test]
fn passwords_apart_from_the_url_are_never_shown() {
    let args = ["config", "--redis=redis+sentinel://h/m", "--redis-password=s3cr3t"];
    let env = [("ROOMCAST_REDIS_SENTINEL_PASSWORD", "s3cr3t"), ("ROOMCAST_REDIS_PASSWORD", "s3cr3t")];
    let Ok(Action::Print(text)) = load_in(Path::new("/"), &args, &env) else { panic!("config prints") };
    assert!(text.contains("redis_password = \"***\" # command line\n"), "{text}");
    assert!(text.contains("redis_sentinel_password = \"***\" # environment\n") && !text.contains("s3cr3t"), "{text}");
    let settings = load(&args[1..], &env).expect("valid");
    let shown = format!("{settings:?} {:?}", settings.redis_with_passwords());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let Ok(Action::Print(text)) = load_in(Path::new("/"), &["config", "--redis-password="], &env[1..]) else {
        panic!("config prints")
    };
    assert!(text.contains("# redis_password is not set\n"), "{text}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    let name = file.to_str().expect("UTF-8");
    for text in ["redis_password = s3cr3t", "redis_password = \"s3cr3t", "redis_password = \"a\" s3cr3t", "s3cr3t"] {
        std::fs::write(&file, text).expect("written");
        let error = load(&["--config", name], &[]).expect_err("refused");
        assert!(!error.contains("s3cr3t") && error.contains("line 1, column"), "{text}: {error}");
    }
    for text in ["ROOMCAST_REDIS_PASSWORD='s3cr3t", "ROOMCAST_REDIS_PASSWORD=a s3cr3t", "s3cr3t", "s3cr3t==x y"] {
        std::fs::write(directory.path().join(".env"), format!("A=1\n{text}")).expect("written");
        let error = load_in(directory.path(), &[], &[]).expect_err(text).to_string();
        assert!(!error.contains("s3cr3t") && error.contains("/.env: line 2 cannot be read"), "{text}: {error}");
    }
}
