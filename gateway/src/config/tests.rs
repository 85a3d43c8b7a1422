//! The loader from outside: layers, origins, errors.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::*;

mod issuers;
mod passwords;
mod paths;
mod webhooks;

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
        Ok(other) => panic!("not run: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let settings = Settings::default();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin_listen.to_string(), "0.0.0.0:8081");
    assert!(settings.redis.is_none() && !settings.echo && settings.allowed_origins.is_empty());
    assert!(settings.sabotage.is_empty(), "promises are kept");
    assert_eq!((settings.max_message_bytes, settings.outbound_queue_bytes), (65_536, 262_144));
    assert_eq!((settings.ping_interval, settings.ping_timeout), (Duration::from_secs(25), Duration::from_secs(45)));
    assert!(settings.workers >= 1);
    assert!(settings.node_id.as_str().starts_with("n-") && settings.node_id.as_str().len() == 10);
    assert_ne!(settings.node_id, Settings::default().node_id, "each process has a name of its own");
}

#[test]
fn a_flag_beats_the_environment_beats_dotenv_beats_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("node.toml");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("written");
    write(&file, "workers = 1\nredis_prefix = \"file\"\nmax_headers = 10\necho = true\nlisten = \"127.0.0.1:1\"\n");
    write(
        &directory.path().join(".env"),
        "ROOMCAST_WORKERS=2\nROOMCAST_REDIS_PREFIX=dotenv # why\nROOMCAST_MAX_HEADERS=20\nOTHER=1\n",
    );
    let file = file.to_str().expect("UTF-8");
    let env = [("ROOMCAST_WORKERS", "3"), ("ROOMCAST_REDIS_PREFIX", "env"), ("ROOMCAST_CONFIG", file)];
    let settings = match load_in(directory.path(), &["--workers", "4"], &env).expect("valid") {
        Action::Run(settings) => settings,
        other => panic!("not run: {other:?}"),
    };
    assert_eq!(settings.workers, 4);
    assert_eq!(settings.redis_prefix, "env");
    assert_eq!(settings.max_headers, 20);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:1");
    assert!(settings.echo);

    let Action::Print(text) = load_in(directory.path(), &["config", "--workers", "4"], &env).expect("valid") else {
        panic!("config prints");
    };
    assert!(text.contains("workers = 4 # command line\n"), "{text}");
    assert!(text.contains("redis_prefix = \"env\" # environment\n"), "{text}");
    assert!(text.contains("max_headers = 20 # ") && text.contains("/.env\n"), "{text}");
    assert!(text.contains(&format!("echo = true # {file}\n")), "{text}");
    assert!(text.contains("max_fragments = 256 # default\n"), "{text}");
}

#[test]
fn printed_settings_can_be_fed_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let rooms = "[[rooms]]\npattern = \"cursor-*\"\nmode = \"ephemeral\"\n[[rooms]]\npattern = \"a?\"\nhistory_ttl = \"1h\"\n\
         publish_rate = 10\n[[rooms]]\npattern = \"b\"\npublish_rate = 10\npublish_burst = 15\n";
    let first = directory.path().join("first.toml");
    std::fs::write(&first, rooms).expect("written");
    let args = ["config", "--trusted-proxies", "10.0.0.0/8,::1", "--allowed-origins=https://A.example", "--echo"];
    let print = |args: &[&str], file: &Path| {
        let args: Vec<&str> = args.iter().copied().chain(["--config", file.to_str().expect("UTF-8")]).collect();
        match load_in(Path::new("/nonexistent"), &args, &[]) {
            Ok(Action::Print(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let one = print(&args, &first);
    let second = directory.path().join("second.toml");
    std::fs::write(&second, &one).expect("written");
    let two = print(&["config"], &second);
    let plain = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(plain(&one), plain(&two));
    assert!(one.contains("pattern = \"cursor-*\"\nmode = \"ephemeral\""), "{one}");
    assert!(one.contains("history_ttl = \"1h\""), "{one}");
    assert_eq!(one.matches("publish_rate = 10\n").count(), 2);
    assert!(one.contains("publish_burst = 20\n") && one.contains("publish_burst = 15\n"), "{one}");
}

#[test]
fn errors_name_setting_value_origin_and_expectation() {
    for (args, env, expected) in [
        (
            &["--listen", "8080"][..],
            &[][..],
            "--listen (ROOMCAST_LISTEN) is \"8080\", from command line: expected an IP address and a port, such as \
             0.0.0.0:8080 or [::]:8080",
        ),
        (
            &[],
            &[("ROOMCAST_WORKERS", "0")],
            "--workers (ROOMCAST_WORKERS) is \"0\", from environment: expected a whole number from 1 to 1024",
        ),
        (
            &[],
            &[("ROOMCAST_PING_INTERVAL", "5")],
            "--ping-interval (ROOMCAST_PING_INTERVAL) is \"5\", from environment: expected a duration with \
             its unit, from 100ms to 1h",
        ),
        (
            &["--ping-interval=50s"],
            &[],
            "--ping-timeout (ROOMCAST_PING_TIMEOUT) is \"45s\", from default: expected a duration longer than \
             --ping-interval (50s)",
        ),
        (
            &["--drain-delay=15s"],
            &[("ROOMCAST_DRAIN_WINDOW", "5s")],
            "--shutdown-timeout (ROOMCAST_SHUTDOWN_TIMEOUT) is \"20s\", from default: expected a duration longer than \
             --drain-delay (15s) and --drain-window (5s) together",
        ),
        (
            &["--outbound-queue-bytes=4096"],
            &[("ROOMCAST_MAX_MESSAGE_BYTES", "5000")],
            "--max-message-bytes (ROOMCAST_MAX_MESSAGE_BYTES) is \"5000\", from environment: expected 2048 \
             less than --outbound-queue-bytes (4096), or lower",
        ),
        (
            &[],
            &[("ROOMCAST_LOG_FORMAT", "xml")],
            "--log-format (ROOMCAST_LOG_FORMAT) is \"xml\", from environment: expected pretty or json",
        ),
        (
            &[],
            &[("ROOMCAST_LISTEM", "x")],
            "ROOMCAST_LISTEM in environment is no setting; did you mean ROOMCAST_LISTEN?",
        ),
        (
            &["--redis", "http://user:secret@host"],
            &[],
            "--redis (ROOMCAST_REDIS) is \"http://user:***@host\", from command line: expected \
             redis://[user[:password]@]host[:port][/db], redis+sentinel://[user[:password]@]host[:port],.../master[/db] \
             or redis+cluster://[user[:password]@]host[:port],...; rediss for TLS",
        ),
        (
            &["--redis-ca=ca.pem", "--redis=redis://h"],
            &[],
            "--redis-ca (ROOMCAST_REDIS_CA) is \"ca.pem\", from command line: expected nothing, unless --redis is a \
             rediss:// URL",
        ),
        (
            &["--trusted-proxies=10.0.0.0/8,nonsense"],
            &[],
            "--trusted-proxies (ROOMCAST_TRUSTED_PROXIES) is \"nonsense\", from command line: expected networks or \
             addresses, such as 10.0.0.0/8 or fd00::/8",
        ),
        (
            &[],
            &[("ROOMCAST_LISTEN", "")],
            "--listen (ROOMCAST_LISTEN) is \"\", from environment: expected an IP address and a port, such as \
             0.0.0.0:8080 or [::]:8080",
        ),
    ] {
        assert_eq!(load(args, env).expect_err("refused"), expected);
    }
    assert!(load(&["--nope"], &[]).expect_err("refused").contains("--nope"));
    assert!(load(&["--config", "/nonexistent/x.toml"], &[]).expect_err("refused").contains("/nonexistent/x.toml"));
}

#[test]
fn files_are_checked_to_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.toml");
    for (text, expected) in [
        ("lisen = \"x\"", "lisen in PATH is no setting; did you mean listen?"),
        ("config = \"x\"", "config in PATH is no setting"),
        ("listen = [\"x\"]", "PATH: listen: expected a text, a number or a boolean, not array"),
        ("trusted_proxies = [1]", "PATH: trusted_proxies: expected a list of texts, not array"),
        ("workers = 0", "--workers (ROOMCAST_WORKERS) is \"0\", from PATH: expected a whole number from 1 to 1024"),
        ("rooms = 1", "PATH: rooms: expected [[rooms]] tables"),
        (
            "[[rooms]]\npattern = \"a b\"",
            "PATH: [[rooms]] number 1: pattern is \"a b\": expected 1 to 128 of the characters of a room name, * and ?",
        ),
        (
            "[[rooms]]\npattern = \"*\"\n[[rooms]]\npattern = \"*\"\nhistory_size = 0",
            "PATH: [[rooms]] number 2: history_size is 0: expected a whole number from 1 to 1000000",
        ),
        (
            "[[rooms]]\npattern = \"*\"\nhistory_ttl = \"0s\"",
            "PATH: [[rooms]] number 1: history_ttl is \"0s\": expected a duration with its unit, from 1s to \
             365days",
        ),
        (
            "[[rooms]]\npattern = \"*\"\npublish_rate = 1000001",
            "PATH: [[rooms]] number 1: publish_rate is 1000001: expected a whole number from 0 to 1000000",
        ),
        (
            "[[rooms]]\npattern = \"*\"\npublish_rate = 1\npublish_burst = 0",
            "PATH: [[rooms]] number 1: publish_burst is 0: expected a whole number from 1 to 1000000",
        ),
        (
            "[[rooms]]\npattern = \"*\"\npublish_burst = 3",
            "PATH: [[rooms]] number 1: publish_burst: expected nothing, unless publish_rate is given",
        ),
    ] {
        std::fs::write(&path, text).expect("written");
        let name = path.to_str().expect("UTF-8");
        let error = load(&["--config", name], &[]).expect_err("refused");
        assert_eq!(error.replace(name, "PATH"), expected);
    }
    for (text, part) in [
        ("[[rooms]]\npattern = \"*\"\nmod = \"durable\"", "unknown field `mod`"),
        ("[[rooms]]\nmode = \"durable\"", "missing field `pattern`"),
        ("[[rooms]]\npattern = \"*\"\nmode = \"fast\"", "unknown variant `fast`"),
        ("listen = ", "line 1"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = load(&["--config", path.to_str().expect("UTF-8")], &[]).expect_err("refused");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_empty_value_unsets_what_may_be_unset() {
    let settings = load(&[], &[("ROOMCAST_REDIS", ""), ("ROOMCAST_ALLOWED_ORIGINS", ""), ("ROOMCAST_NODE_ID", "")]);
    let settings = settings.expect("valid");
    assert!(settings.redis.is_none() && settings.allowed_origins.is_empty());
    assert!(settings.node_id.as_str().starts_with("n-"));
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_no_typos() {
    let names = [
        "ROOMCAST_SERVICE_HOST",
        "ROOMCAST_SERVICE_PORT",
        "ROOMCAST_SERVICE_PORT_HTTP",
        "ROOMCAST_PORT",
        "ROOMCAST_PORT_8080_TCP",
        "ROOMCAST_PORT_8080_TCP_ADDR",
        "ROOMCAST_PORT_8080_TCP_PROTO",
        "ROOMCAST_PORT_8080_TCP_PORT",
        "ROOMCAST_REDIS_SERVICE_HOST",
        "ROOMCAST_REDIS_PORT_6379_TCP_ADDR",
    ];
    load(&[], &names.map(|name| (name, "tcp://10.0.0.1:8080"))).expect("ignored");
}

#[test]
fn passwords_are_never_shown() {
    let settings = load(&["--redis=rediss://user:pas/s@wd@host:6379/0"], &[]).expect("valid");
    let shown = format!("{settings:?} {}", settings.redis.as_ref().expect("given"));
    assert!(!shown.contains("pas/") && !shown.contains("wd@") && shown.contains("user:***@host:6379/0"), "{shown}");
    let Ok(Action::Print(text)) = load_in(Path::new("/"), &["config", "--redis=redis://:s3cr3t@h"], &[]) else {
        panic!("config prints");
    };
    assert!(text.contains("redis = \"redis://:***@h\"") && !text.contains("s3cr3t"), "{text}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    std::fs::write(&file, "redis = redis://user:s3cr3t@h").expect("written");
    std::fs::write(directory.path().join(".env"), "ROOMCAST_REDIS='redis://user:s3cr3t@h\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    for (directory, args) in [
        (Path::new("/nonexistent"), &["redis://user:s3cr3t@h"][..]),
        (Path::new("/nonexistent"), &["--config", file]),
        (directory.path(), &[]),
    ] {
        let error = load_in(directory, args, &[]).expect_err("refused").to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn sabotage_is_no_setting_to_be_tempted_by() {
    let print = |args: &[&str], env: &[(&str, &str)]| match load_in(Path::new("/nonexistent"), args, env) {
        Ok(Action::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    for args in [&["--help"][..], &["-h"], &["config"]] {
        assert!(!print(args, &[]).contains("sabotage"), "{args:?}");
    }
    let text = print(&["config"], &[("ROOMCAST_SABOTAGE", "drop=3, no-repair")]);
    assert!(text.contains("sabotage = [\"drop=3\", \"no-repair\"] # environment\n"), "{text}");
    assert_eq!(load(&["--sabotage=drop=3", "--sabotage=no-repair"], &[]).expect("valid").sabotage.len(), 2);
    let error = load(&[], &[("ROOMCAST_SABOTAGE", "drop=3,crash")]).expect_err("refused");
    let words = "--sabotage (ROOMCAST_SABOTAGE) is \"crash\", from environment: expected faults such as drop=1000";
    assert!(error.starts_with(words), "{error}");
    assert!(load(&["--sabotage=keep-echo"], &[]).expect_err("refused").contains("unless --redis is given"));
    load(&["--sabotage=keep-echo", "--redis=redis://h"], &[]).expect("valid");
}

#[test]
fn help_and_version_are_printed() {
    for args in [&["--help"][..], &["-h"], &["--version"], &["version"]] {
        let Ok(Action::Print(text)) = load_in(Path::new("/nonexistent"), args, &[]) else { panic!("{args:?}") };
        assert!(text.contains(if args[0].ends_with('h') || args[0] == "--help" { "--ping-interval" } else { "0." }));
    }
}
