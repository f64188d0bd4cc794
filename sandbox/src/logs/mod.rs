//! The output of sandboxes: bounded, rotated files in Kubernetes' log format, their writer and their readers.
//!
//! The spawner writes: it holds the pipes, and its poll loop calls [`LogWriter::pump`] when one has something. Readers
//! need no connection to it: `knarr logs` opens the files with [`Follower`].
//!
//! ```text
//! DIR/ID.log      2026-03-01T12:00:00.123456789Z stdout F the line as the app wrote it
//! DIR/ID.log.1    the file before it; the oldest is dropped
//! ```

mod follow;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manifests::ids::SandboxId;
use manifests::units::{Bytes, Timestamp};

pub use follow::Follower;
pub use writer::{LogWriter, Pumped};

/// How much output is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogLimits {
    /// A file is rotated before it would grow larger. Default 10 MiB, as Kubernetes' `containerLogMaxSize`.
    pub file: Bytes,
    /// Files per sandbox, the one being written included; at least 1. Default 2: 20 MiB per running sandbox at most.
    pub files: u32,
    /// All files of sandboxes that are gone, together; the longest silent go first. Default 256 MiB.
    pub ended: Bytes,
    /// How many of them at most. Default 2000: a directory that is quick to look through.
    pub ended_files: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            file: Bytes(10 << 20),
            files: 2,
            ended: Bytes(256 << 20),
            ended_files: 2000,
        }
    }
}

/// Which stream a line came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of output, read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When its end was read from the pipe.
    pub time: Timestamp,
    /// Where the app wrote it.
    pub stream: Stream,
    /// True for a piece of a line longer than 16 KiB: the next entry of the stream goes on where this one ends, and a
    /// printer puts no newline in between.
    pub partial: bool,
    /// The text, without the newline; any bytes, as the app wrote them.
    pub text: Vec<u8>,
}

/// The directory with the logs of all sandboxes.
#[derive(Clone, Debug)]
pub struct LogDir {
    dir: PathBuf,
    limits: LogLimits,
}

impl LogDir {
    /// Makes the directory when it is missing, for this user alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: impl Into<PathBuf>, limits: LogLimits) -> io::Result<Self> {
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir, limits })
    }

    /// Starts, or goes on with, the log of a sandbox.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn writer(&self, id: &SandboxId) -> io::Result<LogWriter> {
        LogWriter::open(self.current(id), self.limits)
    }

    /// The file that is, or will be, written for a sandbox: what a [`Follower`] opens.
    pub fn current(&self, id: &SandboxId) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// The files there are for a sandbox, the newest first.
    pub fn files(&self, id: &SandboxId) -> Vec<PathBuf> {
        generations(&self.current(id), self.limits.files)
            .filter(|path| path.exists())
            .collect()
    }

    /// Every sandbox with a file here, by name; none when the directory cannot be read.
    pub fn names(&self) -> Vec<SandboxId> {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<SandboxId> = files.filter_map(|file| owner(file.file_name().to_str()?)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Removes files of sandboxes that are gone until the rest is within the bound, the longest silent first; returns
    /// how many bytes went. To be called now and then, such as after each exit.
    ///
    /// # Errors
    /// When the directory cannot be read or a file cannot be removed.
    pub fn prune(&self, lives: impl Fn(&SandboxId) -> bool) -> io::Result<Bytes> {
        let mut ended: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(owner) else {
                continue;
            };
            match entry.metadata() {
                Ok(meta) if meta.is_file() && !lives(&id) => ended.push((meta.modified()?, meta.len(), entry.path())),
                _ => {}
            }
        }
        ended.sort();
        let mut bytes: u64 = ended.iter().map(|(_, len, _)| len).sum();
        let mut files = ended.len();
        let mut removed = 0;
        for (_, len, path) in ended {
            if bytes <= self.limits.ended.0 && files <= self.limits.ended_files {
                break;
            }
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            bytes -= len;
            files -= 1;
            removed += len;
        }
        Ok(Bytes(removed))
    }
}

impl Stream {
    const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// As the log format writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Entry {
    /// Reads one line of a log file, without its newline; `None` when it is not one (torn by a full disk, say).
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let time = humantime::parse_rfc3339(std::str::from_utf8(time).ok()?)
            .ok()?
            .duration_since(UNIX_EPOCH)
            .ok()?;
        let stream = Stream::ALL.into_iter().find(|s| s.name().as_bytes() == stream)?;
        let partial = match tag {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self {
            time: Timestamp::EPOCH.plus(time),
            stream,
            partial,
            text: text.to_vec(),
        })
    }

    /// Writes it as a line of a log file.
    pub(crate) fn format(out: &mut Vec<u8>, time: Timestamp, stream: Stream, partial: bool, text: &[u8]) {
        let time = humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(time.as_nanos()));
        let tag = if partial { 'P' } else { 'F' };
        out.extend_from_slice(format!("{time} {} {tag} ", stream.name()).as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// The possible files of one log, the newest first.
fn generations(current: &Path, files: u32) -> impl Iterator<Item = PathBuf> {
    let current = current.to_owned();
    (0..files.max(1)).map(move |age| {
        if age == 0 {
            return current.clone();
        }
        let mut path = current.clone().into_os_string();
        path.push(format!(".{age}"));
        path.into()
    })
}

/// Whose file `NAME.log` or `NAME.log.N` is.
fn owner(file: &str) -> Option<SandboxId> {
    let (name, age) = file.rsplit_once(".log")?;
    let rotated = age.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok());
    (age.is_empty() || rotated).then(|| SandboxId::new(name))
}
