//! Reads a tar archive entry by entry: headers by the crate `tar`, what stands between them by this.
//!
//! Why not the crate's own iterator (version 0.4.46): it ends a PAX record at the first line feed, and so garbles file
//! capabilities and names that contain one; it reads descriptions of any length into memory; and it does not know sparse
//! files in the PAX formats. Where archives can be read in several ways, this reads them as Go's `archive/tar` does, hence as
//! Docker and containerd.

mod fields;

use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, GnuExtSparseHeader, Header};

use fields::{Extensions, broken, decimal, find, number, records, time};

const BLOCK: u64 = 512;
/// Longest description of one entry: long names, attributes, maps of holes.
const DESCRIPTION_LIMIT: u64 = 1 << 20;

/// An archive. Between two calls of [`Self::next_entry`] it reads as the content of the entry.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Where `inner` is.
    position: u64,
    /// Content of the entry that is not read yet, and what fills its last block.
    left: u64,
    padding: u64,
}

/// What an archive says about a file.
#[derive(Debug)]
pub(crate) struct Entry {
    header: Header,
    /// Its name, as it is written.
    pub(crate) path: Vec<u8>,
    /// What it links to.
    pub(crate) link: Vec<u8>,
    /// Length of the file: with its holes.
    pub(crate) size: u64,
    /// Where the content stands in the archive.
    pub(crate) offset: u64,
    /// Stretches of a sparse file: offset and length, ascending. The content is these, one after the other.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
    extensions: Extensions,
}

impl Entry {
    /// Never [`EntryType::Regular`] when old archives mean a directory.
    pub(crate) fn kind(&self) -> EntryType {
        let kind = self.header.entry_type();
        match kind.is_file() && self.path.ends_with(b"/") {
            true => EntryType::Directory,
            false => kind,
        }
    }

    /// Permissions and set-id bits.
    pub(crate) fn mode(&self) -> io::Result<u32> {
        let mode = number(&self.header.as_old().mode)?;
        u32::try_from(mode & 0o7777).map_err(|_| broken("a mode is too large"))
    }

    /// User and group.
    pub(crate) fn owner(&self) -> io::Result<(u64, u64)> {
        let of = |key: &str, field: &[u8]| match self.extension(key.as_bytes()) {
            Some(text) => decimal(text),
            None => number(field),
        };
        let old = self.header.as_old();
        Ok((of("uid", &old.uid)?, of("gid", &old.gid)?))
    }

    /// Seconds since 1970, and nanoseconds; 1970 when the archive has nonsense.
    pub(crate) fn modified(&self) -> (i64, i64) {
        let exact = self.extension(b"mtime").and_then(time);
        let coarse = || i64::try_from(number(&self.header.as_old().mtime).ok()?).ok();
        exact.or_else(|| Some((coarse()?, 0))).unwrap_or_default()
    }

    /// Extended attributes.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let strip = |(key, value)| Some((<[u8]>::strip_prefix(key, b"SCHILY.xattr.")?, value));
        self.extensions
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
            .filter_map(strip)
    }

    fn extension(&self, key: &[u8]) -> Option<&[u8]> {
        find(&self.extensions, key)
    }
}

impl<R: Read> TarReader<R> {
    /// Reads from where `inner` is.
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry, over what is left of the one before; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the archive (without a number of the system), or what is wrong with reading it.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (left, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        self.skip(left)?;
        // Some writers leave the padding of the last file out (umoci's `insert`), and Go's reader does not miss it.
        self.position += io::copy(&mut (&mut self.inner).take(padding), &mut io::sink())?;
        self.describe()
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.inner).take(length), &mut io::sink())?;
        self.position += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(broken("the archive ends in a file")),
        }
    }

    fn describe(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_link, mut extensions) = (None, None, Extensions::new());
        let mut described = 0;
        loop {
            let Some(header) = self.header()? else {
                return match described {
                    0 => Ok(None),
                    _ => Err(broken("the archive ends after the description of an entry")),
                };
            };
            let size = number(&header.as_old().size)?;
            let kind = header.entry_type();
            let is_description = matches!(
                kind,
                EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader
            );
            if !is_description && kind != EntryType::XGlobalHeader {
                return self.entry(header, size, long_path, long_link, extensions).map(Some);
            }
            described += size.saturating_add(BLOCK);
            if described > DESCRIPTION_LIMIT {
                return Err(broken(&format!(
                    "the description of an entry is longer than {DESCRIPTION_LIMIT} bytes"
                )));
            }
            let mut content = self.exactly(size)?;
            self.skip(padding(size))?;
            match kind {
                EntryType::XHeader => extensions = records(&content)?,
                // Of all entries that follow: names nobody, and Go leaves it at that.
                EntryType::XGlobalHeader => described = described.saturating_sub(size + BLOCK),
                _ => {
                    let end = content.iter().position(|&byte| byte == 0).unwrap_or(content.len());
                    content.truncate(end);
                    match kind == EntryType::GNULongName {
                        true => long_path = Some(content),
                        false => long_link = Some(content),
                    }
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: Header,
        mut stored: u64,
        path: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        if let Some(text) = find(&extensions, b"size") {
            stored = decimal(text)?;
        }
        let kind = header.entry_type();
        if kind.is_hard_link() || kind.is_symlink() || kind.is_dir() || kind.is_fifo() || is_device(kind) {
            // Whatever size it claims: it has no content.
            stored = 0;
        }
        let named = |long: Option<Vec<u8>>, key: &[u8]| long.or_else(|| find(&extensions, key).map(<[u8]>::to_vec));
        let path = named(path, b"path").unwrap_or_else(|| header.path_bytes().into_owned());
        let link =
            named(link, b"linkpath").unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let mut entry = Entry {
            header,
            path,
            link,
            size: stored,
            offset: 0,
            sparse: None,
            extensions,
        };

        (self.left, self.padding) = (stored, padding(stored));
        if kind == EntryType::GNUSparse {
            // The rest of the map stands before the content.
            self.gnu_map(&mut entry)?;
        } else if entry.extension(b"GNU.sparse.major").is_some() || entry.extension(b"GNU.sparse.map").is_some() {
            self.pax_map(&mut entry)?;
        } else if entry.extensions.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(broken(
                "it has a sparse file in PAX format 0.0, which is not known; 0.1, 1.0 and GNU's are",
            ));
        }
        check_map(&entry, self.left)?;
        entry.offset = self.position;
        Ok(entry)
    }

    fn gnu_map(&mut self, entry: &mut Entry) -> io::Result<()> {
        let gnu = entry
            .header
            .as_gnu()
            .ok_or_else(|| broken("a sparse file without GNU's header"))?;
        entry.size = number(&gnu.realsize)?;
        let mut map = Vec::new();
        let mut extended = gnu.is_extended();
        for stretch in gnu.sparse.iter().filter(|stretch| !stretch.is_empty()) {
            map.push((number(&stretch.offset)?, number(&stretch.numbytes)?));
        }
        while extended {
            let mut more = GnuExtSparseHeader::new();
            self.inner.read_exact(more.as_mut_bytes())?;
            self.position += BLOCK;
            extended = more.is_extended();
            for stretch in more.sparse().iter().filter(|stretch| !stretch.is_empty()) {
                map.push((number(&stretch.offset)?, number(&stretch.numbytes)?));
            }
            if map.len() as u64 * BLOCK / 21 > DESCRIPTION_LIMIT {
                return Err(broken("a sparse file has too many stretches"));
            }
        }
        entry.sparse = Some(map);
        Ok(())
    }

    /// PAX format 0.1 has the map in a record, 1.0 before the content.
    fn pax_map(&mut self, entry: &mut Entry) -> io::Result<()> {
        if let Some(name) = entry.extension(b"GNU.sparse.name") {
            entry.path = name.to_vec();
        }
        let size = entry
            .extension(b"GNU.sparse.realsize")
            .or_else(|| entry.extension(b"GNU.sparse.size"));
        entry.size = decimal(size.ok_or_else(|| broken("a sparse file without its size"))?)?;
        let mut numbers = Vec::new();
        if let Some(map) = entry.extension(b"GNU.sparse.map") {
            for text in map.split(|&byte| byte == b',').filter(|text| !text.is_empty()) {
                numbers.push(decimal(text)?);
            }
        } else if entry.extension(b"GNU.sparse.major") == Some(b"1") {
            let mut wanted = None;
            let mut text = Vec::new();
            let mut read = 0;
            while wanted.is_none_or(|wanted| numbers.len() < wanted) {
                let mut block = [0; 512];
                self.read_exact(&mut block)?;
                read += BLOCK;
                if read > DESCRIPTION_LIMIT {
                    return Err(broken("a sparse file has too many stretches"));
                }
                for &byte in &block {
                    if byte != b'\n' {
                        text.push(byte);
                        continue;
                    }
                    let number = decimal(&text)?;
                    text.clear();
                    match wanted {
                        None => wanted = usize::try_from(number).ok().and_then(|count| count.checked_mul(2)),
                        Some(_) => numbers.push(number),
                    }
                    if wanted.is_some_and(|wanted| numbers.len() >= wanted) {
                        break;
                    }
                }
            }
        } else {
            return Err(broken(
                "it has a sparse file in a PAX format that is not known; 0.1, 1.0 and GNU's are",
            ));
        }
        if numbers.len() % 2 != 0 {
            return Err(broken("a sparse file's map is cut off"));
        }
        entry.sparse = Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
        Ok(())
    }

    /// The next header; `None` at the end of the archive, marked or not.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut length = 0;
        while length < header.as_bytes().len() {
            match self.inner.read(&mut header.as_mut_bytes()[length..]) {
                Ok(0) if length == 0 => return Ok(None),
                Ok(0) => return Err(broken("the archive ends in a header")),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = |from: usize, to: usize| bytes[from..to].iter().map(|&byte| u64::from(byte)).sum::<u64>();
        if number(&header.as_old().cksum)? != sum(0, 148) + 8 * 32 + sum(156, 512) {
            return Err(broken("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn exactly(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let read = (&mut self.inner).take(length).read_to_end(&mut content)? as u64;
        self.position += read;
        match read == length {
            true => Ok(content),
            false => Err(broken("the archive ends in the description of an entry")),
        }
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Jumps over the content of the entry.
    pub(crate) fn jump(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let distance = i64::try_from(rest).map_err(|_| broken("a file is too large"))?;
        self.inner.seek(SeekFrom::Current(distance))?;
        self.position += rest;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the entry, as it is stored: of a sparse file without its holes.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..wanted])? {
            0 => Err(broken("the archive ends in a file")),
            count => {
                self.position += count as u64;
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

fn is_device(kind: EntryType) -> bool {
    kind.is_character_special() || kind.is_block_special()
}

/// Stretches must ascend within the file, and be the content.
fn check_map(entry: &Entry, content: u64) -> io::Result<()> {
    let Some(map) = &entry.sparse else { return Ok(()) };
    let mut end = 0;
    let mut total: u64 = 0;
    for &(offset, length) in map {
        if offset < end {
            return Err(broken("a sparse file's stretches overlap"));
        }
        end = offset
            .checked_add(length)
            .ok_or_else(|| broken("a sparse file is too large"))?;
        total += length;
    }
    match end <= entry.size && total == content {
        true => Ok(()),
        false => Err(broken("a sparse file's map does not fit its content")),
    }
}

/// What fills the last block.
fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

#[cfg(test)]
mod tests;
