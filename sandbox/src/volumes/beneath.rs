//! Looks things up below a directory whose content is not ours: a link that leads out of it is an error.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open};
use rustix::io::Errno;

use crate::inside;

/// Whether a directory is at `path` below `root`; with `make`, one is made where nothing is.
pub(super) fn is_dir(root: &Path, path: &Path, make: bool) -> io::Result<bool> {
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(root, place | OFlags::DIRECTORY, Mode::empty())?;
    let found = match at(&root, path) {
        Err(Errno::NOENT) if make => {
            make_dirs(&root, path)?;
            at(&root, path)?
        }
        found => found?,
    };
    let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
    Ok(kind == FileType::Directory)
}

/// Makes an empty file or a directory, with those above it; nothing where something is.
pub(super) fn make(root: &Path, path: &Path, is_dir: bool) -> io::Result<()> {
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(root, place | OFlags::DIRECTORY, Mode::empty())?;
    if at(&root, path).is_ok() {
        return Ok(());
    }
    if is_dir {
        return make_dirs(&root, path);
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_dirs(&root, parent)?;
    let parent = at(
        &root,
        if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        },
    )?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

fn at(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    inside::open(root, path, OFlags::PATH, beneath)
}

/// Every directory of `path`; new ones are like the root: whoever may write there may write here.
fn make_dirs(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let like = fstat(root)?;
    let mut upto = std::path::PathBuf::new();
    let mut parent = at(root, Path::new("."))?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(Errno::INVAL.into());
        };
        upto.push(name);
        match at(root, &upto) {
            Ok(found) => parent = found,
            Err(Errno::NOENT) => {
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(like.st_mode & 0o7777))?;
                parent = made;
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_outside_is_found_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        fs::create_dir_all(root.join("in/side")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink("in/side", root.join("good")).unwrap();
        for (name, target) in [("up", ".."), ("out", "../outside"), ("abs", "/etc")] {
            symlink(target, root.join(name)).unwrap();
        }
        let look = |path: &str, make| is_dir(&root, Path::new(path), make).map_err(|error| error.raw_os_error());
        assert_eq!(look("in/side", false), Ok(true));
        assert_eq!(look("good", false), Ok(true));
        assert_eq!(look("file", false), Ok(false));
        assert_eq!(look("none", false), Err(Some(libc::ENOENT)));
        for path in ["up", "out", "abs", "abs/passwd", "../outside", "/etc"] {
            assert_eq!(look(path, true), Err(Some(libc::EXDEV)), "{path}");
        }
        assert_eq!(look("out/new", true), Err(Some(libc::EXDEV)));
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o2777)).unwrap();
        assert_eq!(look("a/b/c", true), Ok(true));
        assert_eq!(look("good/d", true), Ok(true));
        assert!(root.join("in/side/d").is_dir());
        let mode = fs::metadata(root.join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2777);
    }
}
