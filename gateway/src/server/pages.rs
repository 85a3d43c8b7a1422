//! The page that is built into the binary.
//!
//! Plain files without a build step, so that a node alone is enough to chat from two tabs. The page stands on the client
//! library, which is embedded from where it is kept and published.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response};

/// Nothing but our own files and sockets; current browsers count a socket to the same host as `'self'`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

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
        "/roomcast.js" => (SCRIPT, include_bytes!("../../../clients/js/src/roomcast.js")),
        _ => return None,
    })
}

/// The answer to a GET or HEAD of `path`, if there is a page.
pub(super) fn response(method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let (content_type, bytes) = page(path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(bytes)));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}
