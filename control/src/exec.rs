//! The server's side of `knarr exec`: a command's streams over an upgraded connection, until either side is done.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::{HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use sandbox::driver::ExitStatus;
use sandbox::exec::{Exec, ExecSpec, Input, Output, Process, WindowSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::frames::{Frame, PROTOCOL, framed};

/// Says what code `knarr exec` shall end with, where a command could not be started.
pub const EXIT_CODE: &str = "knarr-exit-code";

/// Why there is no command.
#[derive(Debug)]
pub struct Refused {
    /// What the server answers.
    pub status: StatusCode,
    /// What a shell would exit with: 127 no such program, 126 it cannot be executed, 125 nothing was tried.
    pub code: u8,
    /// For people.
    pub message: String,
}

impl Refused {
    /// Nothing of this name runs.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: 125,
            message: message.into(),
        }
    }
}

/// What is asked for: where, and what. `query` is checked, not trusted.
pub(crate) fn asked(query: &str) -> (String, ExecSpec) {
    let (mut target, mut spec) = (String::new(), ExecSpec::default());
    let (mut terminal, mut size) = (false, WindowSize::default());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "target" => target = value.into_owned(),
            "container" => spec.container = Some(value.as_ref().into()),
            "user" => spec.user = Some(value.into_owned()),
            "command" => spec.command.push(value.into_owned()),
            "env" => {
                if let Some((name, value)) = value.split_once('=') {
                    spec.env.push((name.to_owned(), value.to_owned()));
                }
            }
            "stdin" => spec.stdin = value == "true",
            "tty" => terminal = value == "true",
            "rows" => size.rows = value.parse().unwrap_or(size.rows),
            "columns" => size.columns = value.parse().unwrap_or(size.columns),
            _ => {}
        }
    }
    spec.terminal = terminal.then_some(size);
    (target, spec)
}

/// Whether this is a request for our protocol.
pub(crate) fn upgrades<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|it| it == HeaderValue::from_static(PROTOCOL))
}

/// Moves a command's streams until it has ended, or whoever asked is gone; then the command is killed.
pub(crate) async fn serve(upgrade: hyper::upgrade::OnUpgrade, exec: Exec) {
    let Ok(upgraded) = upgrade.await else { return };
    let (sink, stream) = framed(TokioIo::new(upgraded)).split();
    let Exec {
        stdin,
        stdout,
        stderr,
        process,
    } = exec;
    tokio::select! {
        () = listen(stream, stdin, process.as_ref()) => {}
        _ = say(sink, stdout, stderr, process.as_ref()) => {}
    }
}

/// What the client says, until it is gone.
async fn listen(
    mut frames: impl Stream<Item = io::Result<bytes::BytesMut>> + Unpin,
    stdin: Option<Input>,
    process: &dyn Process,
) {
    let (input, to_write) = mpsc::channel(WAITING);
    let mut input = stdin.is_some().then_some(input);
    let reading = async {
        while let Some(Ok(frame)) = frames.next().await {
            match Frame::decode(frame) {
                Ok(Frame::Stdin(bytes)) if bytes.is_empty() => input = None,
                Ok(Frame::Stdin(bytes)) => {
                    if let Some(open) = &input
                        && open.send(bytes).await.is_err()
                    {
                        // It does not read any more; the client finds out when it has ended.
                        input = None;
                    }
                }
                // A terminal that is gone needs no size.
                Ok(Frame::Resize(size)) => drop(process.resize(size)),
                Ok(Frame::Signal(signal)) => process.signal(signal),
                Ok(Frame::Stdout(_) | Frame::Stderr(_) | Frame::Ended(_)) | Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = write(stdin, to_write) => {}
    }
}

/// Writes to the command for as long as it reads; never returns.
async fn write(stdin: Option<Input>, mut to_write: mpsc::Receiver<Bytes>) {
    if let Some(mut stdin) = stdin {
        while let Some(bytes) = to_write.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                break;
            }
        }
        to_write.close();
    }
    std::future::pending().await
}

/// What the command says, and how it ends.
async fn say(
    mut frames: impl Sink<Bytes, Error = io::Error> + Unpin,
    mut stdout: Output,
    mut stderr: Option<Output>,
    process: &dyn Process,
) -> io::Result<()> {
    let (mut out, mut err) = (vec![0; PIECE], vec![0; PIECE]);
    let mut ended: Option<ExitStatus> = None;
    let (mut out_open, mut err_open) = (true, stderr.is_some());
    while ended.is_none() || out_open || err_open {
        let piece = tokio::select! {
            biased;
            read = stdout.read(&mut out), if out_open => match read {
                Ok(n) if n > 0 => Frame::Stdout(Bytes::copy_from_slice(&out[..n])),
                _ => {
                    out_open = false;
                    continue;
                }
            },
            read = read(&mut stderr, &mut err), if err_open => match read {
                Ok(n) if n > 0 => Frame::Stderr(Bytes::copy_from_slice(&err[..n])),
                _ => {
                    err_open = false;
                    continue;
                }
            },
            status = process.wait(), if ended.is_none() => {
                ended = Some(status);
                continue;
            }
            // Somebody it has started holds them open.
            () = tokio::time::sleep(LAST_WORDS), if ended.is_some() => break,
        };
        frames.send(piece.encode()).await?;
    }
    let code = ended.map_or(125, ExitStatus::code);
    frames.send(Frame::Ended(code).encode()).await?;
    frames.close().await
}

async fn read(stream: &mut Option<Output>, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read(buffer).await,
        None => Ok(0),
    }
}

/// Read at once.
const PIECE: usize = 16 * 1024;

/// Pieces of input that wait for a command which does not read; then the client waits, too.
const WAITING: usize = 64;

/// How long a command's streams may be silent after its end.
const LAST_WORDS: Duration = Duration::from_millis(50);
