//! What the tests of the local driver have in common: a driver on a directory of its own, and the host before and after.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

pub mod contract;
pub mod image;
pub mod shut_in;
pub mod stepped;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::{Clock, Timestamp};
use manifests::workload::Workload;
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
    let mut workload = Workload::host(program);
    workload.serving.args = args.iter().map(|a| (*a).into()).collect();
    workload.stop_grace = Duration::from_secs(10);
    workload
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

/// The spawner processes whose parent is `parent`.
pub fn spawners(parent: u32) -> Vec<i32> {
    children("knarr-spawner", i32::try_from(parent).unwrap())
}

/// The living children of `parent` of this name.
pub fn children(name: &str, parent: i32) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| {
            let pid: i32 = e.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(e.path().join("stat")).ok()?;
            let (own_name, rest) = stat.rsplit_once(") ")?;
            let mut rest = rest.split(' ');
            let (state, ppid) = (rest.next()?, rest.next()?.parse::<i32>().ok()?);
            let found = own_name.split_once(" (")?.1 == name && ppid == parent && state != "Z";
            found.then_some(pid)
        })
        .collect()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Reads a request to the end of its head: a server that closes with something unread resets the connection.
pub fn read_head(stream: &mut impl std::io::Read) {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&part[..count]),
        }
    }
}
