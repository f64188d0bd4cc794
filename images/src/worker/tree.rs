//! The directory that is filled: every path is resolved by the kernel beneath it, and nothing is ever written through a link
//! at the end of a path.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::report::{Failure, Problem};
use crate::inside;

/// Longest path in bytes, Linux's own.
const PATH_LIMIT: usize = 4095;
/// Longest name in bytes, of every file system that Linux has.
const NAME_LIMIT: usize = 255;

/// A path of the archive: names, and nothing that leads upwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EntryPath<'a> {
    names: Vec<&'a [u8]>,
}

impl<'a> EntryPath<'a> {
    /// An absolute path is taken relative to the root, as Docker does; one with `..` is refused.
    pub(super) fn parse(bytes: &'a [u8], depth: usize) -> Result<Self, Failure> {
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let mut names = Vec::new();
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(Failure::archive(format!("{:?} leads upwards", shown()))),
                name if name.len() > NAME_LIMIT => {
                    return Err(Failure::archive(format!(
                        "{:?}... has a name longer than {NAME_LIMIT} bytes",
                        shown()
                    )));
                }
                name if name.contains(&0) => return Err(Failure::archive(format!("{:?} has a zero byte", shown()))),
                name => names.push(name),
            }
        }
        if bytes.len() > PATH_LIMIT || names.len() > depth {
            return Err(Failure::archive(format!(
                "{:?}... is too long or deeper than {depth} directories",
                shown()
            )));
        }
        Ok(Self { names })
    }

    /// Last name, and the names before it; `None` for the root itself.
    pub(super) fn split(&self) -> Option<(&[&'a [u8]], &'a [u8])> {
        let (last, parents) = self.names.split_last()?;
        Some((parents, last))
    }

    /// For messages and reports.
    pub(super) fn display(&self) -> String {
        match self.names.is_empty() {
            true => ".".to_owned(),
            false => String::from_utf8_lossy(&self.names.join(&b'/')).into_owned(),
        }
    }

    /// With `/` between.
    pub(super) fn bytes(&self) -> Vec<u8> {
        joined(&self.names)
    }
}

fn joined(names: &[&[u8]]) -> Vec<u8> {
    match names.is_empty() {
        true => b".".to_vec(),
        false => names.join(&b'/'),
    }
}

/// The directory, and the one in it that was used last.
pub(super) struct Tree {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
    /// How deep each directory really lies, by inode: through links paths may be shorter.
    depths: HashMap<u64, usize>,
    limit: usize,
    /// Directories that no entry asked for but that others lie in.
    pub(super) implied: u64,
    /// Those of them that took the place of a whiteout.
    pub(super) opaque: Vec<Vec<u8>>,
}

/// What a name was before.
pub(super) enum Made {
    New,
    Existed,
    /// A whiteout of this layer was there.
    OverWhiteout,
}

impl Tree {
    /// No directory may lie deeper than `limit`.
    pub(super) fn new(root: OwnedFd, limit: usize) -> Self {
        Self {
            root,
            last: None,
            depths: HashMap::new(),
            limit,
            implied: 0,
            opaque: Vec::new(),
        }
    }

    /// Makes a directory, unless it would lie too deep: who has to remove a tree must get to its bottom.
    fn make_one(&mut self, parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> rustix::io::Result<()> {
        let above = rustix::fs::fstat(parent)?;
        let depth = self.depths.get(&above.st_ino).copied().unwrap_or(0) + 1;
        if depth > self.limit {
            return Err(Errno::NAMETOOLONG);
        }
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?;
        let made = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.depths.insert(made.st_ino, depth);
        Ok(())
    }

    /// The directory of these names, made when it is missing. Links on the way count within the root.
    pub(super) fn parent(&mut self, names: &[&[u8]]) -> Result<BorrowedFd<'_>, Failure> {
        let path = joined(names);
        if self.last.as_ref().is_none_or(|(last, _)| *last != path) {
            let found = match self.resolve(&path) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(names),
                found => found,
            };
            let opened = found.map_err(|error| path_failure(&path, error))?;
            self.last = Some((path, opened));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// The directory of these names when it is there.
    pub(super) fn existing(&self, names: &[&[u8]]) -> Result<OwnedFd, Failure> {
        let path = joined(names);
        self.resolve(&path).map_err(|error| path_failure(&path, error))
    }

    /// Opens a directory to read and change it.
    pub(super) fn open_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        inside::open(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        inside::open(&self.root, path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make_parents(&mut self, names: &[&[u8]]) -> rustix::io::Result<OwnedFd> {
        let mut here = self.resolve(b".")?;
        for length in 1..=names.len() {
            let path = joined(&names[..length]);
            let name = names[length - 1];
            here = match self.resolve(&path) {
                Err(Errno::NOTDIR) => {
                    let there = rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if !is_whiteout(&there) {
                        return Err(Errno::NOTDIR);
                    }
                    rustix::fs::unlinkat(&here, name, AtFlags::empty())?;
                    self.make_one(here.as_fd(), name, 0o755)?;
                    self.opaque.push(path.clone());
                    self.resolve(&path)?
                }
                Err(Errno::NOENT) => {
                    self.make_one(here.as_fd(), name, 0o755)?;
                    self.implied += 1;
                    self.resolve(&path)?
                }
                found => found?,
            };
        }
        Ok(here)
    }

    /// Makes way for something new: whatever has the name is removed, a directory with all in it.
    pub(super) fn remove(&mut self, names: &[&[u8]], name: &[u8]) -> Result<(), Failure> {
        let parent = rustix::io::dup(self.parent(names)?).map_err(|error| path_failure(name, error))?;
        self.last = None;
        remove(parent.as_fd(), name, 0).map_err(|error| path_failure(name, error))
    }

    /// What has the name, without following it.
    pub(super) fn stat(&mut self, names: &[&[u8]], name: &[u8]) -> Result<Option<Stat>, Failure> {
        let parent = self.parent(names)?;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(path_failure(name, error)),
        }
    }

    /// Calls `make` with the parent, and once more after what has the name is removed, when it is in the way.
    pub(super) fn make<T>(
        &mut self,
        names: &[&[u8]],
        name: &[u8],
        mut make: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        match make(self.parent(names)?) {
            Err(Errno::EXIST) => {
                self.remove(names, name)?;
                make(self.parent(names)?).map_err(|error| path_failure(name, error))
            }
            made => made.map_err(|error| path_failure(name, error)),
        }
    }

    /// Makes a directory; one that is there stays with what is in it, anything else gives way.
    pub(super) fn make_directory(&mut self, names: &[&[u8]], name: &[u8]) -> Result<Made, Failure> {
        let failed = |error: Errno| path_failure(name, error);
        let parent = rustix::io::dup(self.parent(names)?).map_err(failed)?;
        match self.make_one(parent.as_fd(), name, 0o700) {
            Ok(()) => return Ok(Made::New),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(path_failure(name, error)),
        }
        let there = self.stat(names, name)?;
        let kind = there.map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind == Some(FileType::Directory) {
            return Ok(Made::Existed);
        }
        let made = match there {
            Some(stat) if is_whiteout(&stat) => Made::OverWhiteout,
            _ => Made::New,
        };
        self.remove(names, name)?;
        self.make_one(parent.as_fd(), name, 0o700).map_err(failed)?;
        Ok(made)
    }
}

/// Overlayfs's mark of a name that lower layers have and this one has not.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes without following anything. Depth is bounded by what could be made.
fn remove(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    if depth > PATH_LIMIT / 2 {
        return Err(Errno::LOOP);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    remove_content(directory.as_fd(), depth)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn remove_content(directory: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    loop {
        let names: Vec<Vec<u8>> = rustix::fs::Dir::read_from(directory)?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_bytes().to_vec()))
            .filter(|name| name != b"." && name != b"..")
            .take(1024)
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove(directory, &name, depth + 1)?;
        }
    }
}

/// Removes everything in a directory.
pub(super) fn empty(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    remove_content(directory, 0)
}

/// Whose fault an error at a path is: what a sane archive cannot cause is the archive's.
pub(super) fn path_failure(path: &[u8], error: Errno) -> Failure {
    let shown = String::from_utf8_lossy(path).into_owned();
    let problem = match error {
        Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL | Errno::NOENT | Errno::EXIST => {
            Problem::Archive
        }
        Errno::ILSEQ | Errno::ISDIR => Problem::Archive,
        Errno::FBIG => Problem::TooLarge,
        _ => Problem::System,
    };
    Failure::system(problem, &format!("{shown:?}"), &io::Error::from(error))
}
