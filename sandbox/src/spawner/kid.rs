//! One child of the spawner: its birth, what is held for it, and its end.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use libc::{c_int, c_void, sock_filter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};

use super::child::{Birth, Ids, Report, enter};
use super::compile::{Compiled, Root, Workshop, c_path};
use super::identities::{Identities, Identity, first_range, shared, single, while_open};
use super::protocol::{Abilities, FilterPlan, Isolation, RootPlan, Users};
use crate::driver::ExitStatus;
use crate::rootfs::ORDINARY_UID;
use crate::seccomp::{Arch, Filter, Profile};
use crate::wire;

/// What all children have in common.
pub(super) struct Nursery {
    pub abilities: Abilities,
    pub workshop: Workshop,
    /// Default filters, by the capabilities that they depend on.
    filters: HashMap<u64, Arc<[sock_filter]>>,
    arch: Arch,
    mountpoint: std::ffi::CString,
    identities: Rc<RefCell<Identities>>,
    /// Where images share the host's users.
    shared: Option<OwnedFd>,
    null: OwnedFd,
    spawner: OwnedFd,
    stacks: Vec<Stack>,
}

/// A child, from its clone until it was waited for.
pub(super) struct Kid {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Readable when it failed, closed when it has executed; `None` after either.
    pub report: Option<OwnedFd>,
    /// The read ends of stdout and stderr. Held until it is gone: an app must not get SIGPIPE because Knarr has died.
    pub output: [OwnedFd; 2],
    pub netns: Option<OwnedFd>,
    /// Its users; given back when it is gone.
    pub identity: Option<Rc<Identity>>,
    /// The user namespace it enters.
    users: Option<RawFd>,
    ids: Ids,
    /// Keeps a namespace that is this one's alone.
    _own: Option<OwnedFd>,
    go: OwnedFd,
    isolation: Isolation,
    /// What it reads while it runs in our memory.
    shared: Option<Shared>,
}

struct Shared {
    birth: Box<Birth>,
    plan: Option<Box<Compiled>>,
    stack: Stack,
}

/// What became of a child's start.
pub(super) enum Outcome {
    /// Nothing to say yet.
    Pending,
    /// Its root is mounted. The root, and its file for last words if it has one.
    Rooted(Vec<OwnedFd>),
    /// It has executed, or was killed before it could.
    Left,
    /// A step failed.
    Failed(Report),
}

impl Nursery {
    pub(super) fn new(
        abilities: Abilities,
        workshop: Workshop,
        arch: Arch,
        identities: Rc<RefCell<Identities>>,
    ) -> io::Result<Self> {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            mountpoint: c_path(&workshop.mountpoint)?,
            abilities,
            workshop,
            filters: HashMap::new(),
            arch,
            identities,
            shared: None,
            null,
            spawner: own,
            stacks: Vec::new(),
        })
    }

    /// The filter of a plan for an app with these capabilities; `None` without one.
    pub(super) fn filter(&mut self, plan: &FilterPlan, capabilities: u64) -> Option<Arc<[sock_filter]>> {
        match plan {
            _ if self.abilities.isolation == Isolation::None => None,
            FilterPlan::Default => {
                let relevant = Profile::relevant(capabilities);
                let compile = || {
                    Filter::compile(self.arch, &Profile::standard(relevant))
                        .instructions()
                        .into()
                };
                Some(Arc::clone(self.filters.entry(relevant).or_insert_with(compile)))
            }
            FilterPlan::Unconfined => None,
            FilterPlan::Program(words) => Some(Filter::from_words(words).instructions().into()),
        }
    }

    /// Clones a child that becomes a shell and waits for its plan.
    /// `beside` another, in that one's network, IPC and host name, and with its users.
    pub(super) fn bear(
        &mut self,
        join: &[OwnedFd],
        users: Users,
        root: Option<RootPlan>,
        beside: Option<&Kid>,
    ) -> io::Result<Kid> {
        let root = root.map(|root| self.workshop.root(root)).transpose()?;
        let isolation = self.abilities.isolation;
        let mut identity = None;
        let mut own = None;
        let (users, ids) = match users {
            Users::Spawners => match isolation {
                Isolation::UserNamespace => (None, Ids::Only(ORDINARY_UID)),
                _ => (None, Ids::Same),
            },
            Users::Own => {
                let ordinary = isolation == Isolation::UserNamespace;
                let taken = match beside.map(|first| first.identity.clone()) {
                    Some(Some(shared)) => Ok(shared),
                    // The first shares with others, and its containers share volumes: they are the same users.
                    Some(None) if ordinary => Err(Errno::USERS.into()),
                    _ => Identities::take(&self.identities).map(Rc::new),
                };
                match taken {
                    Ok(taken) => {
                        let taken = identity.insert(taken);
                        (Some(taken.userns.as_raw_fd()), Ids::From(taken.base))
                    }
                    // Few ordinary users have a range for each sandbox.
                    Err(error) if error.raw_os_error() == Some(libc::EUSERS) && ordinary => {
                        let (made, ids) = first_range(&self.identities.borrow())?;
                        (Some(own.insert(made).as_raw_fd()), ids)
                    }
                    Err(error) => return Err(error),
                }
            }
            Users::Range => {
                let (made, ids) = first_range(&self.identities.borrow())?;
                (Some(own.insert(made).as_raw_fd()), ids)
            }
            Users::Shared => {
                let shared = match self.shared.take() {
                    Some(shared) => shared,
                    None => shared(&self.identities.borrow())?,
                };
                (Some(self.shared.insert(shared).as_raw_fd()), Ids::Same)
            }
            Users::Single { uid, gid } => {
                let made = own.insert(single(&self.identities.borrow(), (uid, gid))?);
                (Some(made.as_raw_fd()), Ids::Only(ORDINARY_UID))
            }
        };
        let shared = match beside {
            Some(first) => first.shared_namespaces()?,
            None => Vec::new(),
        };
        let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (report_read, report_write) = wire::pair()?;
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err_read, err_write) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&report_read, &out_read, &err_read] {
            rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
        }
        let stack = match self.stacks.pop() {
            Some(stack) => stack,
            None => Stack::new()?,
        };
        let output = [out_write.as_raw_fd(), err_write.as_raw_fd()];
        let (go, report) = (go_read.as_raw_fd(), report_write.as_raw_fd());
        let (null, spawner) = (self.null.as_raw_fd(), self.spawner.as_raw_fd());
        // Without users of its own, one more of the same.
        let last = users.unwrap_or(null);
        let mut keep = [go, report, output[0], output[1], null, spawner, last];
        keep.sort_unstable();
        let birth = Box::new(Birth {
            isolation,
            join: join.iter().map(AsRawFd::as_raw_fd).collect(),
            mountpoint: self.mountpoint.clone(),
            root,
            go,
            report,
            output,
            null,
            spawner,
            users,
            ids,
            beside: shared.iter().map(AsRawFd::as_raw_fd).collect(),
            maps_images: identity.is_some() && self.abilities.mapped_images.is_ok(),
            keep,
        });
        let (pid, pidfd) = clone_child(&birth, &stack, isolation)?;
        let netns = match isolation {
            Isolation::None => None,
            // The first one's, which is held already.
            _ if beside.is_some() => None,
            _ => match open_namespace(pid, &pidfd, "net") {
                Ok(netns) => Some(netns),
                Err(error) => {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                    return Err(error);
                }
            },
        };
        Ok(Kid {
            pid,
            pidfd,
            report: Some(report_read),
            output: [out_read, err_read],
            netns,
            identity,
            users,
            ids,
            _own: own,
            go: go_write,
            isolation,
            shared: Some(Shared {
                birth,
                plan: None,
                stack,
            }),
        })
    }

    /// What a command has in common with a sandbox's first process.
    pub(super) fn birth(&self, sandbox: &Kid, join: &[OwnedFd], report: RawFd) -> Birth {
        let (null, spawner) = (self.null.as_raw_fd(), self.spawner.as_raw_fd());
        let isolation = self.abilities.isolation;
        Birth {
            isolation,
            join: join.iter().map(AsRawFd::as_raw_fd).collect(),
            mountpoint: self.mountpoint.clone(),
            root: None,
            go: -1,
            report,
            output: [-1; 2],
            null,
            spawner,
            users: sandbox.users,
            ids: sandbox.ids,
            beside: Vec::new(),
            maps_images: false,
            keep: [-1; 7],
        }
    }

    /// Has a child do something in our memory while we wait, and waits until it has ended.
    ///
    /// # Safety
    /// `entry` keeps to what [`super::child`] says of children, may read and write what `argument` points to, and ends.
    pub(super) unsafe fn send_out(
        &mut self,
        entry: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> io::Result<()> {
        let stack = match self.stacks.pop() {
            Some(stack) => stack,
            None => Stack::new()?,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: nobody else uses the stack; we go on when the child has ended.
        let pid = unsafe { libc::clone(entry, stack.top(), flags, argument) };
        let cloned = io::Error::last_os_error();
        self.stacks.push(stack);
        let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(cloned)?;
        while matches!(
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
        Ok(())
    }

    /// Takes back what the child no longer reads.
    fn reuse(&mut self, shared: Shared) {
        self.stacks.push(shared.stack);
    }
}

impl Kid {
    /// What another shares with it.
    fn shared_namespaces(&self) -> io::Result<Vec<OwnedFd>> {
        let kinds = ["net", "ipc", "uts"].into_iter();
        kinds.map(|kind| open_namespace(self.pid, &self.pidfd, kind)).collect()
    }

    /// Gives it its plan.
    pub(super) fn go(&mut self, plan: Compiled) -> io::Result<()> {
        // Nothing is left to share when it was killed while it waited: as if its end of the pipe were closed.
        let shared = self.shared.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        if shared.plan.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let plan = shared.plan.insert(Box::new(plan));
        let address = ptr::from_ref::<Compiled>(plan) as usize;
        rustix::io::write(&self.go, &address.to_ne_bytes())?;
        Ok(())
    }

    /// The plan it was given, while it is on its way.
    pub(super) fn plan(&self) -> Option<&Compiled> {
        self.shared.as_ref()?.plan.as_deref()
    }

    /// The root it has, or is to make, while it is on its way.
    pub(super) fn root(&self) -> Option<&Root> {
        let shared = self.shared.as_ref()?;
        let later = || shared.plan.as_ref()?.root.as_ref();
        shared.birth.root.as_ref().or_else(later)
    }

    /// Looks how its start goes. After `Left` and `Failed` there is nothing more to look at.
    pub(super) fn outcome(&mut self) -> Outcome {
        let Some(report) = &self.report else {
            return Outcome::Pending;
        };
        let mut bytes = [0; Report::SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(report, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
        match received.map(|received| received.bytes) {
            Ok(Report::SIZE) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Outcome::Pending,
            Ok(_) | Err(_) => return Outcome::Left,
        }
        let report = Report::from_bytes(bytes);
        if report.step != Report::ROOTED {
            return Outcome::Failed(report);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if fds.is_empty() {
            return Outcome::Pending;
        }
        Outcome::Rooted(fds)
    }

    /// Its start is over: it has executed, which is the moment it left our memory, or it has ended.
    pub(super) fn settle(&mut self, nursery: &mut Nursery) {
        self.report = None;
        if let Some(shared) = self.shared.take() {
            nursery.reuse(shared);
        }
    }

    /// Ends it, and with it every process in its PID namespace (without one: in its session's process group).
    pub(super) fn kill(&self) {
        if self.isolation == Isolation::None
            && let Some(group) = Pid::from_raw(self.pid)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Whether its first process is gone, waited for or not.
    pub(super) fn has_ended(&self) -> bool {
        let mut ended = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        !matches!(poll(&mut ended, Some(&Timespec::default())), Ok(0))
    }

    /// Whether its first process is gone or going: then it has no namespaces any more, and nobody can be born into them.
    pub(super) fn is_ending(&self) -> bool {
        self.has_ended() || std::fs::metadata(format!("/proc/{}/ns/mnt", self.pid)).is_err()
    }

    /// Waits for it; `None` while it lives and `block` is false.
    pub(super) fn reap(&self, block: bool) -> Option<ExitStatus> {
        reap(self.pidfd.as_fd(), block)
    }
}

/// Reads a command's report, if there is one.
pub(super) fn outcome(report: Option<&OwnedFd>) -> Outcome {
    let Some(report) = report else {
        return Outcome::Pending;
    };
    let mut bytes = [0; Report::SIZE];
    match rustix::io::read(report, &mut bytes) {
        Ok(Report::SIZE) => Outcome::Failed(Report::from_bytes(bytes)),
        Err(Errno::AGAIN | Errno::INTR) => Outcome::Pending,
        Ok(_) | Err(_) => Outcome::Left,
    }
}

/// Waits for a child; `None` while it lives and `block` is false.
pub(super) fn reap(pidfd: BorrowedFd<'_>, block: bool) -> Option<ExitStatus> {
    let mut options = WaitIdOptions::EXITED;
    if !block {
        options |= WaitIdOptions::NOHANG;
    }
    loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            Err(_) => return Some(ExitStatus::Signal(libc::SIGKILL)),
            Ok(None) => return None,
            Ok(Some(status)) => {
                return Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, signal) => ExitStatus::Signal(signal.unwrap_or(libc::SIGKILL)),
                });
            }
        }
    }
}

/// What the containers of a sandbox have together.
const SHARED: c_int = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// One that was killed has no namespaces any more, and on its way there the kernel may refuse to look: it is said to be
/// gone (`ESRCH`), whatever the kernel says.
fn open_namespace(pid: i32, pidfd: &OwnedFd, kind: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    while_open(|| Ok(open(&path, flags, Mode::empty())?)).map_err(|error| {
        let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut ended, Some(&LAST_STEPS)) {
            Ok(1..) => Errno::SRCH.into(),
            _ => error,
        }
    })
}

/// How long one that was killed may take to its end, at most.
const LAST_STEPS: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Clones without waiting: the child runs in our memory, beside us, until it executes.
fn clone_child(birth: &Birth, stack: &Stack, isolation: Isolation) -> io::Result<(i32, OwnedFd)> {
    const OWN: c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    let mut flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    if isolation != Isolation::None {
        flags |= OWN;
        if birth.beside.is_empty() {
            flags |= SHARED;
        }
    }
    let mut pidfd: RawFd = -1;
    let argument = ptr::from_ref(birth).cast_mut().cast::<c_void>();
    // SAFETY: `enter` keeps to what `child` promises: it runs on `stack`, which is not used by anybody else, reads
    // `birth`, which the caller keeps, and never returns into our frames. The kernel stores the pidfd where the fifth
    // argument points.
    let pid = unsafe { libc::clone(enter, stack.top(), flags, argument, &raw mut pidfd) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that only we know.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Memory for a child's stack, with a guard page below.
pub(super) struct Stack {
    base: *mut c_void,
}

impl Stack {
    const SIZE: usize = 128 * 1024;
    const GUARD: usize = 64 * 1024;

    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping, nothing else is touched; then its lower part is made inaccessible.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
            let base = libc::mmap(
                ptr::null_mut(),
                Self::SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Self { base };
            if libc::mprotect(base, Self::GUARD, libc::PROT_NONE) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stack)
        }
    }

    pub(super) fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(Self::SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; its child has left it (`Kid::settle`).
        unsafe { libc::munmap(self.base, Self::SIZE) };
    }
}
