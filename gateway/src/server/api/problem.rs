//! What an API request is told when it fails: one table of codes, and the answer as RFC 9457 has it.
//!
//! Codes that the wire protocol has too are spelt the same. Made by every part of the API.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use roomcast_protocol::{ErrorCode, FrameError};
use serde::Serialize;

use crate::hub::Refused;

/// Seconds after which a request is worth another try when the node has nothing better to say.
const RETRY_AFTER_SECONDS: u64 = 1;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $status:ident, $title:literal, $retryable:literal;)*) => {
        /// Why a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

codes! {
    /// The path, the query or the JSON cannot be read.
    BadRequest, "bad_request", BAD_REQUEST, "The request cannot be understood", false;
    /// A room name outside its rule.
    BadRoom, "bad_room", BAD_REQUEST, "No valid room name", false;
    /// No key or token, or a wrong one.
    Unauthorized, "unauthorized", UNAUTHORIZED, "No valid credentials", false;
    /// No key is configured.
    ApiDisabled, "api_disabled", FORBIDDEN, "The API is not enabled", false;
    /// The key lacks the scope, the token the right.
    Forbidden, "forbidden", FORBIDDEN, "Not allowed", false;
    /// The client is not in the room.
    NotJoined, "not_joined", FORBIDDEN, "Not a member of the room", false;
    /// Nothing is at this path.
    NotFound, "not_found", NOT_FOUND, "Nothing here", false;
    /// Not with this method.
    MethodNotAllowed, "method_not_allowed", METHOD_NOT_ALLOWED, "Not with this method", false;
    /// The body did not come in time.
    Timeout, "timeout", REQUEST_TIMEOUT, "The body took too long", true;
    /// An idempotency key too old to know.
    StaleId, "stale_id", CONFLICT, "The id is too old", false;
    /// A body without a length.
    LengthRequired, "length_required", LENGTH_REQUIRED, "A body is needed", false;
    /// The body or a field is too long.
    TooLarge, "too_large", PAYLOAD_TOO_LARGE, "Too large", false;
    /// No JSON.
    UnsupportedMediaType, "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Only JSON is understood", false;
    /// JSON, but not what is expected.
    Invalid, "invalid", UNPROCESSABLE_ENTITY, "The body is not what is expected", false;
    /// Too fast.
    RateLimited, "rate_limited", TOO_MANY_REQUESTS, "Too many requests", true;
    /// A fault of the server.
    Internal, "internal", INTERNAL_SERVER_ERROR, "Something is wrong with the server", true;
    /// Too much is in flight.
    Overloaded, "overloaded", SERVICE_UNAVAILABLE, "Too much is in flight", true;
    /// The node is going away.
    Draining, "draining", SERVICE_UNAVAILABLE, "This node is going away", true;
    /// No place for another connection.
    TooManyConnections, "too_many_connections", SERVICE_UNAVAILABLE, "Too many connections", true;
    /// The broker cannot be reached.
    BrokerUnavailable, "broker_unavailable", SERVICE_UNAVAILABLE, "The broker cannot be reached", true;
    /// The keys of the token's issuer could not be fetched yet.
    KeysUnavailable, "keys_unavailable", SERVICE_UNAVAILABLE, "The issuer's keys are not known yet", true;
    /// The broker's memory is full.
    StorageFull, "storage_full", SERVICE_UNAVAILABLE, "The broker's memory is full", true;
    /// Sent to the broker, and not answered.
    Undecided, "undecided", GATEWAY_TIMEOUT, "Sent, but not answered", true;
}

/// A failed request. Its words never repeat what the client sent, but for what a JSON parser quotes, cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    detail: Cow<'static, str>,
    /// For 405.
    allow: Option<String>,
    /// Seconds, for 429 and 503.
    retry_after: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProblemJson<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    retryable: bool,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), allow: None, retry_after: None }
    }

    /// 405 of a path that takes these methods.
    pub(super) fn method(allow: String) -> Self {
        let detail = format!("this path takes {allow}");
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, detail) }
    }

    /// 429 that ends after so many seconds.
    pub(super) fn slow_down(detail: &'static str, seconds: u64) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::new(Code::RateLimited, detail) }
    }

    /// The problem as an object, for an answer with several.
    pub(super) fn json(&self) -> ProblemJson<'_> {
        ProblemJson {
            kind: format!("urn:roomcast:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            retryable: self.code.retryable(),
        }
    }

    /// The answer, with the headers that its status asks for.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::to_vec(&self.json()).unwrap_or_default();
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"roomcast\""));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        let status = self.code.status();
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, self.retry_after.unwrap_or(RETRY_AFTER_SECONDS).into());
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::new(Code::from(refused.code), refused.words)
    }
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Self {
        let code = match error.code {
            ErrorCode::BadFrame => Code::Invalid,
            code => Code::from(code),
        };
        Self::new(code, error.message)
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BadFrame | ErrorCode::UnknownType => Self::BadRequest,
            ErrorCode::BadRoom => Self::BadRoom,
            ErrorCode::NotJoined => Self::NotJoined,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::RateLimited => Self::RateLimited,
            ErrorCode::TooLarge => Self::TooLarge,
            ErrorCode::StaleId => Self::StaleId,
            ErrorCode::Overloaded => Self::Overloaded,
            ErrorCode::BrokerUnavailable => Self::BrokerUnavailable,
            ErrorCode::StorageFull => Self::StorageFull,
            ErrorCode::Undecided => Self::Undecided,
            // Nothing that an API request can meet.
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_the_wire_has_too_are_spelt_the_same() {
        for code in [
            ErrorCode::BadRoom,
            ErrorCode::NotJoined,
            ErrorCode::Forbidden,
            ErrorCode::RateLimited,
            ErrorCode::TooLarge,
            ErrorCode::StaleId,
            ErrorCode::Overloaded,
            ErrorCode::BrokerUnavailable,
            ErrorCode::StorageFull,
            ErrorCode::Undecided,
            ErrorCode::Internal,
        ] {
            assert_eq!((Code::from(code).as_str(), Code::from(code).retryable()), (code.as_str(), code.retryable()));
        }
    }

    #[test]
    fn statuses_bring_their_headers() {
        let headers = |problem: Problem| problem.response().headers().clone();
        assert!(headers(Problem::new(Code::Unauthorized, "x")).contains_key(WWW_AUTHENTICATE));
        assert_eq!(headers(Problem::method("GET, HEAD".to_owned()))[ALLOW], "GET, HEAD");
        assert_eq!(headers(Problem::slow_down("x", 7))[RETRY_AFTER], "7");
        for code in Code::ALL.iter().filter(|code| code.status() == StatusCode::SERVICE_UNAVAILABLE) {
            assert!(code.retryable() && headers(Problem::new(*code, "x")).contains_key(RETRY_AFTER), "{code:?}");
        }
    }
}
