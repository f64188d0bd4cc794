//! A command in a running sandbox: a child of the spawner that enters the sandbox and locks itself down as its app did.
//!
//! Unlike a sandbox's first process it does not run in the spawner's memory: the app may look at every process of its PID
//! namespace, and must not find the spawner's memory in one of them. It is forked, a copy, and nobody may look into that
//! from its birth on (CVE-2016-9962 was such a look); what it has open of the spawner's and of other sandboxes is closed
//! first of all.
//!
//! ```text
//! hide, fork into the PID namespace, streams, close, cgroup, other namespaces, limits, user, rights, terminal, seccomp,
//! execve
//! ```

#![allow(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a register holds every argument: 64-bit machines only"
)]

use std::ffi::{CStr, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use libc::c_int;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::termios::Winsize;

use super::child::app::{drop_capabilities_and_user, load_filter, set_limits};
use super::child::{Birth, Report, die_with_spawner};
use super::compile::Compiled;
use super::descendants;
use super::identities::while_open;
use super::kid::{self, Kid, Nursery, Outcome};
use super::protocol::{Isolation, ShellId, Step};
use super::raw::sys;
use crate::driver::ExitStatus;
use crate::wire;

/// A command, from its fork until it was waited for.
pub(super) struct Command {
    /// The sandbox it runs in.
    pub sandbox: ShellId,
    pid: i32,
    pub pidfd: OwnedFd,
    /// Readable when it failed, closed when it has executed; `None` after either.
    pub report: Option<OwnedFd>,
    /// It is an OCI runtime, and the command a child of it.
    runtime: bool,
}

/// What a command needs to become itself.
pub(super) struct Order {
    pub plan: Compiled,
    /// Its three streams, or the socket that its terminal is sent over, three times.
    pub streams: [OwnedFd; 3],
    /// Rows and columns.
    pub terminal: Option<(u16, u16)>,
    /// The `cgroup.procs` files it joins.
    pub join: Vec<OwnedFd>,
}

/// The namespaces a process can be entered into with `setns` of its pidfd.
const NAMESPACES: [(&str, c_int); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

impl Command {
    /// Forks it; from here on it is on its own, and its report says how it went.
    pub(super) fn begin(nursery: &mut Nursery, shell: ShellId, sandbox: &Kid, order: &Order) -> io::Result<Self> {
        let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&report_read, OFlags::NONBLOCK)?;
        let birth = nursery.birth(sandbox, &order.join, report_write.as_raw_fd());
        let mut namespaces = namespaces_of(sandbox.pid)?;
        if birth.users.is_some() {
            // Entered last, with the app's other rights given up.
            namespaces &= !libc::CLONE_NEWUSER;
        }
        let mut delivery = Delivery {
            birth: &birth,
            order,
            sandbox: sandbox.pidfd.as_fd(),
            namespaces,
            report: report_write.as_fd(),
            // What the child in between leaves there when it is killed.
            forked: Err(libc::EINTR),
        };
        // A copy of memory that nobody may look into is hidden too, and it is one process of the sandbox from its birth on.
        let hidden = Hidden::begin()?;
        // SAFETY: `deliver` takes a `Delivery`, and ends.
        let sent = unsafe { nursery.send_out(deliver, (&raw mut delivery).cast()) };
        drop(hidden);
        sent?;
        let pid = delivery.forked.map_err(io::Error::from_raw_os_error)?;
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                sandbox: shell,
                pid,
                pidfd,
                report: Some(report_read),
                runtime: order.plan.runtime,
            }),
            Err(error) => {
                let _ = rustix::process::kill_process(raw, Signal::KILL);
                let _ = rustix::process::waitpid(Some(raw), rustix::process::WaitOptions::empty());
                Err(error.into())
            }
        }
    }

    /// Looks how its start went. After `Left` and `Failed` there is nothing more to look at.
    pub(super) fn outcome(&self) -> Outcome {
        kid::outcome(self.report.as_ref())
    }

    /// Sends it a signal, and whatever it has started in its process group.
    pub(super) fn signal(&self, signal: Signal) {
        if self.runtime && signal == Signal::KILL {
            // It passes on every signal but this one.
            descendants::kill(self.pid);
        }
        let group = Pid::from_raw(self.pid).map(|group| rustix::process::kill_process_group(group, signal));
        // It may not have a group of its own yet.
        if !matches!(group, Some(Ok(()))) {
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Waits for it; `None` while it lives and `block` is false.
    pub(super) fn reap(&self, block: bool) -> Option<ExitStatus> {
        kid::reap(self.pidfd.as_fd(), block)
    }
}

/// While it lives, nobody may look into this process but who may look into every process.
struct Hidden {
    was_open: bool,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let was_open = rustix::process::dumpable_behavior()? == DumpableBehavior::Dumpable;
        hide()?;
        Ok(Self { was_open })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.was_open {
            // Who cannot see the spawner's own files in /proc cannot make sandboxes as an ordinary user; it is told there.
            let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
    }
}

fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// What the child in between is told, and what it tells.
struct Delivery<'a> {
    birth: &'a Birth,
    order: &'a Order,
    sandbox: BorrowedFd<'a>,
    namespaces: c_int,
    report: BorrowedFd<'a>,
    /// The command's process, or why there is none.
    forked: Result<i32, i32>,
}

/// A child in between: a process is born into a PID namespace that its parent has entered, and whoever enters one as an
/// ordinary user may not come back. The command is the spawner's child all the same (`CLONE_PARENT`).
extern "C" fn deliver(argument: *mut c_void) -> c_int {
    // SAFETY: `begin` passes a `Delivery`, and does not touch it until this child has ended. Of the system calls, none
    // takes memory; the second is a fork.
    unsafe {
        let it = &mut *argument.cast::<Delivery<'_>>();
        let pids = (it.namespaces & libc::CLONE_NEWPID) as usize;
        let entered = if pids == 0 {
            Ok(0)
        } else {
            sys!(SYS_setns, it.sandbox.as_raw_fd() as usize, pids)
        };
        let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as usize;
        let forked = match entered {
            Ok(_) => sys!(SYS_clone, flags, 0, 0, 0, 0),
            Err(errno) => Err(errno),
        };
        if forked == Ok(0) {
            become_command(it);
        }
        it.forked = forked.map(|pid| pid as i32);
        let _ = sys!(SYS_exit, 0);
    }
    0
}

/// In memory of its own, which is a copy: from here on everything is allowed.
fn become_command(it: &Delivery<'_>) -> ! {
    let Err(report) = live(it.birth, it.order, it.sandbox, it.namespaces & !libc::CLONE_NEWPID);
    let _ = rustix::io::write(it.report, &report.to_bytes());
    // SAFETY: ends this process at once; nothing of the spawner's is to be torn down in it.
    unsafe { libc::_exit(127) }
}

/// The namespaces of a process that are not this one's.
fn namespaces_of(pid: i32) -> io::Result<c_int> {
    let inode = |process: &str, name: &str| {
        while_open(|| fs::metadata(format!("/proc/{process}/ns/{name}"))).map(|meta| meta.ino())
    };
    let pid = pid.to_string();
    NAMESPACES.iter().try_fold(0, |flags, (name, flag)| {
        let foreign = inode(&pid, name)? != inode("self", name)?;
        Ok(if foreign { flags | flag } else { flags })
    })
}

fn enter(whose: BorrowedFd<'_>, namespaces: c_int) -> io::Result<()> {
    // SAFETY: no memory; the caller knows what this thread shares with others: nothing.
    match unsafe { libc::setns(whose.as_raw_fd(), namespaces) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Everything between fork and execve, in order. Returns only when something has failed.
fn live(
    birth: &Birth,
    order: &Order,
    sandbox: BorrowedFd<'_>,
    namespaces: c_int,
) -> Result<std::convert::Infallible, Report> {
    let plan = &order.plan;
    let isolated = birth.isolation != Isolation::None;
    die_with_spawner(birth)?;
    connect_streams(birth, order).map_err(at(Step::Output))?;
    close_foreign(birth, order, sandbox).map_err(at(Step::CloseFiles))?;
    for file in &order.join {
        rustix::io::write(file, b"0").map_err(|e| at(Step::JoinCgroup)(e.into()))?;
    }
    if namespaces != 0 {
        enter(sandbox, namespaces).map_err(at(Step::Enter))?;
    }
    rustix::process::setsid().map_err(|e| at(Step::Clone)(e.into()))?;
    set_limits(plan)?;
    if isolated && !plan.runtime {
        drop_capabilities_and_user(birth, plan)?;
        // A change of user may have opened it again (fs.suid_dumpable).
        hide().map_err(at(Step::Capabilities))?;
        die_with_spawner(birth)?;
    }
    if let Some((rows, columns)) = order.terminal {
        open_terminal(&order.streams[0], rows, columns, isolated && !plan.runtime).map_err(at(Step::Terminal))?;
    }
    // SAFETY: marks descriptors; none of them is used after the program is executed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if closed != 0 {
        return Err(at(Step::CloseFiles)(io::Error::last_os_error()));
    }
    if plan.runtime {
        // The runtime takes the host's rights away itself, from what it starts.
        return Err(at(Step::Execute)(execute(plan)));
    }
    rustix::process::chdir(plan.cwd.path.as_c_str()).map_err(|e| at(Step::WorkingDir)(e.into()))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| at(Step::NoNewPrivileges)(e.into()))?;
    if let Some(filter) = &plan.filter {
        load_filter(filter)?;
    }
    Err(at(Step::Execute)(execute(plan)))
}

/// The descriptors 0 and 1 are the spawner's own connections: they go first.
fn connect_streams(birth: &Birth, order: &Order) -> io::Result<()> {
    if order.terminal.is_none() {
        if birth.has_users() {
            // Programs open /dev/stdout by name, as their own user.
            let (uid, gid) = (birth.on_host(order.plan.uid), birth.on_host(order.plan.gid));
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            for stream in &order.streams {
                rustix::fs::fchown(stream, Some(uid), Some(gid))?;
            }
        }
        rustix::stdio::dup2_stdin(&order.streams[0])?;
        rustix::stdio::dup2_stdout(&order.streams[1])?;
        rustix::stdio::dup2_stderr(&order.streams[2])?;
        return Ok(());
    }
    // SAFETY: the spawner keeps it open, and this is a copy of the spawner.
    let null = unsafe { BorrowedFd::borrow_raw(birth.null) };
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(rustix::stdio::dup2_stderr(null)?)
}

/// Closes what is other sandboxes' and the spawner's own; what is left goes away when the program is executed.
fn close_foreign(birth: &Birth, order: &Order, sandbox: BorrowedFd<'_>) -> io::Result<()> {
    let mut keep = vec![birth.report, birth.spawner, sandbox.as_raw_fd()];
    keep.extend(birth.users);
    keep.extend(order.join.iter().map(AsRawFd::as_raw_fd));
    if order.terminal.is_some() {
        keep.push(order.streams[0].as_raw_fd());
    }
    keep.sort_unstable();
    let mut next: u32 = 3;
    for kept in keep.into_iter().map(c_int::cast_unsigned).chain([u32::MAX]) {
        if kept > next {
            // SAFETY: the descriptors below are the spawner's, of which this is a copy that never returns to its code; none
            // of those that are used from here on is among them.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, next, kept - 1, 0) };
            if closed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        next = next.max(kept.saturating_add(1));
    }
    Ok(())
}

/// A new terminal of the sandbox's own, as its user; the master's end goes to Knarr. Whatever the app has put in the
/// place of the device, nothing but a terminal is opened.
fn open_terminal(to: &OwnedFd, rows: u16, columns: u16, isolated: bool) -> io::Result<()> {
    let path: &CStr = if isolated { c"/dev/pts/ptmx" } else { c"/dev/ptmx" };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let nofollow = if isolated { OFlags::NOFOLLOW } else { OFlags::empty() };
    let master = rustix::fs::open(path, flags | nofollow, Mode::empty())?;
    let device = rustix::fs::fstat(&master)?.st_rdev;
    if (rustix::fs::major(device), rustix::fs::minor(device)) != (5, 2) {
        return Err(Errno::NOTTY.into());
    }
    rustix::pty::unlockpt(&master)?;
    let terminal = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
    )?;
    rustix::termios::tcsetwinsize(&terminal, window(rows, columns))?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    wire::send(to.as_fd(), &(), &[master.as_fd()])
}

pub(crate) const fn window(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The first program that can be executed, as `execvp` looks for it: one that may not be executed does not end the search,
/// but is what is told in the end.
fn execute(plan: &Compiled) -> io::Error {
    let mut told = libc::ENOENT;
    for program in &plan.program {
        // SAFETY: NUL-terminated strings, and two NULL-terminated arrays of such, all alive.
        unsafe { libc::execve(program.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr()) };
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => told = libc::EACCES,
            other => return io::Error::from_raw_os_error(other.unwrap_or(told)),
        }
    }
    io::Error::from_raw_os_error(told)
}

fn at(step: Step) -> impl Fn(io::Error) -> Report {
    move |error| Report::new(step, error.raw_os_error().unwrap_or(libc::EIO))
}
