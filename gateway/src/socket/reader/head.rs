//! The head of a client's frame: parsing, and the rules that can be judged from it alone.

use fastwebsockets::OpCode;

use super::Violation;
use crate::socket::frames::MAX_CONTROL_PAYLOAD;

/// Longest head of a masked frame: two bytes, a 64-bit length, the mask.
pub(super) const MAX_HEAD: usize = 14;

#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    pub(super) mask: [u8; 4],
    /// Payload bytes announced. Not to be believed before they arrive.
    pub(super) len: u64,
}

impl Head {
    /// Reads a head and its size off the front of `bytes`; `None` when it is not complete.
    ///
    /// The first two bytes are judged as soon as both are there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let (opcode, fin) = check_start(first, second)?;
        let (len, masked) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if len >> 63 == 1 {
            return Err(Violation::protocol("length with its top bit set"));
        }
        let Some((&mask, payload)) = masked.split_first_chunk() else { return Ok(None) };
        Ok(Some((Self { fin, opcode, mask, len }, bytes.len() - payload.len())))
    }

    pub(super) fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
    }
}

fn check_start(first: u8, second: u8) -> Result<(OpCode, bool), Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::protocol("reserved bit set"));
    }
    let Ok(opcode) = OpCode::try_from(first & 0x0f) else {
        return Err(Violation::protocol("unknown opcode"));
    };
    if second & 0x80 == 0 {
        return Err(Violation::protocol("frame not masked"));
    }
    let fin = first & 0x80 != 0;
    if first & 0x08 != 0 {
        if !fin {
            return Err(Violation::protocol("fragmented control frame"));
        }
        if usize::from(second & 0x7f) > MAX_CONTROL_PAYLOAD {
            return Err(Violation::protocol("control frame over 125 bytes"));
        }
    }
    Ok((opcode, fin))
}
