//! The checks, in the order of the contract's bullets.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::{Bytes, Millicores};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::random::Random;
use super::{App, BOUND, Bench};
use crate::driver::{BoxFuture, DriverError, Event, ExitStatus, Limits, StartError};
use crate::logs::Follower;

type Check = for<'a> fn(&'a Bench) -> BoxFuture<'a, ()>;

/// Name and check; the one that ends the driver is last.
pub(super) const ALL: &[(&str, Check)] = &[
    ("a start returns when the app is ready", |b| Box::pin(ready(b))),
    ("a failed start says why and leaves nothing", |b| {
        Box::pin(super::failures::starts(b))
    }),
    ("out of memory is told as such", |b| {
        Box::pin(super::failures::memory(b))
    }),
    ("a start that is dropped midway leaves nothing", |b| {
        Box::pin(dropped_starts(b))
    }),
    ("an id is used once at a time", |b| Box::pin(ids(b))),
    ("stop is idempotent, kills after the grace, and is not undone", |b| {
        Box::pin(stops(b))
    }),
    ("every end is told exactly once", |b| Box::pin(exits(b))),
    ("readiness comes and goes, and is told", |b| Box::pin(readiness(b))),
    ("a command that probes is asked until it says yes", |b| {
        Box::pin(asked(b))
    }),
    ("an app that is not alive is ended, and its exit says why", |b| {
        Box::pin(liveness(b))
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
        Box::pin(shutdown(b))
    }),
];

const GRACE: Duration = Duration::from_secs(10);
const SHORT_GRACE: Duration = Duration::from_millis(300);

async fn ready(bench: &Bench) {
    let spec = bench.spec(App::Quick);
    let started = bench.start_spec(spec.clone()).await;
    assert!(started.phases.spawned <= started.phases.ready, "{:?}", started.phases);
    assert_eq!(bench.driver().list(), std::slice::from_ref(&spec.id));
    let mut stream = bench.dial(&spec.id).await;
    bench.get(&spec.id, &mut stream).await;
    bench.get(&spec.id, &mut stream).await;
    // Two at once, on the same port inside: each answers for itself.
    let other = bench.start(App::Quick).await;
    for id in [&spec.id, &other] {
        let mut stream = bench.dial(id).await;
        bench.get(id, &mut stream).await;
    }
    for id in [&spec.id, &other] {
        let exit = bench.stop(id, GRACE).await.expect("it ran");
        assert_eq!(
            (bench.status(exit.status), exit.requested),
            (ExitStatus::Code(0), true),
            "{exit:?}"
        );
    }
}

/// At random points, so that every step of a start is hit now and then; the seed is in the message.
async fn dropped_starts(bench: &Bench) {
    let mut random = Random(0x6b6e_6172);
    let points = (0..24)
        .map(|_| (App::Quick, 6_000))
        .chain((0..4).map(|_| (App::Slow, 900_000)));
    for (round, (app, within)) in points.enumerate() {
        let point = Duration::from_micros(random.below(within));
        let spec = bench.spec(app);
        let returned = timeout(point, bench.driver().start(spec.clone())).await;
        if let Ok(result) = &returned {
            assert!(result.is_ok(), "round {round}, {point:?}: {result:?}");
        }
        // Also for one that was dropped: returns when nothing is left.
        bench.stop(&spec.id, GRACE).await;
        assert!(
            !bench.driver().list().contains(&spec.id),
            "round {round}: dropped after {point:?} and still listed"
        );
        assert!(bench.exits(&spec.id).len() <= 1, "round {round}");
        if round % 8 == 0 {
            let again = bench
                .start_spec(crate::driver::SandboxSpec {
                    workload: quick(bench),
                    ..spec.clone()
                })
                .await;
            assert!(again.phases.ready <= BOUND);
            bench.stop(&spec.id, GRACE).await;
        }
    }
    bench.clean("after dropped starts").await;
    // Without a stop afterwards: nothing is left either, a little later.
    let specs: Vec<_> = (0..4).map(|_| bench.spec(App::Slow)).collect();
    for spec in &specs {
        let dropped = timeout(Duration::from_millis(100), bench.driver().start(spec.clone())).await;
        assert!(dropped.is_err(), "a slow app is ready after 100 ms: {dropped:?}");
    }
    bench.clean("after dropped starts without a stop").await;
}

fn quick(bench: &Bench) -> Arc<manifests::workload::Workload> {
    bench.spec(App::Quick).workload
}

async fn ids(bench: &Bench) {
    let spec = bench.spec(App::Quick);
    // At the same time: exactly one wins.
    let (first, second) = tokio::join!(bench.driver().start(spec.clone()), bench.driver().start(spec.clone()));
    let (won, lost) = if first.is_ok() {
        (first, second)
    } else {
        (second, first)
    };
    assert!(won.is_ok(), "neither of two starts with one id won: {won:?} {lost:?}");
    assert!(
        matches!(&lost, Err(StartError::Driver(DriverError::Exists(id))) if *id == spec.id),
        "{lost:?}"
    );
    // While it runs, and without harm to it.
    let third = bench.driver().start(spec.clone()).await;
    assert!(
        matches!(&third, Err(StartError::Driver(DriverError::Exists(_)))),
        "{third:?}"
    );
    let mut stream = bench.dial(&spec.id).await;
    bench.get(&spec.id, &mut stream).await;
    // Again, once it is gone.
    for _ in 0..3 {
        bench.stop(&spec.id, GRACE).await;
        bench.start_spec(spec.clone()).await;
        let mut stream = bench.dial(&spec.id).await;
        bench.get(&spec.id, &mut stream).await;
    }
    bench.stop(&spec.id, GRACE).await;
    bench
        .eventually("four ends are told", || bench.exits(&spec.id).len() == 4)
        .await;
}

async fn stops(bench: &Bench) {
    let unknown = SandboxId::new("never-was");
    assert_eq!(bench.stop(&unknown, GRACE).await, None);

    let id = bench.start(App::Quick).await;
    let (one, two) = tokio::join!(bench.stop(&id, GRACE), bench.stop(&id, GRACE));
    assert!(
        one.is_some() || two.is_some(),
        "two stops at once, and neither stopped it"
    );
    assert_eq!(bench.stop(&id, GRACE).await, None);
    bench.one_exit(&id).await;

    let id = bench.start(App::Stubborn).await;
    let exit = bench.stop(&id, SHORT_GRACE).await.expect("it ran");
    assert_eq!(
        (bench.status(exit.status), exit.requested, exit.oom_killed),
        (ExitStatus::Signal(9), true, false),
        "{exit:?}"
    );
    assert_eq!(bench.one_exit(&id).await, exit);
    bench.clean("after a kill").await;

    // Given up midway: the stop goes on, and the grace is kept.
    let id = bench.start(App::Stubborn).await;
    let dropped = timeout(Duration::from_millis(50), bench.driver().stop(&id, SHORT_GRACE)).await;
    assert!(dropped.is_err(), "it ignores SIGTERM: {dropped:?}");
    bench.one_exit(&id).await;

    // Of a start under way: the start fails, and nothing is left when stop returns.
    let spec = bench.spec(App::Slow);
    let id = spec.id.clone();
    let (started, stopped) = tokio::join!(bench.driver().start(spec), async {
        sleep(Duration::from_millis(100)).await;
        bench.stop(&id, GRACE).await
    });
    assert!(started.is_err(), "stopped while it started: {started:?} {stopped:?}");
    bench.clean("after a stop of a start").await;
}

async fn exits(bench: &Bench) {
    let stopped = bench.start(App::Quick).await;
    let mayfly = bench.start(App::Mayfly).await;
    let killed = bench.start(App::Quick).await;
    let exit = bench.stop(&stopped, GRACE).await.expect("it ran");
    assert_eq!(bench.one_exit(&stopped).await, exit);
    (bench.fixture.kill)(&killed);
    let exit = bench.one_exit(&killed).await;
    assert_eq!(
        (bench.status(exit.status), exit.requested),
        (ExitStatus::Signal(9), false),
        "{exit:?}"
    );
    let exit = bench.one_exit(&mayfly).await;
    assert_eq!(
        (bench.status(exit.status), exit.requested),
        (ExitStatus::Code(7), false),
        "{exit:?}"
    );
    for id in [&stopped, &mayfly, &killed] {
        assert_eq!(bench.stop(id, GRACE).await, None);
        assert_eq!(bench.exits(id).len(), 1, "{id}: told again by a stop");
    }
    // Many at once, ended in every way at the same time.
    let mut running = Vec::new();
    for _ in 0..8 {
        running.push(bench.start(App::Quick).await);
    }
    let mut stops = JoinSet::new();
    for id in running.clone() {
        let driver = Arc::clone(&bench.fixture.driver);
        stops.spawn(async move { driver.stop(&id, GRACE).await.map(drop) });
    }
    running.iter().for_each(|id| (bench.fixture.kill)(id));
    while let Some(stopped) = stops.join_next().await {
        assert!(matches!(stopped, Ok(Ok(()))), "{stopped:?}");
    }
    for id in &running {
        bench.one_exit(id).await;
    }
}

async fn readiness(bench: &Bench) {
    let id = bench.start(App::Moody).await;
    let mut stream = bench.dial(&id).await;
    let told = || -> Vec<bool> {
        let readiness = |event| match event {
            Event::Readiness { ready, why, .. } => {
                assert_eq!(ready, why.is_empty(), "{why:?}");
                Some(ready)
            }
            _ => None,
        };
        bench.told(&id).into_iter().filter_map(readiness).collect()
    };
    bench
        .eventually("it is told not to be ready", || told() == [false])
        .await;
    let unready = bench.driver().unready();
    assert!(
        unready.len() == 1 && unready[0].0 == id && !unready[0].1.is_empty(),
        "{unready:?}"
    );
    // What has begun goes on, and scaling decides what else comes.
    bench.get(&id, &mut stream).await;
    bench.get(&id, &mut bench.dial(&id).await).await;
    bench
        .eventually("it is told to be ready again", || told() == [false, true])
        .await;
    assert_eq!(bench.driver().unready(), []);
    bench.get(&id, &mut stream).await;
    let other = bench.start(App::Moody).await;
    bench
        .eventually("the other is told not to be ready", || {
            !bench.driver().unready().is_empty()
        })
        .await;
    for id in [&id, &other] {
        let exit = bench.stop(id, GRACE).await.expect("it ran");
        assert_eq!((&exit.unhealthy, exit.requested), (&None, true), "{exit:?}");
        bench.one_exit(id).await;
        assert!(
            matches!(bench.told(id).last(), Some(Event::Exited { .. })),
            "told after its exit"
        );
    }
    assert_eq!(bench.driver().unready(), []);
}

async fn asked(bench: &Bench) {
    let spec = bench.spec(App::Asked);
    let started = bench.start_spec(spec.clone()).await;
    let waited = started.phases.ready - started.phases.spawned;
    assert!(
        waited >= Duration::from_millis(250),
        "ready before the probe: {started:?}"
    );
    bench.get(&spec.id, &mut bench.dial(&spec.id).await).await;
    let exit = bench.stop(&spec.id, GRACE).await.expect("it ran");
    assert_eq!((&exit.unhealthy, exit.requested), (&None, true), "{exit:?}");
}

async fn liveness(bench: &Bench) {
    let id = bench.start(App::Hung).await;
    let exit = bench.one_exit(&id).await;
    let why = exit.unhealthy.clone().expect("the exit says why");
    assert!(why.contains("liveness"), "{why}");
    // It was asked to end, as by a stop, but nobody called that.
    assert_eq!(
        (bench.status(exit.status), exit.requested, exit.oom_killed),
        (ExitStatus::Code(0), false, false),
        "{exit:?}"
    );
    match &bench.told(&id)[..] {
        [Event::Unhealthy { why: told, .. }, Event::Exited { .. }] => assert_eq!(*told, why),
        other => panic!("{other:?}"),
    }
    // Stopped before it hangs: that is an exit like any other.
    let id = bench.start(App::Hung).await;
    let exit = bench.stop(&id, GRACE).await.expect("it ran");
    assert_eq!((&exit.unhealthy, exit.requested), (&None, true), "{exit:?}");

    let spec = bench.spec(App::Sleeper);
    match bench.driver().start(spec.clone()).await {
        Err(StartError::Exited(exit)) => {
            let why = exit.unhealthy.clone().expect("the exit says why");
            assert!(why.contains("startup"), "{why}");
            assert!(!exit.requested, "{exit:?}");
        }
        other => panic!("a startup probe that never passes: {other:?}"),
    }
    bench.clean("after a startup probe that failed").await;
    assert_eq!(bench.told(&spec.id), [], "told of a sandbox that no start returned");
    // It may be stopped meanwhile.
    let spec = bench.spec(App::Sleeper);
    let (started, _) = tokio::join!(bench.driver().start(spec.clone()), async {
        sleep(Duration::from_millis(100)).await;
        bench.stop(&spec.id, GRACE).await
    });
    assert!(started.is_err(), "{started:?}");
}

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

async fn shutdown(bench: &Bench) {
    let quick = bench.start(App::Quick).await;
    let stubborn = bench.start(App::Stubborn).await;
    let frozen = bench.start(App::Quick).await;
    if bench.driver().freezer().is_some() {
        bench.driver().freeze(&frozen).await.expect("freeze");
    }
    let slow = bench.spec(App::Slow);
    let starting = bench.driver().start(slow.clone());
    let shut = async {
        sleep(Duration::from_millis(100)).await;
        timeout(BOUND, bench.driver().shutdown(SHORT_GRACE))
            .await
            .expect("shutdown returns");
    };
    let (started, ()) = tokio::join!(starting, shut);
    assert!(started.is_err(), "a start survived the shutdown: {started:?}");
    assert!(bench.driver().list().is_empty());
    for id in [&quick, &stubborn, &frozen] {
        assert!(bench.one_exit(id).await.requested);
    }
    let late = bench.driver().start(bench.spec(App::Quick)).await;
    assert!(
        matches!(&late, Err(StartError::Driver(DriverError::ShuttingDown))),
        "{late:?}"
    );
    assert_eq!(bench.stop(&quick, GRACE).await, None);
    // Twice is once.
    timeout(BOUND, bench.driver().shutdown(SHORT_GRACE))
        .await
        .expect("shutdown returns");
}
