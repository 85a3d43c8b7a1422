//! The one HTTP client: for key sets, and for whoever else a node calls out to. The only user of its library.
//!
//! Callers give addresses that an operator configured, never a client's. No redirect is followed and no proxy of the
//! environment is used, so a call goes where the setting says; answers are bounded in time and in bytes. Make one per
//! runtime: connections that are kept live on the runtime that made them.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Time that a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that is not needed is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Connections kept for each host.
const IDLE_CONNECTIONS: usize = 4;

/// Why a call failed. Holds no part of the address but what the library's words for a name that is not found may have.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The file of certificates cannot be used.
    #[error("expected a file of PEM certificates: {0}")]
    Certificates(String),
    /// The client cannot be made, or the request cannot be written.
    #[error("cannot make the request: {0}")]
    Request(String),
    /// No connection, a broken one, or one that is not trusted.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// The time is over.
    #[error("no answer in time")]
    Timeout,
    /// The answer is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Where to, `https://` or `http://`.
    pub url: &'a str,
    /// Headers beside those that the client sets itself.
    pub headers: &'a [(&'static str, &'a str)],
    /// Makes it a POST with this body; without one it is a GET.
    pub body: Option<Bytes>,
    /// For everything, from the connection to the last byte.
    pub timeout: Duration,
    /// Longest answer that is read.
    pub longest_answer: usize,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status, also of one that says no.
    pub status: u16,
    /// `Retry-After`, if it is there in seconds or as a date.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// The client. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct Outbound(Client);

impl Outbound {
    /// A client that trusts the built-in roots, and those of the file `ca` beside them.
    ///
    /// # Errors
    /// [`OutboundError::Certificates`] when the file is no file of certificates.
    pub fn new(ca: Option<&Path>) -> Result<Self, OutboundError> {
        let broken = |error: String| OutboundError::Request(error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(error.to_string()))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| broken(words(error)))?;
        Ok(Self(client))
    }

    /// Makes one request and reads its whole answer. Nothing is tried a second time here.
    ///
    /// # Errors
    /// [`OutboundError`]; a status that says no is an answer, not an error.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, OutboundError> {
        let longest = call.longest_answer;
        let (mut answer, response) = self.send(call).await?;
        answer.body = read(response, longest).await?;
        Ok(answer)
    }

    /// The same where the body does not matter: it is read only so that the connection can be used again, and nothing that
    /// is wrong with it makes what has been said by the status unsaid. The body of the answer is empty.
    ///
    /// # Errors
    /// [`OutboundError`], when not even a status came.
    pub async fn tell(&self, call: Call<'_>) -> Result<Answer, OutboundError> {
        let longest = call.longest_answer;
        let (answer, response) = self.send(call).await?;
        // Whoever answered 200 took it, whatever comes behind.
        let _ = read(response, longest).await;
        Ok(answer)
    }

    async fn send(&self, call: Call<'_>) -> Result<(Answer, Response), OutboundError> {
        let method = if call.body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.0.request(method, call.url).timeout(call.timeout);
        for (name, value) in call.headers {
            let value = HeaderValue::from_str(value).map_err(|error| OutboundError::Request(error.to_string()))?;
            request = request.header(HeaderName::from_static(name), value);
        }
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(failure)?;
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|header| wait(header, SystemTime::now()));
        let answer = Answer { status: response.status().as_u16(), retry_after, body: Bytes::new() };
        Ok((answer, response))
    }
}

async fn read(mut response: Response, longest: usize) -> Result<Bytes, OutboundError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > longest {
            return Err(OutboundError::TooLong(longest));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What `Retry-After` asks for, as seconds or as a date.
fn wait(header: &str, now: SystemTime) -> Option<Duration> {
    match header.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(header.trim()).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, OutboundError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(path) = ca else { return Ok(roots) };
    let broken = |problem: String| OutboundError::Certificates(format!("{}: {problem}", path.display()));
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))? {
        let certificate = certificate.map_err(|error| broken(error.to_string()))?;
        roots.add(certificate).map_err(|error| broken(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(broken("there is none in it".to_owned()));
    }
    Ok(roots)
}

fn failure(error: reqwest::Error) -> OutboundError {
    if error.is_timeout() {
        OutboundError::Timeout
    } else if error.is_builder() {
        OutboundError::Request(words(error))
    } else {
        OutboundError::Unreachable(words(error))
    }
}

/// What the library says, down to the cause, without the address: that may have a secret in its path.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
