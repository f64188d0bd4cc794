//! Where requests go, what they say, and over which connections.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use crate::data::Data;

/// One target of load. [`Target::new`] and [`Target::from_url`] have the defaults; the fields may be changed.
#[derive(Clone, Debug)]
pub struct Target {
    /// What reports call it; default its host.
    pub name: String,
    /// Whom to connect to.
    pub address: Address,
    /// The `Host` header (`:authority` in HTTP/2): which app behind the address.
    pub host: String,
    /// Path and query, starting with `/`. With `data`, `{{column}}` stands for the value of that column, here as in
    /// `headers` and `body`.
    pub path: String,
    /// GET unless changed.
    pub method: Method,
    /// Beyond `Host` and what the body needs.
    pub headers: HeaderMap,
    /// The same for every request, but for columns.
    pub body: Bytes,
    /// Its share of the requests, among all targets' weights; at least 0. Default 1.
    pub weight: f64,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// With TLS, if at all.
    pub tls: Option<Tls>,
    /// At most this many connections over all threads. Default 512; each costs a descriptor and about 10 KiB (50 KiB with
    /// TLS).
    pub connections: usize,
    /// At most this many requests under way on one HTTP/2 connection. Default 100. HTTP/1.1 has one.
    pub streams: usize,
    /// Whether a connection serves more than one request. Default yes.
    pub keep_alive: bool,
    /// Values for `{{column}}`; request after request takes row after row, from the top again after the last.
    pub data: Option<Data>,
}

/// Whom to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// An address, no name to look up.
    Socket(SocketAddr),
    /// A name, looked up once, before the start: the first of its addresses that answers is used, IPv6 or IPv4.
    Name {
        /// A DNS name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// How a server is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// HTTP/1.1; with TLS what the server prefers of HTTP/2 and HTTP/1.1 (ALPN), found out before the start.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: with TLS by ALPN, without TLS at once (h2c with prior knowledge).
    Http2,
}

/// Whose certificate is good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// Any certificate is.
    pub insecure: bool,
    /// Authorities as PEM, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// The name to ask for (SNI) and to find in the certificate; default the URL's, or else the address.
    pub server_name: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Target {
    /// GET `/` of `host` at `addr`.
    pub fn new(addr: SocketAddr, host: impl Into<String>) -> Self {
        let host = host.into();
        Self {
            name: host.clone(),
            address: Address::Socket(addr),
            host,
            path: "/".to_owned(),
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            weight: 1.0,
            protocol: Protocol::Auto,
            tls: None,
            connections: 512,
            streams: 100,
            keep_alive: true,
            data: None,
        }
    }

    /// GET of an `http` or `https` URL. Without a scheme it is `http`. The path may hold `{{column}}`.
    ///
    /// # Errors
    /// In words, when it is no such URL.
    pub fn from_url(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => None,
            "https" => Some(Tls::default()),
            other => return Err(format!("{url:?}: the scheme is {other:?}, but must be http or https")),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at(end),
            None => (rest, "/"),
        };
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        if authority.contains('@') {
            return Err(format!(
                "{url:?}: a user or password in a URL is not sent; give the header Authorization instead"
            ));
        }
        let parsed: Uri = format!("http://{authority}/")
            .parse()
            .map_err(|_| format!("{url:?} is not a URL, as in http://127.0.0.1:8080/path"))?;
        let host = parsed.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("{url:?} names no host, as http://127.0.0.1:8080/path does"))?;
        let port = match parsed.port() {
            Some(port) => port.as_u16(),
            None if authority.ends_with(':') || authority[host.len()..].contains(':') => {
                return Err(format!("{url:?}: the port must be a number from 1 to 65535"));
            }
            None if tls.is_some() => 443,
            None => 80,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = match bare.parse::<IpAddr>() {
            Ok(ip) => Address::Socket((ip, port).into()),
            // Never asked of a resolver (RFC 6761 section 6.3), and most would not know it.
            Err(_) if is_localhost(host) => Address::Socket((Ipv4Addr::LOCALHOST, port).into()),
            Err(_) => Address::Name {
                host: host.to_owned(),
                port,
            },
        };
        let server_name = bare.parse::<IpAddr>().is_err().then(|| host.to_owned());
        Ok(Self {
            address,
            path,
            tls: tls.map(|tls| Tls { server_name, ..tls }),
            ..Self::new(([0, 0, 0, 0], port).into(), authority)
        })
    }

    /// Connects to another address, `HOST:PORT`; host, path and all else stay.
    ///
    /// # Errors
    /// In words, when it is no address.
    pub fn send_to(&mut self, address: &str) -> Result<(), String> {
        self.address = Self::from_url(&format!("http://{address}/"))?.address;
        Ok(())
    }

    /// Another path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Its URL, for people: with the host that is asked for, whatever the address.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.host, self.path)
    }
}

/// `localhost`, and every name below it.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let name = |host: &str, port| Address::Name {
            host: host.to_owned(),
            port,
        };
        let ip = |addr: &str| Address::Socket(addr.parse().expect("an address"));
        for (url, address, host, path, tls) in [
            ("http://a.b/", name("a.b", 80), "a.b", "/", false),
            ("https://a.b", name("a.b", 443), "a.b", "/", true),
            ("a.b:8080/x?y=z#f", name("a.b", 8080), "a.b:8080", "/x?y=z", false),
            (
                "http://hello.default.localhost:8080/",
                ip("127.0.0.1:8080"),
                "hello.default.localhost:8080",
                "/",
                false,
            ),
            ("http://127.0.0.1:1?q", ip("127.0.0.1:1"), "127.0.0.1:1", "/?q", false),
            (
                "HTTPS://[::1]:8443/{{id}}",
                ip("[::1]:8443"),
                "[::1]:8443",
                "/{{id}}",
                true,
            ),
        ] {
            let target = Target::from_url(url).expect(url);
            assert_eq!(
                (
                    target.address,
                    target.host.as_str(),
                    target.path.as_str(),
                    target.tls.is_some()
                ),
                (address, host, path, tls),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_url_is_said() {
        for (url, words) in [
            ("ftp://a/", "must be http or https"),
            ("http://", "is not a URL"),
            ("http://u:p@a/", "give the header Authorization"),
            ("http://a:99999/", "port must be a number"),
            ("http://a b/", "is not a URL"),
        ] {
            let error = Target::from_url(url).expect_err(url);
            assert!(error.contains(words), "{error}");
        }
    }
}
