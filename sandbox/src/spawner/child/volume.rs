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
    let none = c"".as_ptr() as usize;
    let place = libc::O_PATH | libc::O_CLOEXEC;
    let deep = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as usize;
    // SAFETY: NUL-terminated strings of the spawner's and of the caller's; every descriptor is ours, and closed once.
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
        let done = set(birth, tree, attributes, deep)
            .and_then(|_| sys!(SYS_move_mount, tree, none, CWD, target, MOVE_MOUNT_FROM_FD_FOLLOWING));
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
        Some((userns, _)) => {
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
