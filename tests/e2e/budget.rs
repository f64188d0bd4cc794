//! `--memory-budget`: idle sandboxes make room, what does not fit is refused with the numbers, and a wall of memory-hungry
//! apps breaks inside.

use std::time::Duration;

use crate::support::manifest::{SHORT_WINDOWS, Service, service};
use crate::support::{Knarr, needs, processes};

const MIB: u64 = 1 << 20;

/// Frozen at once when it is idle, with 40 MiB of its own.
fn holder(name: &str) -> Service {
    service(name)
        .with("knarr.dev/idle", "frozen")
        .with("knarr.dev/freeze-delay", "0s")
        .arg("--hold")
        .arg("40")
}

fn is_frozen(knarr: &Knarr, revision: &str) -> bool {
    let status = knarr.status();
    status.memory.evictions.iter().any(|it| it.revision == revision)
}

#[test]
fn frozen_sandboxes_make_room_in_the_order_that_was_told() {
    let text =
        ["a", "b", "c"].map(|name| holder(name).yaml()).concat() + &service("new").memory_request("100Mi").yaml();
    let knarr = Knarr::serve_with(&[SHORT_WINDOWS, ("all.yaml", &text)], &["--memory-budget", "220Mi"]);
    for name in ["a", "b", "c"] {
        assert_eq!(knarr.get(name, "/").status, 200);
        knarr.until_revision(&format!("{name}-00001"), "is frozen", |it| it.rung == "frozen");
    }
    let memory = knarr
        .until("three stand idle", |status| status.memory.evictions.len() == 3)
        .memory;
    assert_eq!(memory.budget, 220 * MIB);
    assert!((3 * 40 * MIB..=memory.budget).contains(&memory.used), "{memory:?}");
    let first = memory.evictions[0].revision.clone();
    assert_eq!(knarr.get("new", "/").status, 200);
    assert!(!is_frozen(&knarr, &first), "{first} was to go first");
    knarr.until_revision(&first, "has gone", |it| it.rung == "zero");
    let explained = knarr.ask(&["explain", &first]).well().out;
    assert!(explained.contains("memory is short elsewhere"), "{explained}");
    // It answers again, and others go for it if need be.
    assert_eq!(knarr.get(first.trim_end_matches("-00001"), "/").status, 200);
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers_and_served_when_it_does() {
    let text = service("busy").memory_request("150Mi").yaml()
        + &service("late").memory_request("150Mi").yaml()
        + &service("huge").memory_request("1Gi").yaml();
    let knarr = Knarr::serve_with(&[SHORT_WINDOWS, ("all.yaml", &text)], &["--memory-budget", "200Mi"]);
    // It can never fit: at once.
    let mut reply = knarr.get("huge", "/");
    for _ in 0..100 {
        // On a busy machine the routes may come a moment after the status that tells of them.
        if reply.header("retry-after") != Some("1") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        reply = knarr.get("huge", "/");
    }
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("10")));
    let said = reply.text();
    assert!(
        said.starts_with("Unschedulable: another replica needs 1024 MiB of memory, ") && said.contains(" of 200 MiB"),
        "{said}"
    );
    let huge = knarr.until_revision("huge-00001", "says why", |it| it.ready.reason == "Unschedulable");
    assert!(huge.ready.message.contains("1024 MiB"), "{huge:?}");
    // While it starts, `busy` is promised all of it.
    let load = knarr.burst("busy", "/sleep?ms=1000", 1);
    assert_eq!(knarr.get("late", "/").status, 200);
    assert_eq!(load.report().count(200), 1);
}

/// Eight apps that take four times the budget. The kernel kills inside; Knarr, its spawner and the machine never notice.
#[test]
fn a_wall_of_memory_hungry_apps_breaks_inside() {
    let limited = sandbox::cgroup::Hierarchy::detect()
        .missing()
        .iter()
        .all(|missing| !missing.starts_with("memory"));
    if !needs("a cgroup that limits memory", limited) {
        return;
    }
    let names: Vec<String> = (0..8).map(|n| format!("hungry-{n}")).collect();
    let hungry = |name: &String| service(name).timeout(20).memory_request("10Mi").yaml();
    let text = names.iter().map(hungry).collect::<String>() + &service("modest").yaml();
    let knarr = Knarr::serve_with(&[SHORT_WINDOWS, ("all.yaml", &text)], &["--memory-budget", "300Mi"]);
    let spawner = processes::spawner(knarr.pid()).unwrap();
    let loads: Vec<_> = names
        .iter()
        .map(|name| knarr.burst(name, "/mem?mb=150&ms=2000", 2))
        .collect();
    let mut most = 0;
    while !loads.iter().all(|load| load.is_finished()) {
        let memory = knarr.status().memory;
        most = most.max(memory.used);
        assert!(memory.used <= memory.budget, "{memory:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let statuses = [200, 502, 503, 504];
    for load in loads {
        let report = load.report();
        let told: u64 = statuses.iter().map(|status| report.count(*status)).sum();
        assert_eq!(told, 2, "every request has an answer: {report}");
    }
    assert!(most > 150 * MIB, "the wall was reached: {} MiB", most / MIB);
    let explained: String = names
        .iter()
        .map(|name| knarr.ask(&["explain", name]).well().out)
        .collect();
    assert!(
        explained.contains("out of memory"),
        "a kill is told as one: {explained}"
    );
    // Nobody else was hurt.
    assert_eq!(processes::spawner(knarr.pid()), Some(spawner), "the spawner lives");
    assert_eq!(knarr.get("modest", "/").status, 200);
    knarr.stop();
}
