//! Messages from backends: to one room, or the same one to many.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::body::Incoming;
use hyper::{HeaderMap, StatusCode};
use roomcast_protocol::{MAX_DATA_DEPTH, RoomName, check_display_name, checked_id, is_shallow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::object;
use super::problem::{Code, Problem, ProblemJson};
use super::{Api, Asked, BODY_BYTES, Done};
use crate::broker::Subject;
use crate::hub::{Placed, Posting};
use crate::server::handshake::only;

/// The header that a backend may give its message's id in.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Rooms that one request may publish to.
pub(super) const MOST_ROOMS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many<'a> {
    #[serde(borrow)]
    rooms: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

/// A message's place, for whoever published it.
#[derive(Serialize)]
struct PlacedJson {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    duplicate: bool,
}

impl From<Placed> for PlacedJson {
    fn from(placed: Placed) -> Self {
        let Placed { id, position, ts, duplicate } = placed;
        let (term, seq) = position.map(|(term, seq)| (term.to_string(), seq)).unzip();
        Self { id: id.to_string(), seq, term, ts, duplicate }
    }
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    room: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<PlacedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemJson<'a>>,
}

#[derive(Serialize)]
struct OutcomesJson<'a> {
    accepted: usize,
    failed: usize,
    outcomes: Vec<OutcomeJson<'a>>,
}

impl Api {
    pub(super) async fn publish(&self, asked: &Asked<'_>, body: Incoming) -> Result<Done, Problem> {
        let room = asked.room()?;
        let body = self.body(asked, body, self.settings.max_message_bytes + BODY_BYTES).await?;
        let One { data, id, name } = object(&body)?;
        let posting = self.posting(asked, data, id, name.as_deref())?;
        let placed = self.shard.publish_for(&room, posting).await?;
        Done::ok(&PlacedJson::from(placed))
    }

    pub(super) async fn publish_many(&self, asked: &Asked<'_>, body: Incoming) -> Result<Done, Problem> {
        let body = self.body(asked, body, self.settings.max_message_bytes + BODY_BYTES).await?;
        let Many { rooms, data, id, name } = object(&body)?;
        let posting = self.posting(asked, data, id, name.as_deref())?;
        let rooms = checked_rooms(&rooms)?;
        let results = join_all(rooms.iter().map(|room| self.shard.publish_for(room, posting.clone()))).await;
        let results: Vec<Result<Placed, Problem>> =
            results.into_iter().map(|result| result.map_err(Problem::from)).collect();
        let outcomes: Vec<OutcomeJson<'_>> =
            rooms.iter().zip(&results).map(|(room, result)| outcome(room, result)).collect();
        let failed = results.iter().filter(|result| result.is_err()).count();
        let status = if failed == 0 { StatusCode::OK } else { StatusCode::MULTI_STATUS };
        Done::json(status, &OutcomesJson { accepted: outcomes.len() - failed, failed, outcomes })
    }

    fn posting(
        &self,
        asked: &Asked<'_>,
        data: &RawValue,
        id: Option<Cow<'_, str>>,
        name: Option<&str>,
    ) -> Result<Posting, Problem> {
        let data = data.get();
        if !is_shallow(data) {
            let words = format!("`data` is nested deeper than {MAX_DATA_DEPTH} levels");
            return Err(Problem::new(Code::TooLarge, words));
        }
        if data.len() > self.settings.max_message_bytes {
            let most = self.settings.max_message_bytes;
            return Err(Problem::new(Code::TooLarge, format!("`data` is longer than {most} bytes")));
        }
        if let Some(name) = name {
            check_display_name(name)?;
        }
        Ok(Posting {
            id: idempotency(&asked.parts.headers, id)?.map(|id| Arc::from(&*id)),
            subject: subject(asked.key_name()),
            user: None,
            name: Arc::from(name.unwrap_or(asked.key_name())),
            data: Bytes::copy_from_slice(data.as_bytes()),
        })
    }
}

/// Whose ids those of a key are: the key's own, by its name, so that they outlive the key's replacement. No user is
/// called so: what a token says of one is text without control characters.
fn subject(key: &str) -> Subject {
    Subject::of(&format!("\0api-key\0{key}"))
}

/// The id of a message: its body's or, if that has none, the one of the header `Idempotency-Key`, bare or in quotes.
fn idempotency<'a>(headers: &'a HeaderMap, id: Option<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Problem> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let text = only(headers, IDEMPOTENCY_KEY);
        let bare = |text: &'a str| text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let key = text.map(bare).filter(|key| (1..=128).contains(&key.len()) && key.bytes().all(plain));
        let words = "expected one Idempotency-Key of 1 to 128 characters of ASCII, none of them blank, \" or \\";
        let key = key.ok_or_else(|| Problem::new(Code::BadRequest, words))?;
        if id.is_none() {
            return Ok(Some(Cow::Borrowed(key)));
        }
    }
    Ok(id.map(checked_id).transpose()?)
}

fn checked_rooms(texts: &[Cow<'_, str>]) -> Result<Vec<RoomName>, Problem> {
    if texts.is_empty() || texts.len() > MOST_ROOMS {
        return Err(Problem::new(Code::Invalid, format!("`rooms`: expected 1 to {MOST_ROOMS} rooms")));
    }
    let mut rooms: Vec<RoomName> = Vec::with_capacity(texts.len());
    for text in texts {
        let room = RoomName::new(text).map_err(|error| Problem::new(Code::BadRoom, error.to_string()))?;
        if rooms.contains(&room) {
            return Err(Problem::new(Code::Invalid, "`rooms`: a room is named more than once"));
        }
        rooms.push(room);
    }
    Ok(rooms)
}

fn outcome<'a>(room: &'a RoomName, result: &'a Result<Placed, Problem>) -> OutcomeJson<'a> {
    match result {
        Ok(placed) => {
            let message = Some(PlacedJson::from(placed.clone()));
            OutcomeJson { room: room.as_str(), status: StatusCode::OK.as_u16(), message, problem: None }
        }
        Err(problem) => {
            let status = problem.code.status().as_u16();
            OutcomeJson { room: room.as_str(), status, message: None, problem: Some(problem.json()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(header: Option<&'static str>, id: Option<&'static str>) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(IDEMPOTENCY_KEY, header.parse().expect("valid"));
        }
        let id = idempotency(&headers, id.map(Cow::Borrowed));
        id.map(|id| id.map(Cow::into_owned)).map_err(|problem| problem.code)
    }

    #[test]
    fn the_id_stands_in_the_body_or_the_header() {
        assert_eq!(id(None, None), Ok(None));
        assert_eq!(id(None, Some("a")), Ok(Some("a".to_owned())));
        assert_eq!(id(Some("a"), None), Ok(Some("a".to_owned())));
        assert_eq!(id(Some("\"a\""), Some("a")), Ok(Some("a".to_owned())));
        assert_eq!(id(Some("a"), Some("b")), Ok(Some("b".to_owned())), "the body is the message");
        for bad in ["\"\"", "\"a", "a b", "a\\b", ""] {
            assert_eq!(id(Some(bad), Some("a")), Err(Code::BadRequest), "{bad}");
        }
        assert_eq!(id(None, Some(&*"x".repeat(129).leak())), Err(Code::TooLarge));
    }

    #[test]
    fn rooms_are_few_valid_and_different() {
        let rooms = |texts: &[&str]| {
            let texts: Vec<Cow<'_, str>> = texts.iter().map(|text| Cow::Borrowed(*text)).collect();
            checked_rooms(&texts).map(|rooms| rooms.len()).map_err(|problem| problem.code)
        };
        assert_eq!(rooms(&["a", "b"]), Ok(2));
        assert_eq!(rooms(&[]), Err(Code::Invalid));
        assert_eq!(rooms(&["a", "a"]), Err(Code::Invalid));
        assert_eq!(rooms(&["a", "b c"]), Err(Code::BadRoom));
        assert_eq!(rooms(&["a"; MOST_ROOMS + 1]), Err(Code::Invalid));
    }

    #[test]
    fn keys_have_ids_of_their_own() {
        assert_ne!(subject("a"), subject("b"));
        assert_ne!(subject("a"), Subject::of("a"));
        assert_ne!(subject("a"), Subject::NOBODY);
    }
}
