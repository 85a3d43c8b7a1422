//! Where clients connect: a URL and what its name stands for. Made once, before anything runs; knows no sockets.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As given, for people.
    pub url: String,
    pub tls: bool,
    /// For `Host` and the certificate. An IPv6 address stands without brackets.
    pub host: String,
    pub port: u16,
    /// What the name resolved to.
    pub addresses: Vec<SocketAddr>,
    /// Path before `/connect`, empty or `/prefix`.
    pub base: String,
}

/// Why there is no such target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(
        "--target {url}: {problem}; expected ws://host[:port][/prefix], wss:// for TLS, http(s):// for the same, or host:port"
    )]
    Form { url: String, problem: &'static str },
    /// The name may exist elsewhere or later: the cluster is out of reach.
    #[error("--target {url}: cannot find {host}: {problem}")]
    Unresolved { url: String, host: String, problem: String },
}

impl Target {
    /// A server without TLS at a known address.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            url: format!("ws://{address}"),
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
            addresses: vec![address],
            base: String::new(),
        }
    }

    /// Asks the system for the addresses of the host. May block for as long as that takes.
    pub fn resolve(mut self) -> Result<Self, TargetError> {
        let unresolved =
            |problem: String| TargetError::Unresolved { url: self.url.clone(), host: self.host.clone(), problem };
        let found = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?;
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        self.addresses = addresses;
        Ok(self)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads the URL; `addresses` stays empty until [`Target::resolve`].
    fn from_str(url: &str) -> Result<Self, TargetError> {
        read(url.trim()).map_err(|problem| TargetError::Form { url: without_password(url), problem })
    }
}

fn read(url: &str) -> Result<Target, &'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => (false, Some(80)),
        "wss" | "https" => (true, Some(443)),
        "" => (false, None),
        _ => return Err("unknown scheme"),
    };
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it has blanks");
    }
    if rest.contains(['?', '#']) {
        return Err("it has a query; tokens are given with --token or --jwt-secret");
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err("it has a user; tokens are given with --token or --jwt-secret");
    }
    let (host, port) = host_and_port(authority)?;
    let port = port.or(default_port).ok_or("it has neither scheme nor port")?;
    if host.is_empty() {
        return Err("it has no host");
    }
    // Somebody may give the address that a browser connects to.
    let path = path.trim_end_matches('/');
    let base = ["/connect", "/ws"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    Ok(Target {
        url: url.to_owned(),
        tls,
        host: host.to_owned(),
        port,
        addresses: Vec::new(),
        base: base.trim_end_matches('/').to_owned(),
    })
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("its [ is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("what is in [ ] is no IPv6 address");
        }
        match after {
            "" => (host, None),
            _ => (host, Some(after.strip_prefix(':').ok_or("there is more after the ]")?)),
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address needs [ ]"),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    match port.map(str::parse::<u16>) {
        None => Ok((host, None)),
        Some(Ok(port)) if port > 0 => Ok((host, Some(port))),
        Some(_) => Err("its port is no number from 1 to 65535"),
    }
}

/// What stands before an `@` may be a secret, and what is wrong is printed.
fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url.rfind('@') {
        Some(at) if at >= start => format!("{}***{}", &url[..start], &url[at..]),
        _ => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (bool, String, u16, String) {
        let target: Target = url.parse().expect(url);
        (target.tls, target.host, target.port, target.base)
    }

    #[test]
    fn urls_and_bare_addresses_are_read() {
        let of = |tls, host: &str, port, base: &str| (tls, host.to_owned(), port, base.to_owned());
        assert_eq!(parts("ws://node-1:8080"), of(false, "node-1", 8080, ""));
        assert_eq!(parts("wss://chat.example.com"), of(true, "chat.example.com", 443, ""));
        assert_eq!(parts("HTTP://h/"), of(false, "h", 80, ""));
        assert_eq!(parts("https://h:8443/a/b/"), of(true, "h", 8443, "/a/b"));
        assert_eq!(parts("ws://h/chat/connect"), of(false, "h", 80, "/chat"));
        assert_eq!(parts("ws://h/ws"), of(false, "h", 80, ""));
        assert_eq!(parts("127.0.0.1:8080"), of(false, "127.0.0.1", 8080, ""));
        assert_eq!(parts("[::1]:8080"), of(false, "::1", 8080, ""));
        assert_eq!(parts("wss://[::1]"), of(true, "::1", 443, ""));
    }

    #[test]
    fn others_are_refused_without_showing_secrets() {
        for bad in [
            "",
            "ws://",
            "localhost",
            "ftp://h",
            "ws://h:0",
            "ws://h:99999",
            "h:x",
            "::1:80",
            "ws://[::1",
            "ws://[x]:1",
            "ws://[::1]x",
            "ws://h h",
            "ws://:80",
        ] {
            assert!(matches!(bad.parse::<Target>(), Err(TargetError::Form { .. })), "{bad:?}");
        }
        for secret in ["ws://user:geheim@h", "user:geheim@h:80", "ws://h?token=geheim", "é@geheim@h:1"] {
            let words = secret.parse::<Target>().expect_err("refused").to_string();
            assert!(!words.contains("geheim"), "{words}");
        }
    }

    #[test]
    fn names_are_resolved_once_and_unknown_ones_are_out_of_reach() {
        let target = "127.0.0.1:8080".parse::<Target>().and_then(Target::resolve).expect("an address");
        assert_eq!(target.addresses, ["127.0.0.1:8080".parse().expect("an address")]);
        assert_eq!(Target::at(target.addresses[0]).addresses, target.addresses);
        let unknown = "ws://no-such-host.invalid".parse::<Target>().and_then(Target::resolve);
        assert!(matches!(unknown, Err(TargetError::Unresolved { .. })));
    }
}
