//! `knarr exec`: a command in a sandbox, with this terminal's keys, size and signals.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::bail;
use bytes::Bytes;
use control::client::{self, ClientError, Session};
use control::frames::Frame;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::Exec;
use crate::ask::{directory, encoded};
use crate::terminal::{Raw, size};

/// What `knarr exec` ends with when no command was started, as other tools of this kind do.
const NOT_STARTED: u8 = 125;

/// Runs the command; the exit code is its own.
pub(crate) fn exec(args: Exec) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(args)).unwrap_or_else(|error| {
        eprintln!("error: {}", crate::in_full(&error));
        match error.downcast_ref() {
            Some(ClientError::NotStarted { code, .. }) => *code,
            _ => NOT_STARTED,
        }
    });
    Ok(ExitCode::from(code))
}

async fn run(args: Exec) -> anyhow::Result<u8> {
    let mut path = format!("/v1/exec?target={}&stdin={}", encoded(&args.target), args.stdin);
    for word in &args.command {
        path += &format!("&command={}", encoded(word));
    }
    for pair in &args.env {
        if !pair.contains('=') {
            bail!("--env \"{pair}\" has no value; write NAME=VALUE");
        }
        path += &format!("&env={}", encoded(pair));
    }
    if let Some(container) = &args.container {
        path += &format!("&container={}", encoded(container));
    }
    if let Some(user) = &args.user {
        path += &format!("&user={}", encoded(user));
    }
    let mut tty = args.tty;
    if tty && args.stdin && !io::stdin().is_terminal() {
        eprintln!("warning: standard input is no terminal, so the command gets none either");
        tty = false;
    }
    if tty {
        let size = size().unwrap_or_default();
        path += &format!("&tty=true&rows={}&columns={}", size.rows, size.columns);
        if let Ok(kind) = std::env::var("TERM") {
            path += &format!("&env={}", encoded(&format!("TERM={kind}")));
        }
    }
    let signals = Signals::of(tty)?;
    let session = client::exec(&directory(args.data)?, &path).await?;
    // Given back before anything more is said.
    let raw = if tty && args.stdin { Some(Raw::begin()?) } else { None };
    let ended = converse(session, args.stdin, signals).await;
    drop(raw);
    match ended {
        Ended::Code(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Broken => bail!("the connection to Knarr broke; the command has been killed"),
        Ended::Killed(signal) => Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
    }
}

/// How it went.
enum Ended {
    Code(i32),
    Broken,
    /// A second signal of a kind: the command did not mind the first.
    Killed(i32),
}

async fn converse(session: Session, stdin: bool, mut signals: Signals) -> Ended {
    let (frames_to, frames) = session.split();
    let input = if stdin { Some(read_stdin()) } else { None };
    tokio::select! {
        ended = hear(frames) => ended,
        ended = tell(frames_to, input, &mut signals) => ended,
    }
}

/// Prints what the command says.
async fn hear(mut frames: impl Stream<Item = io::Result<bytes::BytesMut>> + Unpin) -> Ended {
    while let Some(Ok(frame)) = frames.next().await {
        let printed = match Frame::decode(frame) {
            Ok(Frame::Stdout(bytes)) => print(io::stdout().lock(), &bytes),
            Ok(Frame::Stderr(bytes)) => print(io::stderr().lock(), &bytes),
            Ok(Frame::Ended(code)) => return Ended::Code(code),
            _ => return Ended::Broken,
        };
        if printed.is_err() {
            // Nobody reads any more (`| head`): for the command it is the same as for any other.
            return Ended::Killed(SIGPIPE);
        }
    }
    Ended::Broken
}

fn print(mut to: impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Sends input, sizes and signals on. Returns only when there is nothing more to talk about.
async fn tell(
    mut frames: impl Sink<Bytes, Error = io::Error> + Unpin,
    mut input: Option<mpsc::Receiver<Bytes>>,
    signals: &mut Signals,
) -> Ended {
    let mut sent = Vec::new();
    loop {
        let frame = tokio::select! {
            bytes = next(&mut input) => {
                if bytes.is_empty() {
                    input = None;
                }
                Frame::Stdin(bytes)
            }
            number = signals.next() => match number {
                None => match size() {
                    Some(size) => Frame::Resize(size),
                    None => continue,
                },
                Some(number) if sent.contains(&number) => return Ended::Killed(number),
                Some(number) => {
                    sent.push(number);
                    Frame::Signal(number)
                }
            }
        };
        if frames.send(frame.encode()).await.is_err() {
            // What it said last is still to be heard.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Bytes>>) -> Bytes {
    match input {
        Some(open) => open.recv().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Standard input, read by a thread: it cannot be asked to stop, and ends with the process. The last piece is empty.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (pieces, read) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let n = match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap_or(0),
            };
            if pieces.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() || n == 0 {
                return;
            }
        }
    });
    read
}

/// Signals that the command gets in our place, and the one that tells of a new size.
struct Signals {
    passed_on: Vec<(i32, Signal)>,
    resized: Option<Signal>,
}

impl Signals {
    /// With a terminal Ctrl-C is a key for the command's own; what still reaches us is meant for the command too.
    fn of(tty: bool) -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        Ok(Self {
            passed_on: kinds
                .into_iter()
                .map(|kind| Ok((kind.as_raw_value(), signal(kind)?)))
                .collect::<io::Result<_>>()?,
            resized: if tty {
                Some(signal(SignalKind::window_change())?)
            } else {
                None
            },
        })
    }

    /// A signal to pass on, or `None` for a new size.
    async fn next(&mut self) -> Option<i32> {
        std::future::poll_fn(|context| {
            if let Some(resized) = &mut self.resized
                && resized.poll_recv(context).is_ready()
            {
                return std::task::Poll::Ready(None);
            }
            for (number, signal) in &mut self.passed_on {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(Some(*number));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

const SIGPIPE: i32 = 13;
