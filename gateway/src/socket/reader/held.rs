//! What a reader keeps while something is partial: a piece of a head, a control frame, a message.

use fastwebsockets::{OpCode, unmask};

use super::head::{Head, MAX_HEAD};
use super::{BAD_TEXT, Violation, take};

#[derive(Debug, Default)]
pub(super) struct Held {
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// What was handed out by the last step and goes at the next.
    spent: Option<Spent>,
    /// The frame whose payload is coming in.
    frame: Option<Incoming>,
    control: Vec<u8>,
    message: Option<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    Control,
    Message,
}

#[derive(Debug)]
struct Incoming {
    head: Head,
    received: u64,
}

#[derive(Debug)]
struct Message {
    text: bool,
    fragments: u32,
    /// How much of `data` is known to be UTF-8.
    checked: usize,
    data: Vec<u8>,
}

pub(super) enum Fed {
    /// The input is used up, the frame is not complete.
    NeedsInput,
    /// The frame is complete, its message is not.
    Fragment,
    /// [`Held::finished`] has a control frame or a message.
    Finished(OpCode),
}

impl Held {
    /// Drops what was handed out. False when nothing is left.
    pub(super) fn release(&mut self) -> bool {
        match self.spent.take() {
            Some(Spent::Control) => self.control = Vec::new(),
            Some(Spent::Message) => self.message = None,
            None => {}
        }
        self.is_partial()
    }

    pub(super) fn is_partial(&self) -> bool {
        self.has_head() || self.frame.is_some() || (self.message.is_some() && self.spent != Some(Spent::Message))
    }

    pub(super) fn capacity(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, |message| message.data.capacity())
    }

    /// Length and fragment count of the unfinished message.
    pub(super) fn message(&self) -> Option<(usize, u32)> {
        self.message.as_ref().map(|message| (message.data.len(), message.fragments))
    }

    /// The payload that was just completed.
    pub(super) fn finished(&self) -> &[u8] {
        match (self.spent, &self.message) {
            (Some(Spent::Control), _) => &self.control,
            (Some(Spent::Message), Some(message)) => &message.data,
            _ => &[],
        }
    }

    pub(super) fn has_head(&self) -> bool {
        self.head_len > 0
    }

    /// Keeps the beginning of a head: less than a whole one.
    pub(super) fn keep_head(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(MAX_HEAD);
        self.head[..len].copy_from_slice(&bytes[..len]);
        self.head_len = len as u8;
    }

    /// Goes on with a kept head.
    pub(super) fn complete_head(&mut self, input: &mut &mut [u8]) -> Result<Option<Head>, Violation> {
        while let [byte] = take(input, 1) {
            let len = usize::from(self.head_len);
            // A head is complete with its 14th byte at the latest.
            let Some(slot) = self.head.get_mut(len) else { break };
            *slot = *byte;
            self.head_len += 1;
            if let Some((head, _)) = Head::parse(&self.head[..=len])? {
                self.head_len = 0;
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    pub(super) fn in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Begins a frame that was found admissible.
    pub(super) fn begin(&mut self, head: Head) {
        match head.opcode {
            OpCode::Continuation => {
                if let Some(message) = &mut self.message {
                    message.fragments += 1;
                }
            }
            OpCode::Text | OpCode::Binary => {
                let text = head.opcode == OpCode::Text;
                self.message = Some(Message { text, fragments: 1, checked: 0, data: Vec::new() });
            }
            OpCode::Close | OpCode::Ping | OpCode::Pong => {}
        }
        self.frame = Some(Incoming { head, received: 0 });
    }

    /// Takes payload of the frame begun off the input.
    pub(super) fn feed(&mut self, input: &mut &mut [u8]) -> Result<Fed, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(Fed::Fragment) };
        let Incoming { head, received } = *frame;
        let missing = usize::try_from(head.len - received).unwrap_or(usize::MAX);
        let piece = take(input, missing);
        let mut mask = head.mask;
        mask.rotate_left((received % 4) as usize);
        unmask(piece, mask);
        frame.received += piece.len() as u64;
        let complete = piece.len() == missing;
        if complete {
            self.frame = None;
        }
        if head.is_control() {
            append(&mut self.control, piece, missing);
            return Ok(if complete { self.finish(Spent::Control, head.opcode) } else { Fed::NeedsInput });
        }
        let Some(message) = &mut self.message else { return Ok(Fed::Fragment) };
        append(&mut message.data, piece, missing);
        if message.text {
            message.check_text(complete && head.fin)?;
        }
        let opcode = if message.text { OpCode::Text } else { OpCode::Binary };
        Ok(match (complete, head.fin) {
            (false, _) => Fed::NeedsInput,
            (true, false) => Fed::Fragment,
            (true, true) => self.finish(Spent::Message, opcode),
        })
    }

    fn finish(&mut self, what: Spent, opcode: OpCode) -> Fed {
        self.spent = Some(what);
        Fed::Finished(opcode)
    }
}

impl Message {
    /// Checks what came since the last check; a character may only be cut off while more is to come.
    fn check_text(&mut self, last: bool) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.data[self.checked..]) {
            Ok(_) => self.checked = self.data.len(),
            Err(error) if error.error_len().is_none() && !last => self.checked += error.valid_up_to(),
            Err(_) => return Err(BAD_TEXT),
        }
        Ok(())
    }
}

/// Appends `piece`, the first of `announced` bytes still to come, without reserving more than was received so far.
fn append(buffer: &mut Vec<u8>, piece: &[u8], announced: usize) {
    if buffer.capacity() - buffer.len() < piece.len() {
        let doubled = (buffer.len() + piece.len()).saturating_add(buffer.len());
        buffer.reserve_exact(doubled.min(buffer.len().saturating_add(announced)) - buffer.len());
    }
    buffer.extend_from_slice(piece);
}
