//! A shell as Knarr sees it: made by the spawner, waiting for an app or running one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::pool::Pooled;
use crate::cgroup::Cgroup;
use crate::driver::ExitStatus;
use crate::egress::Doors;
use crate::spawner::protocol::{ShellId, Step};

/// Doors that are being opened.
pub(super) type Opening = oneshot::Receiver<io::Result<Doors>>;

/// More of an app's last words is not read.
const MESSAGE: usize = 4096;

/// One shell, from the request to make it until nothing of it is left.
pub(super) struct Shell {
    pub id: ShellId,
    pub cgroup: Cgroup,
    pub stage: watch::Sender<Stage>,
    held: OnceLock<Held>,
    output: Mutex<Option<[OwnedFd; 2]>>,
    /// Its mounted root, until somebody has looked.
    root: Mutex<Option<OwnedFd>>,
    doors: Mutex<Option<Opening>>,
    /// Outlives the root: the file for its app's last words.
    message: Mutex<Option<File>>,
    status: OnceLock<ExitStatus>,
    buried: watch::Sender<bool>,
}

/// What is held of the process.
pub(super) struct Held {
    /// In the host's PID namespace.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// `None` without isolation.
    pub netns: Option<OwnedFd>,
}

/// How far it has come.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Asked for.
    Asked,
    /// It has a process.
    Prepared,
    /// Its root is mounted.
    Rooted,
    /// The program runs.
    Executed,
    /// It could not run the program; its process is about to end.
    Failed(Failure),
    /// It has no process any more; why it failed, when it never ran the program.
    Ended(Option<Failure>),
}

/// A step that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Which; `None` when the spawner itself died.
    pub step: Option<Step>,
    /// In more words.
    pub detail: String,
    /// What the kernel said.
    pub errno: i32,
}

impl Failure {
    /// The spawner is gone.
    pub(super) fn spawner_died() -> Self {
        Self {
            step: None,
            detail: "the spawner died".to_owned(),
            errno: libc::EPIPE,
        }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }

    /// What was tried, in words.
    pub(super) fn context(&self) -> String {
        match (self.step, self.detail.is_empty()) {
            (Some(step), true) => step.name().to_owned(),
            (Some(step @ (Step::Execute | Step::WorkingDir)), false) => format!("{} {}", step.name(), self.detail),
            (_, false) | (None, true) => self.detail.clone(),
        }
    }
}

impl Pooled for Arc<Shell> {
    fn id(&self) -> ShellId {
        self.id
    }

    fn is_dead(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Failed(_) | Stage::Ended(_))
    }
}

impl Shell {
    pub(super) fn new(id: ShellId, cgroup: Cgroup) -> Self {
        Self {
            id,
            cgroup,
            stage: watch::Sender::new(Stage::Asked),
            held: OnceLock::new(),
            output: Mutex::new(None),
            root: Mutex::new(None),
            doors: Mutex::new(None),
            message: Mutex::new(None),
            status: OnceLock::new(),
            buried: watch::Sender::new(false),
        }
    }

    /// The spawner has made it. `open` is asked to open the doors of its network, if it has one.
    pub(super) fn prepared(
        &self,
        pid: i32,
        fds: Vec<OwnedFd>,
        open: impl FnOnce(&OwnedFd) -> Opening,
    ) -> io::Result<()> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(io::ErrorKind::InvalidData);
        let (pidfd, out, err) = (next()?, next()?, next()?);
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some([out, err]);
        let netns = fds.next();
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = netns.as_ref().map(open);
        let _ = self.held.set(Held { pid, pidfd, netns });
        self.stage.send_replace(Stage::Prepared);
        Ok(())
    }

    /// Its root is mounted; nothing of it has run.
    pub(super) fn rooted(&self, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let (root, message) = (fds.next(), fds.next());
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = message.map(File::from);
        if matches!(*self.stage.borrow(), Stage::Prepared) {
            *self.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
            self.stage.send_replace(Stage::Rooted);
        }
    }

    /// The root, to look files up in; once. Whoever has it keeps the mounts alive.
    pub(super) fn take_root(&self) -> Option<OwnedFd> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the app has left as its last words; at most 4096 bytes of them (Kubernetes: terminationMessagePath).
    pub(super) fn message(&self) -> String {
        let file = self.message.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut bytes = vec![0; MESSAGE];
        let read = file.map_or(0, |file: File| file.read_at(&mut bytes, 0).unwrap_or(0));
        bytes.truncate(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.stage.send_replace(Stage::Failed(failure));
    }

    /// Its spawner is gone; matters only to a start that is not over.
    pub(super) fn failed_by_spawner(&self) {
        self.stage.send_if_modified(|stage| {
            let starting = matches!(stage, Stage::Asked | Stage::Prepared | Stage::Rooted);
            if starting {
                *stage = Stage::Failed(Failure::spawner_died());
            }
            starting
        });
    }

    pub(super) fn ended(&self, status: ExitStatus) {
        let _ = self.status.set(status);
        self.stage.send_modify(|stage| {
            let failure = match stage {
                Stage::Failed(failure) => Some(failure.clone()),
                _ => None,
            };
            *stage = Stage::Ended(failure);
        });
    }

    /// How its first process ended; only after that.
    pub(super) fn status(&self) -> ExitStatus {
        let killed = ExitStatus::Signal(libc::SIGKILL);
        self.status.get().copied().unwrap_or(killed)
    }

    /// Nothing of it is left.
    pub(super) fn set_buried(&self) {
        self.buried.send_replace(true);
    }

    /// Waits until nothing of it is left.
    pub(super) async fn buried(&self) {
        let mut buried = self.buried.subscribe();
        // The sender is `self`, so it is there.
        let _ = buried.wait_for(|buried| *buried).await;
    }

    /// `None` until it has a process.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.get()
    }

    /// The read ends of its output, once.
    pub(super) fn take_output(&self) -> Option<[OwnedFd; 2]> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The doors of its network, once; `None` without one, and before it has a process.
    pub(super) fn take_doors(&self) -> Option<Opening> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends a signal to its first process, if it has one.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(held) = self.held() {
            // Gone already is as good.
            let _ = pidfd_send_signal(&held.pidfd, signal);
        }
    }

    /// Kills it, frozen or not.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        self.cgroup.thaw_for_kill();
    }

    /// Waits until it has come to `wanted`, or further than it could.
    pub(super) async fn until(&self, wanted: impl Fn(&Stage) -> bool) -> Stage {
        let mut stage = self.stage.subscribe();
        // The sender is `self`, so it is there.
        match stage.wait_for(|stage| wanted(stage)).await {
            Ok(stage) => stage.clone(),
            Err(_) => Stage::Failed(Failure::spawner_died()),
        }
    }
}
