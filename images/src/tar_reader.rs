//! Reads a tar archive entry by entry, with bounds on what an entry's description may cost.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Most bytes between one entry's content and the next one's: long names, attributes, headers.
const DESCRIPTION_LIMIT: u64 = 1 << 20;

/// An entry of an archive.
pub(crate) type Entry<'a, R> = tar::Entry<'a, Metered<R>>;

/// A tar archive whose descriptions cannot eat the memory.
pub(crate) struct TarReader<R: Read> {
    archive: tar::Archive<Metered<R>>,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> TarReader<R> {
    /// Reads from the start of `inner`.
    pub(crate) fn new(inner: R) -> Self {
        let allowance = Rc::new(Cell::new(DESCRIPTION_LIMIT));
        let metered = Metered {
            inner,
            allowance: allowance.clone(),
        };
        Self {
            archive: tar::Archive::new(metered),
            allowance,
        }
    }

    /// Calls `visit` with every entry, and reads what it leaves.
    ///
    /// # Errors
    /// The first one of `visit`, or what is wrong with the archive.
    pub(crate) fn for_each<E: From<io::Error>>(
        &mut self,
        mut visit: impl FnMut(&mut Entry<'_, R>) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in self.archive.entries()? {
            let mut entry = entry?;
            self.allowance.set(u64::MAX);
            visit(&mut entry)?;
            io::copy(&mut entry, &mut io::sink())?;
            self.allowance.set(DESCRIPTION_LIMIT);
        }
        Ok(())
    }
}

/// An archive in a file, whose contents are jumped over.
pub(crate) struct SeekableTar<'a> {
    archive: tar::Archive<Metered<&'a File>>,
    allowance: Rc<Cell<u64>>,
}

impl TarReader<&File> {
    /// For [`SeekableTar::for_each`].
    pub(crate) fn seekable(file: &File) -> SeekableTar<'_> {
        let allowance = Rc::new(Cell::new(DESCRIPTION_LIMIT));
        let metered = Metered {
            inner: file,
            allowance: allowance.clone(),
        };
        SeekableTar {
            archive: tar::Archive::new(metered),
            allowance,
        }
    }
}

impl SeekableTar<'_> {
    /// As [`TarReader::for_each`], but contents that `visit` leaves are not read.
    pub(crate) fn for_each(
        &mut self,
        mut visit: impl FnMut(&mut tar::Entry<'_, Metered<&File>>) -> Result<(), String>,
    ) -> Result<(), String> {
        let broken = |error: io::Error| format!("not a tar archive: {error}");
        for entry in self.archive.entries_with_seek().map_err(broken)? {
            self.allowance.set(u64::MAX);
            visit(&mut entry.map_err(broken)?)?;
            self.allowance.set(DESCRIPTION_LIMIT);
        }
        Ok(())
    }
}

/// Ends with an error when more is read than allowed.
pub(crate) struct Metered<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowance = self.allowance.get();
        if allowance == 0 {
            return Err(io::Error::other(format!(
                "an entry's description is longer than {DESCRIPTION_LIMIT} bytes"
            )));
        }
        let wanted = usize::try_from(allowance).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..wanted])?;
        if allowance != u64::MAX {
            self.allowance.set(allowance - count as u64);
        }
        Ok(count)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
