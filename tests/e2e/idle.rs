//! What happens when nobody asks, and when somebody does not listen.

use control::status::RevisionStatus;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Client, Knarr, host, processes, until};

#[test]
fn idle_goes_to_zero_and_back() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &service("web").proven().yaml())]);
    for round in 1..3 {
        assert_eq!(knarr.get("web", "/").status, 200);
        knarr.until_revision("web-00001", "runs", |it| it.actual_replicas > 0);
        knarr.until_zero("web-00001");
        let it = knarr.until_revision("web-00001", "costs nothing", |it| it.price_per_hour == 0.0);
        assert_eq!((it.rung.as_str(), it.sandboxes.len()), ("zero", 0));
        assert_eq!((it.ready.status.as_str(), it.active.status.as_str()), ("True", "False"));
        assert_eq!(it.active.reason, "NoTraffic");
        assert_eq!(
            it.cold_starts.count,
            round - 1,
            "the first request found the sandbox of the first start"
        );
        assert!(processes::apps(knarr.pid(), "web-00001").is_empty());
    }
}

/// The cheapest way to idle that keeps the promise: nothing where a start is surely in time, a frozen sandbox where it is not.
#[test]
fn idle_auto_keeps_the_promise_at_least_cost() {
    let promised = |name: &str, sla: &str| {
        service(name)
            .proven()
            .with("knarr.dev/idle", "auto")
            .with("knarr.dev/cold-start-sla", sla)
    };
    let slow = promised("slow", "p99<1500ms").arg("--start-delay").arg("2s");
    let text = promised("fast", "p99<60s").yaml() + &slow.yaml();
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("promise.yaml", &text)]);
    knarr.until_revision("fast-00001", "has gone to zero", |it| {
        it.rung == "zero" && it.actual_replicas == 0
    });
    // The price is that of what it holds, known when it is frozen.
    let frozen = |it: &RevisionStatus| it.rung == "frozen" && it.price_per_hour < 0.1;
    let idle = knarr.until_revision("slow-00001", "is frozen", frozen);
    assert_eq!((idle.actual_replicas, idle.sandboxes.len()), (0, 0));
    assert!(idle.price_per_hour > 0.0, "{idle:?}");
    let [process] = processes::apps(knarr.pid(), "slow-00001")[..] else {
        panic!("one process")
    };
    let explained = knarr.ask(&["explain", "slow"]).well().out;
    for word in ["frozen", "throttled", "zero", "full", "p99"] {
        assert!(explained.contains(word), "{word}: {explained}");
    }

    // It is at full speed while somebody is there, and not a moment longer.
    let mut client = knarr.client();
    client.send(&host("slow"), "/sleep?ms=1500", &[("X-Knarr-Timing", "1")]);
    let woken = knarr.until_revision("slow-00001", "is at full speed", |it| {
        it.rung == "full" && it.price_per_hour == 1.0
    });
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    assert!(!reply.header("server-timing").unwrap().contains("cold"), "{reply:?}");
    assert_eq!(
        processes::apps(knarr.pid(), "slow-00001"),
        [process],
        "the same process"
    );
    assert_eq!((woken.sandboxes.len(), woken.cold_starts.count), (1, 0), "{woken:?}");

    let reply = knarr.client().ask(&host("fast"), "/", &[("X-Knarr-Timing", "1")]);
    assert!(reply.header("server-timing").unwrap().contains("cold"), "{reply:?}");
    knarr.until_revision("slow-00001", "is frozen again", frozen);
}

/// An uptime monitor asks for ever: the service goes to zero under it, stays there, and nothing of it is counted.
#[test]
fn a_monitor_neither_wakes_nor_keeps_awake_nor_counts() {
    let watched = service("watched").proven().with(
        "knarr.dev/idle-ignore",
        "/healthz, /ping -> 204, user-agent: UptimeRobot",
    );
    let broken = service("broken")
        .program("host:/bin/false", &[])
        .with("knarr.dev/idle-ignore", "/healthz");
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("watched.yaml", &watched.yaml()),
        ("broken.yaml", &broken.yaml()),
    ]);
    let counted = || {
        let metrics = Client::connect(knarr.admin).get("localhost", "/metrics").text();
        let name = "knarr_requests_total{namespace=\"default\",revision=\"watched-00001\"";
        let of_it = metrics.lines().filter(|line| line.starts_with(name));
        let counts = of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum::<u64>()
    };
    assert_eq!(knarr.get("watched", "/status/200").status, 200);
    until(
        "its one request is counted",
        || counted() == 1,
        || format!("{}", counted()),
    );
    let monitor = |path: &str, agent: &str| {
        let reply = knarr.client().ask(&host("watched"), path, &[("User-Agent", agent)]);
        assert!(
            reply.body.is_empty() && reply.header("x-knarr-idle-ignore") == Some("answered"),
            "{reply:?}"
        );
        reply.status
    };
    knarr.until_revision("watched-00001", "has gone to zero under its monitor", |it| {
        assert_eq!(
            (monitor("/healthz", "curl/8"), monitor("/ping?x", "curl/8")),
            (200, 204)
        );
        assert_eq!(monitor("/any", "Mozilla/5.0+(compatible; UptimeRobot/2.0)"), 200);
        it.actual_replicas == 0 && it.starting_replicas == 0
    });
    assert_eq!(monitor("/healthz", "curl/8"), 200);
    let asleep = knarr.revision("watched-00001");
    assert_eq!(
        (
            asleep.actual_replicas,
            asleep.starting_replicas,
            asleep.cold_starts.count
        ),
        (0, 0, 0)
    );
    assert_eq!(counted(), 1);

    // Every other path is the app's.
    let other = knarr.client().ask(&host("watched"), "/healthz.txt", &[]);
    assert!(other.header("x-knarr-idle-ignore").is_none(), "{other:?}");
    knarr.until_revision("watched-00001", "was woken by a real request", |it| {
        it.cold_starts.count == 1 && it.actual_replicas == 1
    });

    // A monitor is there to see what is broken: while its start fails, it is told why.
    let mut asked = knarr.client();
    asked.send(&host("broken"), "/", &[]);
    until(
        "the monitor hears that it is broken",
        || knarr.get("broken", "/healthz").status == 503,
        || knarr.get("broken", "/healthz").text(),
    );
}

/// Until scaling has looked at a service that has no request any more, and has looked at it again.
fn until_decided_again(knarr: &Knarr, service: &str) {
    let looks = || -> u64 {
        let said = knarr.ask(&["explain", service, "-o", "json"]).well().out;
        let records: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        records.iter().map(|record| record["times"].as_u64().unwrap()).sum()
    };
    let name = format!("{service}-00001");
    knarr.until_revision(&name, "is idle", |it| it.in_flight == 0);
    let before = looks();
    knarr.until("it was decided twice more", |_| looks() >= before + 2);
}

/// Where nothing can be frozen and starts are slow, a smaller cgroup of the same sandbox serves whoever comes alone.
#[test]
fn idle_auto_serves_from_a_cheaper_spec_as_long_as_that_is_enough() {
    let instances = "apiVersion: v1
kind: ConfigMap
metadata: {name: config-instances, namespace: knative-serving}
data:
  frozen: none
  specs: |
    - {name: whole, price: 1/h, in-place: true}
    - {name: small, cpu: 250m, memory: 64Mi, price: 0.3/h, in-place: true}
";
    let web = service("web")
        .proven()
        .arg("--start-delay")
        .arg("2s")
        .with("knarr.dev/idle", "auto")
        .with("knarr.dev/cold-start-sla", "p99<2s")
        .with("target", "10")
        .with("max-scale", "1");
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("config-instances.yaml", instances),
        ("web.yaml", &web.yaml()),
    ]);
    knarr.until_revision("web-00001", "runs", |it| it.actual_replicas == 1);
    let limits = |revision: &RevisionStatus| -> serde_json::Value {
        let seen = knarr.ask(&["inspect", &revision.sandboxes[0], "--json"]).well().out;
        serde_json::from_str::<serde_json::Value>(&seen).unwrap()["limits"].clone()
    };
    let small = |it: &RevisionStatus| it.rung == "reserve" && it.price_per_hour == 0.3;
    // Nobody knows how long its requests take before there was one.
    assert_eq!(knarr.get("web", "/").status, 200);
    let idle = knarr.until_revision("web-00001", "stands on less", small);
    let before = processes::apps(knarr.pid(), "web-00001");
    let seen = limits(&idle);
    assert_eq!(
        (&seen["cpu"], &seen["memoryBytes"]),
        (&"250m".into(), &(64 << 20).into()),
        "{seen}"
    );
    for _ in 0..4 {
        let reply = knarr.client().ask(&host("web"), "/", &[("X-Knarr-Timing", "1")]);
        assert_eq!(reply.status, 200);
        assert!(!reply.header("server-timing").unwrap().contains("cold"), "{reply:?}");
        until_decided_again(&knarr, "web");
    }
    assert_eq!(
        knarr.revision("web-00001").rung,
        "reserve",
        "one after the other is no reason for more"
    );

    // Eight at a time are more than a quarter of ten.
    let load = knarr.burst("web", "/sleep?ms=8000", 8);
    let full = |it: &RevisionStatus| it.rung == "full" && it.price_per_hour == 1.0;
    let busy = knarr.until_revision("web-00001", "is full", full);
    let seen = limits(&busy);
    assert!(seen["cpu"].is_null() && seen["memoryBytes"].is_null(), "{seen}");
    let report = load.report();
    assert_eq!(report.count(200), 8, "{report}");
    // They would have taken four times as long on the small spec: it has learned that this is not in time.
    until_decided_again(&knarr, "web");
    assert_eq!(knarr.revision("web-00001").rung, "full");
    assert_eq!(
        processes::apps(knarr.pid(), "web-00001"),
        before,
        "the same process all along"
    );
    let explained = knarr.ask(&["explain", "web"]).well().out;
    for word in ["by the plan for p99<2s", "reserve (small)", "chosen"] {
        assert!(explained.contains(word), "{word}: {explained}");
    }
}

/// Clients that read nothing of a large answer, and clients that never send all of their request.
#[test]
fn frozen_clients_stand_in_nobodys_way() {
    let big = service("big").arg("--body").arg("40000000").with("max-scale", "1");
    let knarr = Knarr::serve_with(&[SHORT_WINDOWS, ("big.yaml", &big.yaml())], &["--threads", "2"]);
    let mut frozen: Vec<Client> = (0..16).map(|_| knarr.client()).collect();
    for (index, client) in frozen.iter_mut().enumerate() {
        if index % 2 == 0 {
            client.send(&host("big"), "/", &[]);
        } else {
            let head = format!(
                "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\nhalf",
                host("big")
            );
            client.say(head.as_bytes());
        }
    }
    knarr.until_revision("big-00001", "has them all", |it| it.in_flight == 16);
    let report = knarr.burst("big", "/status/200", 200).report();
    assert_eq!(report.count(200), 200, "{report}");
    let mut whole = knarr.client();
    assert_eq!(whole.get(&host("big"), "/").body.len(), 40_000_000);
    assert_eq!(knarr.revision("big-00001").in_flight, 16, "nobody was cut");

    // One thaws and gets all of it; when the others leave, nothing is left of them.
    assert_eq!(frozen[0].reply().body.len(), 40_000_000);
    drop(frozen);
    knarr.until_revision("big-00001", "has forgotten them", |it| it.in_flight == 0);
}
