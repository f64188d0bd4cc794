//! The store's files, and the rules by which a crash at any instant leaves a store that is right.
//!
//! ```text
//! store.json               version, and how opaque directories are marked
//! blobs/sha256/HEX         manifests, indexes and configurations: bytes that have this digest
//! layers/HEX/              an unpacked layer by the digest of its uncompressed archive: complete, always
//!   fs/, layer.json          its files, and what is known of it
//! layers/HEX.partial/      being unpacked by whoever holds its lock
//! images/HEX.json          name of an image ─▶ digest; its time is when it was last used
//! trash/                   being removed
//! lock                     held while images are written (shared) or collected (exclusive)
//! ```
//!
//! Whatever is made has another name until it is whole and synced. A layer's lock is `flock` on its directory: held shared by
//! everybody who uses it, so that no process takes it from another.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

/// What the store's own file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StoreFile {
    version: u32,
    pub(super) opaque: OpaqueMark,
}

/// How a directory is marked that hides lower layers' content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OpaqueMark {
    /// `trusted.overlay.opaque`: root's way.
    Trusted,
    /// `user.overlay.opaque`: overlayfs then is mounted with `userxattr`.
    User,
    /// The file system has neither: layers with opaque directories are refused.
    None,
}

const VERSION: u32 = 1;

/// The store's directory.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    pub(super) opaque: OpaqueMark,
    /// Removes what this user may not.
    worker: (PathBuf, Vec<OsString>),
}

/// How often, and how long, the end of a killed worker is waited for: 5 s at most.
const LAST_WRITES: u32 = 500;
const LAST_WRITE: Duration = Duration::from_millis(10);

impl Disk {
    /// Makes what is missing, and removes what a crash left half done.
    pub(super) fn open(root: &Path, worker: (PathBuf, Vec<OsString>)) -> Result<Self, ImageError> {
        let failed =
            |error: io::Error| ImageError::io(format!("cannot use {} as an image store", root.display()), error);
        private_directory(root).map_err(failed)?;
        let root = &root.canonicalize().map_err(failed)?;
        for name in ["blobs", "blobs/sha256", "layers", "images", "trash"] {
            private_directory(&root.join(name)).map_err(failed)?;
        }
        let lock = lock_file(root).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let file = match fs::read(root.join("store.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = StoreFile {
                    version: VERSION,
                    opaque: try_marks(&root.join("trash")),
                };
                write_whole(&root.join("store.json"), &serde_json::to_vec(&file).unwrap_or_default())
                    .map_err(failed)?;
                file
            }
            Err(error) => return Err(failed(error)),
        };
        if file.version != VERSION {
            let reason = format!("the store has version {}, this program knows {VERSION}", file.version);
            return Err(failed(io::Error::other(reason)));
        }
        let disk = Self {
            root: root.clone(),
            opaque: file.opaque,
            worker,
        };
        disk.sweep().map_err(failed)?;
        Ok(disk)
    }

    /// Removes a directory with all in it, or a file; directories that forbid it to their owner are changed first, and
    /// files of subordinate users are left to the worker.
    pub(super) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let once = || match fs::symlink_metadata(path)?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        // A worker whose process was killed is killed with it, and may write on until that has reached it.
        let remove = || {
            for _ in 0..LAST_WRITES {
                match once() {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => sleep(LAST_WRITE),
                    result => return result,
                }
            }
            once()
        };
        match remove() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if open_up(path).and_then(|()| remove()).is_ok() {
                    return Ok(());
                }
                crate::worker::remove(&self.worker, path)
            }
            result => result,
        }
    }

    /// Removes what nobody works on any more. The caller holds the store's lock.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("layers"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "partial")
                && let Some(locked) = lock_directory(&path, FlockOperation::NonBlockingLockExclusive)?
            {
                self.discard(&path, &locked)?;
            }
        }
        for folder in ["blobs/sha256", "images", "."] {
            for entry in fs::read_dir(self.root.join(folder))? {
                let path = entry?.path();
                // Named by `write_whole`; its writer is gone, or it would hold the lock.
                if path.extension().is_some_and(|extension| extension == "new") {
                    fs::remove_file(&path)?;
                }
            }
        }
        for entry in fs::read_dir(self.root.join("trash"))? {
            // Another process may be at it too.
            let _ = self.remove_tree(&entry?.path());
        }
        Ok(())
    }

    /// Takes the store's lock.
    pub(super) fn lock(&self, operation: FlockOperation) -> Result<File, ImageError> {
        let failed = |error: io::Error| self.failed("cannot lock the image store", error);
        let lock = lock_file(&self.root).map_err(failed)?;
        rustix::fs::flock(&lock, operation).map_err(|error| failed(error.into()))?;
        Ok(lock)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(super) fn partial(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(format!("{}.partial", diff_id.hex()))
    }

    /// A manifest or configuration, when it is there and right. What is not right is as if it were not there.
    pub(super) fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.blob(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Writes a manifest or configuration. The caller holds the store's lock.
    pub(super) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.read_blob(digest).is_some() {
            return Ok(());
        }
        write_whole(&self.blob(digest), bytes).map_err(|error| self.failed("cannot write a blob", error))
    }

    /// A failed call, or a full disk.
    pub(super) fn failed(&self, context: &str, error: io::Error) -> ImageError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::Full {
                what: "the image".to_owned(),
                store: self.root.clone(),
                reason: error.to_string(),
            },
            _ => ImageError::io(format!("{context} in {}", self.root.display()), error),
        }
    }

    /// Removes a directory that the caller has locked.
    pub(super) fn discard(&self, path: &Path, locked: &File) -> io::Result<()> {
        self.remove_tree(&self.bury(path, locked)?)
    }

    /// Moves a directory that the caller has locked to where nobody looks, and says where.
    pub(super) fn bury(&self, path: &Path, _locked: &File) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut number = 0u32;
        let grave = loop {
            let grave = self
                .root
                .join("trash")
                .join(format!("{name}.{}.{number}", std::process::id()));
            match fs::symlink_metadata(&grave) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break grave,
                _ => number += 1,
            }
        };
        fs::rename(path, &grave)?;
        Ok(grave)
    }
}

/// Opens a directory and takes its lock: `None` when it is not there, or when another has it and the caller does not wait.
pub(super) fn lock_directory(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    loop {
        let directory = match File::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&directory, operation) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // While this waited the directory may have got another name, and another one this name.
        let ours = directory.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(directory)),
            _ => {}
        }
    }
}

/// Writes a file so that it has either its old content or all of the new, whatever happens.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    // Other threads and processes may write the same file now.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{number}.new", std::process::id()));
    let new = PathBuf::from(name);
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_directory(path.parent().unwrap_or(Path::new("/")))
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Makes a change of names in a directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).recursive(true).create(path)?;
        }
        result => result?,
    }
    let metadata = fs::metadata(path)?;
    if metadata.mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn lock_file(root: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join("lock"))
}

/// What this user may set on this file system.
fn try_marks(directory: &Path) -> OpaqueMark {
    let Ok(directory) = File::open(directory) else {
        return OpaqueMark::None;
    };
    for mark in [OpaqueMark::Trusted, OpaqueMark::User] {
        let Some(name) = mark.attribute() else { continue };
        let set = rustix::fs::fsetxattr(directory.as_fd(), name, b"y", rustix::fs::XattrFlags::empty());
        if set.is_ok() {
            let _ = rustix::fs::fremovexattr(directory.as_fd(), name);
            return mark;
        }
    }
    OpaqueMark::None
}

impl OpaqueMark {
    /// The extended attribute.
    pub(super) fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Trusted => Some("trusted.overlay.opaque"),
            Self::User => Some("user.overlay.opaque"),
            Self::None => None,
        }
    }
}
