//! The page's files, asked for again by who has kept them.

use super::*;

/// The value of the one header line of that name; none without it.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let mut found = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = found.next();
    assert!(found.next().is_none(), "{name} once in {head}");
    value
}

fn ask(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

/// What must be said with every answer, since a 304 renews what is kept.
const KEPT: [&str; 6] = [
    "etag",
    "cache-control",
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "access-control-allow-origin",
];

#[test]
fn a_file_that_is_known_is_not_sent_again() {
    run(async {
        let mut server = Server::start(rules(), limits());
        let mut tags = HashSet::new();
        for path in ["/", "/style.css", "/app.js", "/roomcast.js"] {
            let first = server.ask(ask("GET", path, "")).await;
            assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
            let tag = header(&first, "etag").expect("a tag").to_owned();
            assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 34, "strong: {tag}");
            assert_eq!(header(&first, "cache-control"), Some("no-cache"), "asked for again at each use");
            for method in ["GET", "HEAD"] {
                let again = server.ask(ask(method, path, &format!("If-None-Match: {tag}\r\n"))).await;
                assert!(again.starts_with("HTTP/1.1 304 ") && again.ends_with("\r\n\r\n"), "{again}");
                for name in KEPT {
                    assert_eq!(header(&again, name), header(&first, name), "{method} {path} {name}");
                }
                for name in ["content-length", "transfer-encoding", "content-type"] {
                    assert_eq!(header(&again, name), None, "there is no body: {again}");
                }
            }
            assert!(tags.insert(tag), "{path} has another's");
        }
        for _ in 0..12 {
            assert_eq!(server.outcome().await, Outcome::Page);
        }
    });
}

#[test]
fn only_the_version_that_is_served_counts_as_known() {
    run(async {
        let server = Server::start(rules(), limits());
        let whole = server.ask(ask("GET", "/app.js", "")).await;
        let tag = header(&whole, "etag").expect("a tag");
        let other = server.ask(ask("GET", "/", "")).await;
        let other = header(&other, "etag").expect("a tag");
        for known in [
            "If-None-Match: *\r\n".to_owned(),
            format!("If-None-Match: W/{tag}\r\n"),
            format!("If-None-Match: {other}, W/\"a,b\" ,{tag}\r\n"),
            format!("If-None-Match: {other}\r\nIf-None-Match: {tag}\r\n"),
            format!("If-None-Match: {tag}\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        ] {
            let answer = server.ask(ask("GET", "/app.js", &known)).await;
            assert!(answer.starts_with("HTTP/1.1 304 "), "{known}{answer}");
        }
        let length = header(&whole, "content-length").expect("a length");
        for unknown in [
            format!("If-None-Match: {other}\r\n"),
            format!("If-None-Match: {}\r\n", tag.trim_matches('"')),
            format!("If-None-Match: \"{}\r\n", "x".repeat(4000)),
            "If-None-Match:\r\n".to_owned(),
            "If-None-Match: \u{e9}\r\n".to_owned(),
            "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n".to_owned(),
        ] {
            assert_eq!(
                server.ask(ask("GET", "/app.js", &unknown)).await.split_once("\r\n\r\n").map(|(_, body)| body),
                whole.split_once("\r\n\r\n").map(|(_, body)| body),
                "{unknown}"
            );
            let head = server.ask(ask("HEAD", "/app.js", &unknown)).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
            assert_eq!((header(&head, "content-length"), header(&head, "etag")), (Some(length), Some(tag)));
        }
        let nothing = server.ask(ask("GET", "/nothing", "If-None-Match: *\r\n")).await;
        assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
        let posted = server.ask(ask("POST", "/app.js", "If-None-Match: *\r\nContent-Length: 0\r\n")).await;
        assert!(!posted.starts_with("HTTP/1.1 304 ") && !posted.starts_with("HTTP/1.1 200 "), "{posted}");
    });
}
