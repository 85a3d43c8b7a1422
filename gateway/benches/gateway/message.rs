//! The messages of the benchmarks: 128 bytes of JSON with a stamp, and how to read the stamp back.
//!
//! Used by the driver. Must not know connections.

use crate::fleet::push_text;

/// Bytes of the JSON that is published: a string, quotes included.
pub const DATA_BYTES: usize = 128;
const TEXT_BYTES: usize = DATA_BYTES - 2;
const AT_DIGITS: usize = 19;
const ROOM_DIGITS: usize = 8;
const NUMBER_DIGITS: usize = 10;
/// What stands between the digits of `ts` and the text of `data`.
const BEFORE_DATA: &[u8] = br#","data":""#;
/// Milliseconds since 1970 have as many digits until the year 2286.
const TS_DIGITS: usize = 13;

/// What a message says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it was written, nanoseconds of the client's clock.
    pub at: u64,
    /// The room's index.
    pub room: usize,
    /// Counts up from 0 in each room.
    pub number: u64,
}

impl Stamp {
    /// Reads the stamp of a `message` frame, whose last key is `data`.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let text = payload.get(payload.len().checked_sub(TEXT_BYTES + 2)?..)?;
        let (at, rest) = digits(text, AT_DIGITS)?;
        let (room, rest) = digits(rest, ROOM_DIGITS)?;
        let (number, _) = digits(rest, NUMBER_DIGITS)?;
        Some(Self { at, room: usize::try_from(room).ok()?, number })
    }

    fn push(self, out: &mut Vec<u8>) {
        push_digits(self.at, AT_DIGITS, out);
        push_digits(self.room as u64, ROOM_DIGITS, out);
        push_digits(self.number, NUMBER_DIGITS, out);
        out.resize(out.len() + TEXT_BYTES - AT_DIGITS - ROOM_DIGITS - NUMBER_DIGITS, b'x');
    }
}

/// The server's `ts` of a `message` frame of ours.
pub fn server_ts(payload: &[u8]) -> Option<u64> {
    let data = payload.len().checked_sub(TEXT_BYTES + 2)?;
    let ts = data.checked_sub(BEFORE_DATA.len() + TS_DIGITS)?;
    Some(digits(&payload[ts..], TS_DIGITS)?.0)
}

/// How a publish is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The sender gets the message as every member does.
    Echo,
    /// The sender gets no message, but an `ack` for this frame.
    Ack,
    /// Neither.
    Nothing,
}

/// Appends a masked `publish` frame; `scratch` spares an allocation.
pub fn push_publish(room: &str, stamp: Stamp, reply: Reply, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend_from_slice(br#"{"type":"publish","room":""#);
    scratch.extend_from_slice(room.as_bytes());
    scratch.extend_from_slice(match reply {
        Reply::Echo => br#"","data":""#.as_slice(),
        Reply::Ack => br#"","echo":false,"ref":1,"data":""#,
        Reply::Nothing => br#"","echo":false,"data":""#,
    });
    stamp.push(scratch);
    scratch.extend_from_slice(b"\"}");
    push_text(scratch, out);
}

fn digits(text: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (head, rest) = text.split_at_checked(count)?;
    let add = |sum: u64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'));
    Some((head.iter().try_fold(0, add)?, rest))
}

fn push_digits(mut number: u64, count: usize, out: &mut Vec<u8>) {
    let end = out.len() + count;
    out.resize(end, b'0');
    for place in out[end - count..].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
