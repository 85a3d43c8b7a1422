//! One open connection: bytes in, bytes out, never blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::frames::{Frame, Incoming, Kind, encode};

/// Reads before others get their turn.
const READS_AT_ONCE: usize = 8;

/// Bytes waiting for the socket from which on pings have no answer: who does not read our pongs needs no more of them.
/// More than publishes alone let wait.
const MOST_WAITING_FOR_PONGS: usize = 2 * 1024 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The server's close frame.
    By(u16, String),
    /// Without one.
    Lost(String),
}

/// A WebSocket after its handshake.
pub struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    incoming: Incoming,
    /// Encoded bytes that the socket did not take yet.
    backlog: Vec<u8>,
    closed: Option<Closed>,
}

impl Link {
    pub(super) fn new(stream: TcpStream, tls: Option<Box<ClientConnection>>) -> Self {
        Self { stream, tls, incoming: Incoming::default(), backlog: Vec::new(), closed: None }
    }

    /// Bytes waiting for the socket.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Takes what came with the handshake's answer.
    pub fn feed(&mut self, bytes: &[u8], on: &mut dyn FnMut(Frame<'_>)) {
        let (backlog, closed, tls, stream) = (&mut self.backlog, &mut self.closed, &mut self.tls, &self.stream);
        let fed = self.incoming.feed(bytes, &mut |frame| match frame {
            Frame::Ping(_) if backlog.len() >= MOST_WAITING_FOR_PONGS => {}
            Frame::Ping(payload) => {
                let mut pong = Vec::new();
                encode(Kind::Pong, payload, &mut pong);
                write_or_keep(stream, tls.as_deref_mut(), backlog, &pong);
            }
            Frame::Close(code, reason) => {
                closed.get_or_insert(Closed::By(code, reason));
            }
            other => on(other),
        });
        if let Err(error) = fed {
            self.closed.get_or_insert(Closed::Lost(error.to_string()));
        }
    }

    /// Writes what waits and reads what is there, text frames going to `on`. `scratch` is the thread's; nothing stays
    /// in it. Ready with the count of bytes read, which may be 0, when it should be called again at once after others;
    /// ready with an error when the connection ended.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        on: &mut dyn FnMut(Frame<'_>),
    ) -> Poll<Result<usize, Closed>> {
        if !self.backlog.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_flush(cx)
        {
            return Poll::Ready(Err(Closed::Lost(short(&error))));
        }
        let mut total = 0;
        for _ in 0..READS_AT_ONCE {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Closed::Lost(short(&error)))),
                Poll::Ready(Ok(())) => {}
            }
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Err(self.closed.take().unwrap_or(Closed::Lost("end of stream".to_owned()))));
            }
            total += read;
            if let Err(error) = self.take(&scratch[..read], on) {
                return Poll::Ready(Err(Closed::Lost(short(&error))));
            }
            if let Some(closed) = self.closed.take() {
                return Poll::Ready(Err(closed));
            }
        }
        Poll::Ready(Ok(total))
    }

    fn take(&mut self, bytes: &[u8], on: &mut dyn FnMut(Frame<'_>)) -> io::Result<()> {
        if self.tls.is_none() {
            self.feed(bytes, on);
            return Ok(());
        }
        let mut plain = Vec::new();
        if let Some(tls) = self.tls.as_deref_mut() {
            decrypt(tls, bytes, &mut plain)?;
        }
        self.feed(&plain, on);
        Ok(())
    }

    /// Sends one text frame; what the socket does not take is kept.
    pub fn send(&mut self, text: &[u8], encoded: &mut Vec<u8>) {
        self.send_as(Kind::Text, text, encoded);
    }

    /// Says goodbye: code 1000.
    pub fn say_goodbye(&mut self) {
        self.send_as(Kind::Close, &1000u16.to_be_bytes(), &mut Vec::new());
    }

    fn send_as(&mut self, kind: Kind, payload: &[u8], encoded: &mut Vec<u8>) {
        encoded.clear();
        encode(kind, payload, encoded);
        write_or_keep(&self.stream, self.tls.as_deref_mut(), &mut self.backlog, encoded);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.backlog.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(&self.backlog) {
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.backlog.shrink_to(0);
        Poll::Ready(Ok(()))
    }
}

/// Writes directly if nothing waits; errors show at the next read.
fn write_or_keep(stream: &TcpStream, tls: Option<&mut ClientConnection>, backlog: &mut Vec<u8>, bytes: &[u8]) {
    let mut sealed = Vec::new();
    let bytes = match tls {
        None => bytes,
        Some(tls) => {
            // Both ends are memory.
            let _ = tls.writer().write_all(bytes);
            while tls.wants_write() {
                if tls.write_tls(&mut sealed).is_err() {
                    break;
                }
            }
            &sealed
        }
    };
    let written = if backlog.is_empty() { stream.try_write(bytes).unwrap_or(0) } else { 0 };
    backlog.extend_from_slice(&bytes[written..]);
}

/// Takes sealed bytes in and appends what they hold to `plain`.
pub(super) fn decrypt(tls: &mut ClientConnection, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed)?;
        tls.process_new_packets().map_err(io::Error::other)?;
        match tls.reader().read_to_end(plain) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// An I/O error in the few words that are worth a row in a table.
pub(super) fn short(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        ErrorKind::AddrNotAvailable => "no local port left (give more --source addresses)".to_owned(),
        _ => error.to_string(),
    }
}
