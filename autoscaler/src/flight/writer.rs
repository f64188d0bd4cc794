//! The thread that writes the recording: it takes lines, compresses them, and keeps the ring within its size.
//!
//! The scaling loop never waits for it, and does not wake it either, because a request at zero may wait for the loop: the thread
//! looks once a second. When the disk does not keep up, lines are left out, and the recording goes on with a
//! new segment, which can be read alone.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use super::Lines;
use super::file::{Blocks, MAGIC};
use super::ring;

/// The scaling loop's end. Dropping it writes what is left and ends the thread.
#[derive(Debug)]
pub struct Recorder {
    lines: Option<Sender<Lines>>,
    state: Arc<State>,
    /// Lines were left out: nothing is taken until a new segment begins.
    lost: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes on their way to the thread.
    queued: AtomicUsize,
    /// The segment at hand is long enough, or could not be written.
    full: AtomicBool,
}

/// Where it is written, and how much.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of segments.
    pub directory: PathBuf,
    /// What all segments together may take, bytes.
    pub limit: u64,
    /// The number of this start of Knarr.
    pub take: u64,
}

impl Recorder {
    /// Makes the directory if needed, and begins.
    ///
    /// # Errors
    /// When the directory or a thread cannot be made.
    pub fn start(settings: Settings) -> io::Result<Self> {
        make_directory(&settings.directory)?;
        let (lines, queue) = channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("knarr-recorder".into())
            .spawn(move || Writer::new(settings, shared).run(&queue))?;
        Ok(Self {
            lines: Some(lines),
            state,
            lost: false,
            thread: Some(thread),
        })
    }

    /// Whether the next lines shall begin a segment.
    pub fn wants_segment(&self) -> bool {
        let drained = || self.state.queued.load(Ordering::Relaxed) < QUEUE_LOW;
        self.state.full.load(Ordering::Relaxed) || self.lost && drained()
    }

    /// Waits until the thread has taken all lines: a test makes a day of them in a second.
    #[cfg(test)]
    pub(super) fn drained(&self) {
        while self.state.queued.load(Ordering::Relaxed) > 0 {
            self.wake();
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Takes lines; never waits.
    pub fn write(&mut self, lines: Lines) {
        if lines.text.is_empty() {
            return;
        }
        if lines.begins {
            self.lost = false;
            self.state.full.store(false, Ordering::Relaxed);
        }
        if self.lost || self.state.queued.load(Ordering::Relaxed) > QUEUE_HIGH {
            if !self.lost {
                tracing::warn!("the disk does not keep up with the flight recorder: events are left out");
            }
            self.lost = true;
            return;
        }
        let length = lines.text.len();
        let queued = length + self.state.queued.fetch_add(length, Ordering::Relaxed);
        if let Some(to) = &self.lines {
            // A thread that has ended has said why.
            let _ = to.send(lines);
        }
        if queued >= BLOCK {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.lines = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Writer {
    settings: Settings,
    state: Arc<State>,
    segment: Option<Open>,
    number: u32,
    /// Lines that are not written yet.
    pending: Vec<u8>,
    /// After an error: when another segment is asked for.
    retry: Option<Instant>,
    warned: bool,
}

struct Open {
    file: File,
    blocks: Blocks,
    size: u64,
}

impl Writer {
    fn new(settings: Settings, state: Arc<State>) -> Self {
        Self {
            settings,
            state,
            segment: None,
            number: 0,
            pending: Vec::new(),
            retry: None,
            warned: false,
        }
    }

    fn run(mut self, queue: &Receiver<Lines>) {
        loop {
            let queued = loop {
                match queue.try_recv() {
                    Ok(lines) => self.take(lines),
                    Err(empty) => break empty,
                }
            };
            self.flush();
            if queued == TryRecvError::Disconnected {
                return;
            }
            self.ask_again();
            park_timeout(FLUSH);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how long to wait is the shell's own business")]
    fn ask_again(&mut self) {
        if self.retry.is_some_and(|at| at <= Instant::now()) {
            self.retry = None;
            self.state.full.store(true, Ordering::Relaxed);
        }
    }

    fn take(&mut self, lines: Lines) {
        if lines.begins {
            self.flush();
            self.segment = self.open().map_err(|error| self.failed(&error)).ok();
        }
        self.state.queued.fetch_sub(lines.text.len(), Ordering::Relaxed);
        if self.segment.is_some() {
            self.pending.extend_from_slice(&lines.text);
            if self.pending.len() >= BLOCK {
                self.flush();
            }
        }
    }

    fn open(&mut self) -> io::Result<Open> {
        let Settings { directory, limit, take } = &self.settings;
        // The one before is closed, and on its way to the disk.
        self.segment = None;
        ring::make_room(directory, *limit, segment_size(*limit))?;
        let mut file = ring::create(directory, *take, self.number)?;
        self.number += 1;
        file.write_all(MAGIC)?;
        Ok(Open {
            file,
            blocks: Blocks::default(),
            size: MAGIC.len() as u64,
        })
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let Some(open) = self.segment.as_mut().filter(|_| !pending.is_empty()) else {
            return;
        };
        let written = open.blocks.block(&pending).and_then(|block| {
            open.file.write_all(&block)?;
            open.size += block.len() as u64;
            Ok(())
        });
        match written {
            Ok(()) => {
                self.warned = false;
                if open.size >= segment_size(self.settings.limit) {
                    self.state.full.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => self.failed(&error),
        }
        // What it grew to is kept, unless that was unusual.
        self.pending = pending;
        self.pending.clear();
        self.pending.shrink_to(2 * BLOCK);
    }

    /// Nothing is written until another segment begins, which is asked for after a while.
    #[expect(clippy::disallowed_methods, reason = "how long to wait is the shell's own business")]
    fn failed(&mut self, error: &io::Error) {
        self.segment = None;
        if !std::mem::replace(&mut self.warned, true) {
            let directory = self.settings.directory.display();
            tracing::warn!(%directory, %error, "the flight recorder cannot write; it tries again");
        }
        self.retry = Some(Instant::now() + RETRY);
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// One of at least eight, so that little is lost when the oldest goes.
fn segment_size(limit: u64) -> u64 {
    (limit / 8).clamp(64 << 10, 8 << 20)
}

/// How long lines wait at most, to be written together.
const FLUSH: Duration = Duration::from_secs(1);

/// So many bytes do not wait.
const BLOCK: usize = 1 << 20;

/// More bytes than this on their way, and lines are left out, until there are as few as that.
const QUEUE_HIGH: usize = 32 << 20;
const QUEUE_LOW: usize = 1 << 20;

/// After an error.
const RETRY: Duration = Duration::from_secs(5);
