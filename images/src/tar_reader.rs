//! Reads a tar archive entry by entry: headers by the crate `tar`, what stands between them by this.
//!
//! Why not the crate's own iterator (version 0.4.46): it ends a PAX record at the first line feed, and so garbles file
//! capabilities and names that contain one; it reads descriptions of any length into memory; and it does not know sparse
//! files in the PAX formats. Where archives can be read in several ways, this reads them as Go's `archive/tar` does, hence as
//! Docker and containerd.

use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, GnuExtSparseHeader, Header};

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

/// PAX records by key.
type Extensions = Vec<(Vec<u8>, Vec<u8>)>;

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
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        self.skip(rest)?;
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

fn find<'a>(extensions: &'a Extensions, key: &[u8]) -> Option<&'a [u8]> {
    // The last counts, and an empty one takes back.
    let found = extensions.iter().rev().find(|(name, _)| name == key);
    found
        .map(|(_, value)| value.as_slice())
        .filter(|value| !value.is_empty())
}

/// `LENGTH KEY=VALUE\n`, one after the other; the length is of the whole record, and the value may hold anything.
fn records(mut text: &[u8]) -> io::Result<Extensions> {
    let wrong = || broken("an extended header has a broken record");
    let mut records = Extensions::new();
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
        let length = usize::try_from(decimal(&text[..space])?).map_err(|_| wrong())?;
        let record = text.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .filter(|&place| place > 0)
            .ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // A name with a zero byte is one to this and another to the kernel.
        if matches!(key, b"path" | b"linkpath") && value.contains(&0) {
            return Err(wrong());
        }
        records.push((key.to_vec(), value.to_vec()));
        text = &text[length..];
    }
    Ok(records)
}

/// A numeric field: octal text, or binary when the first bit is set. Empty is zero.
fn number(field: &[u8]) -> io::Result<u64> {
    let wrong = || broken("a header has a field that is not a number");
    let value = match field.first() {
        Some(first) if first & 0x40 != 0 && first & 0x80 != 0 => None,
        Some(first) if first & 0x80 != 0 => {
            let mut rest = field[1..].iter();
            let start = u64::from(first & 0x3f);
            rest.try_fold(start, |value, &byte| {
                value.checked_mul(256)?.checked_add(u64::from(byte))
            })
        }
        _ => {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            let mut digits = field[..end].trim_ascii().iter();
            digits.try_fold(0u64, |value, &byte| {
                let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
                value.checked_mul(8)?.checked_add(u64::from(digit))
            })
        }
    };
    value.ok_or_else(wrong)
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = text.iter().all(u8::is_ascii_digit) && !text.is_empty();
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| broken("an extended header has a value that is not a number"))
}

/// `SECONDS[.FRACTION]`, maybe negative.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().take(9).collect();
    let nanoseconds: i64 = format!("{digits:0<9}")
        .parse()
        .ok()
        .filter(|nanoseconds| *nanoseconds >= 0)?;
    match text.starts_with('-') && nanoseconds > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some((seconds, nanoseconds)),
    }
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_archives_write_them() {
        let table: [(&[u8], Option<u64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"648", None),
        ];
        for (field, wanted) in table {
            assert_eq!(number(field).ok(), wanted, "{field:?}");
        }
    }

    #[test]
    fn records_may_hold_line_feeds() {
        let parsed = records(b"15 path=a\nb\nc=\n12 x=\n\n\n\n\n\n\n8 a=bcd\n").unwrap();
        let wanted: [(&[u8], &[u8]); 3] = [(b"path", b"a\nb\nc="), (b"x", b"\n\n\n\n\n\n"), (b"a", b"bcd")];
        assert_eq!(parsed, wanted.map(|(key, value)| (key.to_vec(), value.to_vec())));
        for wrong in [
            "5 a=b",
            "6 a=b\nx",
            "3 a=b\n",
            "99 a=b\n",
            "a=b\n",
            "6 =bb\n",
            " 6 a=b\n",
            "-6 a=b\n",
            "12 path=a\0b\n",
        ] {
            assert!(records(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times() {
        let table = [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-1", Some((-1, 0))),
            ("", None),
            ("x", None),
            ("1.-5", None),
        ];
        for (text, wanted) in table {
            assert_eq!(time(text.as_bytes()), wanted, "{text}");
        }
    }
}
