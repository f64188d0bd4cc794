//! Whose processes sandboxes are, to the host and to each other.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::workload::{Image, Seccomp, Workload};
use sandbox::LocalDriver;
use sandbox::driver::{Driver, StartError};
use sandbox::spawner::UidRanges;
use support::{config, serve, spec, workload};

/// One driver at a time: what its spawner holds is counted.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The real uid and the uid map of a sandbox's first process, as the host sees them.
async fn user(driver: &dyn Driver, id: &str) -> (u32, Vec<u32>) {
    let pid = driver.stats(&SandboxId::new(id)).await.unwrap().main_pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let uid = line.split_whitespace().next().unwrap().parse().unwrap();
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map, fs::read_to_string(format!("/proc/{pid}/gid_map")).unwrap());
    (uid, map.split_whitespace().map(|n| n.parse().unwrap()).collect())
}

/// Sockets, descriptors and namespaces of this process' spawner: what grows when something is left behind.
fn held() -> usize {
    let [spawner] = support::spawners(std::process::id())[..] else {
        panic!("one spawner")
    };
    fs::read_dir(format!("/proc/{spawner}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sandbox_has_users_of_its_own_and_they_are_used_again() {
    if !support::is_root() {
        return;
    }
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let first = 0x7100_0000;
    let mut config = config(dir.path());
    config.pool = 0;
    config.pool_services = 0;
    config.uids = UidRanges { first, count: 2 };
    let driver = LocalDriver::new(config).unwrap();
    assert!(driver.isolation_warnings().iter().all(|w| !w.starts_with("users:")));
    let mut before = None;
    for round in 0..20 {
        driver.start(serve("a")).await.unwrap();
        driver.start(serve("b")).await.unwrap();
        let mut ranges = Vec::new();
        for id in ["a", "b"] {
            let (uid, map) = user(&*driver, id).await;
            assert_eq!(map[0], 0);
            assert_eq!(map[2], 65_536);
            assert_eq!(uid, map[1] + 65_532, "round {round}");
            ranges.push(map[1]);
        }
        ranges.sort_unstable();
        assert_eq!(ranges, [first, first + 65_536], "round {round}");
        // There is no third range: the host is short of something, and says of what.
        let full = driver.start(serve("c")).await;
        assert!(
            matches!(&full, Err(StartError::Exhausted(text)) if text.contains("uids")),
            "{full:?}"
        );
        for id in ["a", "b"] {
            driver.stop(&SandboxId::new(id), Duration::ZERO).await.unwrap();
        }
        let now = held();
        assert_eq!(
            *before.get_or_insert(now),
            now,
            "descriptors of the spawner in round {round}"
        );
    }
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_power_over_its_own_processes_only() {
    if !support::is_root() {
        return;
    }
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    // It sees, signals and looks into its own processes; the rest of the machine is not there.
    let script = "sleep 100 & kill -0 $! && readlink /proc/$!/cwd && ls -A /proc/$!/fd | wc -l && kill $!
        cat /proc/self/uid_map; (unshare -U true || true) 2>&1; (unshare -m true || true) 2>&1
        (nsenter -t 1 -m true || true) 2>&1; ls -ln /proc/1/exe >/dev/null && echo end; exit 3";
    let Err(StartError::Exited(exit)) = driver.start(spec("own", workload("/bin/sh", &["-c", script]))).await else {
        panic!("it ends")
    };
    let said = exit.last_output;
    assert!(said.starts_with("/\n3\n"), "{said}");
    assert!(said.contains(" 65536"), "{said}");
    assert_eq!(said.matches("not permitted").count(), 3, "{said}");
    assert!(said.ends_with("end\n"), "{said}");
    assert_eq!(exit.status.code(), 3);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_images_leave_no_descriptor_mount_or_namespace() {
    if !support::is_root() || !Path::new("/bin/busybox").exists() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI needs root and busybox-static"
        );
        eprintln!("skipped: needs root and busybox-static");
        return;
    }
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("image");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let mut config = config(&dir.path().join("data"));
    (config.pool, config.pool_services) = (0, 0);
    // As many ranges as there are sandboxes at once: one that is not given back is missed.
    config.uids.count = 2;
    let driver = LocalDriver::new(config).unwrap();
    let mut app = Workload::new(Image::Dir(root));
    let mut before = None;
    for round in 0..300 {
        app.serving.command = vec!["busybox".into(), "true".into()];
        // Every third has its keys' namespace made anew, every fifth cannot begin.
        if round % 3 == 0 {
            app.serving.security.seccomp = Seccomp::Unconfined;
        } else {
            app.serving.security.seccomp = Seccomp::RuntimeDefault;
        }
        if round % 5 == 0 {
            app.serving.command = vec!["nothing".into()];
        }
        let ended = driver.start(spec(&format!("r{round}"), app.clone())).await;
        let wanted = if round % 5 == 0 {
            matches!(ended, Err(StartError::Refused(_)))
        } else {
            matches!(ended, Err(StartError::Exited(_)))
        };
        assert!(wanted, "round {round}: {ended:?}");
        let [spawner] = support::spawners(std::process::id())[..] else {
            panic!("one spawner")
        };
        let mounts = fs::read_to_string(format!("/proc/{spawner}/mountinfo"))
            .unwrap()
            .lines()
            .count();
        let now = (held(), mounts);
        // The first makes what is kept.
        if round >= 1 {
            assert_eq!(
                *before.get_or_insert(now),
                now,
                "descriptors and mounts in round {round}"
            );
        }
    }
    driver.shutdown(Duration::ZERO).await;
}
