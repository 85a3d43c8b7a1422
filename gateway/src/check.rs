//! `gateway check`: what a node with these settings would meet, found out before one is started. Called by main, as a
//! process of its own; leaves nothing behind. What is wrong with a setting alone is said by the loader, before this.

use std::time::Duration;

use anyhow::{Context as _, Result};
use roomcast_protocol::NodeId;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::access::Access;
use crate::app::{
    self,
    descriptors::{Shortage, shortage},
};
use crate::broker::examine::{Finding, Standing, exercise};
use crate::broker::redis::examine;
use crate::broker::{BrokerStats, RedisBroker, RedisOptions};
use crate::config::Settings;
use crate::telemetry::metrics::Metrics;

/// Events that the exercise may cause.
const EVENTS: usize = 64;
/// Beyond connecting and one call: a canary is sung every 2 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was found.
pub struct Report(Vec<Finding>);

impl Report {
    /// Whether a node with these settings would work.
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|finding| finding.standing != Standing::Problem)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
        for Finding { standing, subject, words, remedy } in &self.0 {
            writeln!(f, "{standing:<8} {subject:<width$}  {words}")?;
            if !remedy.is_empty() {
                writeln!(f, "{:>width$}  -> {remedy}", "", width = width + 9)?;
            }
        }
        let count = |wanted, word| match self.0.iter().filter(|finding| finding.standing == wanted).count() {
            1 => format!("1 {word}"),
            count => format!("{count} {word}s"),
        };
        writeln!(f, "{}, {}", count(Standing::Problem, "problem"), count(Standing::Warning, "warning"))
    }
}

/// Looks at everything that a node with these settings depends on. Takes seconds at most for each server.
///
/// # Errors
/// When not even looking is possible.
pub fn check(settings: &Settings) -> Result<Report> {
    let mut found = vec![listening(settings)];
    found.extend(files(settings));
    found.extend(doors(settings));
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    found.extend(runtime.block_on(access(settings))?);
    match app::redis_options(settings) {
        None => found.push(Finding::warning(
            "redis",
            "none: a node alone, whose rooms are gone when it ends",
            "--redis redis://host:6379, for more than one node and for history that stays",
        )),
        Some(options) => found.extend(runtime.block_on(redis(&options))?),
    }
    Ok(Report(found))
}

/// Whether the addresses can be had. A node that runs already has them, which is no problem of the settings.
fn listening(settings: &Settings) -> Finding {
    for (flag, address) in [("--listen", settings.listen), ("--admin-listen", settings.admin_listen)] {
        if let Err(error) = std::net::TcpListener::bind(address) {
            let words = format!("{flag} {address}: {error}");
            let remedy = "fine if a node runs here; else choose another address or port";
            return Finding::warning("addresses", words, remedy);
        }
    }
    Finding::fine("addresses", format!("clients on {}, operators on {}", settings.listen, settings.admin_listen))
}

fn files(settings: &Settings) -> Option<Finding> {
    let Shortage { allowed, needed } = shortage(settings.max_connections, settings.workers)?;
    let words = format!("{allowed} allowed, {needed} needed for --max-connections {}", settings.max_connections);
    Some(Finding::warning(
        "open files",
        words,
        "raise the hard limit (ulimit -Hn, LimitNOFILE) or lower --max-connections",
    ))
}

/// Who may come in.
fn doors(settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    if settings.allowed_origins.iter().any(|origin| origin == "*") {
        found.push(Finding::warning(
            "origins",
            "pages of any site may connect in a visitor's name",
            "--allowed-origins https://your.site",
        ));
    }
    if !settings.sabotage.is_empty() {
        found.push(Finding::problem("sabotage", "promises are broken on purpose", "leave --sabotage out"));
    }
    found
}

/// Who may come in by which keys, and whether those can be had.
async fn access(settings: &Settings) -> Result<Vec<Finding>> {
    let access = match Access::new(settings, &Metrics::new()) {
        Ok(access) => access,
        Err(error) => {
            return Ok(vec![Finding::problem(
                "access",
                error.to_string(),
                "name a PEM file of a public key in --jwt-public-key",
            )]);
        }
    };
    if access.is_open() && settings.outward.authorize_url.is_none() {
        let remedy = "--jwt-secret or another key, and --jwt-audience: docs/auth.md";
        return Ok(vec![Finding::warning("access", "open: everyone may join, read and publish in every room", remedy)]);
    }
    let mut found = vec![Finding::fine("access", "nobody comes in without being asked who it is")];
    if access.has_published_keys() {
        for (place, keys) in access.try_keys(&app::outbound(settings)?).await {
            let subject = format!("keys of {place}");
            found.push(match keys {
                Ok(0) => Finding::problem(
                    subject,
                    "a key set without a usable key",
                    "RSA, P-256 or Ed25519 keys for signatures",
                ),
                Ok(count) => Finding::fine(subject, format!("{count} usable")),
                Err(error) => {
                    Finding::problem(subject, error, "check --jwt-jwks-url, and that this machine may reach it")
                }
            });
        }
    }
    Ok(found)
}

async fn redis(options: &RedisOptions) -> Result<Vec<Finding>> {
    let mut found = examine(options).await.context("--redis (ROOMCAST_REDIS)")?;
    if found.iter().any(|finding| finding.standing == Standing::Problem) {
        return Ok(found);
    }
    let node = NodeId::new(&format!("check-{:08x}", rand::random::<u32>())).unwrap_or_else(|_| options.node.clone());
    let options = RedisOptions { node: node.clone(), ..options.clone() };
    let (events, mut heard) = mpsc::channel(EVENTS);
    let broker = RedisBroker::connect(&options, events, BrokerStats::new(&Metrics::new()))?;
    let patience = options.connect_timeout + options.timeout + PATIENCE;
    found.push(match exercise(&broker, &mut heard, &node, patience).await {
        Ok(()) => Finding::fine("rooms", "published, heard, read back and left, as a node does"),
        Err(failed) => {
            let refusals = ["NOPERM", "permission", "can't run this command"];
            let remedy = if refusals.iter().any(|refusal| failed.why.contains(refusal)) {
                "give the user the rights that docs/redis.md lists under Permissions, for this --redis-prefix"
            } else {
                "docs/redis.md says what nodes need of Redis"
            };
            Finding::problem("rooms", failed.to_string(), remedy)
        }
    });
    Ok(found)
}
