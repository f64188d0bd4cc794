//! The guard sees everything that a sandbox could leave. One test, since it looks at the whole process.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use sandbox::cgroup::Hierarchy;
use sandbox::driver::Limits;
use sandbox::test_support::HostSnapshot;

fn only(snapshot: &HostSnapshot, kind: &str, what: &str) {
    let added = snapshot.added();
    assert!(
        added.len() == 1 && added[0].starts_with(kind) && added[0].contains(what),
        "{kind} {what}: {added:?}"
    );
    let caught = catch_unwind(AssertUnwindSafe(|| {
        snapshot.assert_same_within(Duration::from_millis(40))
    }));
    assert!(caught.is_err(), "{kind}: not asserted");
}

#[test]
fn every_kind_of_leftover_is_seen_and_its_end_too() {
    let home = tempfile::tempdir().unwrap();
    let (snapshot, mark) = (HostSnapshot::of(&[home.path()]), HostSnapshot::mark(home.path()));
    let soon = Duration::from_secs(10);
    snapshot.assert_same_within(Duration::ZERO);

    let mut child = Command::new("sleep")
        .arg("1234.5")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // Its command line is there once it has executed.
    while !fs::read_to_string(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.contains("1234.5")) {
        std::thread::yield_now();
    }
    let mut added = snapshot.added();
    added.retain(|thing| !thing.starts_with("file descriptor"));
    assert!(added.len() == 1 && added[0].contains("1234.5"), "{added:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    snapshot.assert_same_within(soon);

    // An orphan: its parent is gone, and it is still ours.
    let shell = Command::new("sh")
        .args(["-c", "sleep 4321.5 >/dev/null 2>&1 & echo $!"])
        .output()
        .unwrap();
    let orphan: i32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
    only(&snapshot, "process", &format!("{orphan} ("));
    let pid = rustix::process::Pid::from_raw(orphan).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // Its zombie is this process' own to wait for, and does not count.
    snapshot.assert_same_within(soon);

    let file = File::open("/dev/zero").unwrap();
    let again = File::open("/dev/zero").unwrap();
    assert_eq!(
        snapshot.added(),
        ["file descriptor: /dev/zero #1", "file descriptor: /dev/zero #2"]
    );
    drop(again);
    only(&snapshot, "file descriptor", "/dev/zero #1");
    drop(file);
    snapshot.assert_same_within(soon);

    let prefix = format!(".{mark}-");
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
    only(&snapshot, "temporary file", &prefix);
    drop(dir);
    snapshot.assert_same_within(soon);

    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run as root");
        eprintln!("skipped: cgroups, mounts and namespaces need root");
        return;
    }
    let hierarchy = Hierarchy::detect();
    let group = mark;
    let cgroup = hierarchy.create(&group, "a", &Limits::default()).unwrap();
    let added = snapshot.added();
    assert!(
        !added.is_empty() && added.iter().all(|a| a.starts_with("cgroup: ") && a.contains(&group)),
        "{added:?}"
    );
    cgroup.remove(Duration::ZERO).unwrap();
    hierarchy.remove_group(&group);
    snapshot.assert_same_within(soon);

    let dir = &home;
    let mount = |program: &str, args: &[&str]| {
        assert!(
            Command::new(program)
                .args(args)
                .arg(dir.path())
                .status()
                .unwrap()
                .success(),
            "{program}"
        );
    };
    mount("mount", &["-t", "tmpfs", "guard"]);
    let added = snapshot.added();
    mount("umount", &[]);
    assert!(
        added.len() == 1 && added[0].starts_with("mount: ") && added[0].contains("tmpfs guard"),
        "{added:?}"
    );
    snapshot.assert_same_within(soon);

    // A namespace is seen beside the process in it, and when only a descriptor holds it.
    let mut child = Command::new("unshare")
        .args(["--net", "sleep", "1234.5"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let seen = || snapshot.added().iter().any(|thing| thing.starts_with("namespace"));
    while !seen() {
        std::thread::yield_now();
    }
    let held = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    assert!(seen(), "held by a descriptor");
    drop(held);
    snapshot.assert_same_within(soon);
}
