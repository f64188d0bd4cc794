//! File systems in memory with a size that the kernel holds them to: `emptyDir` with `medium: Memory`. As the kubelet's, each
//! is mounted where its volume is, in the host's mount namespace; what is in it counts as memory of whoever wrote it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use manifests::units::Bytes;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Mounts one on an empty directory; false where this user may not.
pub(super) fn make(path: &Path, size: Option<Bytes>) -> io::Result<bool> {
    // Whole pages; nothing at all would be no limit.
    let size = size.map_or(String::new(), |Bytes(size)| format!("size={}", size.max(1)));
    let options = CString::new(size).map_err(io::Error::other)?;
    match mount(
        "tmpfs",
        path,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    ) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts it. First what is in it goes: a shell that was made meanwhile may have a copy of the mount, which nobody sees.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            super::remove(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(unmount(path, UnmountFlags::DETACH)?)
}

/// Unmounts whatever is mounted below a directory: what a Knarr that was killed has left.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    let mut found = mount_points(&fs::read("/proc/self/mountinfo")?);
    found.retain(|path| path.starts_with(dir) && path != dir);
    // Those mounted on others first.
    for path in found.iter().rev() {
        match remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The fifth field of each line, with its octal escapes.
fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescaped(field))))
        .collect()
}

fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut text, mut rest) = (Vec::with_capacity(field.len()), field);
    while let [first, more @ ..] = rest {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        text.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[4..] } else { more };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_their_escapes() {
        let text = b"22 1 0:21 / /proc rw - proc proc rw\n36 22 0:5 / /a\\040b\\134\\011 rw,nosuid shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/proc"), PathBuf::from("/a b\\\t")]);
    }

    #[test]
    fn the_kernel_holds_it_to_its_size_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        // Of whoever runs tests in parallel, none is below this.
        let path = dir.path().join("with a space");
        fs::create_dir(&path).unwrap();
        if !make(&path, Some(Bytes(1 << 20))).unwrap() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI runs as root");
            eprintln!("skipped: needs root");
            return;
        }
        fs::create_dir(path.join("dir")).unwrap();
        fs::write(path.join("dir/fits"), vec![1; 1 << 19]).unwrap();
        let full = fs::write(path.join("more"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        unmount_below(dir.path()).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        unmount_below(dir.path()).unwrap();
        let own = fs::read("/proc/self/mountinfo").unwrap();
        assert!(!mount_points(&own).iter().any(|at| at.starts_with(dir.path())));
    }
}
