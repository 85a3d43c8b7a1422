//! Which pages may open a socket: the `Origin` of a browser against the host it called, or a list.

use std::fmt;

/// The pages that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Those that this node served itself: the origin's host and port are the request's.
    SameOrigin,
    /// Those in the list and no others. Unlike `SameOrigin` this also holds against DNS rebinding.
    List(Vec<Origin>),
    /// Any.
    Any,
}

/// One origin: scheme, host and port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// An entry of the list that no browser would ever send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid origin {0:?}: expected scheme://host or scheme://host:port, or *")]
pub struct InvalidOrigin(String);

impl OriginPolicy {
    /// Reads the setting: empty for same-origin, `*` for any, else a list.
    ///
    /// # Errors
    /// [`InvalidOrigin`] with the first entry that is none.
    pub fn new(entries: &[String]) -> Result<Self, InvalidOrigin> {
        if entries.is_empty() {
            return Ok(Self::SameOrigin);
        }
        if entries.iter().any(|entry| entry == "*") {
            return Ok(Self::Any);
        }
        let parse = |entry: &String| Origin::parse(entry).ok_or_else(|| InvalidOrigin(entry.clone()));
        entries.iter().map(parse).collect::<Result<_, _>>().map(Self::List)
    }

    /// Whether a page of `origin` may open a socket on `host` (the request's Host).
    pub fn allows(&self, origin: &str, host: &str) -> bool {
        if *self == Self::Any {
            return true;
        }
        // `null` (sandboxed frames, files) has no host and is nobody's origin.
        let Some(origin) = Origin::parse(origin) else { return false };
        match self {
            Self::Any => true,
            Self::List(list) => list.contains(&origin),
            Self::SameOrigin => {
                let Some((host, port)) = authority(host) else { return false };
                // Behind a TLS proxy we do not know our own scheme: a Host without a port is the scheme's default.
                let default = default_port(&origin.scheme);
                default.is_some() && origin.host == host && origin.port == port.or(default)
            }
        }
    }
}

impl Origin {
    /// Reads `scheme://host[:port]` and nothing more; a default port is filled in.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let mut bytes = scheme.bytes();
        let well_formed = bytes.next()?.is_ascii_lowercase()
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        let (host, port) = authority(rest)?;
        well_formed.then(|| Self { port: port.or(default_port(&scheme)), scheme, host })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Reads `host[:port]`: no user, no path, no space. The host comes back in lower case.
pub(super) fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..inner.len() + 2], port)
        }
        None => match text.find(':') {
            Some(colon) => text.split_at(colon),
            None => (text, ""),
        },
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        None if port.is_empty() => None,
        _ => return None,
    };
    let named =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    (named || host.starts_with('[')).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> OriginPolicy {
        OriginPolicy::new(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>()).expect("valid")
    }

    #[test]
    fn same_origin_is_host_and_port() {
        let same = policy(&[]);
        for (origin, host) in [
            ("https://example.com", "example.com"),
            ("https://example.com", "example.com:443"),
            ("http://example.com", "example.com"),
            ("http://example.com:80", "EXAMPLE.com"),
            ("http://localhost:8080", "localhost:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(same.allows(origin, host), "{origin} on {host}");
        }
        for (origin, host) in [
            ("null", "example.com"),
            ("", "example.com"),
            ("https://example.com.evil.com", "example.com"),
            ("https://evil-example.com", "example.com"),
            ("https://example.com@evil.com", "example.com"),
            ("https://evil.com/example.com", "example.com"),
            ("https://example.com/", "example.com"),
            ("https://example.com:8443", "example.com"),
            ("http://localhost:8081", "localhost:8080"),
            ("http://localhost", "localhost:8080"),
            ("http://example.com", "example.com:443"),
            ("https://example.com", ""),
            ("https://exämple.com", "exämple.com"),
            ("https://example.com:", "example.com:x"),
            ("ftp://example.com", "example.com"),
            ("file://", ""),
            ("https://example.com https://evil.com", "example.com"),
        ] {
            assert!(!same.allows(origin, host), "{origin} on {host}");
        }
    }

    #[test]
    fn a_list_is_exact_and_the_whole_truth() {
        let list = policy(&["https://App.example.com", "http://localhost:3000", "capacitor://localhost"]);
        for good in ["https://app.example.com", "https://app.example.com:443", "http://localhost:3000"] {
            assert!(list.allows(good, "gateway"), "{good}");
        }
        assert!(list.allows("capacitor://localhost", "gateway"));
        for bad in
            ["http://app.example.com", "https://sub.app.example.com", "http://localhost", "http://gateway", "null"]
        {
            assert!(!list.allows(bad, "gateway"), "{bad}");
        }
        assert!(policy(&["*"]).allows("null", ""));
    }

    #[test]
    fn an_entry_that_is_no_origin_is_named() {
        for bad in ["example.com", "https://", "https://a/b", "https://*.example.com", "https://a:99999", "null"] {
            assert_eq!(OriginPolicy::new(&[bad.into()]), Err(InvalidOrigin(bad.into())));
        }
        assert_eq!(Origin::parse("HTTPS://A").expect("valid").to_string(), "https://a:443");
    }
}
