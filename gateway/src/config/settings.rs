//! Every setting, its default, its bounds and its meaning: the only place where they stand.
//!
//! The loader, `--help`, `gateway config` and docs/configuration.md are all made from this struct. It must not know
//! where a value comes from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use roomcast_protocol::NodeId;

use super::parse::{
    address, cidr, claim, count, duration, node_id, one_line, origin, otlp_url, ratio, redis_prefix, redis_url,
    room_pattern, web_url,
};
use super::sabotage::fault;
use super::{
    Fault, HttpApi, IssuerTable, Outward, Password, RedisTopology, RedisUrl, RoomPattern, RoomPolicies, WebUrl,
};

/// What a message may grow by on its way from one client to the others: room, ids, name, time, keys.
const FRAME_BYTES: usize = 2048;

/// What a node runs with, checked as a whole. Durations are positive; `0` is refused unless a field says otherwise.
///
/// The first paragraph of each field is its text in `--help` and in the table of docs/configuration.md; the bounds
/// there come from the parser's own error, so they cannot disagree.
#[derive(Debug, Clone, Parser)]
pub struct Settings {
    /// Address and port that clients connect to. Port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:8080", value_parser = address)]
    pub listen: SocketAddr,

    /// Address and port of `/metrics`, `/healthz`, `/readyz` and `/version`. Not for the public
    #[arg(long, default_value = "0.0.0.0:8081", value_parser = address)]
    pub admin_listen: SocketAddr,

    /// Redis that joins the nodes, `rediss://` for TLS. Without it the node runs alone, in memory
    #[arg(long, value_parser = redis_url)]
    pub redis: Option<RedisUrl>,

    /// Password of Redis, instead of one in the URL, which keeps the user. Any characters, none escaped
    #[arg(long, allow_hyphen_values = true)]
    pub redis_password: Option<Password>,

    /// Password of the sentinels, instead of one in the URL, which keeps `sentinel_user`. Any characters, none escaped
    #[arg(long, allow_hyphen_values = true)]
    pub redis_sentinel_password: Option<Password>,

    /// File of PEM certificates that a `rediss://` server is verified against, instead of the built-in roots
    #[arg(long)]
    pub redis_ca: Option<PathBuf>,

    /// First part of every Redis key and channel, so that several clusters can share a server
    #[arg(long, default_value = "rc", value_parser = redis_prefix)]
    pub redis_prefix: String,

    /// Name of this node, unique in its cluster
    #[arg(long, required = false, value_parser = node_id)]
    pub node_id: NodeId,

    /// Worker threads, each with its own listener and its own share of the rooms
    #[arg(long, required = false, value_parser = count::<usize>(1, 1024))]
    pub workers: usize,

    /// Opens `/echo`, which returns every message. For conformance suites only
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub echo: bool,

    /// TOML file with settings, `[[rooms]]` and `[[issuers]]`
    #[arg(long)]
    pub config: Option<PathBuf>,

    /// Origins whose pages may connect, comma-separated; the list holds for the node's own page, too. None: same origin
    /// only. `*`: any. Clients that send no Origin are not browsers and always may
    #[arg(long, value_delimiter = ',', value_parser = origin)]
    pub allowed_origins: Vec<String>,

    /// Networks whose `X-Forwarded-For` is believed, comma-separated
    #[arg(long, value_delimiter = ',', value_parser = cidr)]
    pub trusted_proxies: Vec<IpNet>,

    /// Sockets per node; above it, handshakes are answered 503
    #[arg(long, default_value = "20000", value_parser = count::<usize>(1, 10_000_000))]
    pub max_connections: usize,

    /// Sockets per client address and node, 0 for no limit
    #[arg(long, default_value = "0", value_parser = count::<usize>(0, 10_000_000))]
    pub max_connections_per_address: usize,

    /// Sockets of one user over all nodes, 0 for no limit; one more is closed with 4429. Users come with tokens
    #[arg(long, default_value = "0", value_parser = count::<u32>(0, 1_000_000))]
    pub max_connections_per_user: u32,

    /// Bytes of one message from a client, fragments together; above it the socket is closed with 1009
    #[arg(long, default_value = "65536", value_parser = count::<usize>(1024, 16 << 20))]
    pub max_message_bytes: usize,

    /// Fragments of one message; above it the socket is closed with 1009
    #[arg(long, default_value = "256", value_parser = count::<usize>(1, 65_536))]
    pub max_fragments: usize,

    /// Time from the first byte of a message to its last
    #[arg(long, default_value = "10s", value_parser = duration("100ms", "10m"))]
    pub message_deadline: Duration,

    /// Time for the whole head of a handshake request
    #[arg(long, default_value = "5s", value_parser = duration("100ms", "1m"))]
    pub header_read_timeout: Duration,

    /// Headers of a handshake request
    #[arg(long, default_value = "64", value_parser = count::<usize>(8, 1024))]
    pub max_headers: usize,

    /// Bytes of a handshake request's head
    #[arg(long, default_value = "16384", value_parser = count::<usize>(8192, 1 << 20))]
    pub max_header_bytes: usize,

    /// Rooms one client may be in at a time
    #[arg(long, default_value = "64", value_parser = count::<usize>(1, 65_536))]
    pub rooms_per_connection: usize,

    /// Publishes a second that one client may keep up, 0 for no limit
    #[arg(long, default_value = "100", value_parser = count::<u32>(0, 1_000_000))]
    pub publish_rate: u32,

    /// Publishes one client may send at once before `publish-rate` holds
    #[arg(long, default_value = "200", value_parser = count::<u32>(1, 1_000_000))]
    pub publish_burst: u32,

    /// Publishes a second that one user may keep up over all connections and all nodes, 0 for no limit. Users come with
    /// tokens
    #[arg(long, default_value = "0", value_parser = count::<u32>(0, 1_000_000))]
    pub user_publish_rate: u32,

    /// Publishes one user may send at once before `user-publish-rate` holds
    #[arg(long, default_value = "200", value_parser = count::<u32>(1, 1_000_000))]
    pub user_publish_burst: u32,

    /// Bytes that may wait for one client; above it the client is slow and closed with 4408
    #[arg(long, default_value = "262144", value_parser = count::<usize>(4096, 1 << 30))]
    pub outbound_queue_bytes: usize,

    /// Time between two pings to a client
    #[arg(long, default_value = "25s", value_parser = duration("100ms", "1h"))]
    pub ping_interval: Duration,

    /// Silence after which a client counts as dead. Longer than `ping-interval`
    #[arg(long, default_value = "45s", value_parser = duration("200ms", "2h"))]
    pub ping_timeout: Duration,

    /// Points a client may have before it is closed with 1008: a bad frame or a refused publish costs one, one is
    /// forgiven each second
    #[arg(long, default_value = "20", value_parser = count::<u32>(1, 1_000_000))]
    pub abuse_limit: u32,

    /// Messages of recent history sent with `joined`
    #[arg(long, default_value = "50", value_parser = count::<usize>(0, 1000))]
    pub join_history: usize,

    /// Members listed in `joined`; the others are read with `members`
    #[arg(long, default_value = "100", value_parser = count::<usize>(0, 1000))]
    pub members_cap: usize,

    /// Members of a room above which joins and leaves are told as `count`, at most one a second
    #[arg(long, default_value = "50", value_parser = count::<u64>(0, 1_000_000))]
    pub presence_fold_above: u64,

    /// Time a room's subscription outlives its last local member
    #[arg(long, default_value = "5s", value_parser = duration("0s", "1h"))]
    pub unsubscribe_delay: Duration,

    /// Time between two sweeps, which compare every durable room with its stream; give or take a fifth
    #[arg(long, default_value = "10s", value_parser = duration("100ms", "1h"))]
    pub sweep_interval: Duration,

    /// Time Redis has to answer a command
    #[arg(long, default_value = "2s", value_parser = duration("10ms", "1m"))]
    pub redis_timeout: Duration,

    /// Time a connection to Redis may take, TLS and AUTH included
    #[arg(long, default_value = "1s", value_parser = duration("10ms", "1m"))]
    pub redis_connect_timeout: Duration,

    /// Time between two beats by which a node keeps the lease on its members
    #[arg(long, default_value = "5s", value_parser = duration("100ms", "1m"))]
    pub lease_beat: Duration,

    /// Silence after which a node's members are removed by another. At least twice `lease-beat`
    #[arg(long, default_value = "15s", value_parser = duration("200ms", "10m"))]
    pub lease_expiry: Duration,

    /// Connections a second that the node takes, a second's worth of them at once, 0 for no limit; above it, handshakes
    /// are answered 503
    #[arg(long, default_value = "2000", value_parser = count::<u32>(0, 1_000_000))]
    pub connect_rate: u32,

    /// Clients a second that this node sends away at most, while it has far more than the mean of the cluster, 0 for
    /// none
    #[arg(long, default_value = "0", value_parser = count::<u32>(0, 100_000))]
    pub rebalance_rate: u32,

    /// Percent above the mean of the cluster that a node keeps before `rebalance-rate` holds
    #[arg(long, default_value = "20", value_parser = count::<u32>(1, 1000))]
    pub rebalance_above: u32,

    /// Time after SIGTERM in which the node is not ready but serves and accepts as before, so that load balancers notice
    #[arg(long, default_value = "0s", value_parser = duration("0s", "1h"))]
    pub drain_delay: Duration,

    /// Time over which clients are sent away evenly, after `drain-delay`; few clients go sooner. 0s sends all at once
    #[arg(long, default_value = "10s", value_parser = duration("0s", "1h"))]
    pub drain_window: Duration,

    /// Longest time from SIGTERM to exit, then what is left is cut off. Longer than `drain-delay` and `drain-window`
    /// together
    #[arg(long, default_value = "20s", value_parser = duration("100ms", "3h"))]
    pub shutdown_timeout: Duration,

    /// Who may use the HTTP API, and video.
    #[command(flatten)]
    pub http_api: HttpApi,

    /// Time without a connection and without a message after which the node drains and exits with 0. 0s for never
    #[arg(long, default_value = "0s", value_parser = duration("0s", "30d"))]
    pub idle_exit: Duration,

    /// Form of the log on stderr
    #[arg(long, value_enum, default_value = "pretty")]
    pub log_format: LogFormat,

    /// What is logged: a level, or `target=level` pairs
    #[arg(long, default_value = "info", value_parser = one_line)]
    pub log: String,

    /// OTLP collector for traces, gRPC without TLS. Without it nothing is traced
    #[arg(long, value_parser = otlp_url)]
    pub otlp_endpoint: Option<String>,

    /// Share of publishes and handshakes that are traced
    #[arg(long, default_value = "0.01", value_parser = ratio)]
    pub otlp_sample_ratio: f64,

    /// Secret that tokens are signed with by HS256, at least 32 bytes. With this or one of the next two, clients need a
    /// token; without any, access is open to everyone
    #[arg(long, allow_hyphen_values = true)]
    pub jwt_secret: Option<Password>,

    /// File with the PEM public key of who signs tokens: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)
    #[arg(long)]
    pub jwt_public_key: Option<PathBuf>,

    /// Where who signs tokens publishes its keys as a JSON Web Key Set. Fetched at start and again and again, never for
    /// a client
    #[arg(long, value_parser = web_url)]
    pub jwt_jwks_url: Option<WebUrl>,

    /// What tokens must have as `iss`. Needed when the file has `[[issuers]]`, too
    #[arg(long, value_parser = claim)]
    pub jwt_issuer: Option<String>,

    /// What tokens must name as `aud`, comma-separated: any one of these. Needed with a key
    #[arg(long, value_delimiter = ',', value_parser = claim)]
    pub jwt_audience: Vec<String>,

    /// Rooms of tokens that have no claim `rooms`, comma-separated, with `*` and `?` as in `[[rooms]]`. None: no room
    #[arg(long, value_delimiter = ',', value_parser = room_pattern)]
    pub jwt_default_rooms: Vec<RoomPattern>,

    /// Time between two fetches of published keys, give or take a tenth
    #[arg(long, default_value = "5m", value_parser = duration("1s", "24h"))]
    pub jwks_refresh: Duration,

    /// File of PEM certificates that servers the node calls out to (key sets, webhooks) are verified against, beside the
    /// built-in roots
    #[arg(long)]
    pub outbound_ca: Option<PathBuf>,

    /// Lets the node call out over `http://` to other machines, where what it sends and gets can be read and changed on
    /// the way. This machine itself always may be
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub outbound_http: bool,

    /// Webhooks and the call that authorises.
    #[command(flatten)]
    pub outward: Outward,

    /// Promises to break on purpose, comma-separated, to see an audit find it. Never where it matters
    #[arg(long, hide = true, value_delimiter = ',', value_parser = fault)]
    pub sabotage: Vec<Fault>,

    /// What holds for which rooms; `[[rooms]]` of the TOML file.
    #[arg(skip)]
    pub rooms: RoomPolicies,

    /// Further issuers of tokens; `[[issuers]]` of the TOML file.
    #[arg(skip)]
    pub issuers: Vec<IssuerTable>,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl Settings {
    /// What must hold between settings, once each one is valid alone. The error names a setting and says what it needs.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let need = |holds: bool, setting, expected: String| if holds { Ok(()) } else { Err((setting, expected)) };
        let text = |value: Duration| humantime::format_duration(value).to_string();
        need(
            self.ping_timeout > self.ping_interval,
            "ping_timeout",
            format!("a duration longer than --ping-interval ({})", text(self.ping_interval)),
        )?;
        need(
            self.max_message_bytes + FRAME_BYTES <= self.outbound_queue_bytes,
            "max_message_bytes",
            format!("{FRAME_BYTES} less than --outbound-queue-bytes ({}), or lower", self.outbound_queue_bytes),
        )?;
        need(
            self.lease_expiry >= 2 * self.lease_beat,
            "lease_expiry",
            format!("at least twice --lease-beat ({})", text(self.lease_beat)),
        )?;
        need(
            self.redis_ca.is_none() || self.redis.as_ref().is_some_and(RedisUrl::is_tls),
            "redis_ca",
            "nothing, unless --redis is a rediss:// URL".to_owned(),
        )?;
        self.check_passwords()?;
        self.http_api.check()?;
        need(
            self.http_api.livekit_url.is_none() || self.outward.authorize_url.is_none(),
            "livekit_url",
            "nothing, where --authorize-url is given: what that service decided is not known to video tokens"
                .to_owned(),
        )?;
        self.check_keys()?;
        need(
            !self.sabotage.contains(&Fault::KeepEcho) || self.redis.is_some(),
            "sabotage",
            "no keep-echo, unless --redis is given: without it nothing comes back".to_owned(),
        )?;
        need(
            self.shutdown_timeout > self.drain_delay + self.drain_window,
            "shutdown_timeout",
            format!(
                "a duration longer than --drain-delay ({}) and --drain-window ({}) together",
                text(self.drain_delay),
                text(self.drain_window)
            ),
        )?;
        need(
            self.max_connections_per_address <= self.max_connections,
            "max_connections_per_address",
            format!("at most --max-connections ({})", self.max_connections),
        )
    }

    fn check_passwords(&self) -> Result<(), (&'static str, String)> {
        let url = self.redis.as_ref();
        let is_watched = url.is_some_and(|url| matches!(url.topology(), RedisTopology::Sentinel { .. }));
        let [data, sentinels] = self.passwords();
        if data.is_some() && url.is_none() {
            return Err(("redis_password", "nothing, unless --redis is given".to_owned()));
        }
        if sentinels.is_some() && !is_watched {
            return Err(("redis_sentinel_password", "nothing, unless --redis is a redis+sentinel:// URL".to_owned()));
        }
        if sentinels.is_none() && url.is_some_and(RedisUrl::lacks_sentinel_password) {
            return Err(("redis", "sentinel_password beside sentinel_user, or --redis-sentinel-password".to_owned()));
        }
        Ok(())
    }

    fn passwords(&self) -> [Option<&Password>; 2] {
        [&self.redis_password, &self.redis_sentinel_password].map(|password| Password::given(password.as_ref()))
    }

    /// Where Redis is, with the passwords that were given apart from its URL.
    pub fn redis_with_passwords(&self) -> Option<RedisUrl> {
        let [data, sentinels] = self.passwords();
        self.redis.as_ref().map(|url| url.with_passwords(data, sentinels))
    }
}
