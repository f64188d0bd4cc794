//! All checks, in the order of the contract's bullets; and those of connections, limits, stats, logs and events.

use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::{Bytes, Millicores};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::{App, BOUND, Bench};
use crate::driver::{BoxFuture, DriverError, Limits};
use crate::logs::Follower;

type Check = for<'a> fn(&'a Bench) -> BoxFuture<'a, ()>;

/// Name and check; the one that ends the driver is last.
pub(super) const ALL: &[(&str, Check)] = &[
    ("a start returns when the app is ready", |b| {
        Box::pin(super::lives::ready(b))
    }),
    ("a failed start says why and leaves nothing", |b| {
        Box::pin(super::failures::starts(b))
    }),
    ("out of memory is told as such", |b| {
        Box::pin(super::failures::memory(b))
    }),
    ("a start that is dropped midway leaves nothing", |b| {
        Box::pin(super::lives::dropped_starts(b))
    }),
    ("an id is used once at a time", |b| Box::pin(super::lives::ids(b))),
    ("stop is idempotent, kills after the grace, and is not undone", |b| {
        Box::pin(super::lives::stops(b))
    }),
    ("every end is told exactly once", |b| Box::pin(super::lives::exits(b))),
    ("readiness comes and goes, and is told", |b| {
        Box::pin(super::health::readiness(b))
    }),
    ("a command that probes is asked until it says yes", |b| {
        Box::pin(super::health::asked(b))
    }),
    ("an app that is not alive is ended, and its exit says why", |b| {
        Box::pin(super::health::liveness(b))
    }),
    ("starts, stops and kills in any order leave the books even", |b| {
        Box::pin(super::churn::churn(b))
    }),
    ("connections end with the sandbox", |b| Box::pin(connections(b))),
    ("nothing waits for another sandbox's start", |b| Box::pin(no_waiting(b))),
    ("several containers share volumes and network, and end together", |b| {
        Box::pin(super::pods::pods(b))
    }),
    ("volumes and names are one sandbox's at a time", |b| {
        Box::pin(super::pods::names(b))
    }),
    ("limits change in place", |b| Box::pin(limits(b))),
    ("a frozen sandbox stands still, and goes on", |b| {
        Box::pin(super::frozen::stands_still(b))
    }),
    ("a frozen sandbox is not probed", |b| {
        Box::pin(super::frozen::is_not_probed(b))
    }),
    ("a frozen sandbox ends like any other", |b| {
        Box::pin(super::frozen::ends(b))
    }),
    ("stats are plausible", |b| Box::pin(stats(b))),
    ("commands run inside, with their streams and codes", |b| {
        Box::pin(super::commands::commands(b))
    }),
    ("a command has a terminal of the size it is told", |b| {
        Box::pin(super::commands::terminals(b))
    }),
    ("commands end with who holds them and with the sandbox", |b| {
        Box::pin(super::commands::ends(b))
    }),
    ("output is kept, also after the end", |b| Box::pin(logs(b))),
    ("a receiver that lags is told so, and can look again", |b| {
        Box::pin(lag(b))
    }),
    ("after a shutdown nothing runs and nothing starts", |b| {
        Box::pin(super::lives::shutdown(b))
    }),
];

const GRACE: Duration = Duration::from_secs(10);

async fn connections(bench: &Bench) {
    let unknown = timeout(BOUND, bench.driver().dial(&SandboxId::new("never-was"))).await;
    assert!(matches!(unknown, Ok(Err(_))), "{unknown:?}");
    let id = bench.start(App::Quick).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(bench.dial(&id).await);
    }
    for stream in &mut streams {
        bench.get(&id, stream).await;
    }
    (bench.fixture.kill)(&id);
    bench.one_exit(&id).await;
    for mut stream in streams {
        let answer = timeout(BOUND, super::exchange(&mut stream)).await;
        assert!(
            matches!(answer, Ok(Err(_))),
            "a connection outlives its sandbox: {answer:?}"
        );
    }
}

async fn no_waiting(bench: &Bench) {
    let before = bench.start(App::Quick).await;
    let slow = bench.spec(App::Slow);
    let mut start = bench.driver().start(slow.clone());
    let others = async {
        sleep(Duration::from_millis(100)).await;
        let mut stream = bench.dial(&before).await;
        bench.get(&before, &mut stream).await;
        let during = bench.start(App::Quick).await;
        let mut stream = bench.dial(&during).await;
        bench.get(&during, &mut stream).await;
        bench
            .driver()
            .set_limits(&before, Limits::default())
            .await
            .expect("set_limits");
        bench.driver().stats(&before).await.expect("stats");
        bench.stop(&during, GRACE).await;
        bench.stop(&before, GRACE).await;
    };
    tokio::select! {
        biased;
        result = &mut start => panic!("a start, stop or dial waited for a start of 2 s: {result:?}"),
        () = others => {}
    }
    drop(start);
    bench.stop(&slow.id, GRACE).await;
}

async fn limits(bench: &Bench) {
    let mut spec = bench.spec(App::Quick);
    spec.limits = Limits {
        cpu: Some(Millicores(500)),
        memory: Some(Bytes(128 << 20)),
        pids: Some(64),
    };
    bench.start_spec(spec.clone()).await;
    let in_force = async || bench.driver().stats(&spec.id).await.expect("stats").limits;
    if bench.fixture.limits {
        assert_eq!(in_force().await, spec.limits, "limits of the start");
    }
    let mut stream = bench.dial(&spec.id).await;
    bench.get(&spec.id, &mut stream).await;
    let full = Limits {
        cpu: Some(Millicores(2000)),
        memory: Some(Bytes(512 << 20)),
        pids: Some(256),
    };
    let throttled = Limits {
        cpu: Some(Millicores(100)),
        memory: Some(Bytes(96 << 20)),
        pids: Some(32),
    };
    for limits in [full, throttled, Limits::default(), full] {
        let changed = bench.driver().set_limits(&spec.id, limits).await;
        if bench.fixture.limits {
            assert!(changed.is_ok(), "{changed:?}");
            assert_eq!(in_force().await, limits);
        }
        // Where limits cannot be enforced, a driver may say so, but not harm the sandbox.
        bench.get(&spec.id, &mut stream).await;
    }
    bench.stop(&spec.id, GRACE).await;
    let gone = bench.driver().set_limits(&spec.id, full).await;
    assert!(matches!(gone, Err(DriverError::NotFound(_))), "{gone:?}");
}

async fn stats(bench: &Bench) {
    let id = bench.start(App::Quick).await;
    let before = bench.driver().stats(&id).await.expect("stats");
    let mut stream = bench.dial(&id).await;
    for _ in 0..50 {
        bench.get(&id, &mut stream).await;
    }
    bench.settle().await;
    let after = bench.driver().stats(&id).await.expect("stats");
    assert!(after.cpu >= before.cpu, "CPU time runs backwards: {before:?} {after:?}");
    if bench.fixture.limits {
        assert!(after.cpu > Duration::ZERO && after.memory > Bytes(0), "{after:?}");
        assert!(after.memory < Bytes(1 << 30), "the memory of a small server: {after:?}");
        assert!(after.pids.is_none_or(|pids| (1..100).contains(&pids)), "{after:?}");
    }
    let capacity = bench.driver().capacity();
    assert!(capacity.cores >= 1 && capacity.free_memory > Bytes(0), "{capacity:?}");
    bench.stop(&id, GRACE).await;
    let gone = bench.driver().stats(&id).await;
    assert!(matches!(gone, Err(DriverError::NotFound(_))), "{gone:?}");
}

async fn logs(bench: &Bench) {
    assert!(bench.driver().logs(&SandboxId::new("never-was")).is_empty());
    let id = bench.start(App::Chatty).await;
    let said = || {
        let Some(newest) = bench.driver().logs(&id).into_iter().next() else {
            return Vec::new();
        };
        let lines = Follower::open(newest, None)
            .and_then(|mut f| f.poll())
            .expect("log files can be read");
        lines
            .into_iter()
            .map(|entry| String::from_utf8_lossy(&entry.text).into_owned())
            .collect::<Vec<_>>()
    };
    let want: Vec<String> = (0..100).map(|n| format!("chatty {n}")).collect();
    let complete = || said().iter().filter(|line| line.starts_with("chatty ")).eq(&want);
    bench.eventually("all output is in the log, in order", complete).await;
    let exit = bench.stop(&id, GRACE).await.expect("it ran");
    assert!(
        exit.last_output.contains("chatty 99") && exit.last_output.len() <= 2048,
        "{exit:?}"
    );
    assert!(complete(), "the log is gone with the sandbox, or changed: {:?}", said());
}

async fn lag(bench: &Bench) {
    let Some(capacity) = bench.fixture.event_capacity else {
        return;
    };
    let mut receiver = bench.driver().events();
    for _ in 0..capacity + 2 {
        let id = bench.start(App::Quick).await;
        bench.stop(&id, GRACE).await;
    }
    let alive = bench.start(App::Quick).await;
    assert!(
        matches!(receiver.recv().await, Err(RecvError::Lagged(_))),
        "{capacity} and 2 events, and no lag"
    );
    assert_eq!(bench.driver().list(), std::slice::from_ref(&alive));
    bench.stop(&alive, GRACE).await;
}
