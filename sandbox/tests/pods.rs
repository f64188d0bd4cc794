//! Several containers in one sandbox: what they share and what not, in which order they start, and how they end.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::text::Fact;
use manifests::units::{Bytes, Millicores};
use manifests::workload::{Container, Image, Mount, Volume, VolumeSource, Workload};
use sandbox::driver::{Driver, ExitStatus, Limits, StartError};
use sandbox::exec::ExecSpec;
use sandbox::{Freezing, LocalConfig, LocalDriver};
use support::{TESTAPP, get, spec, workload};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);

/// A program of this host beside the app, or before it.
fn shell(name: &str, script: &str) -> Container {
    let mut container = Container::new(name, Image::Host("/bin/sh".into()));
    container.args = vec!["-c".into(), script.into()];
    container.mounts.push(shared());
    container
}

fn shared() -> Mount {
    Mount {
        volume: "shared".into(),
        path: "/shared".into(),
        sub_path: None,
        read_only: false,
    }
}

/// The test's server, with a directory that all containers have.
fn app() -> Workload {
    let mut app = workload(TESTAPP, &["serve"]);
    app.serving.mounts.push(shared());
    app.volumes.push(Volume {
        name: "shared".into(),
        source: VolumeSource::Empty {
            memory: false,
            size: None,
        },
    });
    app
}

/// Runs a command in a container; what it says.
async fn exec(driver: &dyn Driver, id: &str, container: Option<&str>, script: &str) -> Result<String, String> {
    let spec = ExecSpec {
        container: container.map(Into::into),
        ..ExecSpec::new(["/bin/sh", "-c", script])
    };
    let running = driver.exec(&SandboxId::new(id), spec).await;
    let ran = timeout(BOUND, running.map_err(|error| error.to_string())?.ran(1 << 16))
        .await
        .unwrap();
    Ok(String::from_utf8(ran.output).unwrap())
}

/// Until `told` gives something.
async fn until<T>(told: impl AsyncFn() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(it) = told().await {
                return it;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, asked).await.expect("it never came")
}

fn nothing_left(data: &Path) {
    let left: Vec<_> = std::fs::read_dir(data.join("sandboxes"))
        .unwrap()
        .flatten()
        .map(|it| it.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_come_first_and_sidecars_share_the_network() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut app = app();
    let mut first = shell("first", "echo one $NAME >> /shared/order; test -z \"$PORT\"");
    first.env.insert("NAME".into(), Fact::PodName.into());
    app.init = vec![first, shell("second", "echo two >> /shared/order")];
    let beside = "echo three >> /shared/order; ps >/dev/null 2>&1; echo out of the sidecar; readlink /proc/self/ns/net \
                  /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/pid /proc/self/ns/mnt > /shared/names; hostname > /shared/host; \
                  cat /proc/self/uid_map > /shared/users; exec sleep 1000";
    app.sidecars = vec![shell("beside", beside)];
    driver.start(spec("pod", app)).await.unwrap();
    let read = async |script: &str| exec(&*driver, "pod", None, script).await.unwrap();
    until(async || (read("test -s /shared/users && echo yes").await == "yes\n").then_some(())).await;
    assert_eq!(read("cat /shared/order").await, "one pod\ntwo\nthree\n");
    assert_eq!(read("cat /shared/host").await, "pod\n");
    let own =
        read("readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/pid /proc/self/ns/mnt")
            .await;
    let theirs = read("cat /shared/names").await;
    let (own, theirs): (Vec<&str>, Vec<&str>) = (own.lines().collect(), theirs.lines().collect());
    assert_eq!(own[..3], theirs[..3]);
    assert!(own[3] != theirs[3] && own[4] != theirs[4], "{own:?} {theirs:?}");
    assert_eq!(read("cat /proc/self/uid_map").await, read("cat /shared/users").await);
    // Each has its own processes.
    assert_eq!(
        exec(&*driver, "pod", Some("beside"), "cat /proc/1/comm").await.unwrap(),
        "sleep\n"
    );
    let none = exec(&*driver, "pod", Some("second"), "true").await.unwrap_err();
    assert!(
        none.contains("has no container \"second\" that runs; it has \"user-container\", \"beside\""),
        "{none}"
    );
    assert!(get(&*driver, "pod", "/").await.is_ok());
    // Whose line it is, is said.
    let logs = || {
        let files = driver.logs(&SandboxId::new("pod"));
        files
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect::<String>()
    };
    until(async || logs().contains("[beside] out of the sidecar").then_some(())).await;
    let exit = driver
        .stop(&SandboxId::new("pod"), Duration::from_secs(5))
        .await
        .unwrap()
        .unwrap();
    assert!(exit.requested);
    nothing_left(dir.path());
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_that_fails_is_tried_again_until_the_start_has_no_time() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut second_time = app();
    second_time.init = vec![shell(
        "flaky",
        "test -e /shared/been && exit 0; touch /shared/been; exit 3",
    )];
    driver.start(spec("flaky", second_time)).await.unwrap();
    let mut never = app();
    never.init = vec![shell("broken", "echo no database; exit 7")];
    let mut never = spec("never", never);
    never.deadline = Duration::from_secs(2);
    match driver.start(never).await {
        Err(StartError::Exited(exit)) => {
            assert_eq!(exit.status, ExitStatus::Code(7));
            let said = "init container \"broken\" failed with exit code 7: no database\n";
            assert_eq!(exit.last_output, said);
        }
        other => panic!("{other:?}"),
    }
    let mut wrong = app();
    wrong.sidecars = vec![Container::new("gone", Image::Host("/nope".into()))];
    match driver.start(spec("wrong", wrong)).await {
        Err(StartError::Refused(text)) => assert!(text.contains("host:/nope: no such file"), "{text}"),
        other => panic!("{other:?}"),
    }
    driver.stop(&SandboxId::new("flaky"), Duration::ZERO).await.unwrap();
    nothing_left(dir.path());
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_ends_is_started_again_and_the_serving_end_is_the_end() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut app = app();
    app.sidecars = vec![
        shell(
            "mortal",
            "echo again >> /shared/again; test $(grep -c again /shared/again) = 2 && exec sleep 1000; exit 1",
        ),
        shell("steady", "exec sleep 1000"),
    ];
    driver.start(spec("pod", app)).await.unwrap();
    let again = async || exec(&*driver, "pod", None, "cat /shared/again").await.unwrap();
    until(async || (again().await == "again\nagain\n").then_some(())).await;
    assert_eq!(
        exec(&*driver, "pod", Some("mortal"), "cat /proc/1/comm").await.unwrap(),
        "sleep\n"
    );
    let mut events = driver.events();
    let pid = driver.stats(&SandboxId::new("pod")).await.unwrap().main_pid.unwrap();
    support::kill(i32::try_from(pid).unwrap());
    let exited = async {
        loop {
            if let sandbox::driver::Event::Exited { exit, .. } = events.recv().await.unwrap() {
                return exit;
            }
        }
    };
    let exit = timeout(BOUND, exited).await.unwrap();
    assert_eq!((exit.status, exit.requested), (ExitStatus::Signal(9), false));
    assert!(driver.list().is_empty());
    nothing_left(dir.path());
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_containers_freeze_and_share_limits() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    if driver.freezer().is_none() {
        return driver.shutdown(Duration::ZERO).await;
    }
    let id = SandboxId::new("pod");
    let mut app = app();
    app.sidecars = vec![shell(
        "ticks",
        "echo begun >> /shared/begun; while ! rm /shared/end 2>/dev/null; do echo x >> /shared/ticks; sleep 0.01; done",
    )];
    app.sidecars[0].resources.memory_limit = Some(Bytes(64 << 20));
    driver.start(spec("pod", app)).await.unwrap();
    let ticks = || {
        let file = dir.path().join("sandboxes/pod/shared/ticks");
        std::fs::metadata(file).map_or(0, |meta| meta.len())
    };
    until(async || (ticks() > 10).then_some(())).await;
    driver.freeze(&id).await.unwrap();
    let frozen = ticks();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(), frozen);
    driver.thaw(&id).await.unwrap();
    until(async || (ticks() > frozen).then_some(())).await;
    // What the sandbox gets less of all containers get less of: in place, and when one of them is started again.
    let limits = async || driver.stats(&id).await.unwrap().limits;
    let throttled = Limits {
        cpu: Some(Millicores(100)),
        ..Limits::default()
    };
    driver.set_limits(&id, throttled).await.unwrap();
    assert_eq!(limits().await.cpu, Some(Millicores(100)));
    exec(&*driver, "pod", None, "touch /shared/end").await.unwrap();
    let begun = async || exec(&*driver, "pod", None, "cat /shared/begun").await.unwrap();
    until(async || (begun().await == "begun\nbegun\n").then_some(())).await;
    assert_eq!(limits().await.cpu, Some(Millicores(100)));
    driver.set_limits(&id, Limits::default()).await.unwrap();
    assert_eq!(limits().await.cpu, None);
    driver.freeze(&id).await.unwrap();
    driver.stop(&id, Duration::ZERO).await.unwrap();
    nothing_left(dir.path());
    driver.shutdown(Duration::ZERO).await;
}

/// It ends, is started again at once, and the sandbox is frozen meanwhile: at whatever instant, nothing runs afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_started_again_during_a_freeze_stands_still() {
    if !support::is_root() {
        return;
    }
    for freezing in [None, Some(Freezing::CgroupV1), Some(Freezing::Signals)] {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            freezing,
            ..support::config(dir.path())
        };
        let driver = LocalDriver::new(config).unwrap();
        if driver.freezer().is_none() {
            eprintln!("skipped: no {freezing:?} here");
            driver.shutdown(Duration::ZERO).await;
            continue;
        }
        for micros in [0, 200, 500, 1_000, 1_500, 2_000, 3_000, 5_000, 8_000, 13_000, 30_000] {
            let (id, name) = (SandboxId::new(format!("pod-{micros}")), format!("pod-{micros}"));
            let mut app = app();
            app.sidecars = vec![shell(
                "ticks",
                "echo begun >> /shared/begun; while ! rm /shared/end 2>/dev/null; do echo x >> /shared/ticks; sleep 0.01; done",
            )];
            driver.start(spec(&name, app)).await.unwrap();
            let shared = dir.path().join(format!("sandboxes/{name}/shared"));
            let size = |file: &str| std::fs::metadata(shared.join(file)).map_or(0, |meta| meta.len());
            until(async || (size("ticks") > 0).then_some(())).await;
            exec(&*driver, &name, None, "touch /shared/end").await.unwrap();
            until(async || (!shared.join("end").exists()).then_some(())).await;
            tokio::time::sleep(Duration::from_micros(micros)).await;
            driver.freeze(&id).await.unwrap();
            // What was about to run may say a word yet; then there is silence, for several ticks.
            let said = std::cell::Cell::new(u64::MAX);
            until(async || {
                tokio::time::sleep(Duration::from_millis(80)).await;
                let before = said.replace(size("ticks") + size("begun"));
                (before == said.get()).then_some(())
            })
            .await;
            assert!(driver.stats(&id).await.unwrap().frozen, "{freezing:?} {micros}");
            // It goes on, or is started now, and not a back-off later.
            let before = size("ticks");
            driver.thaw(&id).await.unwrap();
            let goes_on = async || (size("ticks") > before && size("begun") == 12).then_some(());
            let awake = timeout(Duration::from_secs(8), until(goes_on)).await;
            assert!(
                awake.is_ok(),
                "{freezing:?} {micros}: {} {}",
                size("begun"),
                size("ticks")
            );
            driver.stop(&id, Duration::ZERO).await.unwrap();
        }
        nothing_left(dir.path());
        driver.shutdown(Duration::ZERO).await;
    }
}

/// What a pod's containers have said so far.
fn said(driver: &dyn Driver, id: &str) -> String {
    let files = driver.logs(&SandboxId::new(id));
    files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// Says that it has heard SIGTERM, takes its time, and then does this.
fn slow_to_end(then: &str) -> Container {
    let script = format!("trap 'echo heard it; sleep 1; {then}' TERM; echo runs; while :; do sleep 0.05; done");
    shell("beside", &script)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_has_the_grace_too_when_the_serving_container_has_ended() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let begin = async |id: &str, then: &str| {
        let mut app = app();
        app.sidecars = vec![slow_to_end(then)];
        driver.start(spec(id, app)).await.unwrap();
        until(async || said(&*driver, id).contains("runs").then_some(())).await;
    };
    // Asked to stop: it ends by itself, after the serving container, and within the grace.
    begin("asked", "echo flushed; exit 0").await;
    let exit = driver.stop(&SandboxId::new("asked"), BOUND).await.unwrap().unwrap();
    assert_eq!((exit.status, exit.requested), (ExitStatus::Code(0), true));
    assert!(
        said(&*driver, "asked").contains("[beside] flushed"),
        "{}",
        said(&*driver, "asked")
    );
    // It does not end: it is ended when the grace is over.
    begin("busy", "true").await;
    let asked = timeout(BOUND, driver.stop(&SandboxId::new("busy"), Duration::from_secs(2)));
    asked.await.expect("not after its grace").unwrap();
    assert!(said(&*driver, "busy").contains("[beside] heard it"));
    // At once is at once.
    begin("killed", "echo flushed; exit 0").await;
    driver.stop(&SandboxId::new("killed"), Duration::ZERO).await.unwrap();
    assert!(!said(&*driver, "killed").contains("flushed"));
    // The serving container ends by itself: the sidecar is asked then.
    begin("crash", "echo flushed; exit 0").await;
    let mut events = driver.events();
    let pid = driver.stats(&SandboxId::new("crash")).await.unwrap().main_pid.unwrap();
    support::kill(i32::try_from(pid).unwrap());
    let exited = async { while !matches!(events.recv().await.unwrap(), sandbox::driver::Event::Exited { .. }) {} };
    timeout(BOUND, exited).await.unwrap();
    assert!(said(&*driver, "crash").contains("[beside] flushed"));
    nothing_left(dir.path());
    driver.shutdown(Duration::ZERO).await;
}

/// Where file systems are mounted below a directory, as this process sees it.
fn mounts_below(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(dir.to_str().unwrap()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_a_volume_in_memory_that_has_a_size() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    for round in 0..3 {
        let mut app = app();
        app.volumes[0].source = VolumeSource::Empty {
            memory: true,
            size: Some(Bytes(1 << 20)),
        };
        let fill = "head -c 600000 /dev/zero > /shared/one; head -c 600000 /dev/zero > /shared/two || echo full > /shared/told";
        app.init = vec![shell("first", "echo from the first > /shared/first")];
        app.sidecars = vec![shell("beside", &format!("{fill}; exec sleep 1000"))];
        driver.start(spec("pod", app)).await.unwrap();
        let read = async |script: &str| exec(&*driver, "pod", None, script).await.unwrap();
        assert_eq!(read("cat /shared/first").await, "from the first\n", "round {round}");
        until(async || read("ls /shared").await.contains("told").then_some(())).await;
        let sizes = read("stat -c %s /shared/one; stat -f -c %T /shared; stat -c %a /shared").await;
        assert_eq!(sizes, "600000\ntmpfs\n777\n");
        assert_eq!(mounts_below(dir.path()), 1);
        driver.stop(&SandboxId::new("pod"), Duration::ZERO).await.unwrap();
        assert_eq!(mounts_below(dir.path()), 0);
        nothing_left(dir.path());
    }
    driver.shutdown(Duration::ZERO).await;
}
