//! The page that is built into the binary.
//!
//! Plain files without a build step, so that a node alone is enough to chat from two tabs. The page stands on the client
//! library, which is embedded from where it is kept and published.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use ring::digest;

use super::api::Video;

/// Nothing but our own files and sockets; current browsers count a socket to the same host as `'self'`.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      frame-ancestors 'none'; form-action 'none'";

/// The client library. Pages of other origins import it, too, and browsers do that with CORS alone.
const CLIENT: &str = "/roomcast.js";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Each file's path, content type and bytes.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("page/style.css")),
    ("/app.js", SCRIPT, include_bytes!("page/app.js")),
    ("/rooms.js", SCRIPT, include_bytes!("page/rooms.js")),
    ("/log.js", SCRIPT, include_bytes!("page/log.js")),
    ("/video.js", SCRIPT, include_bytes!("page/video.js")),
    ("/settings.js", SCRIPT, include_bytes!("page/settings.js")),
    ("/words.js", SCRIPT, include_bytes!("page/words.js")),
    ("/english.js", SCRIPT, include_bytes!("page/english.js")),
    ("/russian.js", SCRIPT, include_bytes!("page/russian.js")),
    (CLIENT, SCRIPT, include_bytes!("../../../clients/js/src/roomcast.js")),
];

/// Bytes of a hash that name a version.
const TAG_BYTES: usize = 16;

/// The page as one worker serves it.
pub(super) struct Pages {
    policy: HeaderValue,
    /// Of [`FILES`], in their order.
    tags: Vec<HeaderValue>,
}

impl Pages {
    pub(super) fn new(video: Option<&Video>) -> Self {
        let policy = policy(video);
        let tags = FILES.iter().map(|(_, _, bytes)| tag(&policy, bytes)).collect();
        Self { policy, tags }
    }

    /// The answer to a GET or HEAD of a file; none if there is no such file.
    pub(super) fn response<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        if *request.method() != Method::GET && *request.method() != Method::HEAD {
            return None;
        }
        let ((path, content_type, bytes), tag) =
            FILES.iter().zip(&self.tags).find(|((path, ..), _)| *path == request.uri().path())?;
        let known = request.headers().get_all(IF_NONE_MATCH).iter().any(|list| names(list.as_bytes(), tag.as_bytes()));
        let mut response = if known {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(Full::new(Bytes::from_static(bytes)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        };
        // A 304 has these as well: they replace what a browser keeps.
        let headers = response.headers_mut();
        headers.insert(ETAG, tag.clone());
        // To be kept, and asked for at each use: a page and its scripts are of one version.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        if *path == CLIENT {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(response)
    }
}

/// The version of a file, quoted. The policy is a part of it: not every cache takes over a new one from a 304.
fn tag(policy: &HeaderValue, bytes: &[u8]) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(policy.as_bytes());
    hash.update(bytes);
    let hash = hash.finish();
    let mut tag = String::from("\"");
    for byte in hash.as_ref().iter().take(TAG_BYTES) {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    // Hex digits are header text: this does not fail.
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether an `If-None-Match` names this version, weakly or strongly: `*`, or a list of tags.
fn names(list: &[u8], tag: &[u8]) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    // A tag may hold commas, so the quotes say where it ends. Places may be empty; behind what is no tag nothing is read.
    loop {
        while let [b' ' | b'\t' | b',', behind @ ..] = rest {
            rest = behind;
        }
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(end) = rest.strip_prefix(b"\"").and_then(|tag| tag.iter().position(|byte| *byte == b'"')) else {
            return false;
        };
        let (found, behind) = rest.split_at(end + 2);
        if found == tag {
            return true;
        }
        if !behind.trim_ascii_start().starts_with(b",") {
            return false;
        }
        rest = behind;
    }
}

/// What the page may load and where it may connect: to its own host, and for video to LiveKit and the host of LiveKit's
/// client, exactly.
fn policy(video: Option<&Video>) -> HeaderValue {
    let (mut scripts, mut sockets) = (String::new(), String::new());
    // Without a module the page cannot join a call.
    if let Some((video, module)) = video.and_then(|video| Some((video, video.module()?))) {
        sockets = format!(" {} {}", video.url().origin(), video.url().http_origin());
        scripts = module.origin().map(|origin| format!(" {origin}")).unwrap_or_default();
    }
    let policy = format!("{POLICY}; script-src 'self'{scripts}; connect-src 'self'{sockets}");
    // The settings let nothing through that is no header text.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::Settings;

    fn parts(video: Option<&Video>) -> (String, String) {
        let policy = policy(video);
        let policy = policy.to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        let part = |name: &str| {
            let part = policy.split("; ").find_map(|part| part.strip_prefix(name));
            part.unwrap_or_else(|| panic!("{name} in {policy}")).trim().to_owned()
        };
        (part("script-src"), part("connect-src"))
    }

    fn with(module: Option<&str>) -> Option<Video> {
        let module = module.map(|url| url.parse().expect("a module"));
        let mut settings = Settings::default();
        settings.http_api.livekit_url = Some("wss://lk.example.com:7443/x".parse().expect("a socket"));
        settings.http_api.livekit_api_key = Some("key".to_owned());
        settings.http_api.livekit_api_secret = Some("secret".parse().expect("any text"));
        settings.http_api.livekit_client_url = module;
        Video::of(&settings)
    }

    #[test]
    fn each_version_has_a_tag_of_its_own() {
        let pages = Pages::new(None);
        let distinct: HashSet<&HeaderValue> = pages.tags.iter().collect();
        assert_eq!(distinct.len(), FILES.len());
        assert_eq!(pages.tags, Pages::new(None).tags, "all workers, and all nodes, have the same");
        let (policy, other) = (policy(None), policy(with(Some("/livekit.mjs")).as_ref()));
        assert_ne!(tag(&policy, b"a"), tag(&policy, b"b"));
        assert_ne!(tag(&policy, b"a"), tag(&other, b"a"), "what is kept has the old policy");
    }

    #[test]
    fn a_list_of_tags_is_read_to_its_end() {
        let tag = b"\"ab12\"";
        for list in [
            "*",
            " * ",
            "\"ab12\"",
            "W/\"ab12\"",
            "\"x\", \"ab12\"",
            "\"\",W/\"y\" ,\tW/\"ab12\"",
            "\"a,b\",\"ab12\"",
            ", ,\"x\",,\"ab12\",",
        ] {
            assert!(names(list.as_bytes(), tag), "{list}");
        }
        for list in [
            "",
            ",",
            "ab12",
            "\"ab12",
            "ab12\"",
            "\"AB12\"",
            "\"ab12-gzip\"",
            "w/\"ab12\"",
            "W/ \"ab12\"",
            "\"x\" \"ab12\"",
            "\"*\"",
            "*, \"x\"",
            "\"x, \"ab12\"",
            "W/",
            "\"",
            "\"\"",
        ] {
            assert!(!names(list.as_bytes(), tag), "{list}");
        }
    }

    #[test]
    fn the_client_may_be_imported_from_anywhere_and_the_page_may_not() {
        let pages = Pages::new(None);
        let open = |path: &str| {
            let answer = pages.response(&Request::get(path).body(()).expect("a request")).expect("a file");
            answer.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().expect("text").to_owned())
        };
        assert_eq!(open("/roomcast.js").as_deref(), Some("*"));
        for path in ["/", "/style.css", "/app.js"] {
            assert_eq!(open(path), None, "{path}");
        }
    }

    #[test]
    fn only_what_video_needs_is_let_in() {
        let own = ("'self'".to_owned(), "'self'".to_owned());
        assert_eq!(parts(None), own);
        let sockets = "'self' wss://lk.example.com:7443 https://lk.example.com:7443".to_owned();
        let video = with(Some("https://cdn.example.com/livekit.mjs"));
        assert_eq!(parts(video.as_ref()), ("'self' https://cdn.example.com".to_owned(), sockets.clone()));
        assert_eq!(parts(with(Some("/livekit.mjs")).as_ref()), ("'self'".to_owned(), sockets));
        assert_eq!(parts(with(None).as_ref()), own, "no module, no video on the page");
    }
}
