//! Writes one sandbox's output: from its pipes, line by line, into files that never grow past their bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use manifests::units::Timestamp;
use rustix::io::Errno;

use super::{Entry, LogLimits, Stream, generations};

/// The log of one running sandbox.
///
/// An app is never held up by its log: what cannot be written (a full disk) is counted, dropped, and mentioned in the
/// log as soon as that works again.
#[derive(Debug)]
pub struct LogWriter {
    current: PathBuf,
    limits: LogLimits,
    /// `None` after a rotation whose new file could not be made; tried again with the next output.
    file: Option<File>,
    size: u64,
    /// A line that has begun, per stream; at most `LINE`.
    begun: [Vec<u8>; 2],
    /// The end of all output, at most `TAIL`.
    tail: Vec<u8>,
    lost: Lost,
    /// `[container] `, before every line, where several write to one log.
    prefix: Vec<u8>,
}

/// What [`LogWriter::pump`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// The pipe is empty for now.
    Idle,
    /// There may be more, but others want their turn.
    More,
    /// Every writer has closed the pipe.
    Closed,
}

/// Output that could not be written.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    why: String,
    /// The file may end within a line.
    torn: bool,
}

/// A line is cut here, as container runtimes do.
const LINE: usize = 16 * 1024;

/// Kept for exit messages, as Kubernetes keeps for termination messages.
const TAIL: usize = 2048;

/// Read at once, and at most in one call of `pump`.
const CHUNK: usize = 16 * 1024;
const TURN: usize = 4 * CHUNK;

impl LogWriter {
    pub(super) fn open(current: PathBuf, limits: LogLimits) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&current)?;
        let size = file.metadata()?.len();
        let (begun, tail, lost) = (Default::default(), Vec::new(), Lost::default());
        Ok(Self {
            current,
            limits,
            file: Some(file),
            size,
            begun,
            tail,
            lost,
            prefix: Vec::new(),
        })
    }

    /// One of several containers that write to this log: each line begins with its name.
    #[must_use]
    pub fn of_one(mut self, container: &str) -> Self {
        self.prefix = format!("[{container}] ").into_bytes();
        self
    }

    /// Moves what is in the pipe `fd`, which must be non-blocking, into the log; at most 64 KiB, so that a chatty
    /// sandbox does not keep the caller from the others.
    ///
    /// # Errors
    /// When the pipe cannot be read; never because of the log files.
    pub fn pump(&mut self, fd: BorrowedFd<'_>, stream: Stream, now: Timestamp) -> io::Result<Pumped> {
        let mut chunk = [0; CHUNK];
        let mut lines = Vec::new();
        let mut taken = 0;
        let result = loop {
            if taken >= TURN {
                break Ok(Pumped::More);
            }
            match rustix::io::read(fd, &mut chunk) {
                Ok(0) => break Ok(Pumped::Closed),
                Ok(n) => {
                    taken += n;
                    self.take(&chunk[..n], stream, now, &mut lines);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(Pumped::Idle),
                Err(e) => break Err(e.into()),
            }
        };
        self.write(&lines, now);
        result
    }

    /// Writes lines that were begun and never ended, once no more output can come.
    pub fn finish(&mut self, now: Timestamp) {
        let mut lines = Vec::new();
        for stream in Stream::ALL {
            let text = std::mem::take(&mut self.begun[stream as usize]);
            if !text.is_empty() {
                Entry::format(
                    &mut lines,
                    now,
                    stream,
                    false,
                    &[self.prefix.as_slice(), &text].concat(),
                );
            }
        }
        self.write(&lines, now);
    }

    /// The end of the output, whole characters only, at most 2 KiB.
    pub fn tail(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.tail).into_owned();
        // Replacement characters may have made it longer, and the first character may be cut.
        let cut = text.len().saturating_sub(TAIL);
        let cut = (cut..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.drain(..cut);
        text.trim_start_matches(char::REPLACEMENT_CHARACTER).to_owned()
    }

    /// Puts another file in place of its own, to see what happens when that cannot be written to.
    #[cfg(test)]
    pub(super) fn file_for_test(&mut self, file: File) {
        self.file = Some(file);
    }

    /// Cuts `bytes` into lines, and adds the complete ones to `lines`.
    fn take(&mut self, bytes: &[u8], stream: Stream, now: Timestamp, lines: &mut Vec<u8>) {
        let keep = bytes.len().min(TAIL);
        let drop = (self.tail.len() + keep).saturating_sub(TAIL);
        self.tail.drain(..drop);
        self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);

        let begun = &mut self.begun[stream as usize];
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (mut text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            while begun.len() + text.len() > LINE {
                let (now_full, rest) = text.split_at(LINE - begun.len());
                begun.extend_from_slice(now_full);
                text = rest;
                Entry::format(lines, now, stream, true, &[self.prefix.as_slice(), begun].concat());
                begun.clear();
            }
            begun.extend_from_slice(text);
            if ended {
                Entry::format(lines, now, stream, false, &[self.prefix.as_slice(), begun].concat());
                begun.clear();
            }
        }
        if begun.is_empty() {
            // Most sandboxes are silent most of the time: no buffer then.
            *begun = Vec::new();
        }
    }

    /// Appends whole lines, and rotates before a file would grow past its bound.
    fn write(&mut self, lines: &[u8], now: Timestamp) {
        if lines.is_empty() {
            return;
        }
        if !self.prefix.is_empty() {
            self.meet_others();
        }
        if self.lost.bytes > 0 {
            let text = format!("knarr: {} bytes of output are lost: {}", self.lost.bytes, self.lost.why);
            let mut line = if self.lost.torn { vec![b'\n'] } else { Vec::new() };
            Entry::format(&mut line, now, Stream::Stderr, false, text.as_bytes());
            if self.append(&line).is_err() {
                self.lost.bytes += lines.len() as u64;
                return;
            }
            self.lost = Lost::default();
        }
        // As many whole lines as fit, then the next file.
        let (mut from, mut to) = (0, 0);
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let wanted = self.size + (to - from + line.len()) as u64;
            if wanted > self.limits.file.0 && self.size + (to - from) as u64 > 0 {
                self.append_or_lose(&lines[from..to]);
                from = to;
                self.rotate();
            }
            to += line.len();
        }
        self.append_or_lose(&lines[from..to]);
    }

    /// Another writer may have written to the file, or have begun the next one.
    fn meet_others(&mut self) {
        let ours = self.file.as_ref().and_then(|file| file.metadata().ok());
        let there = fs::metadata(&self.current).ok();
        match (ours, there) {
            (Some(ours), Some(there)) if ours.ino() == there.ino() => self.size = there.len(),
            _ => self.file = None,
        }
    }

    fn append_or_lose(&mut self, lines: &[u8]) {
        if let Err(error) = self.append(lines) {
            self.lost.bytes += lines.len() as u64;
            self.lost.why = error.to_string();
        }
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let again = Self::open(self.current.clone(), self.limits)?;
            (self.file, self.size) = (again.file, again.size);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(n) => {
                    self.size += n as u64;
                    self.lost.torn = n > 0 && n < bytes.len();
                    bytes = &bytes[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Each file takes the name of the next older one; the oldest is overwritten.
    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        let names: Vec<PathBuf> = generations(&self.current, self.limits.files).collect();
        for pair in names.windows(2).rev() {
            // A missing one leaves a gap, no more.
            let _ = fs::rename(&pair[0], &pair[1]);
        }
        if names.len() == 1 {
            let _ = fs::remove_file(&self.current);
        }
    }
}
