//! Probes: out of the traffic and back, hung apps replaced, slow starters left alone.

use std::thread;
use std::time::Duration;

use loadtest::{Arrivals, Plan};
use manifests::units::Rps;

use crate::support::Knarr;
use crate::support::manifest::{SHORT_WINDOWS, Service, service};

fn two() -> Service {
    service("app").with("min-scale", "2").with("initial-scale", "2")
}

/// The sandbox that takes this to heart.
fn told(knarr: &Knarr, path: &str) -> String {
    let reply = knarr.get("app", path);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text().trim().to_owned()
}

#[test]
fn one_that_is_not_ready_for_a_while_gets_no_request_and_loses_none() {
    let readiness = "{httpGet: {path: /ready}, periodSeconds: 1, failureThreshold: 1}";
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("app.yaml", &two().probe("readinessProbe", readiness).yaml()),
    ]);
    let both = knarr
        .until_revision("app-00001", "has two replicas", |it| it.actual_replicas == 2)
        .sandboxes;
    let constant = Arrivals::Constant(Rps(100.0));
    let load = knarr.load(Plan::new(
        knarr.target("app", "/sleep?ms=20"),
        constant,
        Duration::from_secs(8),
    ));
    let ill = told(&knarr, "/unready?ms=3000");
    let out = knarr.until_revision("app-00001", "has one ready replica", |it| it.actual_replicas == 1);
    assert!(!out.sandboxes.contains(&ill) && both.contains(&ill), "{ill}: {out:?}");
    for _ in 0..20 {
        let reply = knarr.get("app", "/");
        assert!(reply.status == 200 && !reply.text().contains(&ill), "{reply:?}");
    }
    let back = knarr.until_revision("app-00001", "has two replicas again", |it| it.actual_replicas == 2);
    assert_eq!(back.sandboxes, both, "it came back, and no other was started");
    let report = load.report();
    assert_eq!((report.count(200), report.failed()), (report.due, 0), "{report}");
    let explained = knarr.ask(&["explain", "app"]).well().out;
    for words in [
        "a sandbox is not ready (readiness probe failed: GET /ready answered 503)",
        "a sandbox is ready again",
    ] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
}

#[test]
fn the_only_one_that_is_not_ready_makes_requests_wait_and_says_why() {
    let readiness = "{grpc: {port: 8080}, periodSeconds: 1, failureThreshold: 1}";
    let app = service("app").proven().with("min-scale", "1").arg("--h2c");
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("app.yaml", &app.probe("readinessProbe", readiness).yaml()),
    ]);
    let ill = told(&knarr, "/unready?ms=4000");
    let out = knarr.until_revision("app-00001", "has no ready replica", |it| it.actual_replicas == 0);
    assert_eq!(
        (out.active.status.as_str(), out.active.reason.as_str()),
        ("Unknown", "Queued"),
        "{out:?}"
    );
    let why = "A replica is not ready: readiness probe failed: gRPC health: NOT_SERVING";
    assert!(out.active.message.contains(why), "{out:?}");
    assert_eq!(out.ready.status, "True", "as in Knative: {out:?}");
    let reply = knarr.get("app", "/");
    assert!(
        reply.status == 200 && reply.text().contains(&ill),
        "it waited: {reply:?}"
    );
    knarr.until_revision("app-00001", "is active again", |it| it.active.status == "True");
}

#[test]
fn a_hung_app_is_replaced() {
    let liveness = "{httpGet: {path: /}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}";
    let app = service("app").proven().with("min-scale", "1").timeout(3);
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("app.yaml", &app.probe("livenessProbe", liveness).yaml()),
    ]);
    let hung = told(&knarr, "/hang");
    let new = knarr.until_revision("app-00001", "has another replica", |it| {
        !it.sandboxes.is_empty() && !it.sandboxes.contains(&hung)
    });
    let reply = knarr.get("app", "/");
    assert!(
        reply.status == 200 && reply.text().contains(&new.sandboxes[0]),
        "{reply:?}"
    );
    let explained = knarr.ask(&["explain", "app"]).well().out;
    let words = "a sandbox is replaced (liveness probe failed 2 times: GET / on port 8080: no answer within 1s)";
    assert!(explained.contains(words), "{explained}");
    knarr.until_said("sandbox ended by itself");
}

#[test]
fn a_slow_starter_has_its_time_and_no_more() {
    let tcp = "{tcpSocket: {port: 0}, periodSeconds: 1, failureThreshold: ";
    let slow = |failures: u32| {
        let probe = format!("{tcp}{failures}}}");
        service("app")
            .proven()
            .with("min-scale", "1")
            .arg("--start-delay")
            .arg("3s")
            .probe("startupProbe", &probe)
            // Alone it would end the app at once.
            .probe("livenessProbe", &format!("{tcp}1}}"))
            .probe(
                "readinessProbe",
                "{exec: {command: [/bin/sh, -c, 'test -n \"$PORT\"']}, periodSeconds: 1}",
            )
    };
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("app.yaml", &slow(60).yaml())]);
    let first = knarr
        .until_revision("app-00001", "runs", |it| it.actual_replicas == 1)
        .sandboxes;
    thread::sleep(Duration::from_secs(2));
    assert_eq!(knarr.revision("app-00001").sandboxes, first, "it lives");
    // One try of nobody, one a second later: then its time is over.
    knarr.place().write("app.yaml", &slow(2).yaml());
    let failed = knarr.until_revision("app-00002", "has failed", |it| it.ready.status == "False");
    assert!(failed.ready.reason.starts_with("ExitCode"), "{failed:?}");
    let why = "Container failed with: startup probe failed 2 times: nothing listens on port 8080";
    assert_eq!(failed.ready.message, why, "{failed:?}");
    assert_eq!(knarr.get("app", "/").status, 200, "the first one still serves");
}
