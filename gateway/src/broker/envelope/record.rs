//! One record of an envelope: a message or a presence operation. Only the envelope uses it.
//!
//! ```text
//! message    flags u8, from [16], accepted_at_us u64 LE, (trace [25]), id (u8 length), name (u8 length),
//!            (user (u8 length)), data (the rest)
//! operation  kind and flags u8, client [16], name (u8 length), (user (u8 length)), (info (u16 LE length))
//! ```
//!
//! What stands in parentheses is there if its flag says so. A reader that does not know a flag refuses the record.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{ClientId, MAX_REF_BYTES, check_display_name, check_info, check_user};
use serde_json::value::RawValue;

use super::DecodeError;
use crate::broker::{Member, PresenceOp, Record, Subject};
use crate::telemetry::trace::TraceParent;

const IDEMPOTENT: u8 = 1;
const ECHO: u8 = 2;
const TRACE: u8 = 4;
const USER: u8 = 8;

const ENTER: u8 = 1;
const LEAVE: u8 = 2;
const RENAME: u8 = 3;
/// Of an operation's first byte, the part that says which.
const KIND: u8 = 3;
const HAS_USER: u8 = 8;
const HAS_INFO: u8 = 16;

/// Appends a length-prefixed message. Texts longer than 255 bytes would be cut; callers check them before.
pub(crate) fn encode_record(record: &Record, out: &mut Vec<u8>) {
    framed(out, |out| {
        let flags = u8::from(record.idempotent) * IDEMPOTENT
            + u8::from(record.echo) * ECHO
            + u8::from(record.trace.is_some()) * TRACE
            + u8::from(record.user.is_some()) * USER;
        out.push(flags);
        out.extend_from_slice(&record.from.to_bytes());
        out.extend_from_slice(&record.accepted_at_us.to_le_bytes());
        if let Some(TraceParent(trace)) = record.trace {
            out.extend_from_slice(&trace);
        }
        short_text(&record.id, out);
        short_text(&record.name, out);
        if let Some(user) = &record.user {
            short_text(user, out);
        }
        out.extend_from_slice(&record.data);
    });
}

/// Appends a length-prefixed presence operation.
pub(crate) fn encode_op(op: &PresenceOp, out: &mut Vec<u8>) {
    let kind = match op {
        PresenceOp::Enter(_) => ENTER,
        PresenceOp::Leave(_) => LEAVE,
        PresenceOp::Rename(_) => RENAME,
    };
    let Member { id, name, user, info } = op.member();
    framed(out, |out| {
        out.push(kind + u8::from(user.is_some()) * HAS_USER + u8::from(info.is_some()) * HAS_INFO);
        out.extend_from_slice(&id.to_bytes());
        short_text(name, out);
        if let Some(user) = user {
            short_text(user, out);
        }
        if let Some(info) = info {
            let bytes = &info.as_bytes()[..info.len().min(usize::from(u16::MAX))];
            out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    });
}

pub(super) fn decode_record(bytes: &Bytes) -> Result<Record, DecodeError> {
    let mut rest: &[u8] = bytes;
    let [flags] = take::<1>(&mut rest)?;
    if flags & !(IDEMPOTENT | ECHO | TRACE | USER) != 0 {
        return Err(DecodeError::Record);
    }
    let from = ClientId::from_bytes(take(&mut rest)?);
    let accepted_at_us = u64::from_le_bytes(take(&mut rest)?);
    let trace = if flags & TRACE == 0 { None } else { Some(TraceParent(take(&mut rest)?)) };
    let id = take_text(&mut rest)?;
    if id.is_empty() || id.len() > MAX_REF_BYTES {
        return Err(DecodeError::Name);
    }
    let name = take_name(&mut rest)?;
    let user = if flags & USER == 0 { None } else { Some(take_user(&mut rest)?) };
    // Members get the data inside their frames: anything but JSON would break those, so it is checked here once.
    serde_json::from_slice::<&RawValue>(rest).map_err(|_| DecodeError::Json)?;
    Ok(Record {
        id: id.into(),
        idempotent: flags & IDEMPOTENT != 0,
        subject: Subject::NOBODY,
        from,
        name,
        user,
        echo: flags & ECHO != 0,
        accepted_at_us,
        trace,
        data: bytes.slice_ref(rest),
    })
}

pub(super) fn decode_op(bytes: &Bytes) -> Result<PresenceOp, DecodeError> {
    let mut rest: &[u8] = bytes;
    let [kind] = take::<1>(&mut rest)?;
    let op = match kind & KIND {
        ENTER => PresenceOp::Enter,
        RENAME => PresenceOp::Rename,
        LEAVE => PresenceOp::Leave,
        _ => return Err(DecodeError::Record),
    };
    if kind & !(KIND | HAS_USER | HAS_INFO) != 0 {
        return Err(DecodeError::Record);
    }
    let id = ClientId::from_bytes(take(&mut rest)?);
    let name = take_name(&mut rest)?;
    let user = if kind & HAS_USER == 0 { None } else { Some(take_user(&mut rest)?) };
    let info = if kind & HAS_INFO == 0 { None } else { Some(take_info(&mut rest)?) };
    let op = op(Member { id, name, user, info });
    if rest.is_empty() { Ok(op) } else { Err(DecodeError::Length) }
}

fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn short_text(text: &str, out: &mut Vec<u8>) {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(DecodeError::Record)?;
    *rest = left;
    Ok(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let [length] = take::<1>(rest)?;
    std::str::from_utf8(take_slice(rest, usize::from(length))?).map_err(|_| DecodeError::Name)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (slice, left) = rest.split_at_checked(length).ok_or(DecodeError::Record)?;
    *rest = left;
    Ok(slice)
}

fn take_name(rest: &mut &[u8]) -> Result<Arc<str>, DecodeError> {
    let name = take_text(rest)?;
    check_display_name(name).map_err(|_| DecodeError::Name)?;
    Ok(name.into())
}

fn take_user(rest: &mut &[u8]) -> Result<Arc<str>, DecodeError> {
    let user = take_text(rest)?;
    check_user(user).map_err(|_| DecodeError::Name)?;
    Ok(user.into())
}

/// Members get it inside their frames, as data.
fn take_info(rest: &mut &[u8]) -> Result<Arc<str>, DecodeError> {
    let length = u16::from_le_bytes(take(rest)?);
    let info = std::str::from_utf8(take_slice(rest, usize::from(length))?).map_err(|_| DecodeError::Json)?;
    check_info(info).map_err(|_| DecodeError::Json)?;
    Ok(info.into())
}
