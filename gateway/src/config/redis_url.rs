//! Reads the URL that says where Redis is, and in which topology. Called by clap for `--redis`, and by the Redis broker
//! for what follows from it. Must not know how to connect.
//!
//! Errors never repeat any part of the URL: whatever is wrong with it, it may hold a password.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::parse::redact;

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
        };
        match kind {
            "" if parts.hosts.contains(',') => {
                Err("expected one host behind redis://; several need redis+sentinel:// or redis+cluster://".into())
            }
            "" if host(parts.hosts).is_empty() => Err(FORMS.into()),
            "" => Ok(url(RedisTopology::Standalone)),
            "+sentinel" => {
                let (master, database) = parts.master()?;
                let sentinels = parts.sentinels(tls)?;
                let topology = RedisTopology::Sentinel { sentinels, master: master.to_owned() };
                Ok(Self { database, ..url(topology) })
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

    fn sentinels(&self, tls: bool) -> Result<Vec<String>, String> {
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
            None if user.is_empty() => String::new(),
            None => return Err("expected sentinel_password beside sentinel_user".into()),
        };
        let url = |(host, port): (String, u16)| {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{}://{credentials}{host}:{port}", scheme(tls))
        };
        Ok(self.addresses(26379)?.into_iter().map(url).collect())
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
            ("redis+sentinel://:secret@a/m?sentinel_user=u", "beside sentinel_user"),
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
