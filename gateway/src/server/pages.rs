//! The page that is built into the binary.
//!
//! Plain files without a build step, so that a node alone is enough to chat from two tabs. The page stands on the client
//! library, which is embedded from where it is kept and published.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response};

use super::api::Video;

/// Nothing but our own files and sockets; current browsers count a socket to the same host as `'self'`.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      frame-ancestors 'none'; form-action 'none'";

/// The client library. Pages of other origins import it, too, and browsers do that with CORS alone.
const CLIENT: &str = "/roomcast.js";

/// The file at `path` with its content type.
pub fn page(path: &str) -> Option<(&'static str, &'static [u8])> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    Some(match path {
        "/" => ("text/html; charset=utf-8", include_bytes!("page/index.html")),
        "/style.css" => ("text/css; charset=utf-8", include_bytes!("page/style.css")),
        "/app.js" => (SCRIPT, include_bytes!("page/app.js")),
        "/rooms.js" => (SCRIPT, include_bytes!("page/rooms.js")),
        "/log.js" => (SCRIPT, include_bytes!("page/log.js")),
        "/video.js" => (SCRIPT, include_bytes!("page/video.js")),
        "/settings.js" => (SCRIPT, include_bytes!("page/settings.js")),
        "/words.js" => (SCRIPT, include_bytes!("page/words.js")),
        "/english.js" => (SCRIPT, include_bytes!("page/english.js")),
        "/russian.js" => (SCRIPT, include_bytes!("page/russian.js")),
        CLIENT => (SCRIPT, include_bytes!("../../../clients/js/src/roomcast.js")),
        _ => return None,
    })
}

/// What the page may load and where it may connect: to its own host, and for video to LiveKit and the host of LiveKit's
/// client, exactly.
pub(super) fn policy(video: Option<&Video>) -> HeaderValue {
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

/// The answer to a GET or HEAD of `path`, if there is a page.
pub(super) fn response(method: &Method, path: &str, policy: &HeaderValue) -> Option<Response<Full<Bytes>>> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let (content_type, bytes) = page(path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(bytes)));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    if path == CLIENT {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_client_may_be_imported_from_anywhere_and_the_page_may_not() {
        let open = |path: &str| {
            let answer = response(&Method::GET, path, &policy(None)).expect("a file");
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
        let with = |module: Option<&str>| {
            let module = module.map(|url| url.parse().expect("a module"));
            let mut settings = Settings::default();
            settings.http_api.livekit_url = Some("wss://lk.example.com:7443/x".parse().expect("a socket"));
            settings.http_api.livekit_api_key = Some("key".to_owned());
            settings.http_api.livekit_api_secret = Some("secret".parse().expect("any text"));
            settings.http_api.livekit_client_url = module;
            Video::of(&settings)
        };
        let sockets = "'self' wss://lk.example.com:7443 https://lk.example.com:7443".to_owned();
        let video = with(Some("https://cdn.example.com/livekit.mjs"));
        assert_eq!(parts(video.as_ref()), ("'self' https://cdn.example.com".to_owned(), sockets.clone()));
        assert_eq!(parts(with(Some("/livekit.mjs")).as_ref()), ("'self'".to_owned(), sockets));
        assert_eq!(parts(with(None).as_ref()), own, "no module, no video on the page");
    }
}
