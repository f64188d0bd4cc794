//! Reads a log from its last lines on, and across rotations: `knarr logs` and `knarr logs -f`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::{Entry, generations};

/// Reads one sandbox's log forward. Never waits: a caller that follows polls, such as every 100 ms.
#[derive(Debug)]
pub struct Follower {
    current: PathBuf,
    /// The file being read; `None` until there is one.
    file: Option<File>,
    /// A line whose end has not been read yet.
    begun: Vec<u8>,
}

/// More generations than this are not looked for; far more than anyone keeps.
const GENERATIONS: u32 = 32;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Read at most in one call of `poll`.
const TURN: usize = 4 * CHUNK;

impl Follower {
    /// Begins so that the first lines read are the last `lines` there are now; `None` begins with the oldest kept. The
    /// log need not exist yet.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn open(current: impl Into<PathBuf>, lines: Option<usize>) -> io::Result<Self> {
        let current = current.into();
        let mut wanted = lines;
        let mut start = None;
        for path in generations(&current, GENERATIONS) {
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            };
            let (offset, left) = match wanted {
                None => (0, None),
                Some(n) => {
                    let (offset, found) = last_lines(&file, n)?;
                    (offset, Some(n - found))
                }
            };
            file.seek(SeekFrom::Start(offset))?;
            start = Some(file);
            wanted = left;
            if wanted == Some(0) {
                break;
            }
        }
        Ok(Self {
            current,
            file: start,
            begun: Vec::new(),
        })
    }

    /// The next lines, oldest first, at most about 256 KiB of them; empty when there is nothing new now.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut chunk = vec![0; CHUNK];
        let mut taken = 0;
        while taken < TURN {
            let Some(file) = &mut self.file else {
                match File::open(&self.current) {
                    Ok(file) => self.file = Some(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                    Err(e) => return Err(e),
                }
                continue;
            };
            let n = file.read(&mut chunk)?;
            taken += n;
            self.take(&chunk[..n], &mut entries);
            if n == 0 && !self.next_file()? {
                break;
            }
        }
        Ok(entries)
    }

    fn take(&mut self, bytes: &[u8], entries: &mut Vec<Entry>) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.begun.extend_from_slice(piece);
            if let Some(line) = self.begun.strip_suffix(b"\n") {
                entries.extend(Entry::parse(line));
                self.begun.clear();
            }
        }
    }

    /// At the end of a file: goes on with the one written after it, if it was rotated away; true when there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let held = file.metadata()?;
        let mut newer = None;
        for path in generations(&self.current, GENERATIONS) {
            let candidate = match File::open(&path) {
                Ok(file) => file,
                // Between the rotation and the first line after it there is no current file.
                Err(e) if e.kind() == io::ErrorKind::NotFound && path == self.current => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            };
            let meta = candidate.metadata()?;
            if (meta.dev(), meta.ino()) == (held.dev(), held.ino()) {
                break;
            }
            newer = Some(candidate);
        }
        // When the held one was dropped meanwhile, this is the oldest there is: lines are missing, as the bound says.
        let Some(newer) = newer else { return Ok(false) };
        // The last lines may have come between the read of its end and the rotation: nobody writes to it any more.
        if held.len() > self.position()? {
            return Ok(true);
        }
        self.file = Some(newer);
        self.begun.clear();
        Ok(true)
    }

    fn position(&mut self) -> io::Result<u64> {
        self.file.as_mut().map_or(Ok(0), |file| file.stream_position())
    }
}

/// Where the last `lines` complete lines of a file begin, and how many of them it has.
fn last_lines(file: &File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    // The newline that ends the last line is not yet the beginning of one.
    let mut newlines = 0;
    while end > 0 {
        let from = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..usize::try_from(end - from).unwrap_or(CHUNK)];
        file.read_exact_at(part, from)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = from + index as u64 + 1;
            if newlines == lines {
                return Ok((after, lines));
            }
            newlines += 1;
        }
        end = from;
    }
    Ok((0, newlines))
}
