//! The data directory: one Knarr at a time, nobody else inside.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A data directory that is ours until this is dropped (or the process dies: the kernel frees the lock).
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{path}: another Knarr runs on this data directory; stop it, or give another one with --data-dir", path = .0.display())]
    Locked(PathBuf),
    /// It cannot be made or opened.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if needed (mode 0700) and locks it.
    ///
    /// # Errors
    /// When another process holds the lock, or the directory cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path)),
            Err(TryLockError::Error(source)) => Err(DataDirError::Io { path, source }),
        }
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the day's costs are kept.
    pub fn costs(&self) -> PathBuf {
        self.path.join("costs.json")
    }

    /// Where what was learned of revisions is kept.
    pub fn learned(&self) -> PathBuf {
        self.path.join("learned.jsonl")
    }

    /// Where the flight recorder writes.
    pub fn flight(&self) -> PathBuf {
        flight_in(&self.path)
    }

    /// Where the control socket is.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }
}

/// Where the control socket of a data directory is, whether or not anybody listens on it.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("knarr.sock")
}

/// Where the flight recorder of a data directory writes.
pub fn flight_in(data_dir: &Path) -> PathBuf {
    data_dir.join("flight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
