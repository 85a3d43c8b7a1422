//! Reads single values. Called by clap for each setting; must not know which setting it reads for.
//!
//! Every error starts with "expected": the documentation prints the same text as the setting's bounds.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use roomcast_protocol::NodeId;

use super::{EventKind, RedisUrl, RoomPattern, WebUrl};

/// `url` with its passwords replaced by `***`: what stands between user and host, and what `password=` gives. Works on
/// URLs that are not valid, too.
pub(super) fn redact(url: &str) -> String {
    // To the very end: an unescaped `&` in the password must not show what follows.
    let Some(at) = url.find("password=") else { return redact_authority(url) };
    let (shown, _) = url.split_at(at + "password=".len());
    format!("{}***", redact_authority(shown))
}

fn redact_authority(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    // The last `@`, even behind a `/`: a password with an unescaped slash must not show, even if that hides a path.
    let Some(at) = rest.rfind('@') else { return url.to_owned() };
    let (credentials, host) = rest.split_at(at);
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}{user}:***{host}"),
        None => url.to_owned(),
    }
}

pub(super) fn redis_url(text: &str) -> Result<RedisUrl, String> {
    text.parse()
}

pub(super) fn claim(text: &str) -> Result<String, String> {
    if (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("expected a text of 1 to 256 bytes without control characters".to_owned())
}

pub(super) fn web_url(text: &str) -> Result<WebUrl, String> {
    text.parse()
}

pub(super) fn room_pattern(text: &str) -> Result<RoomPattern, String> {
    text.parse()
}

/// The host of what follows `scheme://`.
fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() }
}

pub(super) fn otlp_url(text: &str) -> Result<String, String> {
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    match text.strip_prefix("http://") {
        Some(rest) if clean && !host_of(rest).is_empty() => Ok(text.to_owned()),
        _ => Err("expected http://host:port, such as http://localhost:4317".to_owned()),
    }
}

pub(super) fn event(text: &str) -> Result<EventKind, String> {
    text.parse()
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, such as 0.0.0.0:8080 or [::]:8080".to_owned())
}

pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or(address)
        .map_err(|_| "expected networks or addresses, such as 10.0.0.0/8 or fd00::/8".to_owned())
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    let host = |rest: &str| !rest.is_empty() && !rest.contains(|c: char| "/?#@,*".contains(c) || c.is_whitespace());
    match rest {
        _ if text == "*" => Ok(lower),
        Some(rest) if host(rest) => Ok(lower),
        _ => Err("expected origins, such as https://chat.example.com or http://localhost:3000, or *".to_owned()),
    }
}

pub(super) fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(text).map_err(|error| format!("expected {}", error.expected))
}

pub(super) fn redis_prefix(text: &str) -> Result<String, String> {
    // Braces would be taken for a hash tag by Redis Cluster, and `:` separates the parts of a key.
    let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (1..=32).contains(&text.len()) && text.chars().all(word) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 32 of the characters A-Z a-z 0-9 _ . -".to_owned())
    }
}

pub(super) fn one_line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        Err("expected a filter such as info, debug or warn,roomcast_gateway=debug".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// A parser for whole numbers from `min` to `max`.
pub(super) fn count<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| match text.parse::<T>() {
        Ok(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("expected a whole number from {min} to {max}")),
    }
}

/// A parser for durations with a unit, from `min` to `max`.
pub(super) fn duration(
    min: &'static str,
    max: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    // A bound that does not parse bounds nothing; a test holds all of them to their text.
    let low = humantime::parse_duration(min).unwrap_or(Duration::ZERO);
    let high = humantime::parse_duration(max).unwrap_or(Duration::MAX);
    move |text| match humantime::parse_duration(text) {
        Ok(value) if value >= low && value <= high => Ok(value),
        _ => Err(format!("expected a duration with its unit, from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_a_scheme_and_a_host() {
        assert!(otlp_url("http://localhost:4317").is_ok());
        for bad in ["localhost:4317", "https://h", "http://", "http:// h"] {
            assert!(otlp_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins_have_no_path() {
        assert_eq!(origin("HTTPS://Chat.Example.com").as_deref(), Ok("https://chat.example.com"));
        assert!(origin("*").is_ok() && origin("http://localhost:3000").is_ok());
        for bad in ["", "example.com", "https://", "https://a/", "https://*.a.com", "null", "https://a b"] {
            assert!(origin(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_found_wherever_they_stand() {
        for (url, shown) in [
            ("redis://u:p@h", "redis://u:***@h"),
            ("redis://:p:q@h/0", "redis://:***@h/0"),
            ("redis://u:a@b@h", "redis://u:***@h"),
            ("u:p@h", "u:***@h"),
            ("redis://u@h", "redis://u@h"),
            ("redis://h:6379", "redis://h:6379"),
            (
                "redis+sentinel://u:p@a,b/m?sentinel_password=x@y&z",
                "redis+sentinel://u:***@a,b/m?sentinel_password=***",
            ),
            ("10s", "10s"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }

    #[test]
    fn bounds_are_part_of_the_range() {
        let seconds = duration("1s", "1m");
        assert_eq!(seconds("60s"), Ok(Duration::from_mins(1)));
        assert!(seconds("1s").is_ok() && seconds("999ms").is_err() && seconds("61s").is_err() && seconds("5").is_err());
        let number = count::<u32>(1, 5);
        assert!(number("1").is_ok() && number("5").is_ok());
        for bad in ["0", "6", "-1", "1.0", "", "4294967297"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
        assert!(ratio("nan").is_err() && ratio("1").is_ok() && ratio("1.01").is_err());
        assert_eq!(cidr("10.0.0.1").expect("valid").to_string(), "10.0.0.1/32");
    }
}
