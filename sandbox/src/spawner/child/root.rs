//! A child makes its root: an empty file system, the steps of a plan in it, and the change into it.

use libc::c_int;

use super::{Birth, CWD, Report, at};
use crate::spawner::compile::Op;
use crate::spawner::protocol::Step;
use crate::spawner::raw::{Answer, sys};

/// An empty root of our own. What the host mounts later still comes in, until the pivot: a pooled shell must see a file
/// system that was mounted after it was made.
pub(super) fn make_root(birth: &Birth) -> Result<(), Report> {
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

pub(super) fn run_ops(ops: &[Op], of_plan: bool) -> Result<(), Report> {
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

/// The new root in place of the old one, which is then detached: nothing of the host is reachable any more but what was
/// bound. Nothing the host mounts from now on comes in.
pub(super) fn pivot(birth: &Birth) -> Result<(), Report> {
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

pub(super) fn write_file(path: &std::ffi::CStr, flags: c_int, content: &[u8]) -> Result<(), i32> {
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
