//! Cgroups on fixtures of every kind of host, and on this one.

mod real;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use manifests::units::Millicores;

use super::*;

/// A made-up host in a temporary directory: cgroup "files" are plain ones.
struct Fixture {
    dir: tempfile::TempDir,
    mountinfo: String,
    own: String,
}

impl Fixture {
    fn new(own: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            mountinfo: String::new(),
            own: own.to_owned(),
        }
    }

    /// Mounts a tree; `dirs` are its cgroups besides the root, each with the controllers it has.
    fn mount(mut self, kind: &str, options: &str, point: &str, dirs: &[(&str, &str, &str)]) -> Self {
        self.mountinfo += &format!("31 23 0:28 / {point} rw,nosuid shared:9 - {kind} none {options}\n");
        for (path, controllers, handed) in dirs {
            let dir = self.dir.path().join(format!("{}{path}", &point[1..]));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cgroup.procs"), "").unwrap();
            if kind == "cgroup2" {
                fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
                fs::write(dir.join("cgroup.subtree_control"), handed).unwrap();
            }
        }
        self
    }

    fn hierarchy(&self) -> Hierarchy {
        Hierarchy::of(&detect::Host {
            root: self.dir.path().to_owned(),
            mountinfo: self.mountinfo.clone(),
            own: self.own.clone(),
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }
}

fn bases(hierarchy: &Hierarchy, fixture: &Fixture) -> Vec<(Vec<&'static str>, String)> {
    let base = |t: &Tree| format!("/{}", t.base.strip_prefix(fixture.dir.path()).unwrap().display());
    hierarchy
        .trees
        .iter()
        .map(|t| (t.controllers.iter().map(|c| c.name()).collect(), base(t)))
        .collect()
}

fn hybrid() -> Fixture {
    Fixture::new("8:pids:/\n4:memory:/jobs/7\n2:cpuacct:/\n1:cpu:/\n9:name=systemd:/\n0::/\n")
        .mount("cgroup", "rw,cpu", "/sys/fs/cgroup/cpu", &[("", "", "")])
        .mount("cgroup", "rw,cpuacct", "/sys/fs/cgroup/cpuacct", &[("", "", "")])
        .mount(
            "cgroup",
            "rw,memory",
            "/sys/fs/cgroup/memory",
            &[("", "", ""), ("/jobs/7", "", "")],
        )
        .mount("cgroup", "rw,pids", "/sys/fs/cgroup/pids", &[("", "", "")])
        .mount("cgroup", "rw,name=systemd", "/sys/fs/cgroup/systemd", &[("", "", "")])
        .mount("cgroup2", "rw", "/sys/fs/cgroup/unified", &[("", "", "")])
}

#[test]
fn a_hybrid_host_uses_v1_for_limits_and_v2_for_the_rest() {
    let fixture = hybrid();
    let hierarchy = fixture.hierarchy();
    let want = vec![
        (vec!["cpu"], "/sys/fs/cgroup/cpu".to_owned()),
        (vec!["memory"], "/sys/fs/cgroup/memory/jobs/7".to_owned()),
        (vec!["pids"], "/sys/fs/cgroup/pids".to_owned()),
        (vec![], "/sys/fs/cgroup/unified".to_owned()),
    ];
    assert_eq!(bases(&hierarchy, &fixture), want);
    assert_eq!(
        hierarchy.describe(),
        "cgroup v1 (cpu, memory, pids) and v2 (no controllers)"
    );
    assert!(hierarchy.missing().is_empty(), "{:?}", hierarchy.missing());
}

#[test]
fn a_pure_v1_host_keeps_cpuacct_for_the_cpu_time() {
    let fixture = Fixture::new("3:memory:/\n2:cpu,cpuacct:/user\n")
        .mount(
            "cgroup",
            "rw,cpu,cpuacct",
            "/sys/fs/cgroup/cpu,cpuacct",
            &[("", "", ""), ("/user", "", "")],
        )
        .mount("cgroup", "rw,memory", "/sys/fs/cgroup/memory", &[("", "", "")]);
    let hierarchy = fixture.hierarchy();
    assert_eq!(hierarchy.describe(), "cgroup v1 (cpu, cpuacct, memory)");
    assert_eq!(
        hierarchy.missing(),
        ["process limits are not enforced: no cgroup tree with the pids controller is mounted"]
    );
}

#[test]
fn v2_as_root_goes_to_the_nearest_cgroup_that_gives_all_three_limits() {
    let all = "cpuset cpu io memory pids";
    let fixture = Fixture::new("0::/system.slice/knarr.service\n").mount(
        "cgroup2",
        "rw",
        "/sys/fs/cgroup",
        &[
            ("", all, "cpu memory pids"),
            ("/system.slice", "memory pids", "memory pids"),
            ("/system.slice/knarr.service", "memory pids", "memory pids"),
        ],
    );
    let hierarchy = fixture.hierarchy();
    assert_eq!(
        bases(&hierarchy, &fixture),
        [(vec!["cpu", "memory", "pids"], "/sys/fs/cgroup".to_owned())]
    );
    assert_eq!(hierarchy.describe(), "cgroup v2 (cpu, memory, pids)");
    assert!(hierarchy.missing().is_empty());
}

#[test]
fn v2_hands_down_what_is_available_and_says_what_is_not() {
    let fixture = Fixture::new("0::/user.slice/me.scope\n").mount(
        "cgroup2",
        "rw",
        "/sys/fs/cgroup",
        &[
            ("", "memory pids", ""),
            ("/user.slice", "memory pids", ""),
            ("/user.slice/me.scope", "memory", ""),
        ],
    );
    let hierarchy = fixture.hierarchy();
    assert_eq!(
        bases(&hierarchy, &fixture),
        [(vec!["memory", "pids"], "/sys/fs/cgroup/user.slice".to_owned())]
    );
    let why = hierarchy.missing().join("\n");
    assert!(
        why.starts_with("CPU limits are not enforced: the cpu controller is not handed down to /"),
        "{why}"
    );
}

/// As systemd makes it: the service's cgroup belongs to the user, what is above does not; Knarr is in it, or in its leaf.
#[test]
fn a_delegated_cgroup_is_divided_and_nothing_above_it() {
    use std::os::unix::fs::PermissionsExt;
    let all = "cpu memory pids";
    for own in ["/user.slice/knarr.service", "/user.slice/knarr.service/knarr-main"] {
        let fixture = Fixture::new(&format!("0::{own}\n")).mount(
            "cgroup2",
            "rw",
            "/sys/fs/cgroup",
            &[
                ("", all, all),
                ("/user.slice", all, all),
                ("/user.slice/knarr.service", all, ""),
                ("/user.slice/knarr.service/knarr-main", "", ""),
            ],
        );
        for above in ["/sys/fs/cgroup", "/sys/fs/cgroup/user.slice"] {
            let read_only = fs::Permissions::from_mode(0o555);
            fs::set_permissions(fixture.path(above), read_only).unwrap();
        }
        let hierarchy = fixture.hierarchy();
        assert_eq!(
            bases(&hierarchy, &fixture),
            [(
                vec!["cpu", "memory", "pids"],
                "/sys/fs/cgroup/user.slice/knarr.service".to_owned()
            )],
            "{own}"
        );
        for above in ["/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"] {
            fs::set_permissions(fixture.path(above), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// On the real unified tree: it has no controllers on a hybrid host, but processes move all the same.
#[test]
fn own_processes_make_room_and_those_of_others_stay() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = detect::mounts(&mounts)
        .into_iter()
        .find(|mount| mount.version == Version::V2);
    let Some(point) = unified
        .map(|mount| mount.point)
        .filter(|_| rustix::process::geteuid().is_root())
    else {
        assert!(
            std::env::var_os("CI").is_none(),
            "root and a unified tree are needed in CI"
        );
        eprintln!("skipped: needs root and a unified tree");
        return;
    };
    let dir = point.join(format!("knarr-test-vacate-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let of = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap()
            .to_owned()
    };
    let join = |child: &Child| fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    // A process of this very program, which only waits.
    let mut own = Command::new(std::env::current_exe().unwrap());
    let own = own.args(["--ignored", "--exact", "cgroup::tests::waits"]);
    let mut own = own.stdout(std::process::Stdio::null()).spawn().unwrap();
    join(&own);
    v2::vacate(&dir).unwrap();
    let moved = of(own.id());
    let mut other = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    join(&other);
    wait_until("it is another program", || {
        fs::read_link(format!("/proc/{}/exe", other.id())).is_ok_and(|exe| exe != std::env::current_exe().unwrap())
    });
    let refused = v2::vacate(&dir);
    let stayed = of(other.id());
    for child in [&mut own, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    wait_until("it is removed", || tree::remove_tree(&dir).is_ok());
    assert!(moved.ends_with(&format!("/{}", v2::LEAF)), "{moved}");
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert!(!stayed.ends_with(v2::LEAF), "{stayed}");
}

/// Not a test: what the one above starts.
#[test]
#[ignore = "only waits to be killed"]
fn waits() {
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_container_sees_its_own_cgroup_as_the_root_of_the_mount() {
    let mounts = detect::mounts("31 23 0:28 /docker/abc /sys/fs/cgroup/my\\040cpu ro - cgroup cgroup rw,cpu\n");
    assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/my cpu"));
    assert_eq!(mounts[0].root, Path::new("/docker/abc"));
    assert_eq!(mounts[0].controllers, ["cpu"]);
}

#[test]
fn a_host_without_cgroups_works_and_says_so() {
    let fixture = Fixture::new("0::/\n");
    let hierarchy = fixture.hierarchy();
    assert_eq!(hierarchy.describe(), "no cgroups");
    assert_eq!(hierarchy.missing().len(), 3);
    let cgroup = hierarchy.create("g", "a", &Limits::default()).unwrap();
    assert!(cgroup.open_join().unwrap().is_empty());
    assert_eq!(cgroup.usage().unwrap(), Usage::default());
    assert!(cgroup.kill().unwrap());
    cgroup.remove(Duration::ZERO).unwrap();
}

#[test]
fn v2_files_hold_what_kubernetes_would_write() {
    let fixture = Fixture::new("0::/\n").mount("cgroup2", "rw", "/c", &[("", "cpu memory pids", "cpu memory pids")]);
    let hierarchy = fixture.hierarchy();
    let dir = fixture.path("/c/g/a");
    // The kernel would make the files; the fixture makes them before the limits are set.
    hierarchy.trees[0].prepare_group("g").unwrap_err();
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("cpu.weight", "100"),
        ("cpu.max", "max 100000"),
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("memory.oom.group", "0"),
        ("memory.current", "4096"),
        ("memory.events", "low 0\noom 1\noom_kill 2\n"),
        ("pids.max", "max"),
        ("pids.current", "3"),
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
    ] {
        fs::write(dir.join(file), text).unwrap();
    }
    let cgroup = hierarchy.open("g", "a");
    let limits = Limits {
        cpu: Some(Millicores(250)),
        memory: Some(Bytes(64 << 20)),
        pids: Some(512),
    };
    cgroup.set_limits(&limits).unwrap();
    let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(file("cpu.max"), "25000 100000");
    assert_eq!(file("cpu.weight"), "35");
    assert_eq!(file("memory.max"), "67108864");
    assert_eq!(file("memory.swap.max"), "0");
    assert_eq!(file("memory.oom.group"), "1");
    assert_eq!(file("pids.max"), "512");
    let usage = cgroup.usage().unwrap();
    assert_eq!(usage.cpu, Duration::from_micros(1500));
    assert_eq!((usage.memory, usage.pids, usage.oom_kills), (Bytes(4096), Some(3), 2));
    assert_eq!(usage.limits, limits);

    cgroup.set_limits(&Limits::default()).unwrap();
    assert_eq!(
        (file("cpu.max"), file("memory.max"), file("pids.max")),
        ("max 100000".into(), "max".into(), "max".into())
    );
    assert_eq!(cgroup.usage().unwrap().limits, Limits::default());

    // Of a change only what differs is written; the 7 is another's.
    fs::write(dir.join("pids.max"), "7").unwrap();
    let less = Limits {
        memory: Some(Bytes(64 << 20)),
        ..Limits::default()
    };
    for (old, new, memory) in [(Limits::default(), less, "67108864"), (less, Limits::default(), "max")] {
        cgroup.change_limits(&old, &new).unwrap();
        assert_eq!((file("memory.max"), file("pids.max")), (memory.into(), "7".into()));
    }

    // A limit below what is in use would kill: refused, and nothing has changed.
    fs::write(dir.join("memory.reclaim"), "").unwrap();
    let low = Limits {
        memory: Some(Bytes(1024)),
        cpu: Some(Millicores(10)),
        ..Limits::default()
    };
    assert_eq!(cgroup.set_limits(&low).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(
        (file("memory.reclaim"), file("memory.max"), file("cpu.max")),
        ("3072".into(), "max".into(), "max 100000".into())
    );
}

#[test]
fn units_are_kubernetes_and_the_kernels() {
    for (cpu, quota) in [
        (1, 1_000),
        (10, 1_000),
        (11, 1_100),
        (250, 25_000),
        (1_000, 100_000),
        (64_000, 6_400_000),
    ] {
        assert_eq!(files::quota_us(Millicores(cpu)), quota, "{cpu}m");
    }
    for (cpu, shares) in [
        (Some(0), 2),
        (Some(1), 2),
        (Some(100), 102),
        (Some(1000), 1024),
        (None, 1024),
    ] {
        assert_eq!(files::shares(cpu.map(Millicores)), shares, "{cpu:?}");
    }
    for (shares, weight) in [(2, 1), (102, 17), (256, 35), (1024, 100), (262_144, 10_000)] {
        assert_eq!(files::weight(shares), weight, "{shares}");
    }
    assert_eq!(files::millicores(25_000, 100_000), Some(Millicores(250)));
    assert_eq!(files::millicores(25_000, 0), None);
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}: not within 10 s");
}
