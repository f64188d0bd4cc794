//! The checks of probes.

use std::time::Duration;

use tokio::time::sleep;

use super::{App, Bench};
use crate::driver::{Event, ExitStatus, StartError};

const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn readiness(bench: &Bench) {
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

pub(super) async fn asked(bench: &Bench) {
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

pub(super) async fn liveness(bench: &Bench) {
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
