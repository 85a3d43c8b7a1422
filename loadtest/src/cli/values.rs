//! Reads single values. Called by clap for each option; must not know which option it reads for.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast_protocol::Mode;

use crate::report::Threshold;

/// Addresses of one `--source`.
const MOST_SOURCES: usize = 4096;
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Its last second, since the Unix epoch.
const YEAR_9999: u64 = 253_402_300_799;

/// A duration with its unit, up to 30 days.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(value) if value <= LONGEST => Ok(value),
        _ => Err("expected a duration with its unit, such as 500ms, 30s or 1h, up to 30 days".to_owned()),
    }
}

/// The same, and not 0.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected more than 0".to_owned()),
        value => Ok(value),
    }
}

/// A number per second, 0 allowed.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e7).contains(&value) => Ok(value),
        _ => Err("expected a number per second from 0 to 10000000, such as 10 or 0.5".to_owned()),
    }
}

pub(super) fn positive_rate(text: &str) -> Result<f64, String> {
    match rate(text)? {
        value if value >= 0.001 => Ok(value),
        _ => Err("expected a number per second of at least 0.001".to_owned()),
    }
}

/// `50%` as 0.5.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').map(|number| number.trim().parse::<f64>()) {
        Some(Ok(percent)) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("expected a share from 0% to 100%, such as 50%".to_owned()),
    }
}

/// How many members publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publishers {
    All,
    First(u32),
}

pub(super) fn publishers(text: &str) -> Result<Publishers, String> {
    match text {
        "all" => Ok(Publishers::All),
        _ => text.parse().map(Publishers::First).map_err(|_| "expected a number of members, or all".to_owned()),
    }
}

pub(super) fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "durable" => Ok(Mode::Durable),
        "ephemeral" => Ok(Mode::Ephemeral),
        _ => Err("expected durable or ephemeral".to_owned()),
    }
}

/// Up to 8 hex digits as they are; of other text its checksum, so that a Job's UID can be given.
pub(super) fn run(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 16) {
        Ok(run) if text.len() <= 8 && !text.starts_with('+') => Ok(run),
        _ if text.trim().is_empty() => Err("expected 8 hex digits, or any text that all processes share".to_owned()),
        _ => Ok(crc32fast::hash(text.as_bytes())),
    }
}

/// RFC 3339 in UTC, or seconds since the Unix epoch.
pub(super) fn instant(text: &str) -> Result<SystemTime, String> {
    let wrong = || "expected a time such as 2030-01-31T12:00:00Z, or seconds since the Unix epoch".to_owned();
    // Further ahead, sums with it would overflow somewhere.
    let seconds = text.parse::<u64>().ok().filter(|s| *s <= YEAR_9999);
    let epoch = seconds.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
    epoch.or_else(|| humantime::parse_rfc3339_weak(text).ok()).ok_or_else(wrong)
}

/// Addresses that clients connect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources(pub Vec<IpAddr>);

/// `10.0.0.5`, `127.0.0.2-127.0.0.9`, or several of both with commas.
pub(super) fn sources(text: &str) -> Result<Sources, String> {
    let wrong = || "expected addresses, ranges such as 127.0.0.2-127.0.0.9, or a list of both".to_owned();
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once('-') {
            None => found.push(part.parse::<IpAddr>().map_err(|_| wrong())?),
            Some((first, last)) => {
                let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map(u32::from).map_err(|_| wrong());
                let (first, last) = (parse(first)?, parse(last)?);
                if last < first {
                    return Err("expected a range from the lower to the higher address".to_owned());
                }
                if (last - first) as usize >= MOST_SOURCES {
                    return Err(format!("expected at most {MOST_SOURCES} addresses"));
                }
                found.extend((first..=last).map(|address| IpAddr::V4(address.into())));
            }
        }
    }
    if found.len() > MOST_SOURCES {
        Err(format!("expected at most {MOST_SOURCES} addresses"))
    } else {
        Ok(Sources(found))
    }
}

pub(super) fn threshold(text: &str) -> Result<Threshold, String> {
    text.parse::<Threshold>().map_err(|error| format!("{error:#}"))
}

/// A node's metrics page, whole from whatever part of its URL was given.
pub(super) fn scrape(text: &str) -> Result<String, String> {
    let wrong = || "expected http://host:port/metrics, or host:port".to_owned();
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err("metrics are read without TLS: expected http://host:port/metrics".to_owned()),
        Some(_) => return Err(wrong()),
        None => text,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let strange = |c: char| c.is_whitespace() || c.is_control() || c == '@';
    if authority.is_empty() || rest.contains(strange) {
        return Err(wrong());
    }
    Ok(format!("http://{authority}/{}", if path.is_empty() { "metrics" } else { path }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Sizes, Target};

    #[test]
    fn runs_are_hex_digits_or_any_text() {
        assert_eq!(run("cafe"), Ok(0xcafe));
        assert_eq!(run("deadbeef"), Ok(0xdead_beef));
        assert_eq!(run("0f8b1c2e-5a7d"), run("0f8b1c2e-5a7d"));
        assert_ne!(run("job-1"), run("job-2"));
        assert!(run(" ").is_err());
    }

    #[test]
    fn times_are_rfc3339_or_seconds() {
        assert_eq!(instant("1970-01-01T00:01:00Z"), instant("60"));
        for bad in ["", "-1", "tomorrow", "18446744073709551615"] {
            assert!(instant(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metrics_pages_are_completed() {
        assert_eq!(scrape("node-1:8081").as_deref(), Ok("http://node-1:8081/metrics"));
        assert_eq!(scrape("http://h:1/a/m").as_deref(), Ok("http://h:1/a/m"));
        assert!(scrape("https://h:1/metrics").is_err_and(|words| words.contains("without TLS")));
        for bad in ["", "http://", "HTTPS://h", "u:p@h", "h x"] {
            assert!(scrape(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,40}|[0-9a-zA-Z:/.,%@\\[\\]?#*-]{0,40}") {
            let _ = (duration(&text), rate(&text), share(&text), publishers(&text), run(&text), instant(&text));
            let _ = (sources(&text), scrape(&text), threshold(&text), text.parse::<Sizes>());
            let _ = text.parse::<Target>().map_err(|error| error.to_string());
        }
    }
}
