//! The checks of starts that fail, at each phase of one, and of ends for want of memory.

use std::time::Duration;

use manifests::units::Bytes;

use super::{App, Bench};
use crate::driver::{ExitStatus, StartError};

pub(super) async fn starts(bench: &Bench) {
    let mut failed = Vec::new();
    // It ran, and ended before it was ready.
    let ends = [
        (App::Crasher, ExitStatus::Code(3)),
        (App::Quits, ExitStatus::Code(0)),
        (App::Broken, ExitStatus::Signal(11)),
    ];
    for (app, status) in ends {
        let spec = bench.spec(app);
        match bench.driver().start(spec.clone()).await {
            Err(StartError::Exited(exit)) => {
                assert_eq!(
                    (bench.status(exit.status), exit.requested, exit.oom_killed),
                    (status, false, false),
                    "{app}: {exit:?}"
                );
                let said = app != App::Crasher || exit.last_output.contains("no luck");
                assert!(said && exit.unhealthy.is_none(), "{app}: {exit:?}");
            }
            other => panic!("{app}: {other:?}"),
        }
        bench.clean(&format!("after {app}")).await;
        failed.push(spec.id);
    }
    // It runs, and does not become ready.
    let mut never = bench.spec(App::Never);
    never.deadline = Duration::from_millis(500);
    match bench.driver().start(never.clone()).await {
        Err(StartError::NotReady { after, last }) => {
            assert!(
                after >= Duration::from_millis(500) && !last.is_empty(),
                "{after:?} {last:?}"
            );
        }
        other => panic!("an app that never listens: {other:?}"),
    }
    bench.clean("after a deadline").await;
    failed.push(never.id);
    // It cannot run at all: no image, no program, no such user. The text says what.
    for app in [App::Missing, App::NoImage, App::Hollow, App::Stranger] {
        let Some(spec) = bench.spec_of(app) else { continue };
        match bench.driver().start(spec.clone()).await {
            Err(StartError::Refused(why)) => assert!(!why.is_empty(), "{app}"),
            other => panic!("{app}: {other:?}"),
        }
        bench.clean(&format!("after {app}")).await;
        failed.push(spec.id);
    }
    bench.settle().await;
    for id in &failed {
        assert!(
            bench.told(id).is_empty(),
            "{id}: something is told of a sandbox that no start returned"
        );
        assert!(bench.driver().dial(id).await.is_err(), "{id} can be dialled");
    }
}

pub(super) async fn memory(bench: &Bench) {
    let Some(mut spec) = bench.spec_of(App::Hungry) else {
        return;
    };
    spec.limits.memory = Some(Bytes(96 << 20));
    bench.start_spec(spec.clone()).await;
    let neighbour = bench.start(App::Quick).await;
    let exit = bench.one_exit(&spec.id).await;
    assert_eq!(
        (bench.status(exit.status), exit.oom_killed, exit.requested),
        (ExitStatus::Signal(9), true, false),
        "{exit:?}"
    );
    bench.get(&neighbour, &mut bench.dial(&neighbour).await).await;
    bench.stop(&neighbour, Duration::from_secs(10)).await;
}
