//! What waits to be written to one connection: whole frames in shared `Bytes`, bounded in bytes.
//!
//! Called by the hub (one direct write while nothing waits) and by the session (flushing once the socket is writable
//! again); must not know what the frames say. Never waits: a full socket leaves the rest queued. The frames of a piece
//! are whole, so that a boundary can be found again when everything but a close frame is to be dropped.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::frames::first_frame_len;

/// Pieces that go into one write.
const MAX_PIECES: usize = 64;
/// Pieces shorter than this on average are copied into one: measured, copying 40 small frames costs less than handing
/// the kernel 40 addresses.
const JOIN_BELOW: usize = 1024;
/// What a queued piece costs beside its bytes, so that a queue of empty pings is bounded too.
const PIECE_COST: usize = size_of::<Bytes>();

thread_local! {
    /// Where small pieces are joined. One per thread, for a moment only: a connection keeps no buffer.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The non-blocking writes an outbox needs of a socket.
pub trait TryWrite {
    /// Writes what the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; anything else is the end of the connection.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// The same from several slices.
    ///
    /// # Errors
    /// As [`TryWrite::try_write`].
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl TryWrite for tokio::net::TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::try_write_vectored(self, slices)
    }
}

/// Where the bytes given to [`Outbox::send`] went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// To the socket, all of them.
    Written,
    /// The socket is full: the rest waits, and nothing waited before. Time to await writability and flush.
    Partly,
    /// Behind what waited already; whoever got [`Sent::Partly`] is going to flush them.
    Queued,
}

/// The queue is as long as it may be: the consumer is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("outbound queue full")]
pub struct Overflow;

/// Why [`Outbox::send`] failed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The queue is full. What is partly on the wire stays queued, see [`Outbox::close_with`].
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The connection is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The outbound queue of one connection. 16 bytes while nothing waits.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Option<Box<Waiting>>,
    writes: u32,
}

/// Never empty: an outbox with nothing to write has none.
#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    /// Bytes of the first piece that are on the wire.
    written: usize,
    /// Bytes that are not.
    bytes: usize,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait.
    pub fn backlog(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Successful writes since the last call, and starts counting anew.
    pub fn take_writes(&mut self) -> u32 {
        std::mem::take(&mut self.writes)
    }

    /// Queues whole frames without writing. `limit` bounds the backlog, in bytes; each piece is charged 32 more for
    /// its place in the queue.
    ///
    /// # Errors
    /// [`Overflow`] when they do not fit; they are not queued then.
    pub fn push(&mut self, frames: Bytes, limit: usize) -> Result<(), Overflow> {
        if !frames.is_empty() {
            let (bytes, pieces) = self.waiting.as_ref().map_or((0, 0), |waiting| (waiting.bytes, waiting.pieces.len()));
            if bytes.saturating_add(frames.len()).saturating_add(pieces * PIECE_COST) > limit {
                return Err(Overflow);
            }
            self.waiting.get_or_insert_default().push(frames, 0);
        }
        Ok(())
    }

    /// Writes whole frames at once if nothing waits, and queues what the socket does not take.
    ///
    /// # Errors
    /// [`SendError::Overflow`] when more than `limit` bytes would wait. If some of `frames` is on the wire, the rest is
    /// queued all the same (it is shared, not copied), so that the frame cut in two can still be completed; if
    /// nothing is, they are dropped. [`SendError::Io`] when the connection is gone.
    pub fn send(&mut self, io: &impl TryWrite, frames: &Bytes, limit: usize) -> Result<Sent, SendError> {
        if self.waiting.is_some() {
            self.push(frames.clone(), limit)?;
            return Ok(Sent::Queued);
        }
        if frames.is_empty() {
            return Ok(Sent::Written);
        }
        let written = count(&mut self.writes, io.try_write(frames))?.unwrap_or(0);
        if written == frames.len() {
            return Ok(Sent::Written);
        }
        let fits = frames.len() - written <= limit;
        if fits || written > 0 {
            self.waiting.get_or_insert_default().push(frames.clone(), written);
        }
        if fits { Ok(Sent::Partly) } else { Err(Overflow.into()) }
    }

    /// Writes what waits until all of it is written or the socket is full; true when nothing waits any more.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self, io: &impl TryWrite) -> io::Result<bool> {
        while let Some(waiting) = &mut self.waiting {
            let Some(written) = count(&mut self.writes, waiting.write(io))? else { return Ok(false) };
            if waiting.advance(written) {
                self.waiting = None;
            }
        }
        Ok(true)
    }

    /// Drops every frame of which no byte is on the wire and queues `frame` as the last one, whatever the limit: even
    /// a consumer that is too slow gets its close code, after whole frames.
    pub fn close_with(&mut self, frame: Bytes) {
        if let Some(mut waiting) = self.waiting.take()
            && let Some(rest) = waiting.rest_of_frame()
        {
            waiting.bytes = rest.len();
            waiting.written = 0;
            waiting.pieces = VecDeque::from([rest]);
            self.waiting = Some(waiting);
        }
        if !frame.is_empty() {
            self.waiting.get_or_insert_default().push(frame, 0);
        }
    }
}

impl Waiting {
    fn push(&mut self, frames: Bytes, written: usize) {
        debug_assert!(self.pieces.is_empty() || written == 0, "only the first piece can be partly written");
        self.bytes += frames.len() - written;
        if self.pieces.is_empty() {
            self.written = written;
        }
        self.pieces.push_back(frames);
    }

    /// One write of as much as goes into one.
    fn write(&self, io: &impl TryWrite) -> io::Result<usize> {
        let first = self.pieces.front().map_or(&[][..], |piece| &piece[self.written..]);
        if self.pieces.len() == 1 {
            return io.try_write(first);
        }
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let (mut used, mut total) = (0, 0);
        let rest = self.pieces.iter().skip(1).map(|piece| &piece[..]);
        for (slot, piece) in slices.iter_mut().zip(std::iter::once(first).chain(rest)) {
            *slot = IoSlice::new(piece);
            used += 1;
            total += piece.len();
        }
        let slices = &slices[..used];
        if total >= used * JOIN_BELOW {
            return io.try_write_vectored(slices);
        }
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            for slice in slices {
                joined.extend_from_slice(slice);
            }
            io.try_write(joined)
        })
    }

    /// Takes what was written off the front; true when nothing is left.
    fn advance(&mut self, written: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(written);
        self.written += written;
        while let Some(piece) = self.pieces.front()
            && piece.len() <= self.written
        {
            self.written -= piece.len();
            self.pieces.pop_front();
        }
        self.pieces.is_empty()
    }

    /// The unsent rest of the frame that is partly on the wire, if there is one.
    fn rest_of_frame(&self) -> Option<Bytes> {
        let piece = self.pieces.front()?;
        let mut end = 0;
        while end < self.written {
            end += first_frame_len(&piece[end..]).unwrap_or(piece.len() - end);
        }
        (end > self.written).then(|| piece.slice(self.written..end))
    }
}

/// Counts a write that succeeded; `None` when the socket is full.
fn count(writes: &mut u32, result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => {
            *writes = writes.saturating_add(1);
            Ok(Some(written))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // A signal came in between: the next flush writes the rest.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
