//! Tar entries to files, with an image layer's conventions: whiteouts, opaque directories, hard links, attributes.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::decompress::Decompressed;
use super::report::{Failure, Problem, Report, Rules};
use super::tree::{EntryPath, Made, Tree, is_whiteout, path_failure};
use crate::subordinate::RANGE;
use crate::tar_reader::{Entry, TarReader};

/// Unpacks a layer into the directory, and reads the input to its end.
pub(crate) fn unpack(input: impl Read + Send + 'static, root: OwnedFd, rules: &Rules) -> Result<Report, Failure> {
    let mut decompressed = Decompressed::new(input, rules.bytes);
    let mut unpacker = Unpacker {
        tree: Tree::new(root, rules.depth),
        rules,
        owner: rules.owners,
        directories: HashMap::new(),
        report: Report::default(),
        buffer: vec![0; 256 << 10],
    };
    let mut archive = TarReader::new(&mut decompressed);
    while let Some(entry) = archive.next_entry()? {
        unpacker.entry(&entry, &mut archive)?;
    }
    let mut report = unpacker.finish()?;
    report.diff_id = Some(decompressed.finish()?);
    Ok(report)
}

struct Unpacker<'a> {
    tree: Tree,
    rules: &'a Rules,
    /// Whether files keep the archive's owner, or all belong to this user.
    owner: bool,
    /// What is set when nothing is made in them any more, by inode: a directory may be read-only, and its time changes
    /// with every entry.
    directories: HashMap<u64, (Vec<u8>, Metadata)>,
    report: Report,
    buffer: Vec<u8>,
}

/// What an entry says about its file beside the content.
struct Metadata {
    mode: u32,
    owner: Option<(Uid, Gid)>,
    modified: Timespec,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of AUFS that old Docker left in layers.
const AUFS: &[u8] = b".wh..wh.";

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), Failure> {
        let kind = entry.kind();
        let path = EntryPath::parse(&entry.path, self.rules.depth)?;
        self.count(0)?;

        let Some((parents, name)) = path.split() else {
            if kind != EntryType::Directory {
                return Err(Failure::archive("an entry without a name is not a directory"));
            }
            let metadata = metadata(entry, self.owner, &mut self.report)?;
            return self.describe_directory(b".", metadata);
        };
        if name == OPAQUE {
            self.tree.parent(parents)?;
            self.report.opaque.push(path_of(parents));
            return Ok(());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&path, parents, hidden);
        }

        match kind {
            EntryType::Directory => {
                let metadata = metadata(entry, self.owner, &mut self.report)?;
                if let Made::OverWhiteout = self.tree.make_directory(parents, name)? {
                    self.report.opaque.push(path.bytes());
                }
                self.describe_directory(&path.bytes(), metadata)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, content, parents, name)
            }
            EntryType::Symlink => self.symbolic_link(entry, parents, name),
            EntryType::Link => self.hard_link(entry, &path),
            EntryType::Fifo => {
                let metadata = metadata(entry, self.owner, &mut self.report)?;
                let mode = Mode::from_raw_mode(metadata.mode);
                self.tree.make(parents, name, |parent| {
                    rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)
                })?;
                self.describe_link(parents, name, &metadata)
            }
            EntryType::Char | EntryType::Block => {
                // A device of the host within reach of a sandbox; runtimes make the few that are needed.
                self.report.devices += 1;
                Ok(())
            }
            other => Err(Failure::archive(format!(
                "{}: entries of type {:?} are not known",
                path.display(),
                char::from(other.as_byte())
            ))),
        }
    }

    /// One more file of so many bytes, within the bounds.
    fn count(&mut self, bytes: u64) -> Result<(), Failure> {
        self.report.disk = self.report.disk.saturating_add(bytes);
        if bytes == 0 {
            self.report.entries += 1;
            self.report.disk = self.report.disk.saturating_add(INODE);
        }
        let entries = self.report.entries + self.tree.implied;
        if entries > self.rules.entries {
            return Err(Failure::new(
                Problem::TooLarge,
                format!("the layer has more than {} files", self.rules.entries),
            ));
        }
        if self.report.disk > self.rules.bytes {
            let reason = format!("the layer unpacks to more than {} bytes", self.rules.bytes);
            return Err(Failure::new(Problem::TooLarge, reason));
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, content: &mut impl Read, parents: &[&[u8]], name: &[u8]) -> Result<(), Failure> {
        let metadata = metadata(entry, self.owner, &mut self.report)?;
        self.count(entry.size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX))?;
        // Overwriting what is there would write through a hard link: what is there gives way instead.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Set-id bits only once the owner is right; a change of owner clears them too.
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let file = self
            .tree
            .make(parents, name, |parent| rustix::fs::openat(parent, name, flags, mode))?;
        let failed = |error: Errno| path_failure(name, error);
        match &entry.sparse {
            None => self.copy(content, &file, entry.size, name)?,
            Some(stretches) => {
                for &(offset, length) in stretches {
                    rustix::fs::seek(&file, SeekFrom::Start(offset)).map_err(failed)?;
                    self.copy(content, &file, length, name)?;
                }
                rustix::fs::ftruncate(&file, entry.size).map_err(failed)?;
            }
        }
        self.describe(file.as_fd(), name, &metadata)
    }

    fn copy(&mut self, content: &mut impl Read, file: &OwnedFd, mut left: u64, name: &[u8]) -> Result<(), Failure> {
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match content.read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    return Err(Failure::archive(format!(
                        "{:?} ends early",
                        String::from_utf8_lossy(name)
                    )));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            left -= count as u64;
            let mut rest = &self.buffer[..count];
            while !rest.is_empty() {
                match rustix::io::write(file, rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(path_failure(name, error)),
                }
            }
        }
        Ok(())
    }

    fn symbolic_link(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<(), Failure> {
        let metadata = metadata(entry, self.owner, &mut self.report)?;
        // Any target is right: what it means is decided where it is followed, and that is always inside.
        let target = entry.link.as_slice();
        self.tree
            .make(parents, name, |parent| rustix::fs::symlinkat(target, parent, name))?;
        self.describe_link(parents, name, &metadata)
    }

    fn hard_link(&mut self, entry: &Entry, path: &EntryPath<'_>) -> Result<(), Failure> {
        let target = EntryPath::parse(&entry.link, self.rules.depth)?;
        let (Some((parents, name)), Some((folder, file))) = (path.split(), target.split()) else {
            return Err(Failure::archive("a hard link without a name or a target"));
        };
        let elsewhere = || {
            let (path, target) = (path.display(), target.display());
            Failure::archive(format!(
                "{path} is a hard link to {target}, which is not in the same layer"
            ))
        };
        let folder = self.tree.existing(folder).map_err(|_| elsewhere())?;
        let stat =
            |directory: BorrowedFd<'_>, name: &[u8]| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let there = stat(folder.as_fd(), file).map_err(|_| elsewhere())?;
        if is_whiteout(&there) || FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(elsewhere());
        }
        // To itself, by whatever name.
        if self
            .tree
            .stat(parents, name)?
            .is_some_and(|stat| (stat.st_dev, stat.st_ino) == (there.st_dev, there.st_ino))
        {
            return Ok(());
        }
        self.tree.make(parents, name, |parent| {
            rustix::fs::linkat(&folder, file, parent, name, AtFlags::empty())
        })
    }

    /// Hides a name of lower layers. What this layer itself has under that name stays.
    fn whiteout(&mut self, path: &EntryPath<'_>, parents: &[&[u8]], hidden: &[u8]) -> Result<(), Failure> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Failure::archive(format!("{} is a whiteout of nothing", path.display())));
        }
        match self.tree.stat(parents, hidden)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let mut names = parents.to_vec();
                names.push(hidden);
                self.report.opaque.push(path_of(&names));
                Ok(())
            }
            Some(_) => Ok(()),
            None => {
                let parent = self.tree.parent(parents)?;
                // Needs no privilege: this one device is overlayfs's own.
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(|error| {
                    Failure::system(
                        Problem::System,
                        "the store's file system cannot mark a file as removed",
                        &error.into(),
                    )
                })
            }
        }
    }

    fn describe_directory(&mut self, path: &[u8], metadata: Metadata) -> Result<(), Failure> {
        let directory = self
            .tree
            .open_directory(path)
            .map_err(|error| path_failure(path, error))?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| path_failure(path, error))?;
        self.directories.insert(stat.st_ino, (path.to_vec(), metadata));
        Ok(())
    }

    /// Sets what an entry says of an open file. The order matters: a new owner clears set-id bits and capabilities.
    fn describe(&mut self, file: BorrowedFd<'_>, name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        let failed = |error: Errno| path_failure(name, error);
        if let Some((user, group)) = metadata.owner {
            rustix::fs::fchown(file, Some(user), Some(group)).map_err(failed)?;
        }
        if metadata.owner.is_some() || metadata.mode & !0o777 != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode)).map_err(failed)?;
        }
        for (attribute, value) in &metadata.attributes {
            match rustix::fs::fsetxattr(file, attribute.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                // The file system has no place for it, or this user may not.
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC | Errno::RANGE | Errno::TOOBIG | Errno::INVAL) => {
                    self.report.attributes += 1;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        rustix::fs::futimens(file, &times(metadata)).map_err(failed)
    }

    /// The same of what cannot be opened: links and pipes.
    fn describe_link(&mut self, parents: &[&[u8]], name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        let failed = |error: Errno| path_failure(name, error);
        self.report.attributes += metadata.attributes.len() as u64;
        let parent = self.tree.parent(parents)?;
        if let Some((user, group)) = metadata.owner {
            rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        rustix::fs::utimensat(parent, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Directories last, inner ones first.
    fn finish(mut self) -> Result<Report, Failure> {
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        directories.sort_by_key(|(_, (path, _))| std::cmp::Reverse(path.len()));
        for (inode, (path, metadata)) in directories {
            // What was removed or replaced later in the archive has no say.
            let Ok(directory) = self.tree.open_directory(&path) else {
                continue;
            };
            let stat = rustix::fs::fstat(&directory).map_err(|error| path_failure(&path, error))?;
            if stat.st_ino != inode {
                continue;
            }
            let all = Metadata {
                mode: metadata.mode,
                ..metadata
            };
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(all.mode))
                .map_err(|error| path_failure(&path, error))?;
            self.describe(directory.as_fd(), &path, &all)?;
        }
        self.report.disk += self.tree.implied * INODE;
        self.report.entries += self.tree.implied;
        self.report.opaque.append(&mut self.tree.opaque);
        self.report.opaque.sort();
        self.report.opaque.dedup();
        self.report.owners = self.owner;
        if let Some(mark) = &self.rules.mark {
            for path in &self.report.opaque {
                match self.tree.open_directory(path) {
                    Ok(directory) => rustix::fs::fsetxattr(&directory, mark.as_str(), b"y", XattrFlags::empty())
                        .map_err(|error| path_failure(path, error))?,
                    // Replaced later in the archive.
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => return Err(path_failure(path, error)),
                }
            }
        }
        Ok(self.report)
    }
}

/// A file's or directory's own cost, about: its inode and its name.
const INODE: u64 = 512;
const BLOCK: u64 = 4096;

/// Users and groups whose number sandboxes do not have.
const NOBODY: u32 = 65_534;

fn path_of(names: &[&[u8]]) -> Vec<u8> {
    match names.is_empty() {
        true => b".".to_vec(),
        false => names.join(&b'/'),
    }
}

fn times(metadata: &Metadata) -> Timestamps {
    Timestamps {
        last_access: metadata.modified,
        last_modification: metadata.modified,
    }
}

fn metadata(entry: &Entry, owner: bool, report: &mut Report) -> Result<Metadata, Failure> {
    let (wanted, unwanted): (Vec<_>, Vec<_>) = entry.attributes().partition(|(name, _)| kept(name));
    report.attributes += unwanted.len() as u64;
    let attributes = wanted
        .into_iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    let (tv_sec, tv_nsec) = entry.modified();
    let modified = Timespec { tv_sec, tv_nsec };
    let id = |id: u64| {
        // The last number means "leave it" to the system call.
        u32::try_from(id)
            .ok()
            .filter(|&id| id != u32::MAX)
            .ok_or_else(|| Failure::archive(format!("{id} is not a user or group id")))
            // What no sandbox has is nobody's, as the kernel shows it.
            .map(|id| if id < RANGE { id } else { NOBODY })
    };
    let mode = entry.mode()?;
    let owner = match owner {
        true => {
            let (user, group) = entry.owner()?;
            Some((Uid::from_raw(id(user)?), Gid::from_raw(id(group)?)))
        }
        false => None,
    };
    Ok(Metadata {
        // Set-id bits speak of an owner; where the owner is not kept they would speak of the wrong one. Where it is, they
        // are the image's own: nobody but the store's user gets at a layer, and a sandbox says itself what they do.
        mode: if owner.is_some() { mode } else { mode & 0o1777 },
        // Files are root's when root makes them.
        owner: owner.filter(|(user, group)| !(user.is_root() && group.is_root())),
        modified,
        attributes,
    })
}

/// File capabilities and the user's own attributes. Not overlayfs's: they would say which files lower layers may show.
fn kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability" || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."))
}
