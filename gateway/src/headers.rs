//! What changes in the heads of requests and responses on their way through, and why.
//!
//! To the app a request looks as it would behind one hop of Knative (ingress, then queue-proxy). `Host` simply stays;
//! Knative moves it into `K-Original-Host` and back. What a client could send to steer Knative's own hops
//! (`Knative-Serving-Revision`, `Knative-Serving-Namespace`, `K-Original-Host`, `K-Network-Hash`) never reaches the app,
//! as there; `K-Proxy-Request`, `Knative-Serving-Tag` and other `K-*` headers pass, as there. There is no activator in
//! the path, so nothing sets `K-Proxy-Request`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version};
use manifests::workload::Protocol;

use crate::respond::Refusal;
use crate::router::Via;

pub(crate) const K_NETWORK_PROBE: HeaderName = HeaderName::from_static("k-network-probe");
pub(crate) const K_NETWORK_HASH: HeaderName = HeaderName::from_static("k-network-hash");
pub(crate) const SERVING_TAG: HeaderName = HeaderName::from_static("knative-serving-tag");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const K_ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
const SERVING_REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
const SERVING_NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");
const SERVING_DEFAULT_ROUTE: HeaderName = HeaderName::from_static("knative-serving-default-route");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_KNARR_TIMING: HeaderName = HeaderName::from_static("x-knarr-timing");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What one pass over a request's headers found. A typical request has none of it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    hosts: u8,
    cookies: u8,
    connection: bool,
    upgrade: bool,
    te: bool,
    te_trailers: bool,
    /// Something that is removed whatever it says.
    unwanted: bool,
    forwarded: bool,
    forwarded_for: bool,
    forwarded_host: bool,
    /// It has `X-Request-Id`.
    pub(crate) request_id: bool,
    /// The client asks for `Server-Timing`: it sent `Server-Timing` or `X-Knarr-Timing`, with any value.
    pub(crate) timing: bool,
    /// It may be a probe of Kubernetes or Knative (C4).
    pub(crate) probe: bool,
    /// It has `Knative-Serving-Tag`.
    pub(crate) tag: bool,
    /// It has `Idempotency-Key` (or `X-Idempotency-Key`, as Go's transport takes it too).
    pub(crate) idempotency_key: bool,
    /// About how many bytes names and values take.
    pub(crate) bytes: usize,
}

impl Seen {
    /// Looks at every header once.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            seen.bytes += name.len() + value.len();
            match name {
                "host" => seen.hosts = seen.hosts.saturating_add(1),
                "cookie" => seen.cookies = seen.cookies.saturating_add(1),
                "user-agent" => seen.probe |= value.as_bytes().starts_with(b"kube-probe/"),
                "connection" => seen.connection = true,
                "upgrade" => seen.upgrade = true,
                "te" => {
                    seen.te = true;
                    seen.te_trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case("trailers"));
                }
                "keep-alive"
                | "proxy-connection"
                | "transfer-encoding"
                | "http2-settings"
                | "expect"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "k-original-host"
                | "k-network-hash"
                | "knative-serving-revision"
                | "knative-serving-namespace" => seen.unwanted = true,
                "k-network-probe" | "k-kubelet-probe" => seen.probe |= !value.is_empty(),
                "knative-serving-tag" => seen.tag = true,
                "forwarded" => seen.forwarded = true,
                "x-forwarded-for" => seen.forwarded_for = true,
                "x-forwarded-host" => seen.forwarded_host = true,
                "x-request-id" => seen.request_id = true,
                "idempotency-key" | "x-idempotency-key" => seen.idempotency_key = true,
                "server-timing" | "x-knarr-timing" => seen.timing = true,
                _ => {}
            }
        }
        seen
    }

    /// The host a request is for. A URI's own authority wins over `Host` (RFC 9112 3.2.2; HTTP/2's `:authority` comes
    /// in it). Without one there must be exactly one `Host` (RFC 9112 3.2).
    pub(crate) fn host<'a>(&self, head: &'a request::Parts) -> Result<&'a str, Refusal> {
        if self.hosts > 1 {
            return Err(Refusal::BadHost("more than one Host header"));
        }
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => {
                let value = head.headers.get(HOST).ok_or(Refusal::BadHost("no Host header"))?;
                value
                    .to_str()
                    .map_err(|_| Refusal::BadHost("the Host header is no host name"))?
            }
        };
        // RFC 9110 4.2.4: user information in a request is an error.
        if host.contains('@') {
            Err(Refusal::BadHost("the Host header has user information"))
        } else {
            Ok(host)
        }
    }

    /// Whether the client asks to change the protocol, and to one that may pass. `h2c` may not: the app's answer would
    /// turn this gateway's connection into HTTP/2 (RFC 9113 has withdrawn it).
    pub(crate) fn upgrades(&self, head: &request::Parts) -> bool {
        self.upgrade
            && self.connection
            && head.version == Version::HTTP_11
            && listed(&head.headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
            && !head
                .headers
                .get_all(UPGRADE)
                .iter()
                .flat_map(tokens)
                .any(|token| token.eq_ignore_ascii_case("h2c"))
    }
}

/// The client's end of a connection, with the header values that are the same for all its requests.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// What every request of it is for, whatever its `Host` says: it has asked for that service's address.
    pub(crate) host: Option<Arc<str>>,
    forwarded_for: HeaderValue,
    forwarded: HeaderValue,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, host: Option<Arc<str>>) -> Self {
        // An IPv4 client of an IPv6 listener is an IPv4 client.
        let text = address.ip().to_canonical().to_string();
        let mut forwarded = String::from("for=");
        write_node(&mut forwarded, &text);
        forwarded.push_str(";proto=http");
        Self {
            address,
            host,
            forwarded_for: value(text),
            forwarded: value(forwarded),
        }
    }
}

/// How a request goes on, for [`to_app`].
#[derive(Clone, Copy)]
pub(crate) struct Onward<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) upgrade: bool,
    pub(crate) via: Via,
    /// The tag of a tag's own host.
    pub(crate) tag: Option<&'a str>,
    /// 128 random bits, for a request without `X-Request-Id`.
    pub(crate) id: u128,
}

/// Turns a client's request head into what the app gets.
pub(crate) fn to_app(head: &mut request::Parts, seen: Seen, peer: &Peer, onward: Onward<'_>) {
    let upgrade_to = if onward.upgrade {
        head.headers.get(UPGRADE).cloned()
    } else {
        None
    };
    remove_hop_by_hop(&mut head.headers, seen);
    set_target(head, onward.protocol);
    set_forwarded(&mut head.headers, seen, peer);
    let headers = &mut head.headers;
    if !seen.request_id {
        headers.insert(X_REQUEST_ID, request_id(onward.id));
    }
    // Knative: the ingress tells which way a request took, where tag-header routing is on (B7).
    match (onward.via, onward.tag) {
        (Via::Host, _) => {}
        (Via::DefaultRoute, _) => {
            headers.insert(SERVING_DEFAULT_ROUTE, HeaderValue::from_static("true"));
        }
        (Via::Tag, Some(tag)) => {
            if let Ok(tag) = HeaderValue::from_str(tag) {
                headers.insert(SERVING_TAG, tag);
            }
        }
        (Via::Tag, None) => {}
    }
    // RFC 9110 7.8: an upgrade is between two hops; the gateway asks for it anew.
    if let Some(protocol) = upgrade_to {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    // RFC 9110 10.1.4: TE is between two hops, and is listed in Connection. The gateway passes trailers, so when the
    // client takes them it takes them too. HTTP/2 has no Connection (RFC 9113 8.2.2).
    if seen.te_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if onward.protocol == Protocol::Http1 {
            let listed = if onward.upgrade { "upgrade, te" } else { "te" };
            headers.insert(CONNECTION, HeaderValue::from_static(listed));
        }
    }
}

/// Turns an app's response head into what the client gets: HTTP/1.1 for every client, hyper writes each its own version.
/// `switching` is a `101` that passes.
pub(crate) fn to_client(headers: &mut HeaderMap, switching: bool) {
    let (mut connection, mut unwanted) = (false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "keep-alive" | "proxy-connection" | "proxy-authenticate" | "transfer-encoding" | "te" | "upgrade" => {
                unwanted = true;
            }
            _ => {}
        }
    }
    if !connection && !unwanted {
        return;
    }
    let upgrade_to = if switching { headers.get(UPGRADE).cloned() } else { None };
    // RFC 9110 7.6.1: Connection and what it names are for this hop.
    if connection {
        remove_listed(headers);
    }
    // RFC 9110 7.6.1: so are these, named or not. `Transfer-Encoding` is written anew for the next hop, where needed.
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        TRANSFER_ENCODING,
        TE,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade_to {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap, seen: Seen) {
    // RFC 9110 7.6.1: Connection and every field it names are for this hop.
    if seen.connection {
        remove_listed(headers);
    }
    // RFC 9110 10.1.4 and 7.8: TE and Upgrade are for this hop.
    if seen.te {
        headers.remove(TE);
    }
    if seen.upgrade {
        headers.remove(UPGRADE);
    }
    if seen.timing {
        headers.remove(SERVER_TIMING);
        headers.remove(X_KNARR_TIMING);
    }
    if seen.unwanted {
        // RFC 9110 7.6.1: named by Connection or not, these are for this hop. `Transfer-Encoding` is written anew.
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, HTTP2_SETTINGS] {
            headers.remove(name);
        }
        // RFC 9110 11.7: for the first proxy. Go's reverse proxy, and so Knative, removes both from requests.
        headers.remove(PROXY_AUTHENTICATE);
        headers.remove(PROXY_AUTHORIZATION);
        // RFC 9110 10.1.1: the gateway has met the expectation, with its own `100 Continue` once it reads the body.
        headers.remove(EXPECT);
        // Knative: B6, B7, C3.
        for name in [SERVING_REVISION, SERVING_NAMESPACE, K_ORIGINAL_HOST, K_NETWORK_HASH] {
            headers.remove(name);
        }
    }
}

/// Removes `Connection` and what it names, except what would change where the message goes or where it ends.
fn remove_listed(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = listed(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named {
        if name != HOST && name != CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
}

/// Writes request target and `Host` in the form of the next hop.
fn set_target(head: &mut request::Parts, protocol: Protocol) {
    let from_h2 = head.version == Version::HTTP_2;
    let origin = |uri: &Uri| {
        uri.path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"))
    };
    match protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            // RFC 9112 3.2.1, 3.2.2: origin form, and the target's own authority in Host.
            if let Some(authority) = head.uri.authority() {
                if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                    head.headers.insert(HOST, host);
                }
                head.uri = Uri::from(origin(&head.uri));
            }
            // RFC 9113 8.2.3: pieces of one cookie header become one field again.
            if from_h2 && head.headers.get_all(COOKIE).iter().nth(1).is_some() {
                let whole = join(head.headers.get_all(COOKIE).iter(), b"; ");
                head.headers.insert(COOKIE, whole);
            }
        }
        Protocol::H2c => {
            head.version = Version::HTTP_2;
            let host = head.headers.remove(HOST);
            let authority = head
                .uri
                .authority()
                .cloned()
                .or_else(|| Authority::try_from(host?.as_bytes()).ok());
            let mut parts = http::uri::Parts::default();
            // RFC 9113 8.3.1: asterisk form stays the path `*`.
            parts.path_and_query = Some(origin(&head.uri));
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = authority;
            if let Ok(uri) = Uri::from_parts(parts) {
                head.uri = uri;
            }
        }
    }
}

/// `X-Forwarded-For` gets the client appended, `X-Forwarded-Proto` is this listener's own word (B7), and `Forwarded` says
/// the same where the client has sent none (Knative: the shim of C3).
fn set_forwarded(headers: &mut HeaderMap, seen: Seen, peer: &Peer) {
    let plain = !seen.forwarded_for && !seen.forwarded_host;
    let nodes = if seen.forwarded_for {
        let mut nodes = join(headers.get_all(X_FORWARDED_FOR).iter(), b", ").as_bytes().to_vec();
        nodes.extend_from_slice(b", ");
        nodes.extend_from_slice(peer.forwarded_for.as_bytes());
        HeaderValue::from_bytes(&nodes).unwrap_or_else(|_| peer.forwarded_for.clone())
    } else {
        peer.forwarded_for.clone()
    };
    if !seen.forwarded {
        let forwarded = if plain {
            peer.forwarded.clone()
        } else {
            forwarded(&nodes, headers.get(X_FORWARDED_HOST), peer)
        };
        headers.insert(FORWARDED, forwarded);
    }
    headers.insert(X_FORWARDED_FOR, nodes);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
}

/// Knative: `for=FIRST[;host=X-Forwarded-Host];proto=PROTO[, for=NEXT]...` (C3).
fn forwarded(nodes: &HeaderValue, host: Option<&HeaderValue>, peer: &Peer) -> HeaderValue {
    let mut text = String::new();
    for (index, node) in tokens(nodes).enumerate() {
        text.push_str(if index == 0 { "for=" } else { ", for=" });
        write_node(&mut text, node);
        if index == 0 {
            if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(|host| is_host(host)) {
                // RFC 7239 4: a value that is no token, such as one with a port, is quoted.
                let quote = if host.contains([':', '[', ']']) { "\"" } else { "" };
                let _ = write!(text, ";host={quote}{host}{quote}");
            }
            text.push_str(";proto=http");
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| peer.forwarded.clone())
}

/// RFC 7239 6: an IPv6 address is bracketed and quoted; what is no address or name is `unknown`, so that no client can
/// write parameters of its own into the value.
fn write_node(text: &mut String, node: &str) {
    if node.is_empty() || !is_host(node) {
        text.push_str("unknown");
    } else if node.starts_with('[') {
        let _ = write!(text, "\"{node}\"");
    } else if node.matches(':').count() > 1 {
        let _ = write!(text, "\"[{node}]\"");
    } else if node.contains(':') {
        let _ = write!(text, "\"{node}\"");
    } else {
        text.push_str(node);
    }
}

fn is_host(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

/// The bits as a UUID of version 4 (RFC 9562 5.4).
fn request_id(bits: u128) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = ((bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)).to_be_bytes();
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Methods that do the same when done twice (RFC 9110 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

/// What all `Connection` headers name.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONNECTION).iter().flat_map(tokens)
}

/// The elements of a comma-separated list (RFC 9110 5.6.1).
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn join<'a>(values: impl Iterator<Item = &'a HeaderValue>, separator: &[u8]) -> HeaderValue {
    let mut whole = Vec::new();
    for value in values {
        if !whole.is_empty() {
            whole.extend_from_slice(separator);
        }
        whole.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&whole).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests;
