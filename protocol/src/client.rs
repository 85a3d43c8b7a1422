//! Frames that a client sends.
//!
//! Decoding borrows from the frame: `data` is passed through as the text the client wrote, never as a tree.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{ErrorCode, MAX_DATA_DEPTH, MAX_NAME_BYTES, MAX_REF_BYTES, RoomName, Term};

/// Where a client left off in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The term of the last message seen.
    pub term: Term,
    /// Its seq.
    pub seq: u64,
}

impl std::str::FromStr for Since {
    type Err = ErrorCode;

    /// Reads `<term>:<seq>`, as it stands in a query string.
    fn from_str(text: &str) -> Result<Self, ErrorCode> {
        let (term, seq) = text.split_once(':').ok_or(ErrorCode::BadFrame)?;
        Ok(Self {
            term: Term::new(term).map_err(|_| ErrorCode::BadFrame)?,
            seq: seq.parse().map_err(|_| ErrorCode::BadFrame)?,
        })
    }
}

/// A request, checked as far as it can be without knowing the session.
#[derive(Debug, PartialEq)]
pub enum ClientFrame<'a> {
    /// Join a room, or a new one.
    Join { room: Option<RoomName>, since: Option<Since> },
    /// Leave a room.
    Leave { room: RoomName },
    /// Send `data` to a room.
    Publish { room: Option<RoomName>, data: &'a str, id: Option<Cow<'a, str>>, echo: bool },
    /// Change the display name.
    Rename { name: Cow<'a, str> },
    /// Read stored messages.
    History { room: RoomName, before: Option<u64>, after: Option<u64>, limit: Option<usize> },
    /// Read who is in a room.
    Members { room: RoomName, cursor: Option<Cow<'a, str>>, limit: Option<usize> },
    /// Bring a newer token.
    Refresh { token: Cow<'a, str> },
    /// Ask for a `pong`.
    Ping,
}

/// What is wrong with a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The code of the answer.
    pub code: ErrorCode,
    /// The answer's words, for the developer of the client.
    pub message: String,
}

/// A frame that could not be understood, with its `ref` if at least that could be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// The raw JSON of `ref`.
    pub reference: Option<&'a str>,
    /// Code and words.
    pub error: FrameError,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(borrow, default)]
    since: Option<RawSince<'a>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    before: Option<u64>,
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
}

/// Keeps `"data": null` apart from no `data`: null is JSON too.
fn present<'de, D: serde::Deserializer<'de>>(de: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&'de RawValue>::deserialize(de).map(Some)
}

#[derive(Deserialize)]
struct RawSince<'a> {
    #[serde(borrow)]
    term: Cow<'a, str>,
    seq: u64,
}

#[derive(Deserialize)]
struct OnlyRef<'a> {
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
}

fn bad(code: ErrorCode, message: impl Into<String>) -> FrameError {
    FrameError { code, message: message.into() }
}

impl<'a> ClientFrame<'a> {
    /// Decodes one text frame into its `ref` (raw JSON: a string or a number) and the request.
    ///
    /// # Errors
    /// [`Rejected`] with `bad_frame`, `unknown_type`, `bad_room` or `too_large`.
    pub fn decode(text: &'a str) -> Result<(Option<&'a str>, Self), Rejected<'a>> {
        let raw: Raw<'a> = serde_json::from_str(text).map_err(|error| Rejected {
            reference: serde_json::from_str::<OnlyRef>(text)
                .ok()
                .and_then(|only| checked_ref(only.reference).ok())
                .flatten(),
            error: bad(ErrorCode::BadFrame, brief(&error)),
        })?;
        let reference = checked_ref(raw.reference).map_err(|error| Rejected { reference: None, error })?;
        Self::from_raw(raw).map(|frame| (reference, frame)).map_err(|error| Rejected { reference, error })
    }

    fn from_raw(raw: Raw<'a>) -> Result<Self, FrameError> {
        let room =
            raw.room.as_deref().map(RoomName::new).transpose().map_err(|e| bad(ErrorCode::BadRoom, e.to_string()));
        match &*raw.kind {
            "publish" => Ok(Self::Publish {
                room: room?,
                data: checked_data(raw.data.ok_or_else(|| missing("data"))?.get())?,
                id: raw.id.map(checked_id).transpose()?,
                echo: raw.echo.unwrap_or(true),
            }),
            "join" => Ok(Self::Join { room: room?, since: raw.since.map(Since::try_from).transpose()? }),
            "leave" => Ok(Self::Leave { room: room?.ok_or_else(|| missing("room"))? }),
            "rename" => Ok(Self::Rename { name: checked_name(raw.name.ok_or_else(|| missing("name"))?)? }),
            "history" => Ok(Self::History {
                room: room?.ok_or_else(|| missing("room"))?,
                before: raw.before,
                after: raw.after,
                limit: raw.limit,
            }),
            "members" => {
                Ok(Self::Members { room: room?.ok_or_else(|| missing("room"))?, cursor: raw.cursor, limit: raw.limit })
            }
            "refresh" => Ok(Self::Refresh { token: raw.token.ok_or_else(|| missing("token"))? }),
            "ping" => Ok(Self::Ping),
            _ => Err(bad(
                ErrorCode::UnknownType,
                "unknown type: expected join, leave, publish, rename, history, members, refresh or ping",
            )),
        }
    }
}

/// Longest words about a frame that is not JSON or has a field of the wrong kind, in bytes.
const MAX_WORDS_BYTES: usize = 256;

/// What `error` says, cut: serde quotes what it found, however long that is, and escapes can make it seven times longer.
pub fn brief(error: &serde_json::Error) -> String {
    struct Brief(String);

    impl Write for Brief {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_WORDS_BYTES - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }

    let mut words = Brief(String::new());
    if write!(words, "{error}").is_err() {
        words.0.push('…');
    }
    words.0
}

fn missing(field: &str) -> FrameError {
    bad(ErrorCode::BadFrame, format!("missing field `{field}`"))
}

fn checked_ref(raw: Option<&RawValue>) -> Result<Option<&str>, FrameError> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(text) if text.len() > MAX_REF_BYTES => {
            Err(bad(ErrorCode::TooLarge, format!("`ref` is longer than {MAX_REF_BYTES} bytes")))
        }
        Some(text) if text.starts_with(['"', '-']) || text.starts_with(|c: char| c.is_ascii_digit()) => Ok(Some(text)),
        Some(_) => Err(bad(ErrorCode::BadFrame, "`ref` must be a string or a number")),
    }
}

/// Refuses data nested so deep that other members' parsers would fail on it: many recurse. The text is valid JSON.
fn checked_data(data: &str) -> Result<&str, FrameError> {
    if is_shallow(data) {
        return Ok(data);
    }
    Err(bad(ErrorCode::TooLarge, format!("`data` is nested deeper than {MAX_DATA_DEPTH} levels")))
}

/// Whether `data`, which is valid JSON, is nested no deeper than [`MAX_DATA_DEPTH`].
pub fn is_shallow(data: &str) -> bool {
    let (mut depth, mut in_string, mut bytes) = (0_usize, false, data.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            // What is escaped cannot end the string.
            b'\\' => _ = bytes.next(),
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
        if depth > MAX_DATA_DEPTH {
            return false;
        }
    }
    true
}

/// Checks an idempotency key.
///
/// # Errors
/// [`ErrorCode::BadFrame`] for an empty one, [`ErrorCode::TooLarge`] for one of over 128 bytes.
pub fn checked_id(id: Cow<'_, str>) -> Result<Cow<'_, str>, FrameError> {
    match id.len() {
        0 => Err(bad(ErrorCode::BadFrame, "`id` is empty")),
        1..=MAX_REF_BYTES => Ok(id),
        _ => Err(bad(ErrorCode::TooLarge, format!("`id` is longer than {MAX_REF_BYTES} bytes"))),
    }
}

/// Checks a display name: 1 to 64 bytes, no control characters.
///
/// # Errors
/// `bad_frame` or `too_large`.
fn checked_name(name: Cow<'_, str>) -> Result<Cow<'_, str>, FrameError> {
    match name.len() {
        0 => Err(bad(ErrorCode::BadFrame, "`name` is empty")),
        1..=MAX_NAME_BYTES if !name.chars().any(char::is_control) => Ok(name),
        1..=MAX_NAME_BYTES => Err(bad(ErrorCode::BadFrame, "`name` has a control character")),
        _ => Err(bad(ErrorCode::TooLarge, format!("`name` is longer than {MAX_NAME_BYTES} bytes"))),
    }
}

impl TryFrom<RawSince<'_>> for Since {
    type Error = FrameError;

    fn try_from(raw: RawSince<'_>) -> Result<Self, FrameError> {
        let term = Term::new(&raw.term).map_err(|e| bad(ErrorCode::BadFrame, e.to_string()))?;
        Ok(Self { term, seq: raw.seq })
    }
}

/// Checks a display name that came from outside a frame (a query string).
///
/// # Errors
/// `bad_frame` or `too_large`, with words.
pub fn check_display_name(name: &str) -> Result<(), FrameError> {
    checked_name(Cow::Borrowed(name)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (Option<&str>, ErrorCode) {
        let rejected = ClientFrame::decode(text).expect_err(text);
        (rejected.reference, rejected.error.code)
    }

    #[test]
    fn data_passes_through_as_written() {
        let text = r#"{"type":"publish","room":"a","data": {"b" : [1, 2.50]} ,"ref":7,"extra":true}"#;
        let (reference, frame) = ClientFrame::decode(text).expect("valid");
        assert_eq!(reference, Some("7"));
        let room = Some(RoomName::new("a").expect("valid"));
        assert_eq!(frame, ClientFrame::Publish { room, data: r#"{"b" : [1, 2.50]}"#, id: None, echo: true });
    }

    #[test]
    fn data_may_not_be_nested_too_deep() {
        let nested = |levels: usize, inner: &str| {
            format!(r#"{{"type":"publish","data":{}{inner}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        assert!(ClientFrame::decode(&nested(MAX_DATA_DEPTH, "1")).is_ok());
        assert_eq!(code(&nested(MAX_DATA_DEPTH + 1, "")), (None, ErrorCode::TooLarge));
        let text = format!(r#""{}\"{}""#, "[".repeat(1000), "{".repeat(1000));
        assert!(ClientFrame::decode(&nested(1, &text)).is_ok(), "brackets in strings do not count");
    }

    #[test]
    fn null_is_data_but_absence_is_not() {
        assert!(matches!(
            ClientFrame::decode(r#"{"type":"publish","data":null}"#),
            Ok((None, ClientFrame::Publish { data: "null", .. }))
        ));
        assert_eq!(code(r#"{"type":"publish","ref":"x"}"#), (Some("\"x\""), ErrorCode::BadFrame));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_ref_survives() {
        assert_eq!(code("nonsense"), (None, ErrorCode::BadFrame));
        assert_eq!(code("[]"), (None, ErrorCode::BadFrame));
        assert_eq!(code(r#"{"type":"join","room":7,"ref":"r"}"#), (Some("\"r\""), ErrorCode::BadFrame));
        assert_eq!(code(r#"{"type":"join","room":"a b","ref":1}"#), (Some("1"), ErrorCode::BadRoom));
        assert_eq!(code(r#"{"type":"dance","ref":1}"#), (Some("1"), ErrorCode::UnknownType));
        assert_eq!(code(r#"{"type":"ping","ref":[1]}"#), (None, ErrorCode::BadFrame));
        assert_eq!(code(r#"{"type":"rename","name":""}"#), (None, ErrorCode::BadFrame));
        assert_eq!(code(&format!(r#"{{"type":"rename","name":"{}"}}"#, "n".repeat(65))), (None, ErrorCode::TooLarge));
        assert_eq!(
            code(&format!(r#"{{"type":"publish","data":1,"id":"{}"}}"#, "i".repeat(129))),
            (None, ErrorCode::TooLarge)
        );
        assert_eq!(code(r#"{"type":"join","room":"a","since":{"term":"A!","seq":1}}"#), (None, ErrorCode::BadFrame));
    }

    #[test]
    fn words_do_not_grow_with_what_they_quote() {
        for quoted in ["x", "\u{7f}", "☃"] {
            let text = format!(r#"{{"type":"history","room":"a","limit":"{}","ref":1}}"#, quoted.repeat(60_000));
            let rejected = ClientFrame::decode(&text).expect_err("not a number");
            assert_eq!((rejected.reference, rejected.error.code), (Some("1"), ErrorCode::BadFrame));
            let words = rejected.error.message;
            assert!(words.starts_with("invalid type: string ") && words.ends_with('…'), "{words}");
            assert!(words.len() <= MAX_WORDS_BYTES + '…'.len_utf8(), "{} bytes", words.len());
        }
        let short = ClientFrame::decode(r#"{"type":"ping","limit":-1}"#).expect_err("negative").error.message;
        assert_eq!(short, "invalid value: integer `-1`, expected usize at line 1 column 25");
    }

    #[test]
    fn since_reads_its_query_form() {
        let since: Since = "0a1b:42".parse().expect("valid");
        assert_eq!((since.term.as_str(), since.seq), ("0a1b", 42));
        for bad in ["", "42", "a:", "a:-1", "A:1", ":1"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
    }
}
