//! Users of sandboxes: one user namespace for each range of the host's uids, made once and entered by one sandbox after
//! the other.
//!
//! A sandbox enters its user namespace last of all: its mount, process, network, IPC, host name and cgroup namespaces stay
//! the host's, so that not even uid 0 inside has power over them. Making a user namespace costs 300 us, entering it 5.
//!
//! An ordinary user's spawner is in a namespace itself, in which its own user is [`ORDINARY_UID`] and its subordinate ids,
//! if it has any, follow one another from [`SUBORDINATE`] on. `newuidmap` and `newgidmap` run once, for that namespace: in
//! there the spawner hands out ranges as root does. The first range goes with the user's own id as uid 0: files of images
//! and volumes, which lie on disk under these ids, are shown through it, and all who have no range alone share it.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use libc::c_int;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, WaitOptions, waitpid};

use images::subordinate::Subordinate;

use super::child::Ids;
use super::kid::Stack;
use super::protocol::UidRanges;
use super::raw::sys;
use crate::rootfs::ORDINARY_UID;

/// Users and groups of one sandbox; as many as numeric ids in images go up to.
pub(super) const RANGE: u32 = images::subordinate::RANGE;

/// Where an ordinary user's subordinate ids begin in the spawner's namespace.
const SUBORDINATE: u32 = 0x1000_0000;

/// Who a sandbox's users are to the host. Dropped when nothing runs as them any more, they are free for the next.
pub(super) struct Identity {
    pub userns: ManuallyDrop<OwnedFd>,
    /// The host's uid and gid of 0 inside.
    pub base: u32,
    /// A sandbox without the default filter may have left keys with its users: the range gets a fresh namespace then.
    pub used_up: Cell<bool>,
    home: Rc<RefCell<Identities>>,
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let userns = unsafe { ManuallyDrop::take(&mut self.userns) };
        self.home.borrow_mut().give_back(userns, self.base, self.used_up.get());
    }
}

/// Hands out ranges that no living sandbox has.
pub(super) struct Identities {
    ranges: UidRanges,
    /// How many were made so far.
    made: u32,
    free: Vec<(OwnedFd, u32)>,
    stack: Stack,
}

impl Identities {
    pub(super) fn new(ranges: UidRanges) -> io::Result<Rc<RefCell<Self>>> {
        Ok(Rc::new(RefCell::new(Self {
            ranges,
            made: 0,
            free: Vec::new(),
            stack: Stack::new()?,
        })))
    }

    /// A range of its own for a new sandbox.
    ///
    /// # Errors
    /// `EUSERS` when every range is taken, or what the kernel says against user namespaces.
    pub(super) fn take(home: &Rc<RefCell<Self>>) -> io::Result<Identity> {
        let (userns, base) = home.borrow_mut().next()?;
        Ok(Identity {
            userns: ManuallyDrop::new(userns),
            base,
            used_up: Cell::new(false),
            home: Rc::clone(home),
        })
    }

    fn next(&mut self) -> io::Result<(OwnedFd, u32)> {
        if let Some(free) = self.free.pop() {
            return Ok(free);
        }
        let base = self
            .made
            .checked_mul(RANGE)
            .filter(|_| self.made < self.ranges.count)
            .and_then(|offset| self.ranges.first.checked_add(offset))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EUSERS))?;
        let map = format!("0 {base} {RANGE}");
        let userns = user_namespace(&self.stack, &map, &map)?;
        self.made += 1;
        Ok((userns, base))
    }

    fn give_back(&mut self, userns: OwnedFd, base: u32, used_up: bool) {
        if !used_up {
            self.free.push((userns, base));
            return;
        }
        let map = format!("0 {base} {RANGE}");
        drop(userns);
        if let Ok(userns) = user_namespace(&self.stack, &map, &map) {
            self.free.push((userns, base));
        }
    }
}

/// A namespace in which one user and one group stand for the only ones that an ordinary user's spawner has.
pub(super) fn single(home: &Identities, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let map = |id: u32| format!("{id} {ORDINARY_UID} 1");
    user_namespace(&home.stack, &map(uid), &map(gid))
}

/// A namespace with the first range of subordinate ids, and the spawner's own user as uid 0: what the image store has
/// unpacked belongs to these.
pub(super) fn first_range(home: &Identities) -> io::Result<(OwnedFd, Ids)> {
    let map = format!("0 {ORDINARY_UID} 1\n1 {SUBORDINATE} {}", RANGE - 1);
    let userns = user_namespace(&home.stack, &map, &map)?;
    let others = SUBORDINATE - 1;
    Ok((userns, Ids::OwnAndFrom(ORDINARY_UID, others)))
}

/// The spawner's namespace for an ordinary user with subordinate ids; and the ranges that are left for one sandbox each.
///
/// # Errors
/// What is missing, in words for the user.
pub(super) fn subordinate() -> Result<(OwnedFd, UidRanges), String> {
    let ids = Subordinate::find()?;
    let stack = Stack::new().map_err(|error| error.to_string())?;
    // As many as fit below the last id.
    let count = ids.ranges().min(MOST);
    let map = |pid: i32| {
        ids.map(pid, ORDINARY_UID, SUBORDINATE, count * RANGE)
            .map_err(io::Error::other)
    };
    let userns = make(&stack, true, map).map_err(|error| error.to_string())?;
    let ranges = UidRanges {
        first: SUBORDINATE + RANGE,
        count: count - 1,
    };
    Ok((userns, ranges))
}

/// Ranges of one user that are used; far more than there are sandboxes.
const MOST: u32 = 4096;

/// A namespace that only takes power away: its users are the host's of the same number.
pub(super) fn shared(home: &Identities) -> io::Result<OwnedFd> {
    let map = format!("0 0 {RANGE}");
    user_namespace(&home.stack, &map, &map)
}

/// Makes a user namespace with these maps, in which there can be no further one.
fn user_namespace(stack: &Stack, uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    make(stack, false, |pid| {
        // A child that has changed its user has closed the spawner's own files in /proc for its kind, for they share memory.
        while_open(|| fs::write(format!("/proc/{pid}/uid_map"), uid_map))?;
        while_open(|| fs::write(format!("/proc/{pid}/gid_map"), gid_map))
    })
}

/// Makes a user namespace. A child makes it, waits for the maps and ends; our descriptor keeps it.
fn make(stack: &Stack, nested: bool, map: impl FnOnce(i32) -> io::Result<()>) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let ends: [c_int; 3] = [read.as_raw_fd(), write.as_raw_fd(), nested.into()];
    let argument = (&raw const ends).cast_mut().cast::<c_void>();
    let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: `hold` makes raw system calls only, on a stack of its own that nobody else uses now; `ends` stays until the
    // child was waited for.
    let pid = unsafe { libc::clone(hold, stack.top(), flags, argument) };
    let pid = Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?;
    let number = pid.as_raw_nonzero().get();
    let made = map(number).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("/proc/{number}/ns/user");
        while_open(|| Ok(open(&path, flags, Mode::empty())?))
    });
    // Its end of the pipe closes, or it reads its byte: either way it goes on to its end.
    let told = rustix::io::write(&write, &[u8::from(made.is_ok())]);
    drop(write);
    let ended = loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended,
        }
    };
    // It was killed: what failed then says nothing about this host.
    if matches!(ended, Ok(Some((_, status))) if status.signaled()) {
        return Err(rustix::io::Errno::INTR.into());
    }
    told?;
    made
}

/// Tries something in a child's directory in `/proc`, while children that share our memory may be changing their users:
/// that closes what belongs to an ordinary user there, for all who have that memory, until it is opened again.
pub(super) fn while_open<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
            }
            other => return other,
        }
    }
    attempt()
}

/// Each child changes its user once; more than a few at the same instant are not to be expected.
const TRIES: u32 = 100;

/// The child that makes a user namespace by being in it. Raw system calls only: it runs in our memory.
extern "C" fn hold(ends: *mut c_void) -> c_int {
    let mut byte = 0u8;
    // SAFETY: the address of the two ends and a word, which the spawner keeps until we are gone; constants and a byte of this stack.
    unsafe {
        let [read, write, nested] = *ends.cast::<[c_int; 3]>();
        let (read, write) = (read.cast_unsigned() as usize, write.cast_unsigned() as usize);
        let _ = sys!(SYS_close, write);
        while sys!(SYS_read, read, (&raw mut byte) as usize, 1) == Err(libc::EINTR) {}
        // No namespace of namespaces: whatever filter a sandbox has, it cannot gain capabilities that way.
        let path = c"/proc/sys/user/max_user_namespaces".as_ptr() as usize;
        let here = libc::AT_FDCWD as isize as usize;
        if nested == 0
            && let Ok(file) = sys!(SYS_openat, here, path, libc::O_WRONLY as usize, 0)
        {
            let _ = sys!(SYS_write, file, c"0".as_ptr() as usize, 1);
        }
        let _ = sys!(SYS_exit, 0);
    }
    0
}
