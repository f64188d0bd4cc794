//! Whatever is killed, the host is afterwards as it was before; in any order: `cycles.rs`. One test: it compares the whole process.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use sandbox::driver::{Driver, Event, ExitStatus};
use sandbox::exec::ExecSpec;
use sandbox::test_support::HostSnapshot;
use sandbox::{LocalDriver, SetupError};
use support::{TESTAPP, get, kill, serve, spawners};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_as_before_whoever_dies() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let before = HostSnapshot::of(&[dir.path()]);

    let driver = support::driver(dir.path());
    assert!(
        matches!(second(dir.path()), SetupError::InUse(_)),
        "two drivers on one directory"
    );
    an_app_is_killed(&driver).await;
    the_spawner_is_killed(&driver).await;
    no_command_is_left(&driver).await;
    driver.shutdown(Duration::from_secs(1)).await;
    drop(driver);
    before.assert_same_within(BOUND);

    dropped_without_a_shutdown(dir.path()).await;
    before.assert_same_within(BOUND);
    knarr_is_killed(dir.path());
    before.assert_same_within(BOUND);
    knarr_and_its_spawner_are_killed_at_once(dir.path()).await;
    before.assert_same_within(BOUND);
}

/// The spawner dies, the sandbox is stopped, the app is killed: while commands run, which have started others.
async fn no_command_is_left(driver: &Arc<LocalDriver>) {
    let app = SandboxId::new("commanded");
    for how in 0..3 {
        let mut events = driver.events();
        driver.start(serve(app.as_str())).await.unwrap();
        let mut running = Vec::new();
        for _ in 0..3 {
            let command = ExecSpec::new(["sh", "-c", "sleep 86397 & sleep 86396"]);
            running.push(driver.exec(&app, command).await.unwrap());
        }
        match how {
            0 => kill(spawners(std::process::id())[0]),
            1 => drop(driver.stop(&app, Duration::ZERO).await.unwrap()),
            _ => {
                let pid = driver.stats(&app).await.unwrap().main_pid.unwrap();
                kill(i32::try_from(pid).unwrap());
            }
        }
        for exec in running {
            let status = timeout(BOUND, exec.process.wait()).await.expect("its end is told");
            assert_eq!(status, ExitStatus::Signal(9));
        }
        assert_eq!(exited(&mut events).await.0, app);
    }
}

/// In a process of its own time: a lock that is waited for.
fn second(dir: &Path) -> SetupError {
    match LocalDriver::new(support::config(dir)) {
        Err(error) => error,
        Ok(_) => panic!("there are two"),
    }
}

async fn an_app_is_killed(driver: &Arc<LocalDriver>) {
    let mut events = driver.events();
    driver.start(serve("victim")).await.unwrap();
    let pid = driver.stats(&SandboxId::new("victim")).await.unwrap().main_pid.unwrap();
    kill(i32::try_from(pid).unwrap());
    let (id, status) = exited(&mut events).await;
    assert_eq!((id.as_str(), status), ("victim", ExitStatus::Signal(9)));
    assert!(driver.dial(&id).await.is_err());
    assert_eq!(driver.list(), []);
}

async fn the_spawner_is_killed(driver: &Arc<LocalDriver>) {
    for round in 0..3 {
        let mut events = driver.events();
        let names: BTreeSet<String> = (0..5).map(|i| format!("orphan-{round}-{i}")).collect();
        for name in &names {
            driver.start(serve(name)).await.unwrap();
        }
        let [spawner] = spawners(std::process::id())[..] else {
            panic!("one spawner")
        };
        // One is on its way in that moment: it starts with the next spawner.
        let late = format!("late-{round}");
        let starting = tokio::spawn({
            let (driver, spec) = (Arc::clone(driver), serve(&late));
            async move { driver.start(spec).await }
        });
        kill(spawner);
        let mut gone = BTreeSet::new();
        while gone.len() < names.len() {
            let (id, status) = exited(&mut events).await;
            assert_eq!(status, ExitStatus::Signal(9));
            if id.as_str() != late {
                assert!(gone.insert(id.as_str().to_owned()), "{id}: told twice");
            }
        }
        assert_eq!(gone, names);
        // It may have been ready just before.
        if starting.await.unwrap().is_ok() && driver.list().iter().any(|id| id.as_str() == late) {
            driver
                .stop(&SandboxId::new(late.as_str()), Duration::ZERO)
                .await
                .unwrap();
        }
        driver.start(serve("after")).await.unwrap();
        assert_eq!(get(&**driver, "after", "/").await.unwrap(), "after");
        driver
            .stop(&SandboxId::new("after"), Duration::from_secs(5))
            .await
            .unwrap();
    }
}

async fn dropped_without_a_shutdown(dir: &Path) {
    let driver = support::driver(dir);
    driver.start(serve("left")).await.unwrap();
    drop(driver);
}

fn knarr_is_killed(dir: &Path) {
    let mut knarr = knarr(dir);
    knarr.kill().unwrap();
    knarr.wait().unwrap();
}

async fn knarr_and_its_spawner_are_killed_at_once(dir: &Path) {
    let mut knarr = knarr(dir);
    let [spawner] = spawners(knarr.id())[..] else {
        panic!("one spawner")
    };
    kill(spawner);
    knarr.kill().unwrap();
    knarr.wait().unwrap();
    // Nobody was left to remove the cgroups; the next start does.
    let driver = support::driver(dir);
    driver.start(serve("next")).await.unwrap();
    driver.shutdown(Duration::ZERO).await;
}

/// A driver in a process of its own, with five sandboxes.
fn knarr(dir: &Path) -> Child {
    let mut knarr = Command::new(TESTAPP)
        .arg("drive")
        .arg(dir)
        .arg("5")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(knarr.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("namespaces"), "{line}");
    knarr
}

async fn exited(events: &mut Receiver<Event>) -> (SandboxId, ExitStatus) {
    loop {
        if let Event::Exited { id, exit, .. } = timeout(BOUND, events.recv()).await.unwrap().unwrap() {
            return (id, exit.status);
        }
    }
}
