//! Whoever is killed under load: exactly what was promised fails, and nothing is left on the host.
//!
//! One test, alone in its binary: it compares all processes, mounts, cgroups, namespaces, descriptors and temporary files.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use loadtest::{Arrivals, Plan, Report, Target};
use manifests::units::Rps;
use sandbox::test_support::HostSnapshot;
use support::manifest::{SHORT_WINDOWS, service};
use support::{BOUND, Knarr, Load, Place, is_root, processes, until};

#[test]
fn whoever_is_killed_only_what_was_sent_fails_and_nothing_is_left() {
    if !is_root() {
        return;
    }
    // What a process keeps for good belongs to it: tokio has a socket for signals.
    drop(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
    );
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let before = HostSnapshot::of(&[&place.data()]);

    let one = service("one").concurrency(1).with("max-scale", "4");
    let many = service("many").with("max-scale", "2");
    for (name, text) in [SHORT_WINDOWS, ("one.yaml", &one.yaml()), ("many.yaml", &many.yaml())] {
        place.write(name, text);
    }
    let knarr = Knarr::at(&place, &["--threads", "2"]);
    for round in 0..2 {
        sandboxes_are_killed(&knarr, round);
    }
    sandboxes_are_killed_under_steady_load(&knarr);
    for _ in 0..2 {
        the_spawner_is_killed(&knarr);
    }
    let again = knarr_is_killed(knarr, &place);
    again.stop();

    drop(place);
    before.assert_same_within(BOUND);
}

/// 24 requests at four sandboxes that take one each. All four are killed, then those that replace them.
fn sandboxes_are_killed(knarr: &Knarr, round: u32) {
    let load = knarr.load(posts(knarr, "one", "/sleep?ms=1000", 24));
    let mut killed = 0;
    for waiting in [20, 16] {
        knarr.until_revision("one-00001", "has four running and the others waiting", |it| {
            it.actual_replicas == 4 && it.waiting == waiting
        });
        // Handed to a sandbox is not yet sent.
        std::thread::sleep(Duration::from_millis(300));
        for pid in processes::apps(knarr.pid(), "one-00001") {
            processes::kill(pid);
            killed += 1;
        }
    }
    assert_eq!(killed, 8);
    let report = load.report();
    assert_eq!(
        (report.count(502), report.count(200)),
        (8, 16),
        "round {round}\n{report}"
    );
}

/// One sandbox after another dies while requests keep coming. Every failure is a 502 for a request that was inside.
fn sandboxes_are_killed_under_steady_load(knarr: &Knarr) {
    let target = post(knarr, "one", "/sleep?ms=20");
    let load = knarr.load(Plan::new(target, Arrivals::Constant(Rps(50.0)), Duration::from_secs(4)));
    let mut killed = 0;
    while !load.is_finished() {
        std::thread::sleep(Duration::from_millis(150));
        if let Some(pid) = processes::apps(knarr.pid(), "one-00001").first() {
            processes::kill(*pid);
            killed += 1;
        }
    }
    let report = load.report();
    // What comes next must not be sent to one that is dead and not yet known to be.
    knarr.until_revision("one-00001", "knows who lives", |it| {
        it.starting_replicas == 0 && it.sandboxes.len() == processes::apps(knarr.pid(), "one-00001").len()
    });
    let (good, broken) = (report.count(200), report.count(502));
    assert_eq!(good + broken, report.due, "{report}");
    assert!(
        broken <= killed && killed > 5,
        "{broken} failed of {killed} killed\n{report}"
    );
}

/// All sandboxes die with the spawner: what was inside fails, everything else is served by its successor.
fn the_spawner_is_killed(knarr: &Knarr) {
    let slow = knarr.load(posts(knarr, "one", "/sleep?ms=1000", 12));
    knarr.until_revision("one-00001", "has four running and eight waiting", |it| {
        it.actual_replicas == 4 && it.waiting == 8
    });
    std::thread::sleep(Duration::from_millis(300));
    let steady = steady(knarr, "many");
    std::thread::sleep(Duration::from_millis(300));

    let spawner = processes::spawner(knarr.pid()).unwrap();
    processes::kill(spawner);
    let is_another = || processes::spawner(knarr.pid()).is_some_and(|pid| pid != spawner);
    until("there is another spawner", is_another, || knarr.errors());

    let report = slow.report();
    assert_eq!((report.count(502), report.count(200)), (4, 8), "{report}");
    let report = steady.report();
    let (good, broken) = (report.count(200), report.count(502));
    assert_eq!(good + broken, report.due, "{report}");
    // 100 a second that take 20 ms each: two are inside at any time.
    assert!(broken <= 20 && good > 250, "{report}");
    assert_eq!(knarr.burst("many", "/", 50).report().count(200), 50);
}

/// Knarr dies: clients see their connections end, nothing of it runs on, and the next one on the same directory serves.
fn knarr_is_killed(knarr: Knarr, place: &Arc<Place>) -> Knarr {
    let slow = knarr.load(posts(&knarr, "one", "/sleep?ms=3000", 8));
    let steady = steady(&knarr, "many");
    knarr.until_revision("one-00001", "has four running", |it| it.actual_replicas == 4);
    knarr.until_revision("many-00001", "has served", |it| it.requests.success > 50);
    let family = processes::descendants(knarr.pid());
    assert!(family.len() > 5, "{family:?}");
    processes::kill(knarr.pid());
    let (status, errors) = knarr.ended();
    assert_eq!(status.code(), None, "{errors}");
    let answered = |report: &Report| report.statuses.keys().all(|status| *status == 200);
    let (slow, steady) = (slow.report(), steady.report());
    assert!(slow.count(200) == 0 && slow.failed() == 8, "{slow}");
    assert!(answered(&steady) && steady.failed() > 0, "{steady}");
    let living = || {
        family
            .iter()
            .filter(|pid| std::fs::exists(format!("/proc/{pid}")).unwrap())
            .count()
    };
    let left = || {
        family
            .iter()
            .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")))
            .map(|status| format!("{status:?}"))
            .collect()
    };
    // As the reaper of what is left we have to wait for them; `HostSnapshot` has made us that.
    let reaped = || {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        living() == 0
    };
    until("nothing of it is left", reaped, left);

    let again = Knarr::at(place, &[]);
    assert_eq!(again.burst("one", "/overlap?ms=20", 40).report().count(200), 40);
    assert_eq!(again.burst("many", "/", 40).report().count(200), 40);
    again
}

/// What is not idempotent: a GET on a connection that was used before is sent again when that breaks.
fn post(knarr: &Knarr, service: &str, path: &str) -> Target {
    Target {
        method: http::Method::POST,
        ..knarr.target(service, path)
    }
}

fn posts(knarr: &Knarr, service: &str, path: &str, count: u64) -> Plan {
    Plan::burst(post(knarr, service, path), count)
}

fn steady(knarr: &Knarr, service: &str) -> Load {
    let target = post(knarr, service, "/sleep?ms=20");
    knarr.load(Plan::new(
        target,
        Arrivals::Constant(Rps(100.0)),
        Duration::from_secs(3),
    ))
}
