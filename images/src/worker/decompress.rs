//! Compressed bytes in, tar bytes out, hashed on the way, on a thread of their own.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::report::LimitReached;
use crate::digest::{Digest, Hasher};

/// How much passes between the threads at once: large enough that waking costs nothing, small enough for the cache.
const CHUNK: usize = 256 << 10;
/// Chunks under way.
const CHUNKS: usize = 8;

/// The uncompressed bytes of a layer.
pub(super) struct Decompressed {
    chunks: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    thread: Option<JoinHandle<Digest>>,
}

impl Decompressed {
    /// Starts reading; at most `limit` uncompressed bytes come out.
    pub(super) fn new(input: impl Read + Send + 'static, limit: u64) -> Self {
        let (send, chunks) = sync_channel(CHUNKS);
        let (used, unused) = sync_channel::<Vec<u8>>(CHUNKS + 1);
        let thread = thread::spawn(move || {
            let mut hasher = Hasher::default();
            let mut decoder = match decoder(input) {
                Ok(decoder) => decoder,
                Err(error) => {
                    let _ = send.send(Err(error));
                    return hasher.finish();
                }
            };
            loop {
                let mut chunk = unused.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
                chunk.clear();
                let read = fill(&mut decoder, &mut chunk);
                hasher.update(&chunk);
                let end = chunk.is_empty();
                let over = hasher.bytes() > limit;
                let message = match read {
                    _ if over => Err(io::Error::other(LimitReached(limit))),
                    Ok(()) => Ok(chunk),
                    Err(error) => Err(error),
                };
                let last = end || message.is_err();
                // Nobody reads any more: the other side has failed and says why.
                if send.send(message).is_err() || last {
                    return hasher.finish();
                }
            }
        });
        Self {
            chunks,
            used,
            current: Vec::new(),
            position: 0,
            thread: Some(thread),
        }
    }

    /// Reads what is left, and gives the digest of everything.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        let thread = self.thread.take().ok_or(io::ErrorKind::Other)?;
        thread.join().map_err(|_| io::Error::other("the decompressor failed"))
    }
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let next = match self.chunks.recv() {
                Ok(chunk) => chunk?,
                Err(_) => return Ok(0),
            };
            let done = std::mem::replace(&mut self.current, next);
            let _ = self.used.try_send(done);
            self.position = 0;
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

/// Reads a whole chunk, or what is left.
fn fill(reader: &mut dyn Read, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.resize(CHUNK, 0);
    let mut length = 0;
    let result = loop {
        match reader.read(&mut chunk[length..]) {
            Ok(0) => break Ok(()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
        if length == CHUNK {
            break Ok(());
        }
    };
    chunk.truncate(length);
    result
}

/// By the first bytes, not by the media type: many tools write the wrong one.
fn decoder(input: impl Read + Send + 'static) -> io::Result<Box<dyn Read>> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    // A pipe may give fewer at first.
    let mut start = Vec::new();
    while start.len() < 6 {
        let available = input.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let count = available.len().min(6 - start.len());
        start.extend_from_slice(&available[..count]);
        input.consume(count);
    }
    let known = |magic: &[u8]| start.starts_with(magic);
    let skippable = matches!(start.as_slice(), [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    let (gzip, zstd) = (known(&[0x1f, 0x8b]), known(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable);
    let unsupported = match () {
        () if known(&[0xfd, b'7', b'z', b'X', b'Z', 0]) => Some("xz"),
        () if known(b"BZh") => Some("bzip2"),
        () => None,
    };
    if let Some(name) = unsupported {
        return Err(io::Error::other(format!(
            "it is compressed with {name}; gzip, zstd and none are known"
        )));
    }
    let all = BufReader::with_capacity(CHUNK, io::Cursor::new(start).chain(input));
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(all))
    } else if zstd {
        Box::new(Zstd {
            input: all,
            frame: FrameDecoder::new(),
            begun: false,
        })
    } else {
        Box::new(all)
    })
}

/// Zstd frames one after the other, as zstd:chunked and parallel compressors write them.
struct Zstd<R> {
    input: R,
    frame: FrameDecoder,
    begun: bool,
}

impl<R: io::BufRead> Zstd<R> {
    /// Finds the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.input) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.input.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: io::BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.begun && !self.begin()? {
                return Ok(0);
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBytes(CHUNK))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let count = self.frame.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.begun = !self.frame.is_finished();
        }
    }
}
