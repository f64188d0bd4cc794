//! Named files of an image that is here already: in a directory, or in an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::ImageError;
use crate::tar_reader::TarReader;

/// Files by their names relative to the root.
pub(crate) enum Files {
    /// In a directory.
    Directory(PathBuf),
    /// In a tar file: where each one's bytes are.
    Archive {
        /// The open archive.
        file: Arc<File>,
        /// Its path, for messages.
        path: PathBuf,
        /// Offset and length by name.
        members: HashMap<String, (u64, u64)>,
    },
}

/// Most members of an archive of an image. Each layer needs three at most.
const MEMBER_LIMIT: usize = 10_000;

impl Files {
    /// Finds the members of a tar file without reading their content.
    pub(crate) fn archive(path: &Path) -> Result<Self, ImageError> {
        let shown = path.display();
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NotFound(format!("{shown} does not exist")),
            _ => ImageError::io(format!("cannot open {shown}"), error),
        })?;
        Self::archive_in(Arc::new(file), path)
    }

    /// The same of an open file; `path` is for messages.
    pub(crate) fn archive_in(file: Arc<File>, path: &Path) -> Result<Self, ImageError> {
        let shown = path.display();
        let mut magic = [0; 6];
        let length = file
            .read_at(&mut magic, 0)
            .map_err(|error| ImageError::io(format!("cannot read {shown}"), error))?;
        if magic[..length].starts_with(&[0x1f, 0x8b]) || magic[..length].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(ImageError::invalid(
                shown,
                "the archive itself is compressed: decompress it first (gunzip, unzstd)",
            ));
        }
        (&*file)
            .seek(SeekFrom::Start(0))
            .map_err(|error| ImageError::io(format!("cannot read {shown}"), error))?;
        let members = members(&file).map_err(|error| ImageError::invalid(shown, error))?;
        Ok(Self::Archive {
            file,
            path: path.to_owned(),
            members,
        })
    }

    /// Where they are, for messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } => path,
        }
    }

    /// Whether there is one of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).is_file(),
            Self::Archive { members, .. } => members.contains_key(name),
        }
    }

    /// Opens one, and says how long it is.
    pub(crate) fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
        let absent = || ImageError::invalid(self.path().display(), format!("{name} is missing"));
        match self {
            Self::Directory(path) => {
                let file = path.join(name);
                let failed = |error: io::Error| match error.kind() {
                    io::ErrorKind::NotFound => absent(),
                    _ => ImageError::io(format!("cannot read {}", file.display()), error),
                };
                let open = File::open(&file).map_err(failed)?;
                let length = open.metadata().map_err(failed)?.len();
                Ok((Box::new(open), length))
            }
            Self::Archive { file, members, .. } => {
                let (offset, length) = *members.get(name).ok_or_else(absent)?;
                let part = Part {
                    file: file.clone(),
                    offset,
                    left: length,
                };
                Ok((Box::new(part), length))
            }
        }
    }

    /// The whole content of a small one.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let (reader, length) = self.open(name)?;
        if length > limit {
            return Err(ImageError::invalid(
                self.path().display(),
                format!("{name} has {length} bytes, at most {limit} are read"),
            ));
        }
        let mut bytes = Vec::new();
        reader
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| ImageError::io(format!("cannot read {name} in {}", self.path().display()), error))?;
        Ok(bytes)
    }
}

/// A stretch of a file, read without moving the file's own position.
struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Offset and length of each member. `docker save` of old links equal layers to each other: such names are followed once.
fn members(file: &File) -> Result<HashMap<String, (u64, u64)>, String> {
    let mut members = HashMap::new();
    let mut links = Vec::new();
    let broken = |error: io::Error| format!("not a tar archive: {error}");
    let mut reader = TarReader::new(file);
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        if members.len() + links.len() >= MEMBER_LIMIT {
            return Err(format!("it has more than {MEMBER_LIMIT} members"));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path));
        let kind = entry.kind();
        if (kind.is_file() || kind.is_contiguous()) && entry.sparse.is_none() {
            members.insert(name, (entry.offset, entry.size));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = String::from_utf8_lossy(&entry.link).into_owned();
            let target = match (kind.is_symlink(), name.rsplit_once('/')) {
                (true, Some((folder, _))) => format!("{folder}/{target}"),
                _ => target,
            };
            links.push((name, normal(&target)));
        }
        reader.jump().map_err(broken)?;
    }
    for (name, target) in links {
        if let Some(&place) = members.get(&target) {
            members.entry(name).or_insert(place);
        }
    }
    Ok(members)
}

/// The name without `.`, `..` and doubled slashes, and never above the root.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
