//! The checks of sandboxes with several containers and with volumes.

use std::time::Duration;

use manifests::ids::SandboxId;
use tokio::time::{sleep, timeout};

use super::{App, BOUND, Bench, Command};
use crate::driver::{DriverError, ExitStatus, StartError};
use crate::exec::{ExecError, ExecSpec};

const GRACE: Duration = Duration::from_secs(10);

const WRITTEN: &str = "first\nbeside\n";

pub(super) async fn pods(bench: &Bench) {
    let Some(spec) = bench.spec_of(App::Pod) else { return };
    let (driver, id) = (bench.driver(), spec.id.clone());
    let serving = spec.workload.serving.name.to_string();
    // The second time as if there had been no first.
    for _ in 0..2 {
        bench.start_spec(spec.clone()).await;
        bench.get(&id, &mut bench.dial(&id).await).await;
        for container in [None, Some(serving.as_str()), Some("beside")] {
            written(bench, &id, container).await;
        }
        let details = driver.inspect(&id).await.expect("inspect");
        assert_eq!(details.containers, [serving.as_str(), "beside"]);
        // One that has run to its end runs no commands.
        let over = driver.exec(&id, read(bench, Some("before"))).await;
        assert!(
            matches!(&over, Err(ExecError::Refused(why)) if why.contains("before")),
            "{over:?}"
        );
        if driver.freezer().is_some() {
            driver.freeze(&id).await.expect("freeze");
            let frozen = driver.exec(&id, read(bench, Some("beside"))).await;
            assert!(matches!(&frozen, Err(ExecError::Refused(_))), "{frozen:?}");
            driver.thaw(&id).await.expect("thaw");
        }
        written(bench, &id, Some("beside")).await;
        bench.stop(&id, GRACE).await;
        bench.clean("after several containers").await;
    }
    bench.start_spec(spec.clone()).await;
    (bench.fixture.kill)(&id);
    let mut waited = Duration::ZERO;
    while bench.exits(&id).len() < 3 {
        assert!(
            waited < BOUND,
            "{}: the serving container's end is the end",
            bench.check
        );
        sleep(Duration::from_millis(10)).await;
        waited += Duration::from_millis(10);
    }
    assert_eq!(bench.exits(&id).len(), 3);
    bench.clean("after an end of several containers").await;
}

/// A second start of a name that is taken fails, and does the first no harm; whenever it comes, and when it is dropped.
pub(super) async fn names(bench: &Bench) {
    let Some(spec) = bench.spec_of(App::Pod) else { return };
    let (driver, id) = (bench.driver(), spec.id.clone());
    bench.start_spec(spec.clone()).await;
    written(bench, &id, None).await;
    for micros in [0, 200, 500, 1000, 5000] {
        match timeout(Duration::from_micros(micros), driver.start(spec.clone())).await {
            Err(_) | Ok(Err(StartError::Driver(DriverError::Exists(_)))) => {}
            other => panic!("a name that is taken: {other:?}"),
        }
    }
    written(bench, &id, None).await;
    bench.stop(&id, GRACE).await;
    bench.clean("after starts of a taken name").await;
    // Dropped at every point, and at once started again: what is left of the one is not taken for the other's.
    for micros in [0, 100, 300, 1_000, 2_000, 4_000, 8_000, 20_000] {
        let dropped = timeout(Duration::from_micros(micros), driver.start(spec.clone())).await;
        drop(dropped);
        bench.stop(&id, Duration::ZERO).await;
        bench.start_spec(spec.clone()).await;
        written(bench, &id, None).await;
        bench.stop(&id, Duration::ZERO).await;
    }
    bench.clean("after dropped starts with volumes").await;
}

/// Waits until the volume holds what every container has written, and nothing else.
async fn written(bench: &Bench, id: &SandboxId, container: Option<&str>) {
    let mut waited = Duration::ZERO;
    loop {
        let running = bench.driver().exec(id, read(bench, container)).await;
        let ran = match running {
            Ok(running) => running.ran(1000).await,
            Err(error) => panic!("{}: a command in {id}, {container:?}: {error}", bench.check),
        };
        let said = String::from_utf8_lossy(&ran.output).into_owned();
        let read = ran.status == ExitStatus::Code(0);
        if read && said == WRITTEN {
            return;
        }
        // Its container may be on its way yet.
        assert!(
            (!read || WRITTEN.starts_with(&said)) && waited < BOUND,
            "{}: {container:?} of {id} sees {said:?}",
            bench.check
        );
        sleep(Duration::from_millis(10)).await;
        waited += Duration::from_millis(10);
    }
}

fn read(bench: &Bench, container: Option<&str>) -> ExecSpec {
    ExecSpec {
        container: container.map(Into::into),
        ..ExecSpec::new((bench.fixture.command)(Command::Read))
    }
}
