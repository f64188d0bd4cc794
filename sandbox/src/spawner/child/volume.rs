//! A child shows a volume in its root: a directory or file of the host whose content is somebody else's.

use std::ffi::CStr;

use super::{Birth, CWD, until_sure};
use crate::spawner::raw::{Answer, sys};

/// A copy of the mount of what is at `source`, or at `sub_path` below it, on `target`. Ids on disk become those inside.
///
/// Nobody but us can change `source`; what lies below may change at any time, so the kernel looks up `sub_path` and lets
/// no link lead out.
///
/// # Safety
/// `target` is the address of a NUL-terminated string.
pub(super) unsafe fn show(
    birth: &Birth,
    source: &CStr,
    sub_path: Option<&CStr>,
    target: usize,
    attributes: u64,
) -> Result<(), i32> {
    let tree = copy(birth, source, sub_path, attributes)?;
    // SAFETY: as the caller promises.
    unsafe { put(tree, target) }
}

/// The same on `target`, a path of the host, which is made as what the volume is: a directory or a file.
pub(super) fn stage(
    birth: &Birth,
    source: &CStr,
    sub_path: Option<&CStr>,
    target: &CStr,
    attributes: u64,
) -> Result<(), i32> {
    let tree = copy(birth, source, sub_path, attributes)?;
    let path = target.as_ptr() as usize;
    // SAFETY: NUL-terminated strings of the spawner's, and room for one `stat` on this stack.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let (none, empty) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
        let made = sys!(SYS_newfstatat, tree, none, (&raw mut stat) as usize, empty).and_then(|_| {
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                sys!(SYS_mkdirat, CWD, path, 0o700)
            } else {
                sys!(SYS_mknodat, CWD, path, (libc::S_IFREG | 0o600) as usize, 0)
            }
        });
        match made {
            Ok(_) => put(tree, path),
            Err(errno) => {
                let _ = sys!(SYS_close, tree);
                Err(errno)
            }
        }
    }
}

/// A copy of the mount, nowhere yet.
fn copy(birth: &Birth, source: &CStr, sub_path: Option<&CStr>, attributes: u64) -> Answer {
    let none = c"".as_ptr() as usize;
    let place = libc::O_PATH | libc::O_CLOEXEC;
    let deep = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as usize;
    // SAFETY: NUL-terminated strings of the spawner's; every descriptor is ours, and closed once.
    unsafe {
        let root = sys!(SYS_openat, CWD, source.as_ptr() as usize, place as usize, 0)?;
        let found = match sub_path {
            None => Ok(root),
            Some(path) => {
                let found = beneath(root, path, place);
                let _ = sys!(SYS_close, root);
                found
            }
        }?;
        let tree = sys!(
            SYS_open_tree,
            found,
            none,
            OPEN_TREE_CLONE | libc::O_CLOEXEC as usize | deep
        );
        let _ = sys!(SYS_close, found);
        let tree = tree?;
        if let Err(errno) = set(birth, tree, attributes, deep) {
            let _ = sys!(SYS_close, tree);
            return Err(errno);
        }
        Ok(tree)
    }
}

/// Mounts the copy, and lets go of it.
///
/// # Safety
/// `target` is the address of a NUL-terminated string; `tree` is ours.
unsafe fn put(tree: usize, target: usize) -> Result<(), i32> {
    let none = c"".as_ptr() as usize;
    // SAFETY: as the caller promises.
    unsafe {
        let done = sys!(SYS_move_mount, tree, none, CWD, target, MOVE_MOUNT_FROM_FD_FOLLOWING);
        let _ = sys!(SYS_close, tree);
        done.map(drop)
    }
}

/// With users of its own where it has them and the file system can translate ids, which not all can.
fn set(birth: &Birth, tree: usize, attributes: u64, deep: usize) -> Answer {
    let none = c"".as_ptr() as usize;
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let plain: [u64; 4] = [attributes, 0, 0, 0];
    let try_one = |attr: &[u64; 4]| {
        // SAFETY: `attr` has the size that is given.
        unsafe {
            sys!(
                SYS_mount_setattr,
                tree,
                none,
                deep,
                attr.as_ptr() as usize,
                size_of_val(attr)
            )
        }
    };
    let mapped = match birth.users {
        Some(userns) => {
            let userns = u64::from(userns.cast_unsigned());
            try_one(&[attributes | libc::MOUNT_ATTR_IDMAP, 0, 0, userns])
        }
        None => Err(libc::EINVAL),
    };
    match mapped {
        Err(libc::EINVAL | libc::EPERM) => try_one(&plain),
        other => other,
    }
}

/// # Safety
/// `root` is an open descriptor.
unsafe fn beneath(root: usize, path: &CStr, flags: i32) -> Answer {
    // `struct open_how`: flags, mode, resolve.
    let how: [u64; 3] = [
        u64::from(flags.cast_unsigned()),
        0,
        libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS,
    ];
    // SAFETY: a NUL-terminated string; `how` has the size that is given.
    until_sure(|| unsafe {
        sys!(
            SYS_openat2,
            root,
            path.as_ptr() as usize,
            how.as_ptr() as usize,
            size_of_val(&how)
        )
    })
}

const OPEN_TREE_CLONE: usize = 1;
/// `F_EMPTY_PATH` and `T_SYMLINKS`: a place that is held open is a link in `/proc`.
const MOVE_MOUNT_FROM_FD_FOLLOWING: usize = 0x04 | 0x10;
