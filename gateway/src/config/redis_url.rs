//! Reads the URL that says where Redis is, and in which topology. Called by clap for `--redis`, and by the Redis broker
//! for what follows from it. Must not know how to connect.
//!
//! Errors never repeat any part of the URL: whatever is wrong with it, it may hold a password.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::Password;
use super::parse::redact;

/// The option that gives it, among those behind the `?`.
const SENTINEL_PASSWORD: &str = "sentinel_password=";

const FORMS: &str = "expected redis://[user[:password]@]host[:port][/db], redis+sentinel://[user[:password]@]\
                     host[:port],.../master[/db] or redis+cluster://[user[:password]@]host[:port],...; rediss for TLS";

/// Where Redis is. Shows itself without passwords; `as_str` has all of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    topology: RedisTopology,
    tls: bool,
    /// Of the servers that hold data: `user:password@` as it was written, or nothing.
    credentials: String,
    /// `/db` or nothing.
    database: String,
    /// Whether there is a `sentinel_user` and no password for it.
    lacks_sentinel_password: bool,
}

/// How many servers there are and how they share the work.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server.
    Standalone,
    /// One server at a time; sentinels tell which.
    Sentinel {
        /// A URL for each sentinel, with their own credentials. Secret.
        sentinels: Vec<String>,
        /// What the sentinels call the server.
        master: String,
    },
    /// Several, each with a part of the rooms.
    Cluster {
        /// Host and port of those to ask first.
        seeds: Vec<(String, u16)>,
    },
}

impl RedisUrl {
    /// The URL as it was given, with passwords.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True for the forms that begin with `rediss`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// How many servers there are, and how to find them.
    pub fn topology(&self) -> &RedisTopology {
        &self.topology
    }

    /// True for a `sentinel_user` that still needs a password: Redis would not be told of it.
    pub(super) fn lacks_sentinel_password(&self) -> bool {
        self.lacks_sentinel_password
    }

    /// The same with these passwords, for the servers that hold data and for sentinels, in place of its own.
    pub(super) fn with_passwords(&self, data: Option<&Password>, sentinels: Option<&Password>) -> Self {
        let mut text = self.text.clone();
        if let Some(password) = data {
            let user = self.credentials.split([':', '@']).next().unwrap_or_default();
            let credentials = format!("://{user}:{}@", password.escaped());
            text = text.replacen(&format!("://{}", self.credentials), &credentials, 1);
        }
        if let Some(password) = sentinels {
            let (front, options) = text.split_once('?').unwrap_or((&text, ""));
            let others = options.split('&').filter(|it| !it.is_empty() && !it.starts_with(SENTINEL_PASSWORD));
            let password = format!("{SENTINEL_PASSWORD}{}", password.escaped());
            text = format!("{front}?{}", others.chain([&*password]).collect::<Vec<_>>().join("&"));
        }
        // What was put in is escaped, so it reads as before.
        text.parse().unwrap_or_else(|_| self.clone())
    }

    /// The URL of one server that holds data, with passwords.
    pub fn server(&self, host: &str, port: u16) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{}://{}{host}:{port}{}", scheme(self.tls), self.credentials, self.database)
    }
}

impl Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.text))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact(&self.text), f)
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").ok_or(FORMS)?),
        };
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("expected a Redis URL without spaces: write %20 for one in a password".into());
        }
        let parts = Parts::of(rest);
        let url = |topology| Self {
            text: text.to_owned(),
            topology,
            tls,
            credentials: parts.credentials.map(|it| format!("{it}@")).unwrap_or_default(),
            database: String::new(),
            lacks_sentinel_password: false,
        };
        match kind {
            "" if parts.hosts.contains(',') => {
                Err("expected one host behind redis://; several need redis+sentinel:// or redis+cluster://".into())
            }
            "" if host(parts.hosts).is_empty() => Err(FORMS.into()),
            "" => Ok(url(RedisTopology::Standalone)),
            "+sentinel" => {
                let (master, database) = parts.master()?;
                let (sentinels, lacks_sentinel_password) = parts.sentinels(tls)?;
                let topology = RedisTopology::Sentinel { sentinels, master: master.to_owned() };
                Ok(Self { database, lacks_sentinel_password, ..url(topology) })
            }
            "+cluster" if !matches!(parts.path, "" | "/" | "/0") || parts.options.is_some() => {
                Err("expected nothing behind the hosts of redis+cluster://: a cluster has one database".into())
            }
            "+cluster" => Ok(url(RedisTopology::Cluster { seeds: parts.addresses(6379)? })),
            _ => Err(FORMS.into()),
        }
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "rediss" } else { "redis" }
}

/// The host of `host[:port]`; with its brackets, if it has some.
fn host(authority: &str) -> &str {
    if authority.starts_with('[') { authority } else { authority.split(':').next().unwrap_or_default() }
}

/// What follows `://`.
struct Parts<'a> {
    credentials: Option<&'a str>,
    hosts: &'a str,
    /// With its slash.
    path: &'a str,
    options: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Self {
        let (rest, options) = rest.split_once('?').map_or((rest, None), |(rest, options)| (rest, Some(options)));
        let (authority, path) = rest.split_at(rest.find(['/', '#']).unwrap_or(rest.len()));
        let (credentials, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(credentials, hosts)| (Some(credentials), hosts));
        Self { credentials, hosts, path, options }
    }

    fn addresses(&self, port: u16) -> Result<Vec<(String, u16)>, String> {
        self.hosts.split(',').map(|text| address(text, port)).collect::<Option<_>>().ok_or_else(|| {
            "expected host[:port] between the commas of the Redis URL, and / ? # @ in passwords as %2F %3F %23 %40"
                .to_owned()
        })
    }

    /// The name of the master, and the database as a path.
    fn master(&self) -> Result<(&'a str, String), String> {
        let path = self.path.strip_prefix('/').unwrap_or_default();
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if master.is_empty() || !master.chars().all(word) {
            return Err("expected the master's name behind the hosts of redis+sentinel://, such as /mymaster".into());
        }
        match database {
            "" => Ok((master, String::new())),
            number if number.parse::<u32>().is_ok() => Ok((master, format!("/{number}"))),
            _ => Err("expected a number as the database behind the master's name".into()),
        }
    }

    /// A URL for each, and whether they have a user without a password.
    fn sentinels(&self, tls: bool) -> Result<(Vec<String>, bool), String> {
        let (mut user, mut password) = ("", None);
        for option in self.options.into_iter().flat_map(|options| options.split('&')) {
            match option.split_once('=') {
                Some(("sentinel_user", value)) if plain(value) => user = value,
                Some(("sentinel_password", value)) if plain(value) => password = Some(value),
                _ => {
                    return Err("expected only sentinel_user and sentinel_password behind the ? of the Redis URL, \
                                with / ? # @ : & as %2F %3F %23 %40 %3A %26"
                        .into());
                }
            }
        }
        let credentials = match password {
            Some(password) => format!("{user}:{password}@"),
            None => String::new(),
        };
        let url = |(host, port): (String, u16)| {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{}://{credentials}{host}:{port}", scheme(tls))
        };
        let lacks_password = password.is_none() && !user.is_empty();
        Ok((self.addresses(26379)?.into_iter().map(url).collect(), lacks_password))
    }
}

/// Whether a value can be put into a URL as it is.
fn plain(value: &str) -> bool {
    !value.is_empty() && !value.contains(['/', '?', '#', '@', ':', '&'])
}

fn address(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(number) => number.parse().ok().filter(|&port| port > 0)?,
        None if rest.is_empty() => port,
        None => return None,
    };
    let letter = |c: char| c.is_alphanumeric() || "_.-:".contains(c);
    (!host.is_empty() && host.chars().all(letter)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn one_server_needs_a_host() {
        for good in ["redis://h", "rediss://u:p@h:6379/0", "redis://:p%40@[::1]:6379", "redis://h/0?protocol=resp3"] {
            assert_eq!(parsed(good).as_str(), good);
            assert!(*parsed(good).topology() == RedisTopology::Standalone);
        }
        for bad in ["", "h", "redis://", "redis://:6379", "redis://u@/0", "http://h", "redis://h h", "redis://h\n"] {
            assert!(bad.parse::<RedisUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sentinels_have_credentials_of_their_own() {
        let url = parsed("rediss+sentinel://u:p%2F@a,[::1]:7/main.1/3?sentinel_user=s&sentinel_password=t%40");
        let RedisTopology::Sentinel { sentinels, master } = url.topology() else { panic!("another topology") };
        assert_eq!(sentinels, &["rediss://s:t%40@a:26379", "rediss://s:t%40@[::1]:7"]);
        assert_eq!((&**master, url.is_tls()), ("main.1", true));
        assert_eq!(url.server("10.0.0.1", 6380), "rediss://u:p%2F@10.0.0.1:6380/3");
        assert_eq!(url.server("fd00::1", 1), "rediss://u:p%2F@[fd00::1]:1/3");
        let shown = format!("{url} {url:?}");
        assert!(shown.contains("u:***@a,[::1]:7/main.1/3?sentinel_user=s"), "{shown}");
        assert!(!shown.contains("p%2F") && !shown.contains("t%40"), "{shown}");
        let RedisTopology::Sentinel { sentinels, .. } = parsed("redis+sentinel://a/m").topology().clone() else {
            panic!("another topology")
        };
        assert_eq!(sentinels, ["redis://a:26379"]);
    }

    #[test]
    fn passwords_of_their_own_take_the_place_of_those_in_the_url() {
        let [data, sentinels]: [Password; 2] = ["/?#@:&% \n\"ß$", "&=?%"].map(|text| text.parse().expect("any"));
        let of = |text: &str| parsed(text).with_passwords(Some(&data), Some(&sentinels));
        let escaped = "%2F%3F%23%40%3A%26%25%20%0A%22%C3%9F%24";
        for (text, full) in [
            ("redis://h", format!("redis://:{escaped}@h?")),
            ("redis://h:1/2", format!("redis://:{escaped}@h:1/2?")),
            ("rediss://u@h", format!("rediss://u:{escaped}@h?")),
            ("redis://u:old@h/0?protocol=resp3", format!("redis://u:{escaped}@h/0?protocol=resp3&")),
        ] {
            assert_eq!(of(text).as_str(), format!("{full}sentinel_password=%26%3D%3F%25"));
            assert_eq!(parsed(text).with_passwords(None, None).as_str(), text);
        }
        let url = of("rediss+sentinel://u:old@a,b:7/m/3?sentinel_password=old&sentinel_user=s");
        let RedisTopology::Sentinel { sentinels: all, .. } = url.topology() else { panic!("another topology") };
        assert_eq!(all, &["rediss://s:%26%3D%3F%25@a:26379", "rediss://s:%26%3D%3F%25@b:7"]);
        assert_eq!(url.server("h", 1), format!("rediss://u:{escaped}@h:1/3"));
        assert!(parsed("redis+sentinel://a/m?sentinel_user=s").lacks_sentinel_password());
        assert!(!url.lacks_sentinel_password());
        let url = parsed("redis+cluster://a:7000,b").with_passwords(Some(&data), None);
        assert_eq!(url.server("c", 1), format!("redis://:{escaped}@c:1"));
        assert_eq!((url.to_string(), format!("{data:?}")), ("redis+cluster://:***@a:7000,b".into(), "***".into()));
    }

    #[test]
    fn a_cluster_has_seeds() {
        let url = parsed("redis+cluster://:p@a:7000,b/0");
        let RedisTopology::Cluster { seeds } = url.topology() else { panic!("another topology") };
        assert_eq!(seeds, &[("a".to_owned(), 7000), ("b".to_owned(), 6379)]);
        assert_eq!(url.server("c", 1), "redis://:p@c:1");
    }

    #[test]
    fn what_is_wrong_is_said_and_never_repeated() {
        for (bad, hint) in [
            ("redis+sentry://secret@h/m", "expected redis://"),
            ("redisx://secret@h", "expected redis://"),
            ("redis://:secret@a,b", "several need"),
            ("redis+sentinel://:secret@a", "master's name"),
            ("redis+sentinel://:secret@a/", "master's name"),
            ("redis+sentinel://:secret@a/m%20/0", "master's name"),
            ("redis+sentinel://:secret@a/m/x", "a number as the database"),
            ("redis+sentinel://:secret@a,/m", "host[:port]"),
            ("redis+sentinel://:secret@/m", "host[:port]"),
            ("redis+sentinel://:secret@a:0/m", "host[:port]"),
            ("redis+sentinel://:secret@a:70000/m", "host[:port]"),
            ("redis+sentinel://:secret@[::1/m", "host[:port]"),
            ("redis+sentinel://:secret@[x]/m", "host[:port]"),
            ("redis+sentinel://:secret@a:1:2/m", "host[:port]"),
            ("redis+sentinel://:secret@a/m?password=secret", "sentinel_password"),
            ("redis+sentinel://:secret@a/m?sentinel_password=secret@b", "%40"),
            ("redis+cluster://:secret@a/1", "one database"),
            ("redis+cluster://:secret@a/0?x", "one database"),
            ("redis+cluster://:se/secret@a", "one database"),
            ("redis+cluster://", "host[:port]"),
            ("rediss+cluster://:secret@a b", "without spaces"),
        ] {
            let error = bad.parse::<RedisUrl>().expect_err(bad);
            assert!(error.starts_with("expected") && error.contains(hint), "{bad}: {error}");
            assert!(!error.contains("secret"), "{bad}: {error}");
            if bad.contains(":secret@") {
                assert!(!redact(bad).contains("secret"), "{bad}: {}", redact(bad));
            }
        }
    }
}
