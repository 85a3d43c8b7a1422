//! One record of an envelope: a message or a presence operation. Only the envelope uses it.
//!
//! ```text
//! message    flags u8, from [16], accepted_at_us u64 LE, (trace [25]), id (u8 length), name (u8 length), data (the rest)
//! operation  kind u8, client [16], name (u8 length)
//! ```

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{ClientId, MAX_REF_BYTES, check_display_name};
use serde_json::value::RawValue;

use super::DecodeError;
use crate::broker::{PresenceOp, Record, Subject};
use crate::telemetry::trace::TraceParent;

const IDEMPOTENT: u8 = 1;
const ECHO: u8 = 2;
const TRACE: u8 = 4;

const ENTER: u8 = 1;
const LEAVE: u8 = 2;
const RENAME: u8 = 3;

/// Appends a length-prefixed message. Ids and names longer than 255 bytes would be cut; callers check them before.
pub(crate) fn encode_record(record: &Record, out: &mut Vec<u8>) {
    framed(out, |out| {
        let flags = u8::from(record.idempotent) * IDEMPOTENT
            + u8::from(record.echo) * ECHO
            + u8::from(record.trace.is_some()) * TRACE;
        out.push(flags);
        out.extend_from_slice(&record.from.to_bytes());
        out.extend_from_slice(&record.accepted_at_us.to_le_bytes());
        if let Some(TraceParent(trace)) = record.trace {
            out.extend_from_slice(&trace);
        }
        short_text(&record.id, out);
        short_text(&record.name, out);
        out.extend_from_slice(&record.data);
    });
}

/// Appends a length-prefixed presence operation.
pub(crate) fn encode_op(op: &PresenceOp, out: &mut Vec<u8>) {
    let (kind, client, name) = match op {
        PresenceOp::Enter { client, name } => (ENTER, client, &**name),
        PresenceOp::Leave { client, name } => (LEAVE, client, &**name),
        PresenceOp::Rename { client, name } => (RENAME, client, &**name),
    };
    framed(out, |out| {
        out.push(kind);
        out.extend_from_slice(&client.to_bytes());
        short_text(name, out);
    });
}

pub(super) fn decode_record(bytes: &Bytes) -> Result<Record, DecodeError> {
    let mut rest: &[u8] = bytes;
    let [flags] = take::<1>(&mut rest)?;
    if flags & !(IDEMPOTENT | ECHO | TRACE) != 0 {
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
    // Members get the data inside their frames: anything but JSON would break those, so it is checked here once.
    serde_json::from_slice::<&RawValue>(rest).map_err(|_| DecodeError::Json)?;
    Ok(Record {
        id: id.into(),
        idempotent: flags & IDEMPOTENT != 0,
        subject: Subject::NOBODY,
        from,
        name,
        echo: flags & ECHO != 0,
        accepted_at_us,
        trace,
        data: bytes.slice_ref(rest),
    })
}

pub(super) fn decode_op(bytes: &Bytes) -> Result<PresenceOp, DecodeError> {
    let mut rest: &[u8] = bytes;
    let [kind] = take::<1>(&mut rest)?;
    let client = ClientId::from_bytes(take(&mut rest)?);
    let op = match kind {
        ENTER => PresenceOp::Enter { client, name: take_name(&mut rest)? },
        RENAME => PresenceOp::Rename { client, name: take_name(&mut rest)? },
        LEAVE => PresenceOp::Leave { client, name: take_name(&mut rest)? },
        _ => return Err(DecodeError::Record),
    };
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
    let (text, left) = rest.split_at_checked(usize::from(length)).ok_or(DecodeError::Record)?;
    *rest = left;
    std::str::from_utf8(text).map_err(|_| DecodeError::Name)
}

fn take_name(rest: &mut &[u8]) -> Result<Arc<str>, DecodeError> {
    let name = take_text(rest)?;
    check_display_name(name).map_err(|_| DecodeError::Name)?;
    Ok(name.into())
}
