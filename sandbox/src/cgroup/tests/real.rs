//! The kernel's own cgroups: limits, usage, kills and freezers.

use super::*;

/// A group of its own per test, removed even when the test fails.
struct RealGroup {
    hierarchy: Hierarchy,
    name: String,
}

impl RealGroup {
    /// `None` where this user may not make cgroups; in CI every host must be able to.
    fn new(test: &str) -> Option<Self> {
        let hierarchy = Hierarchy::detect();
        if hierarchy.missing().is_empty() {
            return Some(Self {
                hierarchy,
                name: format!("knarr-test-{test}-{}", std::process::id()),
            });
        }
        let why = hierarchy.missing().join("; ");
        assert!(std::env::var_os("CI").is_none(), "cgroups are needed in CI: {why}");
        eprintln!("skipped: {why}");
        None
    }

    fn create(&self, name: &str, limits: &Limits) -> Cgroup {
        self.hierarchy.create(&self.name, name, limits).unwrap()
    }
}

impl Drop for RealGroup {
    fn drop(&mut self) {
        self.hierarchy.reap(&self.name, Duration::from_secs(2)).unwrap();
        for tree in &self.hierarchy.trees {
            assert!(!tree.base.join(&self.name).exists(), "{} is left", tree.base.display());
        }
    }
}

/// Runs `sh -c script` in `cgroup`, joined as the spawner's children join: by the descriptors.
fn run_in(cgroup: &Cgroup, script: &str) -> Child {
    use std::os::unix::process::CommandExt;
    let join = cgroup.open_join().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    #[expect(unsafe_code, reason = "joins between fork and exec")]
    // SAFETY: only `write` on descriptors that outlive the spawn; async-signal-safe, no allocation.
    unsafe {
        command.pre_exec(move || {
            join.iter()
                .try_for_each(|fd| rustix::io::write(fd.as_fd(), b"0").map(drop))
                .map_err(io::Error::from)
        })
    };
    command.spawn().unwrap()
}

#[test]
fn limits_are_set_read_back_and_changed_in_place() {
    let Some(group) = RealGroup::new("limits") else { return };
    let limits = Limits {
        cpu: Some(Millicores(200)),
        memory: Some(Bytes(32 << 20)),
        pids: Some(20),
    };
    let cgroup = group.create("a", &limits);
    assert_eq!(cgroup.usage().unwrap().limits, limits);
    assert_eq!(
        group.hierarchy.create(&group.name, "a", &limits).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        cgroup.usage().unwrap().limits,
        limits,
        "the failed create has not touched the other one"
    );
    let more = Limits {
        cpu: Some(Millicores(1500)),
        memory: Some(Bytes(64 << 20)),
        pids: None,
    };
    for limits in [more, limits, Limits::default(), limits] {
        cgroup.set_limits(&limits).unwrap();
        assert_eq!(cgroup.usage().unwrap().limits, limits);
    }
    let mut old = limits;
    for new in [Limits::default(), more, limits] {
        cgroup.change_limits(&old, &new).unwrap();
        assert_eq!(cgroup.usage().unwrap().limits, new);
        old = new;
    }
    cgroup.remove(Duration::ZERO).unwrap();
    cgroup.remove(Duration::ZERO).unwrap();
    assert_eq!(cgroup.usage().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(cgroup.kill().unwrap(), "one that is gone is empty");
}

#[test]
fn the_memory_of_a_group_is_that_of_now_also_when_the_group_is_made_again() {
    let Some(group) = RealGroup::new("memory") else { return };
    let memory = group.hierarchy.group_memory(&group.name).unwrap();
    for _ in 0..2 {
        assert_eq!(memory.used(), Some(Bytes(0)), "there is no such group");
        let cgroup = group.create("a", &Limits::default());
        let mut child = run_in(&cgroup, "x=$(head -c 8000000 /dev/zero | tr '\\0' x); sleep 60");
        wait_until("it holds memory", || memory.used() > Some(Bytes(8_000_000)));
        cgroup.kill_all(Duration::from_secs(5)).unwrap();
        child.wait().unwrap();
        cgroup.remove(Duration::from_secs(5)).unwrap();
        group.hierarchy.remove_group(&group.name);
    }
}

#[test]
fn usage_counts_and_the_process_limit_holds() {
    let Some(group) = RealGroup::new("usage") else { return };
    let cgroup = group.create(
        "a",
        &Limits {
            pids: Some(3),
            ..Limits::default()
        },
    );
    // Busy for a while; then tries to have four sleeping children, of which the limit lets two live.
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60 & sleep 60 & sleep 60 & wait";
    let mut child = run_in(&cgroup, script);
    wait_until("three processes", || cgroup.usage().unwrap().pids == Some(3));
    let usage = cgroup.usage().unwrap();
    assert!(usage.cpu > Duration::ZERO && usage.memory > Bytes(0), "{usage:?}");
    assert_eq!(usage.oom_kills, 0);
    assert_eq!(
        cgroup.remove(Duration::ZERO).unwrap_err().kind(),
        io::ErrorKind::ResourceBusy
    );
    cgroup.kill_all(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
    cgroup.remove(Duration::from_secs(2)).unwrap();
}

#[test]
fn a_process_over_its_memory_is_killed_and_counted() {
    let Some(group) = RealGroup::new("oom") else { return };
    let cgroup = group.create(
        "a",
        &Limits {
            memory: Some(Bytes(16 << 20)),
            ..Limits::default()
        },
    );
    let mut child = run_in(&cgroup, "x=x; while :; do x=$x$x; done");
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(cgroup.usage().unwrap().oom_kills > 0);
    cgroup.remove(Duration::from_secs(2)).unwrap();
}

#[test]
fn memory_in_use_refuses_a_lower_limit_and_survives() {
    let Some(group) = RealGroup::new("lower") else { return };
    let old = Limits {
        memory: Some(Bytes(256 << 20)),
        ..Limits::default()
    };
    let cgroup = group.create("a", &old);
    let mut child = run_in(&cgroup, "x=x; while [ ${#x} -lt 30000000 ]; do x=$x$x; done; sleep 60");
    wait_until("30 MB in use", || cgroup.usage().unwrap().memory > Bytes(30_000_000));
    let low = Limits {
        memory: Some(Bytes(4 << 20)),
        cpu: Some(Millicores(100)),
        ..Limits::default()
    };
    assert_eq!(cgroup.set_limits(&low).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(cgroup.usage().unwrap().limits, old, "nothing has changed");
    assert!(child.try_wait().unwrap().is_none(), "it lives on");
    cgroup.kill_all(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
    cgroup.remove(Duration::from_secs(2)).unwrap();
}

#[test]
fn kill_ends_a_fork_bomb_with_and_without_cgroup_kill() {
    let Some(group) = RealGroup::new("bomb") else { return };
    for by_number in [false, true] {
        let mut cgroup = group.create(
            "a",
            &Limits {
                pids: Some(50),
                ..Limits::default()
            },
        );
        let all = cgroup.clone();
        if by_number {
            cgroup
                .parts
                .retain(|part| part.controllers.contains(&Controller::Pids) && part.version == Version::V1);
            if cgroup.parts.is_empty() {
                all.remove(Duration::ZERO).unwrap();
                continue;
            }
        }
        let mut child = run_in(&all, "f() { f 2>/dev/null & f 2>/dev/null & }; f; sleep 60");
        wait_until("some processes", || all.usage().unwrap().pids.is_some_and(|n| n > 5));
        cgroup.kill_all(Duration::from_secs(10)).unwrap();
        child.wait().unwrap();
        all.remove(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn reap_kills_and_removes_what_a_crash_has_left() {
    let Some(group) = RealGroup::new("reap") else { return };
    let cgroups = ["b", "a"].map(|name| group.create(name, &Limits::default()));
    let mut child = run_in(&cgroups[0], "sleep 60");
    assert_eq!(
        group.hierarchy.reap(&group.name, Duration::from_secs(5)).unwrap(),
        ["a", "b"]
    );
    assert!(!child.wait().unwrap().success());
    assert!(group.hierarchy.reap(&group.name, Duration::ZERO).unwrap().is_empty());
}

#[test]
fn the_v1_freezer_is_kept_where_v2_has_none_and_spared_beside_it() {
    let v1 = Fixture::new("3:memory:/\n5:freezer:/\n")
        .mount("cgroup", "rw,memory", "/sys/fs/cgroup/memory", &[("", "", "")])
        .mount("cgroup", "rw,freezer", "/sys/fs/cgroup/freezer", &[("", "", "")]);
    assert_eq!(v1.hierarchy().describe(), "cgroup v1 (memory, freezer)");
    let both = hybrid().mount("cgroup", "rw,freezer", "/sys/fs/cgroup/freezer", &[("", "", "")]);
    let mut hierarchy = both.hierarchy();
    assert_eq!(
        hierarchy.describe(),
        "cgroup v1 (cpu, memory, pids) and v2 (no controllers)"
    );
    assert!(hierarchy.prefer_v1_freezer() && hierarchy.prefer_v1_freezer());
    assert!(hierarchy.describe().contains("freezer"));
    assert!(!hybrid().hierarchy().prefer_v1_freezer());
}

/// The wall around all sandboxes: the kernel kills inside the group, in the one that took the memory.
#[test]
fn a_group_limit_kills_inside_and_the_victim_says_so() {
    let hierarchy = Hierarchy::detect();
    let group = format!("knarr-test-wall-{}", std::process::id());
    if !rustix::process::geteuid().is_root() || !matches!(hierarchy.limit_group(&group, Bytes(48 << 20)), Ok(true)) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI counts memory");
        eprintln!("skipped: no cgroup limits memory here");
        return;
    }
    let (small, big) = (
        hierarchy.create(&group, "small", &Limits::default()).unwrap(),
        hierarchy.create(&group, "big", &Limits::default()).unwrap(),
    );
    let mut quiet = in_cgroup(&small, "sleep 60");
    // Bash holds a string of 200 MB, doubled until it is killed.
    let mut hungry = in_cgroup(&big, "s=x; while :; do s=$s$s; done");
    let killed = hungry.wait().unwrap();
    assert!(!killed.success());
    assert!(quiet.try_wait().unwrap().is_none(), "the neighbour lives");
    assert!(big.usage().unwrap().oom_kills > 0 && small.usage().unwrap().oom_kills == 0);
    assert!(big.peak_memory().unwrap() > Bytes(16 << 20), "{:?}", big.peak_memory());
    assert!(hierarchy.group_memory(&group).unwrap().used().unwrap() < Bytes(48 << 20));
    quiet.kill().unwrap();
    quiet.wait().unwrap();
    for cgroup in [small, big] {
        cgroup.kill_all(Duration::from_secs(5)).unwrap();
        cgroup.remove(Duration::from_secs(5)).unwrap();
    }
    hierarchy.remove_group(&group);
}

/// A shell that joins the cgroup before it runs the script.
fn in_cgroup(cgroup: &Cgroup, script: &str) -> Child {
    let joins: String = cgroup
        .parts
        .iter()
        .map(|part| format!("echo $$ > {}/cgroup.procs; ", part.base.display()))
        .collect();
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{joins} {script}")]);
    command.spawn().unwrap()
}
