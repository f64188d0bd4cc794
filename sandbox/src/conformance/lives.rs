//! The checks of starts and ends.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::random::Random;
use super::{App, BOUND, Bench};
use crate::driver::{DriverError, ExitStatus, StartError};

const GRACE: Duration = Duration::from_secs(10);
const SHORT_GRACE: Duration = Duration::from_millis(300);

pub(super) async fn ready(bench: &Bench) {
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
pub(super) async fn dropped_starts(bench: &Bench) {
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

pub(super) async fn ids(bench: &Bench) {
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

pub(super) async fn stops(bench: &Bench) {
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

pub(super) async fn exits(bench: &Bench) {
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

pub(super) async fn shutdown(bench: &Bench) {
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
