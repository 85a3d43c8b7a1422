//! Reads what an API request brings: its body as JSON, its query. Bounded in bytes and time; knows no endpoint.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use roomcast_protocol::brief;
use serde::Deserialize;

use super::problem::{Code, Problem};
use crate::server::handshake::{decode, only};

/// The body of a request, which must be JSON of at most `limit` bytes and come within `patience`.
///
/// # Errors
/// 400, 408, 411, 413 or 415.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    let has_length = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if !has_length {
        return Err(Problem::new(Code::LengthRequired, "expected a body of JSON, with Content-Length or chunked"));
    }
    if !only(headers, CONTENT_TYPE).is_some_and(is_json) {
        return Err(Problem::new(Code::UnsupportedMediaType, "expected the header Content-Type: application/json"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(Code::UnsupportedMediaType, "expected a body without Content-Encoding"));
    }
    let too_large = || Problem::new(Code::TooLarge, format!("the body is longer than {limit} bytes"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(patience, Limited::new(body, limit).collect()).await;
    match read {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "the body was cut off")),
        Err(_) => Err(Problem::new(Code::Timeout, "the body did not come in time")),
    }
}

fn is_json(value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// A JSON object out of a body.
///
/// # Errors
/// 400 if it is no JSON object, 422 if its fields are not what is expected.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::new(Code::BadRequest, "the body is not UTF-8"))?;
    // serde would take an array for an object's fields in their order.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(Problem::new(Code::BadRequest, "expected a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadRequest };
        Problem::new(code, brief(&error))
    })
}

/// The parameters of a query, each at most once.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query that may have these parameters and no others.
    ///
    /// # Errors
    /// 400.
    pub(super) fn read(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadRequest, detail);
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part| decode(part, true).map_err(|refusal| Problem::new(Code::BadRequest, refusal.detail));
            let (key, value) = (text(key)?, text(value)?);
            if !known.contains(&&*key) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("unknown query parameter: this path has {known}")));
            }
            if pairs.iter().any(|(seen, _)| *seen == key) {
                return Err(bad("a query parameter is given more than once".to_owned()));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// A parameter as text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// A parameter as a whole number within `range`.
    ///
    /// # Errors
    /// 400.
    pub(super) fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(key) else { return Ok(None) };
        // `+5` would parse, and is written `%2B5`.
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let (low, high) = range.into_inner();
            Problem::new(Code::BadRequest, format!("{key}: expected a whole number from {low} to {high}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        a: u8,
    }

    #[test]
    fn only_objects_with_the_right_fields_pass() {
        assert_eq!(object::<Wanted>(b" {\"a\": 1} ").expect("valid").a, 1);
        for (body, code) in [
            (&b""[..], Code::BadRequest),
            (b"[1]", Code::BadRequest),
            (b"nonsense", Code::BadRequest),
            (b"{\"a\":1", Code::BadRequest),
            (b"{\"a\":1}x", Code::BadRequest),
            (b"{\"a\":\xff}", Code::BadRequest),
            (b"{\"a\":256}", Code::Invalid),
            (b"{\"a\":\"1\"}", Code::Invalid),
            (b"{}", Code::Invalid),
            (b"{\"a\":1,\"a\":1}", Code::Invalid),
            (b"{\"a\":1,\"b\":1}", Code::Invalid),
        ] {
            assert_eq!(object::<Wanted>(body).expect_err("refused").code, code, "{body:?}");
        }
    }

    #[test]
    fn queries_are_read_exactly() {
        let query = Query::read(Some("limit=5&prefix=a%2Bb+c"), &["limit", "prefix"]).expect("valid");
        assert_eq!((query.number("limit", 1..=9), query.text("prefix")), (Ok(Some(5)), Some("a+b c")));
        assert_eq!(query.number("after", 1..=9), Ok(None));
        for bad in ["x=1", "limit=1&limit=1", "limit=%zz", "%ff=1"] {
            assert!(Query::read(Some(bad), &["limit"]).is_err(), "{bad}");
        }
        for bad in
            ["limit=", "limit=0", "limit=10", "limit=-1", "limit=%2B5", "limit=5.0", "limit=99999999999999999999"]
        {
            let query = Query::read(Some(bad), &["limit"]).expect("it is known");
            assert!(query.number("limit", 1..=9).is_err(), "{bad}");
        }
    }
}
