//! Addresses that are handed to browsers: where a socket is, and where a module of the page comes from. Each knows its
//! origin, which is what a page's policy names. Nothing here is ever called by a node.

use std::fmt;
use std::str::FromStr;

/// `scheme://host[:port]` and the rest of a URL, if it has nothing that would end a policy's word or a header.
fn split<'a>(text: &'a str, schemes: &[&str]) -> Option<(&'a str, &'a str)> {
    let scheme = schemes.iter().find(|scheme| text.starts_with(**scheme))?;
    let host_at = scheme.len();
    let end = text[host_at..].find(['/', '?', '#']).map_or(text.len(), |at| host_at + at);
    let host = &text[host_at..end];
    let host_chars = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    let url_chars = |c: char| c.is_ascii_graphic() && !"\"'<>\\;,`".contains(c);
    let named = host.chars().any(|c| c.is_ascii_alphanumeric()) && host.chars().all(host_chars);
    (named && text.chars().all(url_chars)).then(|| text.split_at(end))
}

/// Where a WebSocket is: `wss://host`, or `ws://host` for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketUrl {
    url: String,
    host_at: usize,
    end: usize,
}

impl SocketUrl {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// `wss://host[:port]`.
    pub fn origin(&self) -> &str {
        &self.url[..self.end]
    }

    /// The same host over HTTP: `https://host[:port]`, `http://` for `ws://`.
    pub fn http_origin(&self) -> String {
        let scheme = if self.url.starts_with("wss:") { "https://" } else { "http://" };
        format!("{scheme}{}", &self.url[self.host_at..self.end])
    }
}

impl FromStr for SocketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (origin, _) = split(text, &["wss://", "ws://"])
            .ok_or_else(|| "expected wss://host[:port], such as wss://video.example.com".to_owned())?;
        let host_at = text.find("://").map_or(0, |at| at + 3);
        Ok(Self { url: text.to_owned(), host_at, end: origin.len() })
    }
}

impl fmt::Display for SocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Where a module of the page comes from: `https://host/path`, `http://` for tests, or a path on the page's own host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageModule {
    url: String,
    end: Option<usize>,
}

impl PageModule {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// `https://host[:port]`; none for the page's own.
    pub fn origin(&self) -> Option<&str> {
        self.end.map(|end| &self.url[..end])
    }
}

impl FromStr for PageModule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected https://host/path of a module, such as https://cdn.example.com/livekit.mjs".to_owned();
        let own = text.starts_with('/') && !text.starts_with("//");
        if own {
            // The same rule for what follows the host.
            split(&format!("https://own{text}"), &["https://"]).ok_or_else(expected)?;
            return Ok(Self { url: text.to_owned(), end: None });
        }
        let (origin, path) = split(text, &["https://", "http://"]).ok_or_else(expected)?;
        if path.len() < 2 {
            return Err(expected());
        }
        Ok(Self { url: text.to_owned(), end: Some(origin.len()) })
    }
}

impl fmt::Display for PageModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_know_their_origins() {
        let url: SocketUrl = "wss://video.example.com:7443/x?y".parse().expect("valid");
        assert_eq!(
            (url.origin(), url.http_origin().as_str()),
            ("wss://video.example.com:7443", "https://video.example.com:7443")
        );
        let url: SocketUrl = "ws://[::1]:7880".parse().expect("valid");
        assert_eq!((url.origin(), url.http_origin().as_str()), ("ws://[::1]:7880", "http://[::1]:7880"));
        for bad in ["https://h", "wss://", "wss:///x", "wss://h ;", "wss://a;b", "wss://u@h", "wss://h/'", "wss://é"] {
            assert!(bad.parse::<SocketUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn modules_are_files() {
        let module: PageModule = "https://cdn.example.com/npm/livekit@2/+esm".parse().expect("valid");
        assert_eq!(module.origin(), Some("https://cdn.example.com"));
        let own: PageModule = "/livekit.mjs".parse().expect("valid");
        assert_eq!((own.origin(), own.as_str()), (None, "/livekit.mjs"));
        for bad in ["https://h", "https://h/", "//h/x", "javascript:x", "/a b", "/a;b", "https://h;script-src */x"] {
            assert!(bad.parse::<PageModule>().is_err(), "{bad}");
        }
    }
}
