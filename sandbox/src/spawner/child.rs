//! What a child does between `clone` and `execve`: the whole lockdown, in order, in raw system calls.
//!
//! The child runs in the spawner's memory (`CLONE_VM`), on a stack of its own, beside the spawner. It reads what the
//! spawner has prepared, writes nothing but its own stack, and never allocates, locks, panics or returns.
//!
//! ```text
//! shell    death signal, join cgroup, cgroup namespace, lo up, root and the host's part of it
//!   (waits here: the pool)
//! sandbox  the app's part of the root, pivot, limits, output, capabilities, user, no new privileges, seccomp, execve
//! ```

#![allow(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a register holds every argument: 64-bit machines only"
)]

use std::ffi::{CString, c_void};
use std::sync::Arc;

use libc::{c_int, sock_filter};

use super::compile::{Compiled, Op};
use super::protocol::{Isolation, Step};
use super::raw::{Answer, sys};

/// The exit code of a child that failed before its program ran; the report says why.
const FAILED: usize = 127;

/// What a child needs from its first instruction on. Boxed, kept and unchanged until the child has executed or ended.
pub(super) struct Birth {
    pub isolation: Isolation,
    /// `cgroup.procs` files to write `0` into.
    pub join: Vec<c_int>,
    pub mountpoint: CString,
    pub base: Arc<[Op]>,
    /// The plan's address comes here.
    pub go: c_int,
    /// A [`Report`] goes here; closes by itself on exec.
    pub report: c_int,
    /// stdout, stderr.
    pub output: [c_int; 2],
    pub null: c_int,
    /// The descriptors above and [`Self::spawner`], in ascending order: what a shell keeps open.
    pub keep: [c_int; 6],
    /// Readable when the spawner is dead.
    pub spawner: c_int,
    pub filter: Arc<[sock_filter]>,
}

/// Why a child gave up, as it crosses the report pipe.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Report {
    pub step: u8,
    /// Of the app's part of the root, not the base.
    pub of_plan: u8,
    /// Which operation of [`Step::Files`].
    pub index: u16,
    pub errno: i32,
}

impl Report {
    pub(super) const SIZE: usize = size_of::<Self>();

    pub(super) fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [step, of_plan, i0, i1, e0, e1, e2, e3] = bytes;
        Self {
            step,
            of_plan,
            index: u16::from_ne_bytes([i0, i1]),
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
        }
    }
}

/// The child's entry, for `clone`.
///
/// `birth` points to a [`Birth`] that outlives the child's use of it.
pub(super) extern "C" fn enter(birth: *mut c_void) -> c_int {
    // SAFETY: the spawner passes a `Birth` and keeps it unchanged until this child has executed or ended.
    let birth = unsafe { &*birth.cast_const().cast::<Birth>() };
    let report = live(birth);
    // SAFETY: `report` is plain old data on this stack; the descriptor is this child's own copy.
    unsafe {
        let _ = sys!(SYS_write, fd(birth.report), (&raw const report) as usize, Report::SIZE);
        let _ = sys!(SYS_exit_group, FAILED);
    }
    0
}

/// Returns only when something has failed.
fn live(birth: &Birth) -> Report {
    if let Err(report) = become_shell(birth) {
        return report;
    }
    match wait_for_plan(birth) {
        Ok(plan) => match become_sandbox(birth, plan) {
            Ok(never) => match never {},
            Err(report) => report,
        },
        Err(report) => report,
    }
}

fn become_shell(birth: &Birth) -> Result<(), Report> {
    die_with_spawner(birth)?;
    for &procs in &birth.join {
        // SAFETY: one byte of a constant, into a descriptor of ours.
        at(Step::JoinCgroup, unsafe {
            sys!(SYS_write, fd(procs), c"0".as_ptr() as usize, 1)
        })?;
    }
    close_foreign(birth)?;
    if birth.isolation == Isolation::None {
        // SAFETY: no arguments.
        return at(Step::Clone, unsafe { sys!(no_args SYS_setsid) });
    }
    // After the join, or the namespace would show the paths of the spawner's cgroup.
    // SAFETY: no memory.
    at(Step::CgroupNamespace, unsafe {
        sys!(SYS_unshare, libc::CLONE_NEWCGROUP as usize)
    })?;
    loopback_up()?;
    // Best effort: some containers forbid it, and then only the ports below 1024 are missing.
    let _ = write_file(c"/proc/sys/net/ipv4/ip_unprivileged_port_start", libc::O_WRONLY, b"0");
    make_root(birth)?;
    run_ops(&birth.base, false)
}

/// Dies when the spawner does; called again after the user has changed, for that clears the signal.
fn die_with_spawner(birth: &Birth) -> Result<(), Report> {
    let mut poll = libc::pollfd {
        fd: birth.spawner,
        events: libc::POLLIN,
        revents: 0,
    };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: no memory in the first call; the second gets one pollfd and one timespec on this stack.
    let dead = unsafe {
        at(
            Step::DeathSignal,
            sys!(
                SYS_prctl,
                libc::PR_SET_PDEATHSIG as usize,
                libc::SIGKILL as usize,
                0,
                0,
                0
            ),
        )?;
        sys!(SYS_ppoll, (&raw mut poll) as usize, 1, (&raw const now) as usize, 0, 8)
    };
    match dead {
        Ok(0) => Ok(()),
        Ok(_) => Err(failed(Step::DeathSignal, libc::ESRCH)),
        Err(errno) => Err(failed(Step::DeathSignal, errno)),
    }
}

/// Closes what belongs to the spawner and to other sandboxes: a shell may wait for long, and would keep their network
/// namespaces and pipes alive.
fn close_foreign(birth: &Birth) -> Result<(), Report> {
    let mut next = 3;
    // SAFETY: no memory.
    unsafe {
        at(Step::CloseFiles, sys!(SYS_dup3, fd(birth.null), 0, 0))?;
        at(Step::CloseFiles, sys!(SYS_dup3, fd(birth.null), 1, 0))?;
        for kept in birth.keep {
            if fd(kept) > next {
                at(Step::CloseFiles, sys!(SYS_close_range, next, fd(kept) - 1, 0))?;
            }
            next = fd(kept) + 1;
        }
        at(Step::CloseFiles, sys!(SYS_close_range, next, u32::MAX as usize, 0))
    }
}

fn loopback_up() -> Result<(), Report> {
    // `struct ifreq`: 16 bytes of name, then the flags.
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    request[16] = (libc::IFF_UP | libc::IFF_RUNNING) as u8;
    // SAFETY: no memory in `socket` and `close`; `request` is a whole `ifreq`.
    unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let socket = value(
            Step::Loopback,
            sys!(SYS_socket, libc::AF_INET as usize, kind as usize, 0),
        )?;
        let up = sys!(
            SYS_ioctl,
            socket,
            libc::SIOCSIFFLAGS as usize,
            request.as_ptr() as usize
        );
        let _ = sys!(SYS_close, socket);
        at(Step::Loopback, up)
    }
}

/// An empty root of our own. What the host mounts later still comes in, until the pivot: a pooled shell must see a file
/// system that was mounted after it was made.
fn make_root(birth: &Birth) -> Result<(), Report> {
    // SAFETY: constant strings and the mount point, all NUL-terminated.
    unsafe {
        let slave = (libc::MS_REC | libc::MS_SLAVE) as usize;
        at(Step::Root, sys!(SYS_mount, 0, c"/".as_ptr() as usize, 0, slave, 0))?;
        let flags = (libc::MS_NOSUID | libc::MS_NODEV) as usize;
        let (tmpfs, root) = (c"tmpfs".as_ptr() as usize, birth.mountpoint.as_ptr() as usize);
        at(
            Step::Root,
            sys!(
                SYS_mount,
                tmpfs,
                root,
                tmpfs,
                flags,
                c"mode=755,size=1m".as_ptr() as usize
            ),
        )
    }
}

fn run_ops(ops: &[Op], of_plan: bool) -> Result<(), Report> {
    let mut index: u16 = 0;
    for op in ops {
        if let Err(errno) = run_op(op) {
            return Err(Report {
                step: Step::Files as u8,
                of_plan: of_plan.into(),
                index,
                errno,
            });
        }
        index = index.wrapping_add(1);
    }
    Ok(())
}

fn run_op(op: &Op) -> Result<(), i32> {
    // SAFETY: every pointer is to a NUL-terminated string in the spawner's memory, which keeps it for us.
    unsafe {
        match op {
            Op::Dir(path) => exists_is_fine(sys!(SYS_mkdirat, CWD, path.as_ptr() as usize, 0o755)),
            Op::Symlink { target, path } => {
                sys!(SYS_symlinkat, target.as_ptr() as usize, CWD, path.as_ptr() as usize).map(drop)
            }
            Op::File { path, content } => write_file(path, libc::O_WRONLY | libc::O_CREAT, content),
            Op::Mount {
                fstype,
                path,
                options,
                flags,
            } => {
                let (fstype, path) = (fstype.as_ptr() as usize, path.as_ptr() as usize);
                sys!(
                    SYS_mount,
                    fstype,
                    path,
                    fstype,
                    *flags as usize,
                    options.as_ptr() as usize
                )
                .map(drop)
            }
            Op::Bind {
                source,
                path,
                attributes,
            } => {
                let flags = (libc::MS_BIND | libc::MS_REC) as usize;
                sys!(SYS_mount, source.as_ptr() as usize, path.as_ptr() as usize, 0, flags, 0)?;
                set_attributes(path.as_ptr() as usize, *attributes, libc::AT_RECURSIVE)
            }
        }
    }
}

fn wait_for_plan(birth: &Birth) -> Result<&'static Compiled, Report> {
    let mut address = 0usize;
    loop {
        // SAFETY: reads at most one word onto this stack.
        match unsafe { sys!(SYS_read, fd(birth.go), (&raw mut address) as usize, size_of::<usize>()) } {
            Err(libc::EINTR) => {}
            // SAFETY: the spawner sends the address of a boxed plan which it keeps until this child has executed.
            Ok(n) if n == size_of::<usize>() => return Ok(unsafe { &*(address as *const Compiled) }),
            Ok(_) => return Err(failed(Step::WaitForPlan, libc::EPIPE)),
            Err(errno) => return Err(failed(Step::WaitForPlan, errno)),
        }
    }
}

enum Never {}

fn become_sandbox(birth: &Birth, plan: &Compiled) -> Result<Never, Report> {
    let isolated = birth.isolation != Isolation::None;
    if isolated {
        run_ops(&plan.root, true)?;
        pivot(birth)?;
        // SAFETY: the name lies in the spawner's memory, its length is given.
        let named = unsafe { sys!(SYS_sethostname, plan.hostname.as_ptr() as usize, plan.hostname.len()) };
        at(Step::Hostname, named)?;
    }
    set_limits(plan)?;
    connect_output(birth, plan)?;
    if isolated {
        drop_capabilities_and_user(birth, plan)?;
        die_with_spawner(birth)?;
    }
    // As the sandbox's user, who may not see every directory.
    // SAFETY: a NUL-terminated string.
    at(Step::WorkingDir, unsafe { sys!(SYS_chdir, plan.cwd.as_ptr() as usize) })?;
    // SAFETY: no memory.
    let none = unsafe { sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0) };
    at(Step::NoNewPrivileges, none)?;
    if isolated {
        load_filter(birth)?;
    }
    let (argv, env) = (plan.argv.as_ptr() as usize, plan.env.as_ptr() as usize);
    // SAFETY: two NULL-terminated arrays of NUL-terminated strings.
    match unsafe { sys!(SYS_execve, plan.program.as_ptr() as usize, argv, env) } {
        Err(errno) => Err(failed(Step::Execute, errno)),
        Ok(_) => Err(failed(Step::Execute, 0)),
    }
}

/// The new root in place of the old one, which is then detached: nothing of the host is reachable any more but what was
/// bound. Nothing the host mounts from now on comes in.
fn pivot(birth: &Birth) -> Result<(), Report> {
    let root = birth.mountpoint.as_ptr() as usize;
    let dot = c".".as_ptr() as usize;
    // SAFETY: constant strings and the mount point, all NUL-terminated.
    unsafe {
        at(
            Step::Pivot,
            sys!(SYS_mount, 0, root, 0, (libc::MS_REC | libc::MS_PRIVATE) as usize, 0),
        )?;
        let read_only = set_attributes(root, libc::MOUNT_ATTR_RDONLY, 0);
        at(Step::Pivot, read_only.map(|()| 0))?;
        at(Step::Pivot, sys!(SYS_chdir, root))?;
        // Onto itself: the old root then lies on top of the new one and goes with the next call.
        at(Step::Pivot, sys!(SYS_pivot_root, dot, dot))?;
        at(Step::Pivot, sys!(SYS_umount2, dot, libc::MNT_DETACH as usize))?;
        at(Step::Pivot, sys!(SYS_chdir, c"/".as_ptr() as usize))
    }
}

fn set_limits(plan: &Compiled) -> Result<(), Report> {
    limit(libc::RLIMIT_CORE as usize, 0, 0)?;
    let mut files = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let nofile = libc::RLIMIT_NOFILE as usize;
    // SAFETY: room for one rlimit.
    let got = unsafe { sys!(SYS_prlimit64, 0, nofile, 0, (&raw mut files) as usize) };
    at(Step::Limits, got)?;
    // The spawner has raised its own soft limit; an app gets what servers usually run with.
    let soft = if files.rlim_max < FILES_SOFT {
        files.rlim_max
    } else {
        FILES_SOFT
    };
    limit(nofile, soft, files.rlim_max)?;
    match plan.data_limit {
        Some(bytes) => limit(libc::RLIMIT_DATA as usize, bytes, bytes),
        None => Ok(()),
    }
}

fn limit(resource: usize, soft: u64, hard: u64) -> Result<(), Report> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: one rlimit on this stack.
    at(Step::Limits, unsafe {
        sys!(SYS_prlimit64, 0, resource, (&raw const limit) as usize, 0)
    })
}

/// stdin is empty, stdout and stderr are the log; every other descriptor goes away on exec.
fn connect_output(birth: &Birth, plan: &Compiled) -> Result<(), Report> {
    // SAFETY: no memory.
    unsafe {
        if birth.isolation == Isolation::Root {
            // Apps open /dev/stdout by name, as their own user.
            for output in birth.output {
                at(
                    Step::Output,
                    sys!(SYS_fchown, fd(output), plan.uid as usize, plan.uid as usize),
                )?;
            }
        }
        at(Step::Output, sys!(SYS_dup3, fd(birth.null), 0, 0))?;
        at(Step::Output, sys!(SYS_dup3, fd(birth.output[0]), 1, 0))?;
        at(Step::Output, sys!(SYS_dup3, fd(birth.output[1]), 2, 0))?;
        let all = u32::MAX as usize;
        at(
            Step::CloseFiles,
            sys!(SYS_close_range, 3, all, libc::CLOSE_RANGE_CLOEXEC as usize),
        )
    }
}

fn drop_capabilities_and_user(birth: &Birth, plan: &Compiled) -> Result<(), Report> {
    // SAFETY: no memory in the calls before `capset`.
    unsafe {
        let mut capability = 0;
        // The kernel knows fewer than 64; the first it does not know ends the list.
        while capability < 64 && sys!(SYS_prctl, libc::PR_CAPBSET_DROP as usize, capability, 0, 0, 0).is_ok() {
            capability += 1;
        }
        if capability == 0 {
            return Err(failed(Step::Capabilities, libc::EPERM));
        }
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as usize;
        at(
            Step::Capabilities,
            sys!(SYS_prctl, libc::PR_CAP_AMBIENT as usize, clear, 0, 0, 0),
        )?;
        if birth.isolation == Isolation::Root {
            let id = plan.uid as usize;
            at(Step::User, sys!(SYS_setgroups, 0, 0))?;
            at(Step::User, sys!(SYS_setresgid, id, id, id))?;
            at(Step::User, sys!(SYS_setresuid, id, id, id))?;
        }
        // `struct __user_cap_header_struct` of version 3, and two empty `__user_cap_data_struct`.
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0u32; 6];
        at(
            Step::Capabilities,
            sys!(SYS_capset, header.as_ptr() as usize, none.as_ptr() as usize),
        )
    }
}

fn load_filter(birth: &Birth) -> Result<(), Report> {
    let program = libc::sock_fprog {
        len: birth.filter.len() as u16,
        filter: birth.filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `len` instructions, which the spawner keeps.
    at(Step::Seccomp, unsafe {
        sys!(SYS_seccomp, mode, 0, (&raw const program) as usize)
    })
}

const CWD: usize = libc::AT_FDCWD as isize as usize;

/// Soft limit on open files.
const FILES_SOFT: u64 = 65_536;

/// # Safety
/// `path` is the address of a NUL-terminated string.
unsafe fn set_attributes(path: usize, attributes: u64, flags: c_int) -> Result<(), i32> {
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attr: [u64; 4] = [attributes, 0, 0, 0];
    // SAFETY: `attr` has the size that is given.
    unsafe {
        sys!(
            SYS_mount_setattr,
            CWD,
            path,
            flags as usize,
            attr.as_ptr() as usize,
            size_of_val(&attr)
        )
    }
    .map(drop)
}

fn write_file(path: &std::ffi::CStr, flags: c_int, content: &[u8]) -> Result<(), i32> {
    // SAFETY: a NUL-terminated path, and `content` with its length.
    unsafe {
        let file = sys!(
            SYS_openat,
            CWD,
            path.as_ptr() as usize,
            (flags | libc::O_CLOEXEC) as usize,
            0o644
        )?;
        let written = if content.is_empty() {
            Ok(0)
        } else {
            sys!(SYS_write, file, content.as_ptr() as usize, content.len())
        };
        let _ = sys!(SYS_close, file);
        written.map(drop)
    }
}

fn exists_is_fine(answer: Answer) -> Result<(), i32> {
    match answer {
        Err(errno) if errno != libc::EEXIST => Err(errno),
        _ => Ok(()),
    }
}

fn at(step: Step, answer: Answer) -> Result<(), Report> {
    value(step, answer).map(drop)
}

fn value(step: Step, answer: Answer) -> Result<usize, Report> {
    answer.map_err(|errno| failed(step, errno))
}

const fn failed(step: Step, errno: i32) -> Report {
    Report {
        step: step as u8,
        of_plan: 0,
        index: 0,
        errno,
    }
}

/// As a system call argument.
#[expect(clippy::cast_sign_loss, reason = "descriptors are not negative")]
const fn fd(raw: c_int) -> usize {
    raw as usize
}
