//! The settings of what the node calls out to: webhooks, and the call that authorises a connection. A part of [`Settings`],
//! which see.

use std::time::Duration;

use clap::Args;

use super::parse::{count, duration, event, room_pattern, web_url};
use super::webhooks::{DEFAULT_NAME, Entry, MAX_WEBHOOKS, MIN_SECRET};
use super::{EventKind, Password, RoomPattern, Settings, WebUrl, Webhook};

/// What lets a node call others in the clear.
const HTTP: &str = "--outbound-http where the network between is trusted";

/// Webhooks and the call that authorises.
#[derive(Debug, Clone, Args)]
pub struct Outward {
    /// Receiver of webhooks: events are posted there. Several: `[[webhooks]]` of the TOML file
    #[arg(long, value_parser = web_url)]
    pub webhook_url: Option<WebUrl>,

    /// Key that signs webhooks, 16 bytes or more
    #[arg(long, allow_hyphen_values = true)]
    pub webhook_secret: Option<Password>,

    /// Events that are posted, comma-separated
    #[arg(long, default_value = "room_occupied,room_vacated,member_joined,member_left", value_delimiter = ',',
          value_parser = event)]
    pub webhook_events: Vec<EventKind>,

    /// Rooms whose events are posted, comma-separated; `*` stands for any run of characters, `?` for one
    #[arg(long, default_value = "*", value_delimiter = ',', value_parser = room_pattern)]
    pub webhook_rooms: Vec<RoomPattern>,

    /// Asked whether a client may connect, and what it may do; see docs/webhooks.md. Beside tokens if keys are set
    #[arg(long, value_parser = web_url)]
    pub authorize_url: Option<WebUrl>,

    /// Key that signs what `authorize-url` is asked, 16 bytes or more
    #[arg(long, allow_hyphen_values = true)]
    pub authorize_secret: Option<Password>,

    /// Time `authorize-url` has to answer. Without an answer nobody comes in: the handshake is answered 503
    #[arg(long, default_value = "2s", value_parser = duration("100ms", "30s"))]
    pub authorize_timeout: Duration,

    /// Time an answer of `authorize-url` holds for the same question; the answer may say less. 0s asks each time
    #[arg(long, default_value = "30s", value_parser = duration("0s", "1h"))]
    pub authorize_cache: Duration,

    /// Time a receiver of webhooks has to answer
    #[arg(long, default_value = "5s", value_parser = duration("100ms", "1m"))]
    pub webhook_timeout: Duration,

    /// Events that may wait for a receiver, 32 MiB at most; beyond, the oldest are dropped
    #[arg(long, default_value = "10000", value_parser = count::<usize>(1, 1_000_000))]
    pub webhook_queue: usize,

    /// Events posted in one call, about 1 MiB at most
    #[arg(long, default_value = "100", value_parser = count::<usize>(1, 1000))]
    pub webhook_batch: usize,

    /// Time an event waits for others to travel with
    #[arg(long, default_value = "100ms", value_parser = duration("0s", "10s"))]
    pub webhook_linger: Duration,

    /// Time after which a call that fails again and again is given up and its events are dropped
    #[arg(long, default_value = "1h", value_parser = duration("1s", "7days"))]
    pub webhook_give_up: Duration,

    /// All receivers of webhooks: the one of the settings and `[[webhooks]]` of the TOML file.
    #[arg(skip)]
    pub webhooks: Vec<Webhook>,
}

impl Settings {
    /// Puts the receivers together. Called before the settings are checked.
    pub(super) fn add_webhooks(&mut self, entries: Vec<Entry>) -> Result<(), (&'static str, String)> {
        let shared = Password::given(self.outward.webhook_secret.as_ref()).cloned();
        if shared.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
            return Err(("webhook_secret", format!("at least {MIN_SECRET} bytes")));
        }
        let single = self.outward.webhook_url.clone().map(|url| Entry {
            name: DEFAULT_NAME.to_owned(),
            url,
            secret: None,
            events: None,
            rooms: None,
        });
        if single.is_none() && entries.is_empty() && shared.is_some() {
            return Err(("webhook_secret", "nothing, unless --webhook-url or [[webhooks]] is given".to_owned()));
        }
        for entry in single.into_iter().chain(entries) {
            let Entry { name, url, secret, events, rooms } = entry;
            let Some(secret) = secret.or_else(|| shared.clone()) else {
                return Err(("webhook_secret", format!("a secret to sign what webhook {name:?} is told")));
            };
            if url.is_exposed() && !self.outbound_http {
                return Err(("webhook_url", format!("https:// for webhook {name:?} on another machine, or {HTTP}")));
            }
            let events = events.unwrap_or_else(|| self.outward.webhook_events.clone());
            let rooms = rooms.unwrap_or_else(|| self.outward.webhook_rooms.clone());
            self.outward.webhooks.push(Webhook { name, url, secret, events, rooms });
        }
        self.check_authorize()?;
        if self.outward.webhooks.len() > MAX_WEBHOOKS {
            return Err(("webhook_url", format!("at most {MAX_WEBHOOKS} webhooks, [[webhooks]] included")));
        }
        Ok(())
    }

    /// Who asks signs, and who is asked is known.
    fn check_authorize(&self) -> Result<(), (&'static str, String)> {
        let secret = Password::given(self.outward.authorize_secret.as_ref());
        match (&self.outward.authorize_url, secret) {
            (None, Some(_)) => Err(("authorize_secret", "nothing, unless --authorize-url is given".to_owned())),
            (Some(_), None) => Err(("authorize_secret", "a secret to sign what --authorize-url is asked".to_owned())),
            (Some(_), Some(secret)) if secret.expose().len() < MIN_SECRET => {
                Err(("authorize_secret", format!("at least {MIN_SECRET} bytes")))
            }
            (Some(url), Some(_)) if url.is_exposed() && !self.outbound_http => {
                Err(("authorize_url", format!("https:// for another machine, or {HTTP}")))
            }
            _ => Ok(()),
        }
    }
}
