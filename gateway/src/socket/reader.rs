//! What a client's bytes mean: an incremental reader of masked frames.
//!
//! Called by the session with whatever a read brought; must not know where bytes come from or what messages say. A
//! pure state machine: it never waits, so it can be left and resumed at any byte. A frame that lies whole in the input
//! is unmasked in place and handed out as a borrow; only what is partial is kept, and memory grows with bytes received,
//! never on the word of a header.

#![expect(clippy::mut_mut, reason = "the input is a cursor: a slice that steps move forward")]

mod head;
mod held;
#[cfg(test)]
mod tests;

use fastwebsockets::{OpCode, unmask};

use head::Head;
use held::{Fed, Held};

/// What one frame, or one message of several, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The client's close with its code and reason, if it gave one. Nothing follows it.
    Close(Option<(u16, &'a str)>),
}

/// How a client broke the protocol. The socket is to be closed with `code`; the reader gives nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Violation {
    /// The close code: 1002, 1007 or 1009.
    pub code: u16,
    /// Words for the client's developer, short enough for a close frame.
    pub reason: &'static str,
}

impl Violation {
    const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }

    const fn too_big(reason: &'static str) -> Self {
        Self { code: 1009, reason }
    }
}

const BAD_TEXT: Violation = Violation { code: 1007, reason: "text is not UTF-8" };
const BAD_REASON: Violation = Violation { code: 1007, reason: "close reason is not UTF-8" };

/// The reading half of one connection. 24 bytes while nothing is partial.
#[derive(Debug)]
pub struct Reader {
    max_message: u32,
    max_fragments: u32,
    ended: bool,
    held: Option<Box<Held>>,
}

/// What a step through the input found. Borrows only the input, so that the reader stays free until the end.
enum Found<'i> {
    Nothing,
    /// A frame that lay whole in the input.
    Lent(Event<'i>),
    /// Something put together in [`Held`].
    Held(OpCode),
}

impl Reader {
    /// A reader that takes messages of up to `max_message` bytes in up to `max_fragments` frames (at least one).
    pub fn new(max_message: u32, max_fragments: u32) -> Self {
        Self { max_message, max_fragments: max_fragments.max(1), ended: false, held: None }
    }

    /// Takes the next event off the front of `input`; `None` when all of it is used up and more is needed.
    ///
    /// To be called until it gives `None`, which is also what frees the memory of a message that came in pieces.
    /// After a close or an error the rest of the input is swallowed.
    ///
    /// # Errors
    /// [`Violation`], once.
    pub fn next<'e, 'i: 'e>(&'e mut self, input: &mut &'i mut [u8]) -> Result<Option<Event<'e>>, Violation> {
        let found = if self.ended { Ok(Found::Nothing) } else { self.step(input) };
        if self.ended || found.is_err() {
            self.ended = true;
            *input = &mut [];
        }
        match found {
            Ok(Found::Lent(event)) => Ok(Some(event)),
            Ok(Found::Held(opcode)) => event(opcode, self.held_payload()).map(Some),
            Ok(Found::Nothing) if !self.ended => Ok(None),
            Ok(Found::Nothing) => {
                self.held = None;
                Ok(None)
            }
            Err(violation) => {
                self.held = None;
                Err(violation)
            }
        }
    }

    /// True while part of a frame, or of a message in several frames, has come and the rest has not.
    pub fn is_mid_message(&self) -> bool {
        !self.ended && self.held.as_ref().is_some_and(|held| held.is_partial())
    }

    /// Bytes of memory held beyond the reader itself. At most twice the payload received, and 128 bytes.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| size_of::<Held>() + held.capacity())
    }

    fn held_payload(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| held.finished())
    }

    fn step<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Found<'i>, Violation> {
        if self.held.as_mut().is_some_and(|held| !held.release()) {
            self.held = None;
        }
        loop {
            if let Some(held) = &mut self.held
                && held.in_frame()
            {
                match held.feed(input)? {
                    Fed::Finished(opcode) => {
                        // Text was judged as it came; a close is judged here, where an error still ends the reader.
                        if opcode == OpCode::Close {
                            close_parts(self.held_payload())?;
                            self.ended = true;
                        }
                        return Ok(Found::Held(opcode));
                    }
                    Fed::NeedsInput => return Ok(Found::Nothing),
                    Fed::Fragment => {}
                }
            }
            let Some(head) = self.read_head(input)? else { return Ok(Found::Nothing) };
            self.admit(&head)?;
            let alone = head.is_control() || (head.fin && head.opcode != OpCode::Continuation);
            match usize::try_from(head.len) {
                Ok(len) if alone && len <= input.len() => return self.lend(&head, take(input, len)),
                _ => self.held.get_or_insert_default().begin(head),
            }
        }
    }

    /// Unmasks a frame in place.
    fn lend<'i>(&mut self, head: &Head, payload: &'i mut [u8]) -> Result<Found<'i>, Violation> {
        unmask(payload, head.mask);
        if self.held.as_ref().is_some_and(|held| !held.is_partial()) {
            self.held = None;
        }
        let event = event(head.opcode, payload)?;
        self.ended = matches!(event, Event::Close(_));
        Ok(Found::Lent(event))
    }

    /// Reads a head off the input, or keeps what there is of it.
    fn read_head(&mut self, input: &mut &mut [u8]) -> Result<Option<Head>, Violation> {
        if let Some(held) = &mut self.held
            && held.has_head()
        {
            return held.complete_head(input);
        }
        if let Some((head, size)) = Head::parse(input)? {
            take(input, size);
            return Ok(Some(head));
        }
        if !input.is_empty() {
            let rest = take(input, input.len());
            self.held.get_or_insert_default().keep_head(rest);
        }
        Ok(None)
    }

    /// Whether a frame with this head may come now, and fits the limits together with what came before.
    fn admit(&self, head: &Head) -> Result<(), Violation> {
        if head.is_control() {
            return Ok(());
        }
        let (length, fragments) = match self.held.as_ref().and_then(|held| held.message()) {
            Some(message) if head.opcode == OpCode::Continuation => message,
            Some(_) => return Err(Violation::protocol("new message inside an unfinished one")),
            None if head.opcode == OpCode::Continuation => {
                return Err(Violation::protocol("continuation of no message"));
            }
            None => (0, 0),
        };
        if head.len.saturating_add(length as u64) > u64::from(self.max_message) {
            return Err(Violation::too_big("message too big"));
        }
        if fragments >= self.max_fragments {
            return Err(Violation::too_big("message in too many fragments"));
        }
        Ok(())
    }
}

fn event(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(match opcode {
        OpCode::Text => Event::Text(simdutf8::basic::from_utf8(payload).map_err(|_| BAD_TEXT)?),
        OpCode::Ping => Event::Ping(payload),
        OpCode::Pong => Event::Pong(payload),
        OpCode::Close => Event::Close(close_parts(payload)?),
        OpCode::Binary | OpCode::Continuation => Event::Binary(payload),
    })
}

fn close_parts(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::protocol("close with half a code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::protocol("close with a code that must not be sent"));
    }
    Ok(Some((code, simdutf8::basic::from_utf8(reason).map_err(|_| BAD_REASON)?)))
}

/// Cuts the first `len` bytes off `input`, or all of them if there are fewer.
fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let whole = std::mem::take(input);
    let (front, rest) = whole.split_at_mut(len.min(whole.len()));
    *input = rest;
    front
}
