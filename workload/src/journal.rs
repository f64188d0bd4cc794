//! A file that one process writes at a time: the witness for storage that only one sandbox may have.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

/// Locked while this process lives.
pub(crate) struct Journal {
    file: File,
    writer: String,
}

/// What another process would find that opens it too.
const OVERLAP: &str = "overlap";

impl Journal {
    /// Opens and locks it. When another process has it that is an error, and a line in it tells.
    pub(crate) fn open(path: &Path, writer: String) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, writer }),
            Err(TryLockError::WouldBlock) => {
                writeln!(file, "{writer} {OVERLAP}")?;
                Err(io::Error::other("another process writes it"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Adds a line: who writes, and what.
    pub(crate) fn write(&self, what: &str) -> io::Result<()> {
        // One call: a line is there whole or not at all.
        (&self.file).write_all(format!("{} {what}\n", self.writer).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_writer_is_refused_and_seen() {
        let path = std::env::temp_dir().join(format!("knarr-journal-{}", std::process::id()));
        let first = Journal::open(&path, "a".to_owned()).unwrap();
        first.write("1").unwrap();
        assert!(Journal::open(&path, "b".to_owned()).is_err());
        first.write("2").unwrap();
        drop(first);
        Journal::open(&path, "c".to_owned()).unwrap().write("3").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "a 1\nb overlap\na 2\nc 3\n");
    }
}
