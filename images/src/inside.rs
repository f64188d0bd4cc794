//! Opens what lies inside a directory, whatever links say.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Links and absolute targets count from the root, and `..` stops there; nothing of another file system is entered.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens `path` as if `root` were the root directory.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE) {
            // Somebody on this machine renamed something while a `..` was followed: the kernel cannot tell whether it matters.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn renames_elsewhere_do_not_matter() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/../a/../a/b/..", root.join("link")).unwrap();
        let (one, two) = (temp.path().join("1"), temp.path().join("2"));
        fs::create_dir(&one).unwrap();
        let directory = fs::File::open(&root).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&one, &two).unwrap();
                    fs::rename(&two, &one).unwrap();
                }
            });
            let opened = (0..5000).all(|_| open(&directory, b"link/b", OFlags::PATH | OFlags::DIRECTORY).is_ok());
            done.store(true, Ordering::Relaxed);
            assert!(opened);
        });
    }
}
