//! Attacks from inside a sandbox: what must fail fails, and the neighbours keep serving meanwhile.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use sandbox::LocalDriver;
use sandbox::driver::{Driver, Event, Limits};
use support::{TESTAPP, get, serve, spec, workload};

/// A neighbour that is asked all the time; every answer must be its own.
struct Neighbour {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
    asking: tokio::task::JoinHandle<()>,
}

impl Neighbour {
    async fn begin(driver: &Arc<LocalDriver>) -> Self {
        driver.start(serve("neighbour")).await.unwrap();
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let asking = tokio::spawn({
            let (driver, stop, answers) = (Arc::clone(driver), Arc::clone(&stop), Arc::clone(&answers));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(get(&*driver, "neighbour", "/").await.unwrap(), "neighbour");
                    answers.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        Self { stop, answers, asking }
    }

    /// It has answered throughout, and still does.
    async fn end(self) {
        let before = self.answers.load(Ordering::Relaxed);
        while self.answers.load(Ordering::Relaxed) < before + 5 {
            assert!(!self.asking.is_finished(), "the neighbour has stopped answering");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.asking.await.unwrap();
    }
}

/// A System V segment of the host that anybody may open.
struct SharedMemory {
    key: i32,
    id: i32,
}

impl SharedMemory {
    #[allow(unsafe_code)]
    fn new() -> Self {
        let key = 0x6b6e_0000 | i32::try_from(std::process::id() & 0xffff).unwrap();
        // SAFETY: no memory of ours.
        let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        Self { key, id }
    }
}

impl Drop for SharedMemory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: removes the segment, which nobody has mapped.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_reaches_anything() {
    if !support::is_root() {
        return;
    }
    use std::os::linux::net::SocketAddrExt;
    let name = format!("knarr-escape-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let memory = SharedMemory::new();
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let neighbour = Neighbour::begin(&driver).await;

    let mut attacker = workload(TESTAPP, &["escape"]);
    attacker
        .serving
        .env
        .insert("VICTIM".into(), std::process::id().to_string().into());
    attacker.serving.env.insert("ABSTRACT".into(), name.into());
    attacker
        .serving
        .env
        .insert("SHM_KEY".into(), memory.key.to_string().into());
    driver.start(spec("attacker", attacker)).await.unwrap();
    let told = get(&*driver, "attacker", "/").await.unwrap();
    println!("{told}");
    assert!(told.lines().count() > 50, "{told}");
    let reached: Vec<&str> = told.lines().filter(|line| !line.contains(": refused ")).collect();
    assert!(reached.is_empty(), "{reached:#?}");

    neighbour.end().await;
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_stay_inside() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let neighbour = Neighbour::begin(&driver).await;
    let limits = Limits {
        memory: Some(Bytes(64 << 20)),
        pids: Some(50),
        ..Limits::default()
    };
    let bomb = |kind: &str| {
        let mut bomb = spec(kind, workload(TESTAPP, &[kind]));
        bomb.limits = limits;
        bomb
    };

    driver.start(bomb("fork-bomb")).await.unwrap();
    let told = get(&*driver, "fork-bomb", "/").await.unwrap();
    let children: u32 = told.split(' ').next().unwrap().parse().unwrap();
    assert!(children < 50 && told.contains("temporarily unavailable"), "{told}");

    let mut events = driver.events();
    driver.start(bomb("memory-bomb")).await.unwrap();
    let exit = loop {
        match events.recv().await.unwrap() {
            Event::Exited { id, exit, .. } if id == SandboxId::new("memory-bomb") => break exit,
            _ => {}
        }
    };
    assert!(exit.oom_killed, "{exit:?}");

    driver.start(bomb("disk-bomb")).await.unwrap();
    // Either its file systems are full, or it dies for the memory they are made of; the host's disk stays as it is.
    if let Ok(told) = get(&*driver, "disk-bomb", "/").await {
        println!("{told}");
        let fitted = told
            .lines()
            .map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap());
        assert!(fitted.sum::<u64>() <= 64 << 20, "{told}");
        assert!(!told.contains("ESCAPED"), "{told}");
    }

    neighbour.end().await;
    driver.shutdown(Duration::ZERO).await;
}
