//! Receivers of webhooks.

use std::path::Path;

use super::super::{Action, EventKind, RoomPattern, Settings};
use super::{load, load_in};

const SECRET: &str = "0123456789abcdef";

fn from_file(text: &str, args: &[&str]) -> Result<Settings, String> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("key"), "fedcba9876543210\n").expect("written");
    let file = directory.path().join("x.toml");
    std::fs::write(&file, text).expect("written");
    let args: Vec<&str> = ["--config", file.to_str().expect("UTF-8")].into_iter().chain(args.iter().copied()).collect();
    load(&args, &[])
}

#[test]
fn one_receiver_is_made_of_settings() {
    assert!(load(&[], &[]).expect("valid").outward.webhooks.is_empty());
    let env = [("ROOMCAST_WEBHOOK_URL", "https://h/x?k=v"), ("ROOMCAST_WEBHOOK_SECRET", SECRET)];
    let settings =
        load(&["--webhook-events", "member_left,message_published", "--webhook-rooms=a*,b?"], &env).expect("valid");
    let [webhook] = &settings.outward.webhooks[..] else { panic!("{settings:?}") };
    assert_eq!((&*webhook.name, webhook.url.as_str(), webhook.secret.expose()), ("default", "https://h/x?k=v", SECRET));
    assert_eq!(webhook.events, [EventKind::MemberLeft, EventKind::MessagePublished]);
    let rooms: Vec<&str> = webhook.rooms.iter().map(RoomPattern::as_str).collect();
    assert_eq!(rooms, ["a*", "b?"]);
    assert!(!format!("{settings:?}").contains(SECRET));
}

#[test]
fn the_file_may_have_several_that_take_the_rest_from_settings() {
    let text = "webhook_events = [\"room_vacated\"]\nwebhook_secret = \"0123456789abcdef\"\n\
                [[webhooks]]\nurl = \"http://one/\"\n\
                [[webhooks]]\nname = \"two\"\nurl = \"http://two/\"\nsecret_file = \"key\"\nrooms = [\"x\"]\n\
                events = [\"room_occupied\"]\n";
    let settings = from_file(text, &["--webhook-url=http://zero/", "--outbound-http"]).expect("valid");
    let shown: Vec<_> = settings
        .outward
        .webhooks
        .iter()
        .map(|hook| (&*hook.name, hook.url.as_str(), hook.secret.expose(), hook.events[0], hook.rooms[0].as_str()))
        .collect();
    let own = "fedcba9876543210";
    assert_eq!(
        shown,
        [
            ("default", "http://zero/", SECRET, EventKind::RoomVacated, "*"),
            ("1", "http://one/", SECRET, EventKind::RoomVacated, "*"),
            ("two", "http://two/", own, EventKind::RoomOccupied, "x"),
        ]
    );
}

#[test]
fn what_cannot_work_is_refused_with_words() {
    let (long, asking) = (format!("--webhook-secret={SECRET}"), format!("--authorize-secret={SECRET}"));
    for (args, words) in [
        (&["--webhook-url=https://h/"][..], "from default: expected a secret to sign"),
        (
            &["--webhook-url=https://h/", "--webhook-secret=short"],
            "is \"***\", from command line: expected at least 16",
        ),
        (&[&*long], "expected nothing, unless --webhook-url"),
        (&["--webhook-url=ftp://h/"], "expected https://host[:port]/path"),
        (&["--webhook-url=https:///x"], "expected https://host"),
        (&["--webhook-url=https://u:p@h/"], "without user and password"),
        (
            &["--webhook-url=http://other/", &long],
            "expected https:// for webhook \"default\" on another machine, or --outbound-http",
        ),
        (&["--authorize-url=https://h/"], "(ROOMCAST_AUTHORIZE_SECRET) is \"***\", from default: expected a secret"),
        (&["--authorize-url=https://h/", "--authorize-secret=short"], "expected at least 16 bytes"),
        (&["--authorize-url=http://h/", &*asking], "expected https:// for another machine, or --outbound-http"),
        (&[&*asking], "expected nothing, unless --authorize-url"),
        (&["--webhook-events=joined"], "expected events, comma-separated: room_occupied, room_vacated"),
        (&["--webhook-rooms=a b"], "expected 1 to 128 of the characters of a room name"),
    ] {
        let error = load(args, &[]).expect_err("refused");
        assert!(error.contains(words), "{args:?}: {error}");
        assert!(!error.contains("short") && !error.contains(SECRET), "{error}");
    }
    let hook = "[[webhooks]]\nurl = \"https://h/\"\nsecret = \"0123456789abcdef\"\n";
    for (text, words) in [
        ("webhooks = 1".to_owned(), "webhooks: expected [[webhooks]] tables"),
        ("[[webhooks]]\nname = \"a\"".to_owned(), "number 1: missing field `url`"),
        (format!("{hook}colour = 1"), "number 1: unknown field `colour`"),
        (format!("{hook}name = \"a b\""), "name is \"a b\": expected 1 to 32"),
        (format!("{hook}name = \"x\"\n{hook}name = \"x\""), "number 2: name is \"x\": expected another one"),
        (format!("{hook}name = \"default\""), "expected another one"),
        (format!("{hook}secret_file = \"key\""), "expected secret or secret_file, not both"),
        (format!("{hook}events = [\"x\"]"), "events: expected events"),
        (format!("{hook}rooms = [\"\"]"), "rooms: expected 1 to 128"),
        ("[[webhooks]]\nurl = \"https://h/\"\nsecret_file = \"nowhere\"".to_owned(), "nowhere: No such file"),
        ("[[webhooks]]\nurl = \"https://h/\"\nsecret = \"hunter2\"".to_owned(), "secret: expected at least 16 bytes"),
        (
            "[[webhooks]]\nurl = \"https://h/\"\nsecret = 7777777777777777".to_owned(),
            "secret: expected a text in quotes",
        ),
        ("[[webhooks]]\nurl = \"https://h/\"".to_owned(), "expected a secret to sign what webhook \"1\" is told"),
        (hook.repeat(17), "17 [[webhooks]]: expected at most 16"),
    ] {
        let error = from_file(&text, &[]).expect_err(&text);
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("7777") && !error.contains(SECRET), "{error}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    let text = format!("[[webhooks]]\nurl = \"https://h/\"\nsecret = \"{SECRET}\"\n");
    std::fs::write(&file, text).expect("written");
    let secret = format!("--webhook-secret={SECRET}");
    let args = ["config", "--config", file.to_str().expect("UTF-8"), "--webhook-url=https://g/", &secret];
    let Ok(Action::Print(text)) = load_in(Path::new("/nonexistent"), &args, &[]) else { panic!("config prints") };
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains("webhook_url = \"https://g/\" # command line"), "{text}");
    assert!(text.contains("[[webhooks]]\nname = \"1\"\nurl = \"https://h/\"\nsecret = \"***\""), "{text}");
}
