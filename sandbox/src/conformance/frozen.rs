//! The checks of frozen sandboxes.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use tokio::time::{sleep, timeout};

use super::{App, BOUND, Bench, exchange};
use crate::driver::{DriverError, Event, ExitStatus};

const GRACE: Duration = Duration::from_secs(10);
const SHORT_GRACE: Duration = Duration::from_millis(300);

/// Long enough for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(100);

/// Long enough for the liveness probe of [`App::Watched`] to fail for good.
const UNANSWERED: Duration = Duration::from_millis(2500);

pub(super) async fn stands_still(bench: &Bench) {
    let driver = bench.driver();
    let unknown = SandboxId::new("never-was");
    let frozen = driver.freeze(&unknown).await;
    if driver.freezer().is_none() {
        assert!(frozen.is_err(), "a driver that cannot freeze says so: {frozen:?}");
        return;
    }
    assert!(matches!(frozen, Err(DriverError::NotFound(_))), "{frozen:?}");
    let thawed = driver.thaw(&unknown).await;
    assert!(matches!(thawed, Err(DriverError::NotFound(_))), "{thawed:?}");

    let (id, other) = (bench.start(App::Quick).await, bench.start(App::Quick).await);
    let mut stream = bench.dial(&id).await;
    bench.get(&id, &mut stream).await;
    // Never frozen: nothing to do.
    driver.thaw(&id).await.expect("thaw of one that runs");
    for _ in 0..2 {
        freeze(bench, &id).await;
        assert!(driver.stats(&id).await.expect("stats").frozen);
        assert!(driver.list().contains(&id), "a frozen sandbox is there");
    }
    let used = driver.stats(&id).await.expect("stats").cpu;
    let answer = timeout(SILENCE, exchange(&mut stream)).await;
    assert!(answer.is_err(), "a frozen sandbox answers: {answer:?}");
    if bench.fixture.limits {
        assert_eq!(driver.stats(&id).await.expect("stats").cpu, used, "it used CPU");
    }
    let mut neighbour = bench.dial(&other).await;
    bench.get(&other, &mut neighbour).await;
    for _ in 0..2 {
        driver.thaw(&id).await.expect("thaw");
        assert!(!driver.stats(&id).await.expect("stats").frozen);
        let mut fresh = bench.dial(&id).await;
        bench.get(&id, &mut fresh).await;
    }
    // What was asked while it was frozen is answered now.
    let late = timeout(BOUND, exchange(&mut stream)).await;
    assert!(matches!(&late, Ok(Ok(answer)) if answer == id.as_str()), "{late:?}");

    // The later call wins, however often and however soon.
    for round in 0..20 {
        let (freezing, ()) = tokio::join!(driver.freeze(&id), async {
            if round % 2 == 0 {
                sleep(Duration::from_micros(50)).await;
            }
            driver.thaw(&id).await.expect("thaw");
        });
        assert!(
            matches!(freezing, Ok(_) | Err(DriverError::CannotFreeze(_))),
            "{freezing:?}"
        );
        driver.thaw(&id).await.expect("thaw");
        let mut fresh = bench.dial(&id).await;
        bench.get(&id, &mut fresh).await;
    }
    bench.stop(&id, GRACE).await;
    bench.stop(&other, GRACE).await;
    let gone = driver.freeze(&id).await;
    assert!(matches!(gone, Err(DriverError::NotFound(_))), "{gone:?}");
    let gone = driver.thaw(&id).await;
    assert!(matches!(gone, Err(DriverError::NotFound(_))), "{gone:?}");
}

pub(super) async fn is_not_probed(bench: &Bench) {
    if bench.driver().freezer().is_none() {
        return;
    }
    let id = bench.start(App::Watched).await;
    for _ in 0..2 {
        freeze(bench, &id).await;
        sleep(UNANSWERED).await;
        bench.driver().thaw(&id).await.expect("thaw");
        let mut stream = bench.dial(&id).await;
        bench.get(&id, &mut stream).await;
    }
    let told = bench.told(&id);
    let failed = |event: &Event| matches!(event, Event::Unhealthy { .. } | Event::Exited { .. });
    assert!(
        !told.iter().any(failed),
        "its probes were asked while it was frozen: {told:?}"
    );
    let exit = bench.stop(&id, GRACE).await.expect("it ran");
    assert_eq!(exit.unhealthy, None);
}

pub(super) async fn ends(bench: &Bench) {
    let driver = bench.driver();
    if driver.freezer().is_none() {
        return;
    }
    // It hears the stop signal.
    let id = bench.start(App::Quick).await;
    freeze(bench, &id).await;
    let exit = bench.stop(&id, GRACE).await.expect("it ran");
    assert_eq!(
        (bench.status(exit.status), exit.requested),
        (ExitStatus::Code(0), true),
        "{exit:?}"
    );
    assert_eq!(bench.one_exit(&id).await, exit);

    // The grace is kept, and then it is killed; without one, at once.
    for grace in [SHORT_GRACE, Duration::ZERO] {
        let id = bench.start(App::Stubborn).await;
        freeze(bench, &id).await;
        let exit = bench.stop(&id, grace).await.expect("it ran");
        assert_eq!(
            (bench.status(exit.status), exit.requested),
            (ExitStatus::Signal(9), true),
            "{exit:?}"
        );
        bench.one_exit(&id).await;
    }

    // Killed behind the driver's back: the v1 freezer holds even the dead until they are thawed.
    let id = bench.start(App::Quick).await;
    freeze(bench, &id).await;
    (bench.fixture.kill)(&id);
    if driver.freezer() == Some("cgroup v1 freezer") || !bench.fixture.signals {
        driver.thaw(&id).await.expect("thaw");
    }
    let exit = bench.one_exit(&id).await;
    assert_eq!(
        (bench.status(exit.status), exit.requested),
        (ExitStatus::Signal(9), false),
        "{exit:?}"
    );

    // A freeze that is dropped midway, and a stop that meets a freeze.
    let id = bench.start(App::Quick).await;
    drop(timeout(Duration::ZERO, driver.freeze(&id)).await);
    driver.thaw(&id).await.expect("thaw");
    let mut stream = bench.dial(&id).await;
    bench.get(&id, &mut stream).await;
    let stopping = Arc::clone(&bench.fixture.driver);
    let (frozen, stopped) = tokio::join!(driver.freeze(&id), stopping.stop(&id, GRACE));
    assert!(stopped.is_ok(), "{frozen:?} {stopped:?}");
    bench.one_exit(&id).await;
    bench.clean("after frozen ends").await;
}

async fn freeze(bench: &Bench, id: &SandboxId) {
    match timeout(BOUND, bench.driver().freeze(id)).await {
        Ok(Ok(memory)) => {
            let counted = memory.0 > 0 || !bench.fixture.limits;
            assert!(counted, "{}: a frozen sandbox holds memory", bench.check);
        }
        Ok(Err(error)) => panic!("{}: freeze of {id}: {error}", bench.check),
        Err(_) => panic!("{}: freeze of {id} does not return", bench.check),
    }
}
