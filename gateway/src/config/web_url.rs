//! The address of something that the node calls out to. Read strictly: what is called and what was meant must not differ.

use std::fmt;
use std::str::FromStr;

/// `https://`, or `http://` where that is allowed. Shown is only which machine it is on: paths often hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(Box<str>);

impl WebUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the call could be read and changed on its way: no TLS, and not to this machine itself.
    pub fn is_exposed(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else { return false };
        let host = host_of(rest);
        let is_loopback = host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
        !(is_loopback || host == "localhost" || host == "[::1]")
    }
}

/// Between `scheme://` and the port.
fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

impl FromStr for WebUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        // Neither blanks nor what some parsers take for a slash or the end, nor a user: it would be a password's place.
        let is_plain =
            |rest: &str| rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\@#\"<>^`{|}".contains(&byte));
        match rest {
            Some(rest) if is_plain(rest) && !host_of(rest).is_empty() => Ok(Self(text.into())),
            _ => Err("expected https://host[:port]/path, without user and password".to_owned()),
        }
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[authority..].find(['/', '?']).map_or(self.0.len(), |at| authority + at);
        f.write_str(&self.0[..end])
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_parser_reads_alike_is_taken() {
        for good in ["https://id.example/keys", "http://[::1]:8080/a?b=c", "https://h", "http://10.0.0.1:80"] {
            assert_eq!(good.parse::<WebUrl>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "id.example",
            "ftp://h/",
            "https://",
            "https:///x",
            "https://u:p@h/",
            "http://h\\@e/",
            "https://h/ x",
            "HTTPS://h",
        ] {
            assert!(bad.parse::<WebUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_machine_is_shown() {
        for (url, shown) in [
            ("https://id.example:8443/s3cr3t?key=s3cr3t", "https://id.example:8443"),
            ("https://id.example?s3cr3t", "https://id.example"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            let url: WebUrl = url.parse().expect(url);
            assert_eq!((format!("{url}"), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn plain_http_to_elsewhere_is_exposed() {
        for (url, exposed) in [
            ("https://id.example/", false),
            ("http://localhost:80/", false),
            ("http://127.0.0.9/", false),
            ("http://[::1]:1/", false),
            ("http://id.example/", true),
            ("http://localhost.example/", true),
            ("http://127.0.0.1.example/", true),
            ("http://[fd00::1]/", true),
        ] {
            assert_eq!(url.parse::<WebUrl>().expect(url).is_exposed(), exposed, "{url}");
        }
    }
}
