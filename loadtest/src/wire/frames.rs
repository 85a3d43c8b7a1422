//! Frames from and to bytes.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest message taken from a server; more is a fault of its.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text message; not yet checked to be UTF-8.
    Text(&'a [u8]),
    /// To be answered with these bytes.
    Ping(&'a [u8]),
    Pong,
    /// The code, 1005 if there was none, and the reason.
    Close(u16, String),
}

/// A server that does not keep to RFC 6455.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the server broke RFC 6455: {0}")]
    Protocol(&'static str),
    #[error("the server sent a message of more than {MOST_BYTES} bytes")]
    TooBig,
}

/// Takes bytes as they come and gives whole frames. Holds only what is partial.
#[derive(Default)]
pub(super) struct Incoming {
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// The fragments of a message so far.
    message: Vec<u8>,
    fragmented: bool,
}

impl Incoming {
    /// Gives each whole frame in `bytes` to `on`, and keeps the rest.
    pub(super) fn feed(&mut self, bytes: &[u8], on: &mut dyn FnMut(Frame<'_>)) -> Result<(), WireError> {
        if self.partial.is_empty() {
            let used = self.take(bytes, on)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        let used = self.take(&held, on)?;
        if used < held.len() {
            held.drain(..used);
            self.partial = held;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], on: &mut dyn FnMut(Frame<'_>)) -> Result<usize, WireError> {
        let mut at = 0;
        loop {
            let mut cursor = Cursor::new(&bytes[at..]);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| WireError::Protocol("a reserved opcode"))?;
            let Some((header, length)) = parsed else { return Ok(at) };
            if header.rsv1 || header.rsv2 || header.rsv3 || header.mask.is_some() {
                return Err(WireError::Protocol("a reserved bit, or a mask"));
            }
            let is_data = matches!(header.opcode, OpCode::Data(_));
            let held = if is_data { self.message.len() as u64 } else { 0 };
            if length.saturating_add(held) > MOST_BYTES as u64 {
                return Err(WireError::TooBig);
            }
            let begin = at + cursor.position() as usize;
            let Some(payload) = bytes.get(begin..begin + length as usize) else { return Ok(at) };
            self.frame(&header, payload, on)?;
            at = begin + payload.len();
        }
    }

    fn frame(&mut self, header: &FrameHeader, payload: &[u8], on: &mut dyn FnMut(Frame<'_>)) -> Result<(), WireError> {
        match header.opcode {
            OpCode::Data(Data::Text) if self.fragmented => Err(WireError::Protocol("a message within a message")),
            OpCode::Data(Data::Text) if header.is_final => {
                on(Frame::Text(payload));
                Ok(())
            }
            OpCode::Data(Data::Text) => {
                self.fragmented = true;
                self.message.extend_from_slice(payload);
                Ok(())
            }
            OpCode::Data(Data::Continue) if self.fragmented => {
                self.message.extend_from_slice(payload);
                if header.is_final {
                    self.fragmented = false;
                    on(Frame::Text(&std::mem::take(&mut self.message)));
                }
                Ok(())
            }
            OpCode::Data(_) => Err(WireError::Protocol("binary, or a continuation of nothing")),
            OpCode::Control(_) if !header.is_final || payload.len() > 125 => {
                Err(WireError::Protocol("a control frame that is long or fragmented"))
            }
            OpCode::Control(Control::Ping) => {
                on(Frame::Ping(payload));
                Ok(())
            }
            OpCode::Control(Control::Pong) => {
                on(Frame::Pong);
                Ok(())
            }
            OpCode::Control(_) => {
                on(close(payload));
                Ok(())
            }
        }
    }
}

fn close(payload: &[u8]) -> Frame<'static> {
    match payload {
        [high, low, reason @ ..] => {
            Frame::Close(u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
        }
        _ => Frame::Close(1005, String::new()),
    }
}

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Pong,
    Close,
}

/// Appends one masked frame to `out`.
pub(super) fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let mask: [u8; 4] = rand::random();
    let opcode = match kind {
        Kind::Text => OpCode::Data(Data::Text),
        Kind::Pong => OpCode::Control(Control::Pong),
        Kind::Close => OpCode::Control(Control::Close),
    };
    let header = FrameHeader { is_final: true, opcode, mask: Some(mask), ..FrameHeader::default() };
    // Writing to a vector cannot fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![opcode];
        match payload.len() {
            length @ ..126 => bytes.push(length as u8),
            length => {
                bytes.push(126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn all(incoming: &mut Incoming, bytes: &[u8]) -> Result<Vec<String>, WireError> {
        let mut seen = Vec::new();
        incoming.feed(bytes, &mut |frame| {
            seen.push(match frame {
                Frame::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                other => format!("{other:?}"),
            });
        })?;
        Ok(seen)
    }

    #[test]
    fn frames_come_out_whole_wherever_they_are_cut() {
        let mut bytes = server(0x81, b"one");
        bytes.extend(server(0x89, b"p"));
        bytes.extend(server(0x01, b"tw"));
        bytes.extend(server(0x80, b"o"));
        bytes.extend(server(0x81, &[b'x'; 300]));
        bytes.extend(server(0x88, &[0x03, 0xf4, b'b', b'y', b'e']));
        let whole = all(&mut Incoming::default(), &bytes).expect("well formed");
        assert_eq!(whole[0], "text one");
        assert_eq!(whole[2], "text two");
        assert_eq!(whole[4], r#"Close(1012, "bye")"#);
        for cut in 0..bytes.len() {
            let mut incoming = Incoming::default();
            let mut seen = all(&mut incoming, &bytes[..cut]).expect("well formed");
            seen.extend(all(&mut incoming, &bytes[cut..]).expect("well formed"));
            assert_eq!(seen, whole, "cut at {cut}");
            assert!(incoming.partial.is_empty() && incoming.message.is_empty());
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for bytes in [
            vec![0xc1, 0],                           // a reserved bit
            vec![0x81, 0x80, 0, 0, 0, 0],            // masked
            server(0x82, b"binary"),                 // not in this protocol
            server(0x80, b"nothing to continue"),    // no message begun
            server(0x83, b""),                       // a reserved opcode
            server(0x89, &[0; 126]),                 // a long ping
            vec![0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], // 4 GiB
        ] {
            assert!(all(&mut Incoming::default(), &bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn fragments_are_held_up_to_the_longest_message() {
        let mut incoming = Incoming::default();
        let head = |opcode: u8| [&[opcode, 127, 0, 0, 0, 0][..], &(1u32 << 20).to_be_bytes()].concat();
        let fragment = vec![b'x'; 1 << 20];
        for number in 0..16 {
            assert_eq!(all(&mut incoming, &head(u8::from(number == 0))), Ok(Vec::new()));
            assert_eq!(all(&mut incoming, &fragment), Ok(Vec::new()));
        }
        assert_eq!(incoming.message.len(), MOST_BYTES);
        assert_eq!(all(&mut incoming, &server(0x89, b"p")), Ok(vec!["Ping([112])".to_owned()]), "between fragments");
        assert_eq!(all(&mut incoming, &head(0x00)), Err(WireError::TooBig), "before it is taken in");
    }

    #[test]
    fn own_frames_are_masked() {
        let mut out = Vec::new();
        encode(Kind::Text, b"hello", &mut out);
        assert_eq!(out[..2], [0x81, 0x85]);
        let plain: Vec<u8> = out[6..].iter().zip(out[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(plain, b"hello");
    }
}
