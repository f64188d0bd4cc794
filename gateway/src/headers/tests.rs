//! Tables: what a client sends, what the app gets; what the app sends, what the client gets.

use super::*;

/// Headers in the order given, one for each line.
fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

/// The same back, sorted.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn head(version: Version, uri: &str, lines: &[&str]) -> request::Parts {
    let mut request = http::Request::new(());
    *request.version_mut() = version;
    *request.uri_mut() = uri.parse().unwrap();
    *request.headers_mut() = headers(lines);
    request.into_parts().0
}

fn peer(address: &str) -> Peer {
    Peer::new(format!("{address}:4711").parse().unwrap(), None)
}

const PLAIN: Onward<'static> = Onward {
    protocol: Protocol::Http1,
    upgrade: false,
    via: Via::Host,
    tag: None,
    id: 0,
};

/// What the app gets of these headers, without those that it gets in any case.
fn at_app(sent: &[&str], onward: Onward<'_>) -> Vec<String> {
    let mut head = head(Version::HTTP_11, "/", sent);
    let seen = Seen::of(&head.headers);
    to_app(&mut head, seen, &peer("10.0.0.1"), onward);
    let always = [
        "forwarded: for=10.0.0.1;proto=http",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-proto: http",
        "x-request-id: 00000000-0000-4000-8000-000000000000",
    ];
    let mut lines = lines(&head.headers);
    for each in always {
        let at = lines
            .iter()
            .position(|line| line == each)
            .unwrap_or_else(|| panic!("no {each} in {lines:?}"));
        lines.remove(at);
    }
    lines
}

#[test]
fn what_ends_at_this_hop() {
    for (sent, got) in [
        (
            &["accept: */*", "k-proxy-request: activator", "k-other: 1"][..],
            &["accept: */*", "k-other: 1", "k-proxy-request: activator"][..],
        ),
        // RFC 9110 7.6.1.
        (&["connection: keep-alive", "keep-alive: timeout=5"], &[]),
        (
            &["connection: close, X-Mine", "x-mine: 1", "x-other: 2"],
            &["x-other: 2"],
        ),
        (&["connection: x-a", "connection: x-b", "x-a: 1", "x-b: 2"], &[]),
        (&["proxy-connection: keep-alive", "transfer-encoding: chunked"], &[]),
        // What would move the message's end or its target is not the client's to name.
        (
            &["connection: host, content-length", "content-length: 3"],
            &["content-length: 3"],
        ),
        // What the gateway adds cannot be taken away again.
        (&["connection: x-forwarded-for, x-request-id"], &[]),
        // RFC 9110 10.1.4.
        (&["te: trailers, deflate"], &["connection: te", "te: trailers"]),
        (&["te: gzip"], &[]),
        // RFC 9110 7.8: not without being asked through.
        (&["connection: upgrade", "upgrade: websocket"], &[]),
        // RFC 9110 10.1.1 and 11.7.
        (&["expect: 100-continue", "proxy-authorization: Basic eA=="], &[]),
        // Knative: B6, B7, C3.
        (
            &[
                "knative-serving-revision: x",
                "knative-serving-namespace: y",
                "k-original-host: z",
                "k-network-hash: h",
            ],
            &[],
        ),
        (&["knative-serving-tag: canary"], &["knative-serving-tag: canary"]),
        // Ours.
        (&["server-timing: *", "x-knarr-timing: 1"], &[]),
        (
            &["trailer: x-sum", "authorization: Bearer x", "cookie: a=1"],
            &["authorization: Bearer x", "cookie: a=1", "trailer: x-sum"],
        ),
    ] {
        assert_eq!(at_app(sent, PLAIN), got, "{sent:?}");
    }
}

#[test]
fn what_an_upgrade_says() {
    let upgrade = Onward { upgrade: true, ..PLAIN };
    let sent = [
        "connection: keep-alive, Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
    ];
    let got = ["connection: upgrade", "sec-websocket-version: 13", "upgrade: websocket"];
    assert_eq!(at_app(&sent, upgrade), got);
    let head_of = |version, sent: &[&str]| head(version, "/", sent);
    for (version, sent, want) in [
        (
            Version::HTTP_11,
            &["connection: Upgrade", "upgrade: websocket"][..],
            true,
        ),
        (
            Version::HTTP_11,
            &["connection: keep-alive, upgrade", "upgrade: websocket"],
            true,
        ),
        (Version::HTTP_11, &["upgrade: websocket"], false),
        (Version::HTTP_11, &["connection: close", "upgrade: websocket"], false),
        (Version::HTTP_11, &["connection: upgrade"], false),
        (Version::HTTP_11, &["connection: upgrade", "upgrade: h2c"], false),
        (
            Version::HTTP_11,
            &["connection: upgrade", "upgrade: websocket, H2C"],
            false,
        ),
        (Version::HTTP_10, &["connection: upgrade", "upgrade: websocket"], false),
        (Version::HTTP_2, &["connection: upgrade", "upgrade: websocket"], false),
    ] {
        let head = head_of(version, sent);
        assert_eq!(Seen::of(&head.headers).upgrades(&head), want, "{version:?} {sent:?}");
    }
}

#[test]
fn which_way_it_took() {
    let tag = |via, tag| at_app(&["knative-serving-tag: asked"], Onward { via, tag, ..PLAIN });
    assert_eq!(tag(Via::Host, None), ["knative-serving-tag: asked"]);
    assert_eq!(
        tag(Via::DefaultRoute, None),
        ["knative-serving-default-route: true", "knative-serving-tag: asked"]
    );
    assert_eq!(tag(Via::Tag, None), ["knative-serving-tag: asked"]);
    assert_eq!(tag(Via::Tag, Some("own")), ["knative-serving-tag: own"]);
}

#[test]
fn forwarded_headers() {
    for (from, sent, got) in [
        (
            "10.0.0.1",
            &[][..],
            ["forwarded: for=10.0.0.1;proto=http", "x-forwarded-for: 10.0.0.1"],
        ),
        (
            "[::ffff:10.0.0.1]",
            &[],
            ["forwarded: for=10.0.0.1;proto=http", "x-forwarded-for: 10.0.0.1"],
        ),
        (
            "[2001:db8::1]",
            &[],
            [
                "forwarded: for=\"[2001:db8::1]\";proto=http",
                "x-forwarded-for: 2001:db8::1",
            ],
        ),
        (
            "10.0.0.1",
            &["x-forwarded-for: 1.1.1.1, 2001:db8::2", "x-forwarded-for: 3.3.3.3"],
            [
                "forwarded: for=1.1.1.1;proto=http, for=\"[2001:db8::2]\", for=3.3.3.3, for=10.0.0.1",
                "x-forwarded-for: 1.1.1.1, 2001:db8::2, 3.3.3.3, 10.0.0.1",
            ],
        ),
        (
            "10.0.0.1",
            &["x-forwarded-for: evil;proto=https, \"x"],
            [
                "forwarded: for=unknown;proto=http, for=unknown, for=10.0.0.1",
                "x-forwarded-for: evil;proto=https, \"x, 10.0.0.1",
            ],
        ),
        (
            "10.0.0.1",
            &["forwarded: for=9.9.9.9"],
            ["forwarded: for=9.9.9.9", "x-forwarded-for: 10.0.0.1"],
        ),
    ] {
        let mut head = head(Version::HTTP_11, "/", sent);
        let seen = Seen::of(&head.headers);
        to_app(&mut head, seen, &peer(from), PLAIN);
        head.headers.remove(X_REQUEST_ID);
        assert_eq!(lines(&head.headers).len(), 3, "{sent:?}");
        assert_eq!(lines(&head.headers)[..2], got, "{sent:?}");
        assert_eq!(head.headers[X_FORWARDED_PROTO], "http");
    }
    let mut head = head(
        Version::HTTP_11,
        "/",
        &["x-forwarded-host: a.test:8080", "x-forwarded-proto: https"],
    );
    let seen = Seen::of(&head.headers);
    to_app(&mut head, seen, &peer("10.0.0.1"), PLAIN);
    assert_eq!(head.headers[FORWARDED], "for=10.0.0.1;host=\"a.test:8080\";proto=http");
    assert_eq!(head.headers[X_FORWARDED_PROTO], "http", "this listener's own word");
}

#[test]
fn request_ids() {
    assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(
        request_id(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        "01234567-89ab-4def-8123-456789abcdef"
    );
    let mut head = head(Version::HTTP_11, "/", &["x-request-id: mine"]);
    let seen = Seen::of(&head.headers);
    to_app(&mut head, seen, &peer("10.0.0.1"), PLAIN);
    assert_eq!(head.headers[X_REQUEST_ID], "mine");
}

#[test]
fn hosts() {
    let host = |version, uri: &str, sent: &[&str]| {
        let head = head(version, uri, sent);
        Seen::of(&head.headers)
            .host(&head)
            .map(str::to_owned)
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(host(Version::HTTP_11, "/", &["host: a.test"]), Ok("a.test".into()));
    assert_eq!(
        host(Version::HTTP_11, "http://b.test/", &["host: a.test"]),
        Ok("b.test".into())
    );
    assert_eq!(host(Version::HTTP_2, "http://b.test:80/", &[]), Ok("b.test:80".into()));
    assert_eq!(host(Version::HTTP_2, "/", &["host: a.test"]), Ok("a.test".into()));
    assert!(host(Version::HTTP_11, "/", &[]).is_err());
    assert!(host(Version::HTTP_11, "/", &["host: a.test", "host: b.test"]).is_err());
    assert!(host(Version::HTTP_11, "http://a.test/", &["host: a.test", "host: a.test"]).is_err());
    assert!(host(Version::HTTP_11, "http://x:y@a.test/", &["host: a.test"]).is_err());
}

#[test]
fn targets() {
    let sent = |version, uri: &str, protocol, lines: &[&str]| {
        let mut head = head(version, uri, lines);
        set_target(&mut head, protocol);
        let host = head.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned());
        (head.version, head.uri.to_string(), host)
    };
    let (one, two) = (Protocol::Http1, Protocol::H2c);
    let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
    let host = |name: &str| Some(name.to_owned());
    assert_eq!(
        sent(h1, "/a?b", one, &["host: a.test"]),
        (h1, "/a?b".into(), host("a.test"))
    );
    assert_eq!(
        sent(h1, "http://b.test/a", one, &["host: a.test"]),
        (h1, "/a".into(), host("b.test"))
    );
    assert_eq!(sent(h2, "http://b.test/a", one, &[]), (h1, "/a".into(), host("b.test")));
    assert_eq!(sent(h1, "*", one, &["host: a.test"]), (h1, "*".into(), host("a.test")));
    assert_eq!(
        sent(Version::HTTP_10, "/", one, &["host: a.test"]),
        (h1, "/".into(), host("a.test"))
    );
    assert_eq!(
        sent(h1, "/a?b", two, &["host: a.test"]),
        (h2, "http://a.test/a?b".into(), None)
    );
    assert_eq!(
        sent(h2, "http://b.test/a", two, &[]),
        (h2, "http://b.test/a".into(), None)
    );
}

#[test]
fn what_the_client_gets() {
    for (sent, switching, got) in [
        (
            &["content-type: a/b", "set-cookie: a=1", "set-cookie: b=2"][..],
            false,
            &["content-type: a/b", "set-cookie: a=1", "set-cookie: b=2"][..],
        ),
        (
            &["connection: close, x-mine", "x-mine: 1", "keep-alive: timeout=5"],
            false,
            &[],
        ),
        (
            &["transfer-encoding: chunked", "trailer: x-sum"],
            false,
            &["trailer: x-sum"],
        ),
        (&["proxy-authenticate: Basic", "proxy-connection: close"], false, &[]),
        (
            &["connection: content-length", "content-length: 3"],
            false,
            &["content-length: 3"],
        ),
        (&["upgrade: h2c", "connection: upgrade"], false, &[]),
        (
            &["upgrade: websocket", "connection: Upgrade"],
            true,
            &["connection: upgrade", "upgrade: websocket"],
        ),
    ] {
        let mut headers = headers(sent);
        to_client(&mut headers, switching);
        assert_eq!(lines(&headers), got, "{sent:?}");
    }
}

#[test]
fn what_may_be_done_twice() {
    for (method, want) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PATCH", false),
        ("PURGE", false),
    ] {
        assert_eq!(is_idempotent(&method.parse().unwrap()), want, "{method}");
    }
}
