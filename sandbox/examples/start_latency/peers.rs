//! The others: a plain process of the same server, and container runtimes with the same namespaces.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A plain process: vfork, execute, own bind, busy connect.
pub(crate) fn plain(server: &Path) -> (Duration, Child) {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let begun = Instant::now();
        let mut child = Command::new(server)
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for tries in 1_u32.. {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (begun.elapsed(), child);
            }
            // Another connection may have got the port meanwhile: the server has ended, and it counts with another.
            if tries % 1024 == 0 && child.try_wait().unwrap().is_some() {
                break;
            }
        }
    }
}

/// A container runtime, driven by a thread of its own.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    asked: Sender<String>,
    answered: Receiver<Option<Duration>>,
}

impl Runtime {
    /// `None` when it is not installed or does not run the bundle here.
    pub(crate) fn start(name: &'static str, bundle: PathBuf, masked: bool) -> Option<Self> {
        let (asked, asking) = channel::<String>();
        let (answer, answered) = channel();
        thread::spawn(move || {
            if masked {
                mask();
            }
            for id in asking {
                let _ = answer.send(run(name, &bundle, &id));
            }
        });
        let runtime = Self { name, asked, answered };
        runtime.once("knarr-bench-trial").is_some().then_some(runtime)
    }

    /// `run -d` to the first accepted connection; the container is removed outside of the measured time.
    pub(crate) fn once(&self, id: &str) -> Option<Duration> {
        self.asked.send(id.to_owned()).unwrap();
        self.answered.recv().unwrap()
    }
}

/// Hybrid cgroups: crun refuses a host whose v2 tree, though it has no controllers, is mounted beside v1. What it looks
/// at is hidden from this thread and its children only.
fn mask() {
    // SAFETY: this thread gets a mount namespace of its own, which nothing else uses.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .unwrap();
    rustix::mount::mount_bind("/dev/null", MASKED).unwrap();
}

/// Present on hosts with both versions of cgroups.
pub(crate) const MASKED: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

fn run(name: &str, bundle: &Path, id: &str) -> Option<Duration> {
    let pid_file = bundle.with_extension(format!("{name}.pid"));
    let begun = Instant::now();
    let status = Command::new(name)
        .args(["run", "-d", "--pid-file"])
        .arg(&pid_file)
        .arg("--bundle")
        .arg(bundle)
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if id.ends_with("trial") {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .status();
    let took = status.is_ok_and(|status| status.success()).then(|| {
        let pid = fs::read_to_string(&pid_file).unwrap();
        let netns = File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network)).unwrap();
            while TcpStream::connect("127.0.0.1:8080").is_err() {}
            begun.elapsed()
        })
        .join()
        .unwrap()
    });
    let _ = Command::new(name)
        .args(["delete", "-f", id])
        .stderr(Stdio::null())
        .status();
    took
}
