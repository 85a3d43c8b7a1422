//! The one HTTP client of the node: what it tells to and asks of services that the operator named. Used by the floors that
//! call out; the only user of its library. It must not know what the calls are about.
//!
//! No redirect is followed, no proxy of the environment is used, an answer's body is read up to a bound, and every call
//! ends within its time. Errors never contain the URL: it may hold what is secret.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take, TLS included. Calls with less time end sooner.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next call. Shorter than what servers usually keep one.
const IDLE: Duration = Duration::from_secs(30);
/// Connections kept for one host.
const IDLE_PER_HOST: usize = 8;

/// Calls out. Cheap to clone; clones share connections, which live on the runtime that made them.
#[derive(Clone)]
pub struct Outbound(Client);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// From connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub most_bytes: usize,
}

/// What came back. The status may be known and the body not.
#[derive(Debug)]
pub struct Answer {
    /// Of HTTP; redirects and errors, too.
    pub status: u16,
    /// The header `Retry-After`, if it is text.
    pub retry_after: Option<String>,
    /// The whole body.
    pub body: Result<Bytes, OutboundError>,
}

/// Why there is no answer, or none that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, a broken one, or no HTTP.
    #[error("{0}")]
    Network(String),
    /// The body is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
}

impl Outbound {
    /// A client that trusts the built-in roots, or only the certificates of the PEM file `ca`.
    ///
    /// # Errors
    /// [`OutboundError::Settings`], when the file cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>) -> Result<Self, OutboundError> {
        let settings = |error: &dyn fmt::Display| OutboundError::Settings(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| settings(&error))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .tcp_nodelay(true)
            .build();
        client.map(Self).map_err(|error| settings(&words(error)))
    }

    /// Posts JSON, with more headers.
    ///
    /// # Errors
    /// [`OutboundError::Timeout`] or [`OutboundError::Network`] when not even a status came.
    pub async fn post_json(
        &self,
        call: Call<'_>,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, OutboundError> {
        let mut request = self.0.request(Method::POST, call.url).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| OutboundError::Network("bad header".to_owned()))?;
            request = request.header(HeaderName::from_static(name), value);
        }
        send(request.header(ACCEPT, "application/json").body(body), call).await
    }

    /// Gets a document.
    ///
    /// # Errors
    /// As for [`Outbound::post_json`].
    pub async fn get(&self, call: Call<'_>) -> Result<Answer, OutboundError> {
        send(self.0.request(Method::GET, call.url).header(ACCEPT, "application/json"), call).await
    }
}

async fn send(request: reqwest::RequestBuilder, call: Call<'_>) -> Result<Answer, OutboundError> {
    let response = request.timeout(call.timeout).send().await.map_err(failure)?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let body = read(response, call.most_bytes).await;
    Ok(Answer { status, retry_after, body })
}

async fn read(mut response: Response, most: usize) -> Result<Bytes, OutboundError> {
    let too_long = OutboundError::TooLong(most);
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_long);
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(failure)? {
        if body.len() + piece.len() > most {
            return Err(too_long);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn failure(error: reqwest::Error) -> OutboundError {
    if error.is_timeout() { OutboundError::Timeout } else { OutboundError::Network(words(error)) }
}

/// The innermost reason, without the URL.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, OutboundError> {
    let Some(path) = ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let broken = |problem: String| OutboundError::Settings(format!("{}: {problem}", path.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))? {
        let certificate = certificate.map_err(|error| broken(error.to_string()))?;
        store.add(certificate).map_err(|error| broken(error.to_string()))?;
    }
    if store.is_empty() { Err(broken("expected certificates in PEM".to_owned())) } else { Ok(store) }
}
