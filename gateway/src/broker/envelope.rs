//! The format on the bus and in the streams: who may be on either end is another node, of another version, or hostile.
//!
//! A text header line that a Redis script can build by concatenation, then binary records that only Rust touches:
//!
//! ```text
//! RC1 D <room> <node> <term> <first_seq> <ts> <count>\n     durable messages
//! RC1 E <room> <node> <ts> <count>\n                        ephemeral messages
//! RC1 P <room> <node> <version> <online> <count>\n          presence operations
//! count x ( u32 LE length, that many bytes )
//! ```
//!
//! Used by the redis broker. Decoding allocates nothing on the word of a length, hands out slices of the incoming
//! bytes, and never panics: every way to be wrong has a [`DecodeError`] with a label for the metric.

use bytes::Bytes;
use roomcast_protocol::{NodeId, RoomName, Term};

use super::{Envelope, Event, Kind, MAX_BATCH, PresenceEvent};

mod record;

use record::{decode_op, decode_record};
pub(crate) use record::{encode_op, encode_record};

/// Version word of this format. A reader of another version refuses it.
pub(crate) const VERSION: &str = "RC1";
/// Longest header line taken: room 128 + node 64 + term 32 + three numbers and the rest.
const MAX_HEADER_BYTES: usize = 320;
/// Longest envelope taken, header included.
pub(crate) const MAX_ENVELOPE_BYTES: usize = 128 << 20;
/// Largest number taken from a header: what Lua counts exactly (2^53 - 1).
pub(crate) const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What is wrong with a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(usize)]
pub enum DecodeError {
    /// Not this format, or another version of it.
    #[error("another format or version")]
    Version,
    /// Over 128 MiB.
    #[error("too large")]
    Size,
    /// The header line is not as it must be.
    #[error("bad header")]
    Header,
    /// Of another room than the channel's.
    #[error("room differs from the channel's")]
    Room,
    /// A number is no number or too large.
    #[error("bad number")]
    Number,
    /// No or too many records.
    #[error("bad count of records")]
    Count,
    /// A record is shorter than it says, or bytes follow the last.
    #[error("bad length")]
    Length,
    /// A record's fixed part is wrong.
    #[error("bad record")]
    Record,
    /// A message id, display name or user breaks its rule.
    #[error("bad name")]
    Name,
    /// Data is not JSON in UTF-8, or a member's info breaks its rule.
    #[error("data is not JSON")]
    Json,
    /// On the channel of the orders, and none.
    #[error("not an order")]
    Order,
}

impl DecodeError {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Version,
        Self::Size,
        Self::Header,
        Self::Room,
        Self::Number,
        Self::Count,
        Self::Length,
        Self::Record,
        Self::Name,
        Self::Json,
        Self::Order,
    ];

    /// For the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Size => "size",
            Self::Header => "header",
            Self::Room => "room",
            Self::Number => "number",
            Self::Count => "count",
            Self::Length => "length",
            Self::Record => "record",
            Self::Name => "name",
            Self::Json => "json",
            Self::Order => "order",
        }
    }
}

/// The parsed header line of a payload.
#[derive(Debug)]
pub(crate) struct Head {
    node: NodeId,
    kind: HeadKind,
    count: usize,
    /// Where the records start.
    body: usize,
}

#[derive(Debug)]
enum HeadKind {
    Messages(Kind),
    Presence { version: u64, online: u64 },
}

impl Head {
    /// Parses the header of `payload`, which came on the channel (or from the stream) of `room`.
    pub(crate) fn parse(payload: &[u8], room: &str) -> Result<Self, DecodeError> {
        if payload.len() > MAX_ENVELOPE_BYTES {
            return Err(DecodeError::Size);
        }
        if !payload.starts_with(b"RC1 ") {
            return Err(DecodeError::Version);
        }
        let window = &payload[..payload.len().min(MAX_HEADER_BYTES)];
        let end = window.iter().position(|&byte| byte == b'\n').ok_or(DecodeError::Header)?;
        let line = std::str::from_utf8(&window[..end]).map_err(|_| DecodeError::Header)?;
        let mut words = line.split(' ').skip(1);
        let mut word = || words.next().ok_or(DecodeError::Header);
        let tag = word()?;
        if word()? != room {
            return Err(DecodeError::Room);
        }
        let node = NodeId::new(word()?).map_err(|_| DecodeError::Header)?;
        let kind = match tag {
            "D" => {
                let term = Term::new(word()?).map_err(|_| DecodeError::Header)?;
                let (first_seq, ts) = (number(word()?)?, number(word()?)?);
                HeadKind::Messages(Kind::Durable { term, first_seq, ts })
            }
            "E" => HeadKind::Messages(Kind::Ephemeral { ts: number(word()?)? }),
            "P" => HeadKind::Presence { version: number(word()?)?, online: number(word()?)? },
            _ => return Err(DecodeError::Header),
        };
        let count = usize::try_from(number(word()?)?).map_err(|_| DecodeError::Count)?;
        if word().is_ok() {
            return Err(DecodeError::Header);
        }
        if !(1..=MAX_BATCH).contains(&count) {
            return Err(DecodeError::Count);
        }
        if let HeadKind::Messages(Kind::Durable { first_seq, .. }) = kind
            && (first_seq == 0 || first_seq > MAX_NUMBER - MAX_BATCH as u64)
        {
            return Err(DecodeError::Number);
        }
        Ok(Self { node, kind, count, body: end + 1 })
    }

    /// An ephemeral envelope that `node` itself sent: its members have it already, and decoding it would be wasted.
    pub(crate) fn is_own_ephemeral(&self, node: &NodeId) -> bool {
        matches!(self.kind, HeadKind::Messages(Kind::Ephemeral { .. })) && self.node == *node
    }

    /// How many records follow.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Decodes the records of `payload`, whose header this is. All or nothing.
    pub(crate) fn decode(self, payload: &Bytes, room: RoomName) -> Result<Event, DecodeError> {
        let body = payload.get(self.body..).ok_or(DecodeError::Length)?;
        let records = Records { payload, rest: body };
        // A record takes at least its length: the capacity is bounded by bytes that are there, not by the count alone.
        let capacity = self.count.min(body.len() / 4);
        match self.kind {
            HeadKind::Messages(kind) => {
                let records = collect(records, self.count, capacity, decode_record)?;
                Ok(Event::Messages(Envelope { node: self.node, room, kind, records }))
            }
            HeadKind::Presence { version, online } => {
                let ops = collect(records, self.count, capacity, decode_op)?;
                Ok(Event::Presence(PresenceEvent { node: self.node, room, version, online, ops }))
            }
        }
    }
}

/// Decodes a whole payload of `room`.
pub fn decode(payload: &Bytes, room: &RoomName) -> Result<Event, DecodeError> {
    Head::parse(payload, room.as_str())?.decode(payload, room.clone())
}

/// An ephemeral envelope, which no script has to build.
pub(crate) fn encode_ephemeral(room: &RoomName, node: &NodeId, ts: u64, records: &[super::Record]) -> Vec<u8> {
    let size: usize = records.iter().map(|record| record.data.len() + 320).sum();
    let mut out = Vec::with_capacity(MAX_HEADER_BYTES + size);
    out.extend_from_slice(format!("{VERSION} E {room} {node} {ts} {}\n", records.len()).as_bytes());
    for record in records {
        encode_record(record, &mut out);
    }
    out
}

fn number(word: &str) -> Result<u64, DecodeError> {
    // `parse` would also take a leading plus.
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::Number);
    }
    word.parse().ok().filter(|&number| number <= MAX_NUMBER).ok_or(DecodeError::Number)
}

/// The length-prefixed records of a payload, as slices of it.
struct Records<'a> {
    payload: &'a Bytes,
    rest: &'a [u8],
}

impl Records<'_> {
    fn next(&mut self) -> Result<Bytes, DecodeError> {
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(DecodeError::Length)?;
        let length = u32::from_le_bytes(*length) as usize;
        let record = rest.get(..length).ok_or(DecodeError::Length)?;
        self.rest = &rest[length..];
        Ok(self.payload.slice_ref(record))
    }
}

fn collect<T>(
    mut records: Records<'_>,
    count: usize,
    capacity: usize,
    decode: impl Fn(&Bytes) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut decoded = Vec::with_capacity(capacity);
    for _ in 0..count {
        decoded.push(decode(&records.next()?)?);
    }
    if records.rest.is_empty() { Ok(decoded) } else { Err(DecodeError::Length) }
}

#[cfg(test)]
mod tests;
