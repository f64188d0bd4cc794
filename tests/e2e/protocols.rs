//! What passes between client and app besides a request and its answer.

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Knarr, host};

#[test]
fn web_socket_streams_and_trailers() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &service("web").yaml())]);
    web_socket(&knarr);
    stream_down(&knarr);
    stream_both_ways(&knarr);
    trailers(&knarr);
    server_timing(&knarr);
}

/// RFC 6455, by hand: the key and its answer are those of its section 1.3; a mask of zeros changes nothing.
fn web_socket(knarr: &Knarr) {
    let mut client = knarr.client();
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    client.send(&host("web"), "/ws", &upgrade);
    let (status, headers) = client.head().unwrap();
    let accept = headers.iter().find(|(name, _)| name == "sec-websocket-accept");
    assert_eq!(
        (status, accept.map(|(_, value)| value.as_str())),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    for text in ["knarr", "carries", "frames"] {
        let length = u8::try_from(text.len()).unwrap();
        client.say(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat());
        let echo = client.exactly(2 + text.len()).unwrap();
        assert_eq!(echo, [&[0x81, length], text.as_bytes()].concat());
    }
    assert_eq!(
        knarr.revision("web-00001").in_flight,
        1,
        "an open connection is a request in flight"
    );
    drop(client);
    knarr.until_revision("web-00001", "knows that it is closed", |it| it.in_flight == 0);
}

fn stream_down(knarr: &Knarr) {
    let mut client = knarr.client();
    client.send(&host("web"), "/stream?n=4&ms=300", &[]);
    assert_eq!(client.head().unwrap().0, 200);
    for index in 0..4 {
        assert_eq!(client.chunk().unwrap().unwrap(), format!("chunk {index}\n").as_bytes());
        // Had it been collected first, the request would be over by now.
        assert!(
            index == 3 || knarr.revision("web-00001").in_flight == 1,
            "chunk {index} came late"
        );
    }
    assert_eq!(client.chunk().unwrap(), None);
}

/// Each piece is sent only when the one before has come back.
fn stream_both_ways(knarr: &Knarr) {
    let mut client = knarr.client();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        host("web")
    );
    client.say(head.as_bytes());
    client.say(b"3\r\none\r\n");
    assert_eq!(client.head().unwrap().0, 200);
    assert_eq!(client.chunk().unwrap().unwrap(), b"one");
    for text in ["three", "four!"] {
        client.say(format!("5\r\n{text}\r\n").as_bytes());
        assert_eq!(client.chunk().unwrap().unwrap(), text.as_bytes());
    }
    client.say(b"0\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), None);
}

fn trailers(knarr: &Knarr) {
    let reply = knarr.client().ask(&host("web"), "/trailers", &[("TE", "trailers")]);
    assert_eq!(reply.text(), "a body with trailers\n");
    assert_eq!(reply.trailers, [("x-checksum".to_owned(), "abc123".to_owned())]);
}

fn server_timing(knarr: &Knarr) {
    let mut client = knarr.client();
    let reply = client.get(&host("web"), "/");
    assert_eq!(reply.header("server-timing"), None, "nobody asked");
    let reply = client.ask(&host("web"), "/", &[("X-Knarr-Timing", "1")]);
    let warm = phases(reply.header("server-timing").unwrap());
    assert!(warm.iter().any(|(name, _)| name == "app"), "{warm:?}");
    assert!(warm.iter().any(|(_, rest)| rest.contains("desc=warm")), "{warm:?}");

    knarr.until_zero("web-00001");
    let reply = client.ask(&host("web"), "/", &[("X-Knarr-Timing", "1")]);
    let cold = phases(reply.header("server-timing").unwrap());
    let names: Vec<&str> = cold.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["route", "queue", "start", "connect", "app"]);
    assert!(cold[2].1.contains("desc=cold"), "{cold:?}");
    let starts = knarr.revision("web-00001").cold_starts;
    assert_eq!(starts.count, 2, "the very first one, and this");
}

/// Name and parameters of each metric (Server Timing, section 3).
fn phases(header: &str) -> Vec<(String, String)> {
    let metrics = header
        .split(", ")
        .map(|metric| metric.split_once(';').unwrap_or((metric, "")));
    metrics.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}
