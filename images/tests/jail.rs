//! The unpack worker, stopped in the middle of a layer and looked at from outside: what a bug in it could reach.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WORKER: &str = env!("CARGO_BIN_EXE_knarr-images-worker");

/// The only child of a process, once it has been `ready` for a look.
fn child(parent: u32, ready: impl Fn(u32) -> bool) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a real process")]
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        if let [pid] = pids[..]
            && ready(pid)
        {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no jailed worker below {parent}");
}

fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_worker_has_its_directory_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI tests this as root");
        eprintln!("skipped: needs root to look into the worker");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let files = temp.path().join("fs");
    fs::create_dir(&files).unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let task = r#"{"Unpack": {"bytes": 1000000, "entries": 100, "depth": 20, "memory": 1000000000, "owners": true, "mark": null}}"#;
    // Two descriptors that a careless parent has left open: a file, and a directory to leave a root by.
    let script = "exec 7</etc/passwd 8</; exec \"$0\" \"$@\"";
    let mut worker = Command::new("sh")
        .args(["-c", script, WORKER, "__knarr-unpack"])
        .arg(&files)
        .arg(task)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let jailed = child(worker.id(), |pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.contains("jailed") && status(pid).get("Seccomp").is_some_and(|mode| mode == "2")
    });
    let found = status(jailed);
    let is = |name: &str, value: &str| assert_eq!(found[name], value, "{name}");
    is("NoNewPrivs", "1");
    // Two filters: one for a single call's error.
    is("Seccomp_filters", "2");
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| found[set].as_str());
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP, over a namespace of its own.
    let five = "000000008000001b";
    assert_eq!(capabilities, ["0000000000000000", five, five, "0000000000000000"]);
    is("CapBnd", five);
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
        assert_ne!(of(&jailed.to_string()), of("self"), "{kind}");
    }
    let limits = fs::read_to_string(format!("/proc/{jailed}/limits")).unwrap();
    for wanted in ["Max file size", "Max address space", "Max core file size"] {
        let line = limits.lines().find(|line| line.starts_with(wanted)).unwrap();
        assert!(!line.contains("unlimited"), "{line}");
    }
    let mut fds = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{jailed}/fd")).unwrap().flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        fds.insert(fd.file_name().into_string().unwrap(), target.display().to_string());
    }
    assert!(!fds.values().any(|target| target.contains("passwd")), "{fds:?}");
    // Its streams, its directory, and what its thread for decompressing is spoken to by.
    let directories = fds.values().filter(|target| Path::new(target).is_dir()).count();
    assert!(directories == 1 && fds.len() <= 6, "{fds:?}");
    let inode = |path: &str| fs::metadata(path).unwrap().ino();
    let root = format!("/proc/{jailed}/root");
    assert_eq!(inode(&root), inode(files.to_str().unwrap()));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

    // The layer ends before it began.
    drop(worker.stdin.take());
    let output = worker.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.is_empty(), "{said}");
    assert!(!fs::exists(format!("/proc/{jailed}")).unwrap());
}
