//! Many client connections on one thread: an epoll loop with large reads that walks frame headers and looks into
//! a payload only where it must.
//!
//! Used by the driver and the benchmarks. Must not know rooms or windows.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Bytes asked for in one read.
const READ_BYTES: usize = 1 << 18;
/// Handshakes under way at once.
const OPENING: usize = 64;
/// Any mask will do; the server has to undo it all the same.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame from the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message,
    Ack,
    Error,
    Other,
}

/// Counts over all connections of a fleet.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Reads that returned bytes of at least one message.
    pub reads: u64,
    pub messages: u64,
    /// Bytes of message frames, headers included.
    pub bytes: u64,
    pub acks: u64,
    pub joined: u64,
    pub errors: u64,
    pub closed: u64,
}

struct Conn {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come yet.
    carry: Vec<u8>,
    pending: Vec<u8>,
    upgraded: bool,
    open: bool,
    watched: bool,
}

/// The connections.
pub struct Fleet {
    poll: Poll,
    events: Events,
    conns: Vec<Conn>,
    scratch: Vec<u8>,
    pub totals: Totals,
    upgraded: usize,
    /// What the first error frame or close said.
    pub first_error: Option<String>,
}

impl Fleet {
    pub fn new() -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            conns: Vec::new(),
            scratch: vec![0; READ_BYTES * 2],
            totals: Totals::default(),
            upgraded: 0,
            first_error: None,
        })
    }

    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Adds a plain connection whose peer sends frames without a handshake.
    pub fn add_plain(&mut self, address: SocketAddr) -> Result<usize> {
        let stream = std::net::TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let index = self.conns.len();
        // Edge-triggered: the interest in writing costs nothing until a write was refused.
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let (carry, pending) = (Vec::new(), Vec::new());
        self.conns.push(Conn { stream, carry, pending, upgraded: true, open: true, watched: false });
        Ok(index)
    }

    /// Opens one WebSocket per path and waits until each has seen `joins` frames `joined`.
    pub fn open(&mut self, address: SocketAddr, paths: &[String], joins: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        for chunk in paths.chunks(OPENING) {
            let (mut upgraded, mut joined) = (self.upgraded, self.totals.joined);
            for path in chunk {
                let index = self.add_plain(address)?;
                self.conns[index].upgraded = false;
                self.send(index, request(path, address).as_bytes())?;
                upgraded += 1;
                joined += joins;
            }
            while self.upgraded < upgraded || self.totals.joined < joined {
                self.turn(Some(Duration::from_millis(100)), |_, _, _| {})?;
                if Instant::now() > deadline || self.totals.closed > 0 {
                    let said = self.first_error.as_deref().unwrap_or("nothing");
                    bail!("{} of {} connections joined; the server said: {said}", self.totals.joined, self.len());
                }
            }
        }
        Ok(())
    }

    /// Has the frames of a connection shown to the callback of `turn`.
    pub fn watch(&mut self, index: usize) {
        self.conns[index].watched = true;
    }

    /// True when nothing written to a connection is still waiting for its socket.
    pub fn drained(&self, index: usize) -> bool {
        self.conns[index].pending.is_empty()
    }

    /// Bounds what the kernel takes from this connection before it refuses.
    pub fn bound_send_buffer(&mut self, index: usize, bytes: usize) -> Result<()> {
        Ok(socket2::SockRef::from(&self.conns[index].stream).set_send_buffer_size(bytes)?)
    }

    /// Writes now what the socket takes, and the rest when it takes more.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let conn = &mut self.conns[index];
        if !conn.pending.is_empty() {
            conn.pending.extend_from_slice(bytes);
            return Ok(());
        }
        let mut sent = 0;
        while sent < bytes.len() && conn.open {
            match conn.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    conn.pending.extend_from_slice(&bytes[sent..]);
                    break;
                }
                Err(error) => return Err(error).context("writing"),
            }
        }
        Ok(())
    }

    /// One turn of the loop; `on` sees the frames of watched connections and every error.
    pub fn turn(&mut self, timeout: Option<Duration>, mut on: impl FnMut(usize, Kind, &[u8])) -> Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error.into()) };
        }
        let ready: Vec<_> = self.events.iter().map(|e| (e.token().0, e.is_readable(), e.is_writable())).collect();
        for (index, readable, writable) in ready {
            if writable && !self.conns[index].pending.is_empty() {
                let pending = std::mem::take(&mut self.conns[index].pending);
                self.send(index, &pending)?;
            }
            if readable {
                self.read(index, &mut on)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize, on: &mut impl FnMut(usize, Kind, &[u8])) -> Result<()> {
        loop {
            let conn = &mut self.conns[index];
            let kept = conn.carry.len();
            let room = kept + READ_BYTES;
            if self.scratch.len() < room {
                self.scratch.resize(room, 0);
            }
            self.scratch[..kept].copy_from_slice(&conn.carry);
            let count = match conn.stream.read(&mut self.scratch[kept..room]) {
                Ok(count) if count > 0 => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                end => return self.close(index, end.err().map_or("end of stream".into(), |e| e.to_string())),
            };
            conn.carry.clear();
            let scratch = std::mem::take(&mut self.scratch);
            let used = self.walk(index, &scratch[..kept + count], on);
            self.scratch = scratch;
            let rest = used?;
            self.conns[index].carry.extend_from_slice(&self.scratch[rest..kept + count]);
            // A short read emptied the socket; whatever comes later raises a new edge.
            if count < READ_BYTES || !self.conns[index].open {
                return Ok(());
            }
        }
    }

    /// Goes over the whole frames in `bytes` and returns where the first unfinished one begins.
    fn walk(&mut self, index: usize, bytes: &[u8], on: &mut impl FnMut(usize, Kind, &[u8])) -> Result<usize> {
        let mut at = 0;
        if !self.conns[index].upgraded {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                bail!("refused: {}", String::from_utf8_lossy(bytes));
            }
            self.conns[index].upgraded = true;
            self.upgraded += 1;
            at = end + 4;
        }
        let watched = self.conns[index].watched;
        let before = self.totals.messages;
        while let Some((opcode, start, end)) = frame(&bytes[at..]) {
            let payload = &bytes[at + start..at + end];
            match opcode {
                1 => {
                    let kind = self.count(payload, end);
                    if watched || kind == Kind::Error {
                        on(index, kind, payload);
                    }
                }
                8 => self.close(index, close_text(payload))?,
                9 => self.send(index, &masked(0x8a, payload))?,
                _ => {}
            }
            at += end;
        }
        self.totals.reads += u64::from(self.totals.messages > before);
        Ok(at)
    }

    fn count(&mut self, payload: &[u8], frame_bytes: usize) -> Kind {
        match payload.get(9..14) {
            Some(b"messa") => {
                self.totals.messages += 1;
                self.totals.bytes += frame_bytes as u64;
                return Kind::Message;
            }
            Some(b"ack\",") => {
                self.totals.acks += 1;
                return Kind::Ack;
            }
            Some(b"error") => {
                self.totals.errors += 1;
                self.first_error.get_or_insert_with(|| String::from_utf8_lossy(payload).into_owned());
                return Kind::Error;
            }
            Some(b"joine") => self.totals.joined += 1,
            _ => {}
        }
        Kind::Other
    }

    fn close(&mut self, index: usize, why: String) -> Result<()> {
        let conn = &mut self.conns[index];
        if conn.open {
            conn.open = false;
            self.poll.registry().deregister(&mut conn.stream)?;
            self.totals.closed += 1;
            self.first_error.get_or_insert(why);
        }
        Ok(())
    }
}

fn close_text(payload: &[u8]) -> String {
    let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
    format!("close {code} {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()))
}

/// The request that opens a WebSocket.
pub fn request(path: &str, address: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Opcode, start and end of the payload of the frame at the front, if it is whole. Servers do not mask.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (start, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((bytes[0] & 0x0f, start, start + length))
}

/// A masked frame; `first` is FIN and opcode.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 8);
    push_masked(first, payload, &mut out);
    out
}

/// Appends a masked text frame.
pub fn push_text(payload: &[u8], out: &mut Vec<u8>) {
    push_masked(0x81, payload, out);
}

fn push_masked(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 + short as u8),
        long => {
            out.push(0x80 + 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

impl Totals {
    /// What was added since an earlier reading.
    pub fn since(&self, first: &Self) -> Self {
        Self {
            reads: self.reads - first.reads,
            messages: self.messages - first.messages,
            bytes: self.bytes - first.bytes,
            acks: self.acks - first.acks,
            joined: self.joined - first.joined,
            errors: self.errors - first.errors,
            closed: self.closed - first.closed,
        }
    }
}
