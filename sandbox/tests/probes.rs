//! Probes of real sandboxes: exec, slow starters, apps that hang, and sandboxes that must be left alone.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Millicores;
use manifests::workload::{Check, Probe, Probes};
use sandbox::driver::{Driver, Event, Exit, ExitStatus, Limits, SandboxSpec, StartError};
use sandbox::{LocalConfig, LocalDriver};
use support::{TESTAPP, spec, workload};
use tokio::sync::broadcast::Receiver;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const BOUND: Duration = Duration::from_secs(60);

fn sh(script: &str) -> Check {
    Check::Exec {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    }
}

fn sick() -> Check {
    Check::Http {
        tls: false,
        port: 8080,
        path: "/sick".into(),
        headers: Vec::new(),
    }
}

fn every(period: Duration, check: Check) -> Probe {
    Probe {
        period: Some(period),
        timeout: Duration::from_secs(5),
        ..Probe::aggressive(check)
    }
}

fn app(id: &str, args: &[&str], probes: Probes) -> SandboxSpec {
    let mut app = workload(TESTAPP, args);
    app.serving.probes = probes;
    spec(id, app)
}

async fn exit(events: &mut Receiver<Event>) -> Exit {
    loop {
        if let Event::Exited { exit, .. } = timeout(BOUND, events.recv()).await.unwrap().unwrap() {
            return exit;
        }
    }
}

/// As root, and as plain processes of this user.
fn drivers(dir: &std::path::Path) -> Vec<Arc<LocalDriver>> {
    let plain = LocalConfig {
        unsafe_no_isolation: true,
        ..support::config(&dir.join("plain"))
    };
    let mut drivers = vec![LocalDriver::new(plain).unwrap()];
    if support::is_root() {
        drivers.push(support::driver(&dir.join("root")));
    }
    drivers
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_probes_run_inside() {
    let dir = tempfile::tempdir().unwrap();
    for driver in drivers(dir.path()) {
        let cases = [
            ("exit 0", None),
            ("test \"$HOSTNAME\" = e-1 && test -n \"$PORT\"", None),
            (
                "echo no database >&2; exit 3",
                Some("/bin/sh exited with code 3: no database"),
            ),
            ("kill -9 $$", Some("/bin/sh exited with code 137")),
            ("sleep 1000", Some("/bin/sh did not end within 200ms")),
        ];
        for (n, (script, wanted)) in cases.into_iter().enumerate() {
            let readiness = Probe {
                timeout: if script.starts_with("sleep") { 200 * MS } else { BOUND },
                ..every(20 * MS, sh(script))
            };
            let probes = Probes {
                readiness: Some(readiness),
                ..Probes::default()
            };
            let mut spec = app(&format!("e-{n}"), &["serve"], probes);
            if wanted.is_some() {
                spec.deadline = Duration::from_secs(2);
            }
            match (driver.start(spec).await, wanted) {
                (Ok(_), None) => {}
                (Err(StartError::NotReady { last, .. }), Some(wanted)) => {
                    assert!(
                        last.starts_with("readiness probe failed: ") && last.ends_with(wanted),
                        "{script}: {last}"
                    );
                }
                (other, _) => panic!("{script}: {other:?}"),
            }
        }
        // A program that is not there says nothing about the app: it is never ready, and the reason is told.
        let missing = Check::Exec {
            command: vec!["/no/such".into()],
        };
        let probes = Probes {
            readiness: Some(every(20 * MS, missing)),
            ..Probes::default()
        };
        let mut spec = app("missing", &["serve"], probes);
        spec.deadline = Duration::from_secs(1);
        match driver.start(spec).await {
            Err(StartError::NotReady { last, .. }) => assert!(last.contains("/no/such"), "{last}"),
            other => panic!("{other:?}"),
        }
        driver.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_probe_that_hangs_leaves_no_process() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let liveness = Probe {
        timeout: 100 * MS,
        failure_threshold: 1000,
        // One process each: what a shell has started would be left to the app, its init, to wait for.
        ..every(50 * MS, sh("exec sleep 1000"))
    };
    let probes = Probes {
        liveness: Some(liveness),
        ..Probes::default()
    };
    driver.start(app("hangs", &["serve"], probes)).await.unwrap();
    sleep(2000 * MS).await;
    let pids = driver.stats(&SandboxId::new("hangs")).await.unwrap().pids.unwrap();
    assert!(pids <= 6, "{pids} processes after some 20 probes");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_is_left_alone_by_the_other_probes() {
    let dir = tempfile::tempdir().unwrap();
    for driver in drivers(dir.path()) {
        let tcp = || every(50 * MS, Check::Tcp { port: 8080 });
        let probes = Probes {
            startup: Some(Probe {
                failure_threshold: 1000,
                ..tcp()
            }),
            readiness: Some(every(Duration::from_secs(100), sick())),
            // Would end it at once.
            liveness: Some(Probe {
                failure_threshold: 1,
                ..tcp()
            }),
        };
        let started = driver
            .start(app("slow", &["serve", "--after", "700"], probes.clone()))
            .await
            .unwrap();
        assert!(started.phases.ready >= 700 * MS, "{:?}", started.phases);
        assert_eq!(driver.list().len(), 1);
        // One that takes longer than its startup probe allows is ended, and killed when it does not hear.
        let mut late = probes;
        late.startup.as_mut().unwrap().failure_threshold = 3;
        let mut spec = app("late", &["serve", "--stubborn", "--after", "50000"], late);
        Arc::get_mut(&mut spec.workload).unwrap().stop_grace = 200 * MS;
        match driver.start(spec).await {
            Err(StartError::Exited(exit)) => {
                let why = exit.unhealthy.as_deref().unwrap();
                assert_eq!(why.split(':').next(), Some("startup probe failed 3 times"), "{why}");
                assert_eq!(
                    (exit.status, exit.requested),
                    (ExitStatus::Signal(9), false),
                    "{exit:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        driver.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_and_does_not_hear_is_killed_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    for driver in drivers(dir.path()) {
        let mut events = driver.events();
        let probes = Probes {
            liveness: Some(every(50 * MS, sick())),
            ..Probes::default()
        };
        let mut spec = app("hung", &["serve", "--stubborn", "--sick", "300", "100000"], probes);
        // The probe's own grace goes before the revision's.
        let app = Arc::get_mut(&mut spec.workload).unwrap();
        app.stop_grace = Duration::from_secs(1000);
        app.serving.probes.liveness.as_mut().unwrap().grace = Some(300 * MS);
        driver.start(spec).await.unwrap();
        let exit = exit(&mut events).await;
        assert_eq!(
            (exit.status, exit.requested),
            (ExitStatus::Signal(9), false),
            "{exit:?}"
        );
        assert_eq!(
            exit.unhealthy.as_deref(),
            Some("liveness probe failed 3 times: GET /sick answered 503")
        );
        driver.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_less_cpu_than_at_its_start_is_not_probed() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut events = driver.events();
    let probes = Probes {
        // Long enough to be throttled before it fails for good.
        liveness: Some(every(100 * MS, sick())),
        ..Probes::default()
    };
    let mut spec = app("idle", &["serve", "--sick", "0", "100000"], probes);
    let full = Limits {
        cpu: Some(Millicores(1000)),
        ..Limits::default()
    };
    spec.limits = full;
    // It is ready as soon as it runs: liveness does not hold that up.
    driver.start(spec).await.unwrap();
    let id = SandboxId::new("idle");
    let throttled = Limits {
        cpu: Some(Millicores(10)),
        ..Limits::default()
    };
    driver.set_limits(&id, throttled).await.unwrap();
    sleep(1500 * MS).await;
    assert!(events.try_recv().is_err(), "it was probed while it was throttled");
    driver.set_limits(&id, full).await.unwrap();
    let exit = exit(&mut events).await;
    assert!(exit.unhealthy.is_some(), "{exit:?}");
    driver.shutdown(Duration::ZERO).await;
}
