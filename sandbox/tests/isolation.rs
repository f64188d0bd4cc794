//! What an app sees and reaches from inside, found out by an app that tries.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::{Bytes, Millicores};
use manifests::workload::{Container, Image, Probe};
use sandbox::LocalDriver;
use sandbox::driver::{Driver, Limits, StartError};
use support::shut_in::{assert_shut_in, findings};
use support::{TESTAPP, get, serve, spec, workload};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_reaches_nothing_of_the_host_nor_of_its_neighbours() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let on_host = TcpListener::bind("127.0.0.1:0").unwrap();
    let driver = support::driver(dir.path());
    let found = findings(&*driver, TESTAPP, dir.path(), on_host.local_addr().unwrap().port()).await;
    assert_shut_in(&found, TESTAPP);
    assert_eq!(found["Groups"], "");
    assert_eq!(found["Uid"], "65532\t65532\t65532\t65532");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_names_and_places_are_as_promised() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut app = workload(TESTAPP, &["serve"]);
    app.serving.env.extend([
        ("GREETING".into(), "hi there".into()),
        ("PORT".into(), "1".into()),
        ("HOME".into(), "/x".into()),
    ]);
    driver.start(spec("env-1", app)).await.unwrap();
    let env = get(&*driver, "env-1", "/env").await.unwrap();
    let env: BTreeMap<&str, &str> = env.lines().map(|l| l.split_once('=').unwrap()).collect();
    let wanted = BTreeMap::from([
        ("GREETING", "hi there"),
        ("HOME", "/x"),
        ("HOSTNAME", "env-1"),
        ("K_CONFIGURATION", "hello-config"),
        ("K_REVISION", "hello-00001"),
        ("K_SERVICE", "hello"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("PORT", "8080"),
    ]);
    assert_eq!(env, wanted);

    let script = dir.path().join("app");
    fs::create_dir(&script).unwrap();
    // A program below the data directory is shown alone; its interpreter is the system's.
    let script = script.join("script.sh");
    let text = format!(
        "#!/bin/sh\nhostname; id -u; pwd; cat /etc/hostname; ls {}; echo \"$0 $1\"; cd /tmp && touch x && exit 5\n",
        dir.path().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut app = workload(script.to_str().unwrap(), &["arg"]);
    app.serving.working_dir = Some("/usr/share".into());
    let Err(StartError::Exited(exit)) = driver.start(spec("script", app)).await else {
        panic!("it exits")
    };
    let lines: Vec<&str> = exit.last_output.lines().collect();
    let [hostname, uid, pwd, etc, shown, words] = lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!((hostname, pwd, etc, shown), ("script", "/usr/share", "script", "app"));
    assert_eq!(uid, "65532");
    assert_eq!(words, format!("{} arg", script.display()));
    assert_eq!(exit.status.code(), 5);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_got_wrong_is_refused_with_the_reason() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let script = dir.path().join("bad.sh");
    fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let but = |change: &dyn Fn(&mut Container)| {
        let mut here = workload(TESTAPP, &["serve"]);
        change(&mut here.serving);
        here
    };
    let cases = [
        (
            but(&|it| it.image = Image::Host("/nowhere".into())),
            "host:/nowhere: no such file",
        ),
        (
            but(&|it| it.image = Image::Host("no-such-program".into())),
            "host:no-such-program: no such program in",
        ),
        (but(&|it| it.image = Image::Host(plain.clone())), "not executable"),
        (but(&|it| it.image = Image::Host(script.clone())), "interpreter"),
        (
            but(&|it| it.working_dir = Some("/root".into())),
            "change to the working directory /root",
        ),
        (but(&|it| it.args = vec!["a\0b".into()]), "NUL"),
        (but(&|it| it.command = vec!["/nope".into()]), "host:/nope"),
    ];
    for (i, (workload, wanted)) in cases.into_iter().enumerate() {
        let started = driver.start(spec(&format!("bad-{i}"), workload)).await;
        let Err(StartError::Refused(text)) = started else {
            panic!("{wanted}: {started:?}")
        };
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
    assert_eq!(driver.list(), []);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_what_the_probe_says() {
    use manifests::workload::Check;
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let http = |path: &str| Check::Http {
        tls: false,
        port: 8080,
        path: path.into(),
        headers: vec![("X".into(), "y".into())],
    };
    for (i, (check, period, ready)) in [
        (http("/"), None, true),
        (http("/status/302"), None, true),
        (http("/status/503"), None, false),
        (Check::Tcp { port: 8080 }, Some(Duration::from_millis(10)), true),
        (http("/"), Some(Duration::from_millis(10)), true),
        (Check::Tcp { port: 9 }, None, false),
        (Check::Tcp { port: 9 }, Some(Duration::from_millis(10)), false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut app = workload(TESTAPP, &["serve", "--after", "5"]);
        app.serving.probes.readiness = Some(Probe {
            period,
            success_threshold: 2,
            ..Probe::aggressive(check.clone())
        });
        let mut spec = spec(&format!("probe-{i}"), app);
        spec.deadline = if ready {
            spec.deadline
        } else {
            Duration::from_millis(400)
        };
        let started = driver.start(spec).await;
        match started {
            Ok(_) => assert!(ready, "{check:?} {period:?}"),
            Err(StartError::NotReady { last, .. }) => {
                assert!(!ready, "{check:?} {period:?}: {last}");
                assert!(last.contains("503") || last.contains("port 9"), "{last}");
            }
            Err(other) => panic!("{check:?}: {other}"),
        }
    }
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    // 64 MiB into /tmp, which is memory, under a limit of 32 MiB.
    let mut app = workload("/bin/sh", &["-c", "cat /dev/zero | head -c 64000000 | sort"]);
    app.serving.probes.readiness.as_mut().unwrap().initial_delay = Duration::from_secs(60);
    let mut greedy = spec("greedy", app);
    let limits = Limits {
        cpu: Some(Millicores(500)),
        memory: Some(Bytes(32 << 20)),
        pids: Some(20),
    };
    greedy.limits = limits;
    let Err(StartError::Exited(exit)) = driver.start(greedy).await else {
        panic!("it ends")
    };
    assert!(exit.oom_killed, "{exit:?}");
    let mut limited = serve("limited");
    limited.limits = limits;
    driver.start(limited).await.unwrap();
    assert_eq!(driver.stats(&SandboxId::new("limited")).await.unwrap().limits, limits);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_would_be_ignored_is_not_waited_for() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver: Arc<LocalDriver> = support::driver(dir.path());
    // A shell as the first process of its namespace handles no SIGTERM: an hour of grace would be spent for nothing.
    let app = workload("/bin/sh", &["-c", "exec /usr/bin/env sleep 97531"]);
    let starting = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.start(spec("deaf", app)).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    driver
        .stop(&SandboxId::new("deaf"), Duration::from_secs(3600))
        .await
        .unwrap();
    assert!(matches!(starting.await.unwrap(), Err(StartError::Exited(exit)) if exit.requested));
    driver.shutdown(Duration::ZERO).await;
}
