//! From an address to an open WebSocket: TCP, TLS if wanted, and the upgrade.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse as _;

use super::link::{Link, decrypt, short};

/// Longest answer to a handshake.
const MOST_ANSWER_BYTES: usize = 64 * 1024;

/// Why there is no connection, in words that add up in a table.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ConnectError {
    #[error("{0}")]
    Io(String),
    /// The status and the first line of the body.
    #[error("HTTP {0}: {1}")]
    Refused(u16, String),
    #[error("{0}")]
    NotWebSocket(&'static str),
}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(short(&error))
    }
}

/// What a handshake asks for.
pub struct Request<'a> {
    pub address: SocketAddr,
    pub source: Option<IpAddr>,
    /// For `Host` and the certificate. An IPv6 address stands without brackets.
    pub host: &'a str,
    pub port: u16,
    pub tls: bool,
    /// Path and query.
    pub path: &'a str,
    pub token: Option<&'a str>,
}

/// Opens connections; one per thread.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Trusts the public certificate authorities, and those of `ca`.
    ///
    /// # Errors
    /// When the file cannot be read or has no certificate.
    pub fn new(ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| format!("--ca {}", path.display()))?;
            anyhow::ensure!(!certificates.is_empty(), "--ca {}: no certificate in it", path.display());
            for certificate in certificates {
                roots.add(certificate).with_context(|| format!("--ca {}", path.display()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config) })
    }

    /// Connects and upgrades. Gives the link, and what the server sent behind its answer.
    ///
    /// # Errors
    /// Whatever stands in the way. Takes as long as the system lets it: the caller limits the time.
    pub async fn connect(&self, request: Request<'_>) -> Result<(Link, Vec<u8>), ConnectError> {
        let mut stream = open(request.address, request.source).await?;
        let mut tls = None;
        if request.tls {
            let name = ServerName::try_from(request.host.to_owned())
                .map_err(|_| ConnectError::NotWebSocket("the host is no name a certificate can have"))?;
            let mut session = ClientConnection::new(Arc::clone(&self.tls), name)
                .map_err(|error| ConnectError::Io(error.to_string()))?;
            // What is written is taken out at once; a limit would cut a long frame short.
            session.set_buffer_limit(None);
            secure(&mut stream, &mut session).await?;
            tls = Some(Box::new(session));
        }
        let key = generate_key();
        let head = head(&request, &key);
        send(&mut stream, tls.as_deref_mut(), head.as_bytes()).await?;
        let (answer, end, bytes) = answer(&mut stream, tls.as_deref_mut()).await?;
        let status = answer.status().as_u16();
        if status != 101 {
            return Err(ConnectError::Refused(status, first_line(&bytes[end..])));
        }
        let accept = answer.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
        if accept != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(ConnectError::NotWebSocket("the server's Sec-WebSocket-Accept is wrong"));
        }
        Ok((Link::new(stream, tls), bytes[end..].to_vec()))
    }
}

async fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_nodelay(true)?;
    Ok(socket.connect(address).await?)
}

fn head(request: &Request<'_>, key: &str) -> String {
    use std::fmt::Write as _;

    let default_port = if request.tls { 443 } else { 80 };
    // What has a colon is an IPv6 address, and would run into the port.
    let (open, close) = if request.host.contains(':') { ("[", "]") } else { ("", "") };
    let mut head = format!("GET {} HTTP/1.1\r\nHost: {open}{}{close}", request.path, request.host);
    if request.port != default_port {
        let _ = write!(head, ":{}", request.port);
    }
    head.push_str("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    let _ = write!(head, "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {}\r\n", roomcast_protocol::SUBPROTOCOL);
    if let Some(token) = request.token {
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    head.push_str("\r\n");
    head
}

async fn secure(stream: &mut TcpStream, tls: &mut ClientConnection) -> Result<(), ConnectError> {
    let mut buffer = vec![0; 16 * 1024];
    while tls.is_handshaking() {
        flush(stream, tls).await?;
        if !tls.wants_read() {
            continue;
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(ConnectError::Io("end of stream within the TLS handshake".to_owned()));
        }
        decrypt(tls, &buffer[..read], &mut Vec::new())?;
    }
    flush(stream, tls).await
}

async fn flush(stream: &mut TcpStream, tls: &mut ClientConnection) -> Result<(), ConnectError> {
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed)?;
    }
    Ok(stream.write_all(&sealed).await?)
}

async fn send(stream: &mut TcpStream, tls: Option<&mut ClientConnection>, bytes: &[u8]) -> Result<(), ConnectError> {
    use std::io::Write as _;

    match tls {
        None => Ok(stream.write_all(bytes).await?),
        Some(tls) => {
            tls.writer().write_all(bytes)?;
            flush(stream, tls).await
        }
    }
}

/// The answer, where it ends, and all bytes read.
async fn answer(
    stream: &mut TcpStream,
    mut tls: Option<&mut ClientConnection>,
) -> Result<(Response, usize, Vec<u8>), ConnectError> {
    let mut bytes = Vec::with_capacity(1024);
    let mut sealed = vec![0; 4096];
    loop {
        let read = stream.read(&mut sealed).await?;
        if read == 0 {
            return Err(ConnectError::Io(ErrorKind::UnexpectedEof.to_string()));
        }
        match tls.as_deref_mut() {
            None => bytes.extend_from_slice(&sealed[..read]),
            Some(tls) => decrypt(tls, &sealed[..read], &mut bytes)?,
        }
        match Response::try_parse(&bytes) {
            Ok(Some((end, response))) => return Ok((response, end, bytes)),
            Ok(None) if bytes.len() <= MOST_ANSWER_BYTES => {}
            _ => return Err(ConnectError::NotWebSocket("the answer to the handshake is no HTTP/1.1")),
        }
    }
}

fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
