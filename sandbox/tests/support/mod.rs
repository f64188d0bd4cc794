//! What the tests of the local driver have in common: a driver on a directory of its own, and the host before and after.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

pub mod contract;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::revision::{Image, ProbeCheck, Protocol, ReadinessProbe, Workload};
use manifests::units::{Clock, Timestamp};
use sandbox::driver::{Driver, Limits, SandboxSpec};
use sandbox::{LocalConfig, LocalDriver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const TESTAPP: &str = env!("CARGO_BIN_EXE_knarr-sandbox-testapp");

/// False, with the reason printed, where the tests cannot run; with `CI=true` that is a failure.
pub fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "these tests must run as root in CI"
    );
    eprintln!("skipped: needs root");
    false
}

pub fn clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap())
    })
}

pub fn config(data_dir: &Path) -> LocalConfig {
    LocalConfig::new(data_dir, clock()).with_spawner(TESTAPP)
}

pub fn driver(data_dir: &Path) -> Arc<LocalDriver> {
    LocalDriver::new(config(data_dir)).unwrap()
}

pub fn workload(program: &str, args: &[&str]) -> Workload {
    Workload {
        container: "user-container".into(),
        image: Image::Host(program.into()),
        command: Vec::new(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: std::collections::BTreeMap::new(),
        working_dir: None,
        port: 8080,
        protocol: Protocol::Http1,
        cpu_limit: None,
        memory_limit: None,
        readiness: ReadinessProbe {
            check: ProbeCheck::Tcp { port: 8080 },
            success_threshold: 1,
            failure_threshold: 3,
            initial_delay: Duration::ZERO,
            period: None,
            timeout: Duration::from_secs(1),
        },
        stop_grace: Duration::from_secs(10),
    }
}

pub fn spec(id: &str, workload: Workload) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(id),
        revision: RevisionId::new("default", "hello-00001"),
        configuration: ObjectId::new("default", "hello-config"),
        service: Some(ObjectId::new("default", "hello")),
        workload: Arc::new(workload),
        limits: Limits::default(),
        deadline: Duration::from_secs(20),
    }
}

pub fn serve(id: &str) -> SandboxSpec {
    spec(id, workload(TESTAPP, &["serve"]))
}

/// One request over a new connection; the body.
pub async fn get(driver: &dyn Driver, id: &str, path: &str) -> std::io::Result<String> {
    let mut stream = driver.dial(&SandboxId::new(id)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("Content-Length: "))
                .unwrap()
                .parse::<usize>()
                .unwrap();
            if body.len() >= length {
                return Ok(body.to_owned());
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What a leak would show in: counted for the whole host, so tests that compare it must not run beside others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    pub processes: BTreeSet<String>,
    pub mounts: String,
    pub cgroups: BTreeSet<PathBuf>,
    pub netns: usize,
    pub fds: usize,
    pub temporary: BTreeSet<PathBuf>,
}

impl Host {
    pub fn now() -> Self {
        Self {
            processes: processes(),
            mounts: fs::read_to_string("/proc/self/mounts").unwrap(),
            cgroups: cgroups(),
            netns: namespaces("net"),
            fds: fs::read_dir("/proc/self/fd").unwrap().count(),
            temporary: fs::read_dir(std::env::temp_dir())
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .collect(),
        }
    }

    /// Waits until the host is as before: the kernel frees some things a little later.
    pub fn assert_again(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let now = Self::now();
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < end,
                "{what}: the host is not as before\nbefore: {self:#?}\nnow: {now:#?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes of this test binary's making: our descendants, and anything that runs our binaries.
fn processes() -> BTreeSet<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| {
            let pid: u32 = e.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(e.path().join("comm")).ok()?;
            let line = fs::read_to_string(e.path().join("cmdline"))
                .unwrap_or_default()
                .replace('\0', " ");
            let ours =
                name.starts_with("knarr-") || line.contains("knarr-sandbox-testapp") || line.contains("sleep 97531");
            (ours && pid != std::process::id()).then(|| format!("{pid} {name}{line}"))
        })
        .collect()
}

pub fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with("knarr-") {
                    found.insert(entry.path());
                }
                todo.push(entry.path());
            }
        }
    }
    found
}

/// How many namespaces of a kind processes are in.
pub fn namespaces(kind: &str) -> usize {
    let links: BTreeSet<PathBuf> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| fs::read_link(e.path().join("ns").join(kind)).ok())
        .collect();
    links.len()
}

/// The spawner processes whose parent is `parent`.
pub fn spawners(parent: u32) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| {
            let pid: i32 = e.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(e.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(") ")?;
            let ppid: u32 = rest.split(' ').nth(1)?.parse().ok()?;
            (name.ends_with("(knarr-spawner") && ppid == parent).then_some(pid)
        })
        .collect()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
