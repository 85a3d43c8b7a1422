//! HTTP/1.1 and WebSocket frames by hand: for what a well-behaved client library would never send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::within;

/// A status line, headers and a body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A GET of `path`, the connection closed after it.
pub async fn get(addr: SocketAddr, path: &str) -> Response {
    request(addr, "GET", path, &[]).await
}

/// Any request without a body.
pub async fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    within(path, async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
        for (key, value) in headers {
            head.extend([key, ": ", value, "\r\n"]);
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let mut raw = Raw { stream, buffer: Vec::new() };
        let mut response = raw.read_head().await;
        // Either the length is told or the end of the connection is the end of the body.
        let length = response.header("content-length").parse().unwrap_or(usize::MAX);
        while raw.buffer.len() < length && raw.fill().await {}
        response.body =
            if response.header("transfer-encoding").contains("chunked") { dechunk(&raw.buffer) } else { raw.buffer };
        response
    })
    .await
}

/// A WebSocket handshake with more `headers`; what comes after the answer is the caller's to read.
pub async fn upgrade(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Response, Raw) {
    within(path, async {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a client that does not read is noticed soon.
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let mut stream = socket.connect(addr).await.unwrap();
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        if !headers.iter().any(|(key, _)| key.eq_ignore_ascii_case("host")) {
            head.extend(["host: ", &addr.to_string(), "\r\n"]);
        }
        for (key, value) in headers {
            head.extend([key, ": ", value, "\r\n"]);
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let mut raw = Raw { stream, buffer: Vec::new() };
        let mut response = raw.read_head().await;
        if response.status != 101 {
            let length = response.header("content-length").parse().unwrap_or(0);
            while raw.buffer.len() < length && raw.fill().await {}
            response.body = std::mem::take(&mut raw.buffer);
        }
        (response, raw)
    })
    .await
}

/// A connection read byte by byte: it answers no ping unless told to.
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// A connection on which nothing has been said.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(addr)).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are. False when the server has closed already; the reading side will tell how.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        within("bytes to be taken", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Reads to the end, whatever comes.
    pub async fn ended(&mut self) {
        within("the connection to end", async { while self.fill().await {} }).await;
    }

    /// Reads one answer with its body. Status 0 if there is none.
    pub async fn response(&mut self) -> Response {
        within("an answer", async {
            let mut response = self.read_head().await;
            let length = response.header("content-length").parse().unwrap_or(0);
            while self.buffer.len() < length && self.fill().await {}
            response.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
            response
        })
        .await
    }

    /// Reads a few bytes at most; false at the end.
    pub async fn sip(&mut self, bytes: usize) -> bool {
        let mut few = vec![0; bytes];
        let read = self.stream.read(&mut few).await.unwrap_or(0);
        self.buffer.extend_from_slice(&few[..read]);
        read > 0
    }

    /// Reads more; false at the end, however it came.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(16 * 1024);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// The status of the answer that comes.
    pub async fn head(&mut self) -> u16 {
        within("an answer", self.read_head()).await.status
    }

    async fn read_head(&mut self) -> Response {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Response { status, head, body: Vec::new() };
            }
            if !self.fill().await {
                return Response { status: 0, head: String::new(), body: Vec::new() };
            }
        }
    }

    /// The next frame as opcode and payload; `None` at the end. Servers send neither masks nor fragments here.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        within("a frame", async {
            loop {
                if let Some((start, end)) = frame_bounds(&self.buffer) {
                    let opcode = self.buffer[0] & 0x0f;
                    let payload = self.buffer[start..end].to_vec();
                    self.buffer.drain(..end);
                    return Some((opcode, payload));
                }
                if !self.fill().await {
                    return None;
                }
            }
        })
        .await
    }

    /// Reads to the end, and returns the close code if one came.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((opcode, payload)) = self.frame().await {
            if opcode == 8 {
                code = Some(payload.get(..2).map_or(1005, |two| u16::from_be_bytes([two[0], two[1]])));
            }
        }
        code
    }

    /// Sends bytes as they are.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = within("bytes to be taken", self.stream.write_all(bytes)).await;
    }

    /// Sends one masked frame with the given first byte (FIN, RSV, opcode).
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            long @ ..65_536 => {
                frame.push(0xFE);
                frame.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
            }
            longer => {
                frame.push(0xFF);
                frame.extend_from_slice(&(longer as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]); // a mask of zeros leaves the payload as it is
        frame.extend_from_slice(payload);
        self.write(&frame).await;
    }
}

/// Where the payload of a complete frame at the start of `bytes` begins and ends.
fn frame_bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((start, start + length))
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16).unwrap_or(0);
        if size == 0 || bytes.len() < end + 4 + size {
            break;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}
