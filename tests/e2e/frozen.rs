//! `knarr.dev/idle: frozen`: a sandbox that stands still instead of none, and every request that meets it.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::manifest::{SHORT_WINDOWS, Service, service};
use crate::support::{Knarr, Reply, host, processes, until};

/// Frozen a second after the last request.
fn frozen(name: &str) -> Service {
    service(name)
        .with("knarr.dev/idle", "frozen")
        .with("knarr.dev/freeze-delay", "1s")
}

fn until_frozen(knarr: &Knarr, revision: &str) {
    knarr.until(&format!("{revision} is frozen"), |status| {
        let it = status.revisions.iter().find(|it| it.name == revision).unwrap();
        let standing = status
            .memory
            .evictions
            .iter()
            .any(|it| it.revision == revision && it.memory > 0);
        it.rung == "frozen" && it.actual_replicas == 0 && standing
    });
}

fn timed(knarr: &Knarr, service: &str, path: &str) -> Reply {
    knarr.client().ask(&host(service), path, &[("X-Knarr-Timing", "1")])
}

fn timing(reply: &Reply) -> String {
    reply.header("server-timing").unwrap_or_default().to_owned()
}

#[test]
fn a_frozen_service_answers_from_the_same_process() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &frozen("web").yaml())]);
    assert!(timing(&timed(&knarr, "web", "/")).contains("desc=cold"));
    let before = processes::apps(knarr.pid(), "web-00001");
    for round in 0..3 {
        until_frozen(&knarr, "web-00001");
        let status = knarr.status();
        assert!(!status.memory.freezer.is_empty() && status.memory.used <= status.memory.budget);
        let reply = timed(&knarr, "web", "/");
        assert_eq!(reply.status, 200);
        assert!(
            timing(&reply).contains("desc=frozen"),
            "round {round}: {}",
            timing(&reply)
        );
        assert!(!timing(&timed(&knarr, "web", "/")).contains("desc=frozen"), "awake");
        assert_eq!(processes::apps(knarr.pid(), "web-00001"), before, "the same process");
    }
    let explained = knarr.ask(&["explain", "web"]).well().out;
    for word in [
        "a sandbox is frozen and holds",
        "a sandbox is thawed after",
        "knarr.dev/freeze-delay",
    ] {
        assert!(explained.contains(word), "{word}: {explained}");
    }
    until_frozen(&knarr, "web-00001");
    knarr.stop();
    assert!(
        !before.iter().any(|pid| processes::is_alive(*pid)),
        "a frozen one ends with Knarr"
    );
}

/// What a pooled connection would lose: seven of eight POSTs, on Node.
#[test]
fn no_request_is_lost_after_a_thaw_on_any_kind_of_connection() {
    let text = frozen("wide").yaml()
        + &frozen("one").concurrency(1).with("max-scale", "1").yaml()
        + &frozen("h2").arg("--h2c").yaml();
    let knarr = Knarr::serve_with(&[SHORT_WINDOWS, ("all.yaml", &text)], &["--threads", "2"]);
    // Kept open by the client: that is no connection to a sandbox.
    let mut kept = knarr.client();
    for round in 0..3 {
        for service in ["wide", "one", "h2"] {
            let report = knarr.burst(service, "/sleep?ms=20", 16).report();
            assert_eq!(report.count(200), 16, "round {round} {service}: {report}");
        }
        assert_eq!(kept.get(&host("wide"), "/").status, 200);
        for revision in ["wide-00001", "one-00001", "h2-00001"] {
            until_frozen(&knarr, revision);
        }
    }
    for service in ["wide", "one", "h2"] {
        let body = "x".repeat(100);
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{body}",
            host(service)
        );
        kept.say(head.as_bytes());
        let reply = kept.reply();
        assert_eq!((reply.status, reply.text().len()), (200, 100), "{service}");
    }
}

#[test]
fn nothing_is_frozen_under_a_request_or_an_upgraded_connection() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &frozen("web").yaml())]);
    // Three times the delay, in one request.
    assert_eq!(knarr.get("web", "/sleep?ms=3500").status, 200);
    let mut socket = knarr.client();
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    socket.send(&host("web"), "/ws", &upgrade);
    assert_eq!(socket.head().unwrap().0, 101);
    for _ in 0..35 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(
            knarr.revision("web-00001").rung,
            "full",
            "an upgraded connection is open"
        );
    }
    // A masked text frame of two letters, and its echo.
    socket.say(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    assert_eq!(socket.exactly(4).unwrap(), [0x81, 2, b'h', b'i']);
    drop(socket);
    until_frozen(&knarr, "web-00001");
}

#[test]
fn without_an_annotation_nothing_is_ever_frozen() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &service("web").yaml())]);
    assert_eq!(knarr.get("web", "/").status, 200);
    knarr.until_zero("web-00001");
    let explained = knarr.ask(&["explain", "web"]).well().out;
    assert!(!explained.contains("frozen"), "{explained}");
}

#[test]
fn frozen_ones_die_with_a_knarr_that_is_killed() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &frozen("web").yaml())]);
    assert_eq!(knarr.get("web", "/").status, 200);
    until_frozen(&knarr, "web-00001");
    let left = processes::apps(knarr.pid(), "web-00001");
    assert_eq!(left.len(), 1);
    knarr.signal(Signal::KILL);
    let (status, _) = knarr.ended();
    assert!(!status.success());
    let gone = || !left.iter().any(|pid| processes::is_alive(*pid));
    until("the frozen process is gone", gone, || format!("{left:?}"));
}
