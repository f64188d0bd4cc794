//! A command inside a running sandbox: what is asked for, and what is held of it while it runs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::driver::{BoxFuture, DriverError, ExitStatus};

/// What to run in a sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecSpec {
    /// In which container; `None` is the serving one.
    pub container: Option<Arc<str>>,
    /// Program and arguments, at least one; no shell. A program without a slash is looked for in the container's `PATH`.
    pub command: Vec<String>,
    /// As whom: `user`, `uid`, `user:group` or `uid:gid`, by the names of the image; `None` is who the app runs as.
    pub user: Option<String>,
    /// Variables over the container's own.
    pub env: Vec<(String, String)>,
    /// Give the command a standard input; without, it reads an empty one.
    pub stdin: bool,
    /// Give it a terminal of this size in place of three separate streams.
    pub terminal: Option<WindowSize>,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for WindowSize {
    /// 24 by 80.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

impl ExecSpec {
    /// A command without input and without a terminal, in the serving container.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// What a command reads.
pub type Input = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What a command writes.
pub type Output = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// A command that runs. Dropping it kills the command.
///
/// Its output is not read ahead: a command that says more than a pipe holds (64 KiB) waits until somebody reads.
pub struct Exec {
    /// To its standard input, when it was asked for; dropping it is the end of the input. With a terminal it is the
    /// terminal, and the end of input is a character (Ctrl-D).
    pub stdin: Option<Input>,
    /// Its standard output, until it and all it has started have closed it; with a terminal everything it says.
    pub stdout: Output,
    /// Its standard error; `None` with a terminal.
    pub stderr: Option<Output>,
    /// The rest of it.
    pub process: Box<dyn Process>,
}

/// A running command. Dropping it kills the command.
pub trait Process: Send + Sync {
    /// Waits until it has ended; when its sandbox has, it was killed by signal 9. Cancel-safe, and may be called again.
    fn wait(&self) -> BoxFuture<'_, ExitStatus>;

    /// Sends a signal, by number, to it and what it has started (its process group); one that has ended gets nothing.
    fn signal(&self, signal: i32);

    /// Tells its terminal a new size.
    ///
    /// # Errors
    /// When it has no terminal, or that is gone.
    fn resize(&self, size: WindowSize) -> io::Result<()>;
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such program in the container.
    #[error("{0}")]
    NotFound(String),
    /// The program, or what was asked of it, cannot be used; the text says why.
    #[error("{0}")]
    Refused(String),
    /// There is no such sandbox, or the driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl ExecError {
    /// What a shell would exit with (POSIX: 127 not found, 126 not executable), and 125 when nothing was tried.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::Refused(_) => 126,
            Self::Driver(_) => 125,
        }
    }
}

/// What a command came to, with the beginning of what it said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on standard output and standard error, in turn as it came; no more than was asked for.
    pub output: Vec<u8>,
}

impl Exec {
    /// Waits for the end of the command, keeps the first `most` bytes of what it says, and reads on past them. What a
    /// process that outlives the command says later is left out. Dropped midway, it kills the command.
    pub async fn ran(self, most: usize) -> Ran {
        let Self {
            stdin,
            mut stdout,
            mut stderr,
            process,
        } = self;
        drop(stdin);
        let mut output = Vec::new();
        let mut ended = None;
        let (mut out_open, mut err_open) = (true, stderr.is_some());
        let mut buffers = [[0; 4096], [0; 4096]];
        let [out_buffer, err_buffer] = &mut buffers;
        while ended.is_none() || out_open || err_open {
            let (read, open) = tokio::select! {
                biased;
                read = stdout.read(out_buffer), if out_open => (read.map(|n| &out_buffer[..n]), &mut out_open),
                read = some(&mut stderr, err_buffer), if err_open => (read.map(|n| &err_buffer[..n]), &mut err_open),
                status = process.wait(), if ended.is_none() => {
                    ended = Some(status);
                    continue;
                }
                () = tokio::time::sleep(LAST_WORDS), if ended.is_some() => break,
            };
            match read {
                Ok([]) | Err(_) => *open = false,
                Ok(bytes) => {
                    let room = most.saturating_sub(output.len());
                    output.extend_from_slice(&bytes[..room.min(bytes.len())]);
                }
            }
        }
        let status = ended.unwrap_or(ExitStatus::Signal(9));
        Ran { status, output }
    }
}

/// How long the output of a command that has ended may stay silent before it counts as its last: somebody it has started
/// may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(50);

async fn some(stream: &mut Option<Output>, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read(buffer).await,
        None => Ok(0),
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("stdin", &self.stdin.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}
