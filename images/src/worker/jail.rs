//! The worker's jail: nothing of the host but one directory, no network, no other process, users of its own, five
//! capabilities over their files, and the system calls that unpacking needs.
//!
//! What does not work on this host is left out, except the change of root: without namespaces (an ordinary user where user
//! namespaces are forbidden) the worker still resolves every path beneath its directory (`RESOLVE_IN_ROOT`), which alone
//! keeps an archive inside; the namespaces are for what nobody thought of.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::map::Mapper;
use super::report::{Failure, Problem, Rules};

/// What unpacking needs of root's powers: any owner, any mode, any path, set-id bits, file capabilities.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

/// Dies with the process that started it.
pub(super) fn bind_to_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| setup("prctl", error))
}

/// Leaves the host's namespaces, as many as can be left. Returns whether files can have owners beside this user.
pub(super) fn unshare(owners: bool) -> Result<bool, Failure> {
    let all =
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    let root = rustix::process::geteuid().is_root();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let outside = if owners { Mapper::start().ok() } else { None };
    if (root && outside.is_none()) || leave(all | UnshareFlags::NEWUSER).is_err() {
        // In a container root may lack the right to; then it is left at what the paths' resolution holds.
        let _ = if root { leave(all) } else { Ok(()) };
        return Ok(root);
    }
    match outside.map(Mapper::map) {
        Some(Ok(())) => return Ok(true),
        // Root that is nobody in its own namespace would make files that are nobody's.
        Some(Err(why)) if root => return Err(Failure::new(Problem::Setup, why)),
        _ => {}
    }
    // Without a way to have other users. As root of the new namespace all the same: a program executed by anybody else has
    // no capabilities, not even in there. Users may be mapped already, when groups could not be.
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| setup(&format!("cannot write {file}"), error))
    };
    write("setgroups", "deny".to_owned())?;
    if rustix::process::geteuid().as_raw() == NOBODY {
        write("uid_map", format!("0 {user} 1"))?;
    }
    write("gid_map", format!("0 {group} 1"))?;
    Ok(false)
}

/// Who a user is that a namespace has not mapped (`kernel.overflowuid`).
const NOBODY: u32 = 65_534;

#[expect(
    deprecated,
    reason = "the safe call is deprecated for CLONE_FILES alone, which is not asked for"
)]
fn leave(namespaces: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(namespaces)
}

/// Makes the directory the root of everything, gives up the rest, and returns it open.
pub(super) fn enter(directory: &Path, rules: &Rules) -> Result<OwnedFd, Failure> {
    rustix::process::umask(Mode::empty());
    let shown = directory.display();
    let root = match pivot(directory) {
        Ok(()) => "/".as_ref(),
        Err(_) => directory,
    };
    let root = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| setup(&format!("cannot open {shown}"), error))?;
    limit(rules)?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| setup("no_new_privs", error))?;
    super::filter::install().map_err(|error| Failure::new(Problem::Setup, error))?;
    Ok(root)
}

/// The directory becomes the only mount of this mount namespace.
fn pivot(directory: &Path) -> rustix::io::Result<()> {
    if !in_own_mount_namespace() {
        return Err(rustix::io::Errno::PERM);
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount_bind(directory, directory)?;
    rustix::process::chdir(directory)?;
    let quiet = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // An ordinary user may not take away flags that the host's mount has; nothing hangs on these.
    let _ = rustix::mount::mount_remount(".", quiet, "");
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Changing the host's own mounts would be a disaster: look before.
fn in_own_mount_namespace() -> bool {
    let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt"));
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    // In a new process namespace the parent is outside and has no number here; the namespace then is new too.
    parent == 0 || matches!((of("self"), of(&parent.to_string())), (Ok(ours), Ok(theirs)) if ours != theirs)
}

fn limit(rules: &Rules) -> Result<(), Failure> {
    let bounds = [
        (Resource::Fsize, rules.bytes),
        (Resource::As, rules.memory),
        (Resource::Nofile, 1024),
        (Resource::Core, 0),
        (Resource::Msgqueue, 0),
        (Resource::Memlock, 0),
    ];
    for (resource, bound) in bounds {
        let hard = rustix::process::getrlimit(resource)
            .maximum
            .map_or(bound, |hard| hard.min(bound));
        let bound = Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        };
        rustix::process::setrlimit(resource, bound).map_err(|error| setup("cannot lower a resource limit", error))?;
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| setup("cannot drop capabilities", error);
    let now = rustix::thread::capabilities(None).map_err(failed)?;
    for capability in (now.permitted - KEPT).iter() {
        // Not known to this kernel, or not ours to drop: then it is not ours to use either.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let kept = now.permitted & KEPT;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed)
}

fn setup(context: &str, error: impl Into<io::Error>) -> Failure {
    Failure::system(Problem::Setup, context, &error.into())
}
