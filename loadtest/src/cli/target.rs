//! Options of where to connect, and as whom.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::refusal::{Refusal, usage};
use super::values::{Sources, positive_duration, positive_rate, scrape, sources};
use crate::plan::{Backoff, Mint, Target, Token};

const DEFAULT_TARGET: &str = "ws://127.0.0.1:8080";

#[allow(clippy::doc_markdown, rustdoc::bare_urls, clippy::doc_link_with_quotes, reason = "shown in a terminal")]
#[derive(clap::Args)]
#[command(next_help_heading = "Where to connect")]
pub(super) struct TargetOptions {
    /// Node or load balancer: ws://host:port[/prefix], wss:// for TLS, or host:port; may be repeated, clients spread over
    /// all of them. Without it ws://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
    /// Start a gateway in this process, with its memory broker, and load that: for a first look
    #[arg(long = "self", conflicts_with = "target")]
    pub embedded: bool,
    /// Local addresses to connect from, in turn: 10.0.0.5, 127.0.0.2-127.0.0.9, or a list; may be repeated
    #[arg(long, value_name = "ADDRESSES", value_parser = sources)]
    source: Vec<Sources>,
    /// PEM file of certificates to trust beside the public ones
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Metrics page of a node to read once a second: http://host:port/metrics or host:port; may be repeated
    #[arg(long, value_name = "URL", value_parser = scrape)]
    pub scrape: Vec<String>,
    /// New connections per second, of the whole run
    #[arg(long, value_name = "PER_SECOND", default_value = "1000", value_parser = positive_rate)]
    pub connect_rate: f64,
    /// Longest wait for a connection, and for the answer to a join
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    pub connect_timeout: Duration,
    /// Wait before the first attempt to reconnect: a random time up to this, doubled with each attempt
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = positive_duration)]
    backoff: Duration,
    /// Longest wait before an attempt to reconnect
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    backoff_max: Duration,
    /// Token of all clients. Others on this machine can see arguments; the variable and the file they cannot
    #[arg(long, group = "proof", help_heading = "Tokens")]
    token: Option<String>,
    /// File with the token of all clients
    #[arg(long, value_name = "FILE", group = "proof", help_heading = "Tokens")]
    token_file: Option<PathBuf>,
    /// Secret (HS256) to sign a token for each client with; its `sub` is loadtest-<run>-<client>
    #[arg(long, value_name = "SECRET", group = "proof", help_heading = "Tokens")]
    jwt_secret: Option<String>,
    /// File with that secret; a line break at its end does not count
    #[arg(long, value_name = "FILE", group = "proof", help_heading = "Tokens")]
    jwt_secret_file: Option<PathBuf>,
    /// `aud` of signed tokens
    #[arg(long, value_name = "AUDIENCE", help_heading = "Tokens")]
    jwt_audience: Option<String>,
    /// `iss` of signed tokens
    #[arg(long, value_name = "ISSUER", help_heading = "Tokens")]
    jwt_issuer: Option<String>,
    /// How long a signed token is valid; each connection gets a new one
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = positive_duration, help_heading = "Tokens")]
    jwt_lifetime: Duration,
    /// Further claims of signed tokens, a JSON object; {client} and {room} are filled in: {"rooms":["{room}"]}
    #[arg(long, value_name = "JSON", help_heading = "Tokens")]
    jwt_claims: Option<String>,
}

impl TargetOptions {
    /// None for an embedded gateway.
    pub fn targets(&self) -> Result<Vec<Target>, Refusal> {
        if self.embedded {
            return Ok(Vec::new());
        }
        let given: Vec<&str> = self.target.iter().flat_map(|text| text.split(',')).collect();
        let urls = if given.is_empty() { vec![DEFAULT_TARGET] } else { given };
        urls.into_iter().map(|url| Ok(url.parse::<Target>()?.resolve()?)).collect()
    }

    pub fn sources(&self) -> Vec<std::net::IpAddr> {
        self.source.iter().flat_map(|sources| sources.0.iter().copied()).collect()
    }

    pub fn backoff(&self) -> Result<Backoff, Refusal> {
        if self.backoff > self.backoff_max {
            return Err(usage("--backoff is longer than --backoff-max"));
        }
        Ok(Backoff { base: self.backoff, most: self.backoff_max })
    }

    pub fn token(&self, run: u32) -> Result<Token, Refusal> {
        let fixed = match (&self.token, &self.token_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(path)) => Some(read("--token-file", path)?),
            _ => None,
        };
        if let Some(text) = fixed {
            let text = text.trim();
            if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
                return Err(usage("the token is empty, or has characters that no HTTP header may have"));
            }
            return Ok(Token::Fixed(text.into()));
        }
        let secret = match (&self.jwt_secret, &self.jwt_secret_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read("--jwt-secret-file", path)?,
            _ => return self.no_secret(),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(usage("the secret for tokens is empty"));
        }
        Ok(Token::Minted(Arc::new(Mint {
            run,
            secret: secret.as_bytes().to_vec(),
            audience: self.jwt_audience.clone(),
            issuer: self.jwt_issuer.clone(),
            lifetime: self.jwt_lifetime,
            claims: self.claims()?,
        })))
    }

    /// What is said about signed tokens must not be dropped silently.
    fn no_secret(&self) -> Result<Token, Refusal> {
        if self.jwt_audience.is_some() || self.jwt_issuer.is_some() || self.jwt_claims.is_some() {
            return Err(usage("--jwt-audience, --jwt-issuer and --jwt-claims need --jwt-secret or --jwt-secret-file"));
        }
        Ok(Token::None)
    }

    fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        match self.jwt_claims.as_deref().map(serde_json::from_str) {
            None => Ok(Map::new()),
            Some(Ok(Value::Object(claims))) => Ok(claims),
            Some(Ok(_)) => Err(usage(r#"--jwt-claims is no JSON object such as {"rooms":["{room}"]}"#)),
            Some(Err(error)) => Err(usage(format!("--jwt-claims is not JSON: {error}"))),
        }
    }
}

fn read(option: &str, path: &Path) -> Result<String, Refusal> {
    std::fs::read_to_string(path).map_err(|error| usage(format!("{option} {}: {error}", path.display())))
}
