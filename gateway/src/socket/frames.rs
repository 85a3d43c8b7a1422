//! Server frames: encoding, and finding their boundaries again.
//!
//! Called by whoever has something to send; must not know who receives it. Server frames are never masked, never
//! fragmented and carry no extension, so a frame is the same bytes for every receiver.

use bytes::{BufMut, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload};

/// Longest payload of a control frame, bytes (RFC 6455, 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;
/// Longest close reason, bytes: a control payload without the code.
pub const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// Appends a text frame. `payload` must be UTF-8; it is not checked again.
pub fn text(payload: &[u8], out: &mut BytesMut) {
    encode(OpCode::Text, payload, out);
}

/// Appends a binary frame.
pub fn binary(payload: &[u8], out: &mut BytesMut) {
    encode(OpCode::Binary, payload, out);
}

/// Appends a ping. What of `payload` exceeds 125 bytes is cut off.
pub fn ping(payload: &[u8], out: &mut BytesMut) {
    encode(OpCode::Ping, cut(payload), out);
}

/// Appends a pong. What of `payload` exceeds 125 bytes is cut off.
pub fn pong(payload: &[u8], out: &mut BytesMut) {
    encode(OpCode::Pong, cut(payload), out);
}

/// Appends a close frame. What of `reason` exceeds 123 bytes is cut off between two characters.
pub fn close(code: u16, reason: &str, out: &mut BytesMut) {
    let reason = &reason[..reason.floor_char_boundary(MAX_CLOSE_REASON)];
    let mut payload = [0; MAX_CONTROL_PAYLOAD];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    encode(OpCode::Close, &payload[..2 + reason.len()], out);
}

/// Appends a close frame without a code, the answer to one that had none.
pub fn close_empty(out: &mut BytesMut) {
    encode(OpCode::Close, &[], out);
}

/// Length of the frame that `bytes` begin with, head included; `None` when they hold no whole frame.
///
/// For our own frames only: a mask is not looked for.
pub fn first_frame_len(bytes: &[u8]) -> Option<usize> {
    let (head, payload) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(field(bytes)?))),
        127 => (10, usize::try_from(u64::from_be_bytes(field(bytes)?)).ok()?),
        short => (2, usize::from(short)),
    };
    let len = payload.checked_add(head)?;
    (len <= bytes.len()).then_some(len)
}

/// The extended length that follows a head's first two bytes.
fn field<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.get(2..)?.first_chunk().copied()
}

fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)]
}

fn encode(opcode: OpCode, payload: &[u8], out: &mut BytesMut) {
    let mut head = [0; 16];
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    out.reserve(size + payload.len());
    out.put_slice(&head[..size]);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out);
        out
    }

    #[test]
    fn frames_are_as_the_rfc_shows_them() {
        assert_eq!(&encoded(|out| text(b"Hello", out))[..], b"\x81\x05Hello");
        assert_eq!(&encoded(|out| ping(b"Hello", out))[..], b"\x89\x05Hello");
        assert_eq!(&encoded(|out| pong(b"", out))[..], b"\x8a\x00");
        assert_eq!(&encoded(|out| close(1000, "bye", out))[..], b"\x88\x05\x03\xe8bye");
        assert_eq!(&encoded(close_empty)[..], b"\x88\x00");
        assert_eq!(&encoded(|out| binary(&[7; 256], out))[..5], b"\x82\x7e\x01\x00\x07");
        assert_eq!(&encoded(|out| binary(&vec![7; 65536], out))[..11], b"\x82\x7f\0\0\0\0\0\x01\0\0\x07");
    }

    #[test]
    fn control_payloads_are_cut_to_what_the_rfc_allows() {
        assert_eq!(encoded(|out| ping(&[1; 200], out)).len(), 2 + 125);
        let long = encoded(|out| close(4408, &"ü".repeat(80), out));
        assert_eq!(long.len(), 2 + 2 + 122, "123 bytes would split a character");
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }

    #[test]
    fn boundaries_are_found_again_at_every_length_form() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            let frame = encoded(|out| binary(&vec![9; len], out));
            assert_eq!(first_frame_len(&frame), Some(frame.len()), "{len}");
            for short in (0..frame.len().min(12)).chain([frame.len() - 1]) {
                assert_eq!(first_frame_len(&frame[..short]), None, "{len} cut to {short}");
            }
        }
        assert_eq!(first_frame_len(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
