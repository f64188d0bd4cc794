//! PURE  A segment on disk: one compressed stream in blocks, each with its length and checksum, so that a tear costs the last.
//!
//! ```text
//! "KNARRFR1"  { length u32, CRC-32 u32, that many bytes of the stream }*      little-endian
//! ```
//!
//! Each block ends where the stream was flushed, and holds whole lines. The stream goes on from block to block, so that
//! what was said once costs little the second time.

use std::io::{self, Read};

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress};

/// What every segment begins with.
pub const MAGIC: &[u8; 8] = b"KNARRFR1";

/// Makes the blocks of one segment.
#[derive(Debug)]
pub struct Blocks(Compress);

impl Default for Blocks {
    fn default() -> Self {
        Self(Compress::new(Compression::new(LEVEL), false))
    }
}

impl Blocks {
    /// The next block, of whole lines.
    ///
    /// # Errors
    /// When the compressor fails, which it does not.
    pub fn block(&mut self, lines: &[u8]) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(HEAD + lines.len() / 4 + 1024);
        block.extend_from_slice(&[0; HEAD]);
        let begun = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - begun).unwrap_or(lines.len());
            let left = lines.get(done..).unwrap_or_default();
            block.reserve(left.len() / 4 + 1024);
            self.0.compress_vec(left, &mut block, FlushCompress::Sync)?;
            let all = self.0.total_in() - begun == lines.len() as u64;
            // With room left behind it, the flush is complete.
            if all && block.len() < block.capacity() {
                break;
            }
        }
        let length = u32::try_from(block.len() - HEAD).map_err(io::Error::other)?;
        let sum = crc(&block[HEAD..]);
        block[..4].copy_from_slice(&length.to_le_bytes());
        block[4..HEAD].copy_from_slice(&sum.to_le_bytes());
        Ok(block)
    }
}

/// Reads the blocks of one segment.
#[derive(Debug)]
pub struct Segment<R> {
    from: R,
    stream: Decompress,
    offset: u64,
}

/// What comes next in a segment.
#[derive(Debug)]
pub enum Next {
    /// Whole lines.
    Lines(Vec<u8>),
    /// It ends here, as it should.
    End,
    /// What follows this many bytes was not written to its end.
    Torn(u64),
}

impl<R: Read> Segment<R> {
    /// `None` when it does not begin as a segment does.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(mut from: R) -> io::Result<Option<Self>> {
        let mut magic = [0; MAGIC.len()];
        if fill(&mut from, &mut magic)? < magic.len() || magic != *MAGIC {
            return Ok(None);
        }
        Ok(Some(Self {
            from,
            stream: Decompress::new(false),
            offset: MAGIC.len() as u64,
        }))
    }

    /// The next block.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_block(&mut self) -> io::Result<Next> {
        let mut head = [0; HEAD];
        match fill(&mut self.from, &mut head)? {
            0 => return Ok(Next::End),
            HEAD => {}
            _ => return Ok(Next::Torn(self.offset)),
        }
        let [a, b, c, d, sum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        let mut block = Vec::new();
        self.from.by_ref().take(u64::from(length)).read_to_end(&mut block)?;
        if block.len() as u64 != u64::from(length) || crc(&block) != u32::from_le_bytes(sum) {
            return Ok(Next::Torn(self.offset));
        }
        let Some(lines) = self.inflate(&block) else {
            return Ok(Next::Torn(self.offset));
        };
        self.offset += HEAD as u64 + u64::from(length);
        Ok(Next::Lines(lines))
    }

    fn inflate(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let mut lines = Vec::with_capacity(block.len().saturating_mul(8).max(4096));
        let begun = self.stream.total_in();
        loop {
            let done = usize::try_from(self.stream.total_in() - begun).ok()?;
            let left = block.get(done..)?;
            if left.is_empty() && lines.len() < lines.capacity() {
                return Some(lines);
            }
            if lines.len() > LARGEST {
                return None;
            }
            lines.reserve(lines.len().max(4096));
            let before = (done, lines.len());
            self.stream
                .decompress_vec(left, &mut lines, FlushDecompress::Sync)
                .ok()?;
            let now = (usize::try_from(self.stream.total_in() - begun).ok()?, lines.len());
            if now == before {
                return now.0.eq(&block.len()).then_some(lines);
            }
        }
    }
}

/// Reads until it is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

const HEAD: usize = 8;

/// More costs much time and saves little.
const LEVEL: u32 = 3;

/// No block holds more: the writer never has more at once.
const LARGEST: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    fn written(chunks: &[Vec<u8>]) -> Vec<u8> {
        let (mut blocks, mut file) = (Blocks::default(), MAGIC.to_vec());
        for chunk in chunks {
            file.extend(blocks.block(chunk).unwrap());
        }
        file
    }

    /// Whole blocks, and where it is torn.
    fn read(file: &[u8]) -> (Vec<Vec<u8>>, Option<u64>) {
        let mut segment = Segment::open(file).unwrap().unwrap();
        let mut blocks = Vec::new();
        loop {
            match segment.next_block().unwrap() {
                Next::Lines(lines) => blocks.push(lines),
                Next::End => return (blocks, None),
                Next::Torn(at) => return (blocks, Some(at)),
            }
        }
    }

    fn chunks() -> Vec<Vec<u8>> {
        let mut rng = StdRng::seed_from_u64(1);
        let sizes = [1, 10, 4096, 100_000, 3, 1_000_000, 5];
        let chunk = |size: usize| (0..size).map(|_| rng.random_range(b'a'..b'q')).collect();
        let mut chunks: Vec<Vec<u8>> = sizes.map(chunk).to_vec();
        chunks.push(vec![b'x'; 3_000_000]);
        chunks
    }

    #[test]
    fn what_is_written_is_read() {
        let chunks = chunks();
        assert_eq!(read(&written(&chunks)), (chunks, None));
    }

    #[test]
    fn a_tear_anywhere_costs_what_follows_and_no_more() {
        let chunks = vec![b"one\n".to_vec(), b"two\n".repeat(50), b"three\n".to_vec()];
        let whole = written(&chunks);
        let ends: Vec<usize> = (0..=3).map(|n| written(&chunks[..n]).len()).collect();
        for length in MAGIC.len()..whole.len() {
            let (blocks, torn) = read(&whole[..length]);
            let expected = ends.iter().filter(|end| **end <= length).count() - 1;
            assert_eq!(blocks, chunks[..expected], "{length}");
            let at = ends.contains(&length);
            assert_eq!(torn, (!at).then_some(ends[expected] as u64), "{length}");
        }
        for at in MAGIC.len()..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            let (blocks, torn) = read(&flipped);
            assert!(torn.is_some() && chunks.starts_with(&blocks), "{at}");
        }
    }

    #[test]
    fn what_is_no_segment_is_told_from_one() {
        for bytes in [&b""[..], b"KNARR", b"PK\x03\x04 something else"] {
            assert!(Segment::open(bytes).unwrap().is_none());
        }
    }
}
