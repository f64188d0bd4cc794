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

pub(super) mod app;
mod root;
mod shell;
mod text;
mod volume;

pub(super) use root::{COMMON, OF_ROOT};

use libc::c_int;
use std::ffi::{CString, c_void};

use super::compile::{Compiled, Root};
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
    /// Mounted while it waits.
    pub root: Option<Root>,
    /// The plan's address comes here.
    pub go: c_int,
    /// [`Report`]s go here; closes by itself on exec.
    pub report: c_int,
    /// stdout, stderr.
    pub output: [c_int; 2],
    pub null: c_int,
    /// The descriptors above and [`Self::spawner`], in ascending order: what a shell keeps open.
    pub keep: [c_int; 7],
    /// Readable when the spawner is dead.
    pub spawner: c_int,
    /// A user namespace of its own.
    pub users: Option<c_int>,
    /// Who its users are to the spawner.
    pub ids: Ids,
    /// The namespaces that it shares with another, whose they are; open until they are joined.
    pub beside: Vec<c_int>,
    /// Layers are mounted with its users.
    pub maps_images: bool,
}

/// Who users inside are to the spawner: on the host, or in an ordinary user's namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ids {
    /// The same.
    Same,
    /// All are this one: there is no other.
    Only(u32),
    /// This one is 0, and the others follow.
    From(u32),
    /// The first is 0; the others follow what is second.
    OwnAndFrom(u32, u32),
}

impl Birth {
    /// Who a user inside is to the spawner.
    pub(super) const fn on_host(&self, inside: u32) -> u32 {
        match self.ids {
            Ids::Same => inside,
            Ids::Only(only) => only,
            Ids::OwnAndFrom(own, _) if inside == 0 => own,
            Ids::From(base) | Ids::OwnAndFrom(_, base) => base + inside,
        }
    }

    /// Whether there are users to choose from.
    pub(super) const fn has_users(&self) -> bool {
        match self.ids {
            Ids::Same => matches!(self.isolation, Isolation::Root),
            Ids::Only(_) => false,
            Ids::From(_) | Ids::OwnAndFrom(..) => true,
        }
    }
}

/// How far a child is ([`Report::ROOTED`]), or why it gave up, as it crosses the report socket.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Report {
    pub step: u8,
    /// Which list of steps.
    pub list: u8,
    /// Which step of it, or which layer.
    pub index: u16,
    pub errno: i32,
}

impl Report {
    pub(super) const SIZE: usize = size_of::<Self>();

    /// Its root is mounted; the root's descriptor comes along.
    pub(super) const ROOTED: u8 = 0;

    pub(super) const fn new(step: Step, errno: i32) -> Self {
        Self {
            step: step as u8,
            list: 0,
            index: 0,
            errno,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::SIZE] {
        let ([i0, i1], [e0, e1, e2, e3]) = (self.index.to_ne_bytes(), self.errno.to_ne_bytes());
        [self.step, self.list, i0, i1, e0, e1, e2, e3]
    }

    pub(super) fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [step, list, i0, i1, e0, e1, e2, e3] = bytes;
        Self {
            step,
            list,
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
    let root = match shell::become_shell(birth) {
        Ok(root) => root,
        Err(report) => return report,
    };
    match wait_for_plan(birth) {
        Ok(plan) => match app::become_sandbox(birth, root, plan) {
            Ok(never) => match never {},
            Err(report) => report,
        },
        Err(report) => report,
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

/// Dies when the spawner does; called again after the user has changed, for that clears the signal.
pub(super) fn die_with_spawner(birth: &Birth) -> Result<(), Report> {
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

enum Never {}

const CWD: usize = libc::AT_FDCWD as isize as usize;

/// A rename or a mount anywhere on the machine makes a look-up within a root say "again" (openat2(2), EAGAIN).
fn until_sure(look: impl Fn() -> Answer) -> Answer {
    for _ in 0..LOOKS {
        match look() {
            Err(libc::EAGAIN) => {}
            sure => return sure,
        }
    }
    look()
}

/// More than any machine renames without a pause; yet no start hangs for it.
const LOOKS: u32 = 10_000;

fn at(step: Step, answer: Answer) -> Result<(), Report> {
    value(step, answer).map(drop)
}

fn value(step: Step, answer: Answer) -> Result<usize, Report> {
    answer.map_err(|errno| failed(step, errno))
}

const fn failed(step: Step, errno: i32) -> Report {
    Report::new(step, errno)
}

/// As a system call argument.
#[expect(clippy::cast_sign_loss, reason = "descriptors are not negative")]
const fn fd(raw: c_int) -> usize {
    raw as usize
}
