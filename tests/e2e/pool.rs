//! The pool of shells, in /metrics.

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Client, Knarr, is_root, until};

/// The value of one line of /metrics.
fn value(knarr: &Knarr, name: &str) -> Option<u64> {
    let metrics = Client::connect(knarr.admin).get("localhost", "/metrics").text();
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn what_starts_find_in_the_pool_is_counted_by_revision() {
    if !is_root() {
        return;
    }
    let app = service("app");
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("app.yaml", &app.yaml())]);
    let starts = |revision: &str, result: &str| {
        let labels = format!("namespace=\"default\",revision=\"{revision}\",result=\"{result}\"");
        value(&knarr, &format!("knarr_pool_starts_total{{{labels}}}")).unwrap_or(0)
    };
    let of = |revision: &str| ["rooted", "generic", "missed"].map(|result| starts(revision, result));
    let ready = |name: &str, at_least: u64| {
        let there = || value(&knarr, name).is_some_and(|it| it >= at_least);
        until(name, there, String::new);
    };
    // It is deployed at zero: one waits for its first start that has the root already.
    ready(
        "knarr_pool_revision_shells{namespace=\"default\",revision=\"app-00001\"}",
        1,
    );
    assert_eq!(of("app-00001"), [0, 0, 0]);
    assert_eq!(knarr.get("app", "/").status, 200);
    assert_eq!(of("app-00001"), [1, 0, 0]);
    // The next one waits for it again, and for every revision with the same root.
    ready("knarr_pool_refills_total{kind=\"rooted\"}", 2);
    ready("knarr_pool_shells{kind=\"rooted\"}", 1);
    knarr
        .place()
        .write("app.yaml", &app.proven().env("TARGET", "again").yaml());
    knarr.until("the second revision is ready", |status| {
        status.services[0].latest_ready == "app-00002"
    });
    assert_eq!(of("app-00002"), [1, 0, 0]);
}
