//! Moves a sandbox's output from its pipes into its log.

use std::future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use manifests::ids::SandboxId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::shell::Shell;
use super::state::{Inner, Sandbox};
use super::watched::watch;
use crate::logs::{LogWriter, Pumped, Stream};

/// Begins to read a sandbox's output, once its shell has pipes; whoever comes first, its start or its end. An app that is
/// done at once has ended before its start has looked.
pub(super) fn begin(inner: &Arc<Inner>, sandbox: &Sandbox) {
    let mut progress = sandbox.progress();
    if let Some(pipes) = sandbox.shell.take_output() {
        let several = !sandbox.spec.workload.sidecars.is_empty() || !sandbox.spec.workload.init.is_empty();
        let name = several.then(|| Arc::clone(&sandbox.spec.workload.serving.name));
        progress.output = Some(follow(inner, sandbox.id.clone(), name, pipes));
    }
}

/// Reads the output of another container of it.
pub(super) fn of_member(inner: &Arc<Inner>, sandbox: &Sandbox, shell: &Shell, name: &Arc<str>) -> JoinHandle<String> {
    match shell.take_output() {
        Some(pipes) => follow(inner, sandbox.id.clone(), Some(Arc::clone(name)), pipes),
        None => inner.runtime.spawn(async { String::new() }),
    }
}

/// Reads until both pipes are closed; gives the end of the output. Runs on the driver's own thread: writing to a slow
/// disk holds up nobody's requests.
fn follow(
    inner: &Arc<Inner>,
    id: SandboxId,
    container: Option<Arc<str>>,
    [out, err]: [OwnedFd; 2],
) -> JoinHandle<String> {
    let clock = Arc::clone(&inner.config.clock);
    let logs = inner.logs.clone();
    inner.runtime.spawn(async move {
        let mut log = match logs.writer(&id) {
            Ok(log) => match &container {
                Some(name) => log.of_one(name),
                None => log,
            },
            Err(error) => {
                tracing::warn!(%id, %error, "cannot keep the output");
                return drain(out, err).await;
            }
        };
        let (mut out, mut err) = (open(out), open(err));
        while out.is_some() || err.is_some() {
            let (stream, pipe) = tokio::select! {
                () = readable(out.as_ref()) => (Stream::Stdout, &mut out),
                () = readable(err.as_ref()) => (Stream::Stderr, &mut err),
            };
            if !pump(&mut log, pipe.as_ref(), stream, clock()) {
                *pipe = None;
            }
        }
        log.finish(clock());
        log.tail()
    })
}

type Pipe = AsyncFd<Arc<OwnedFd>>;

fn open(fd: OwnedFd) -> Option<Pipe> {
    watch(Arc::new(fd)).ok()
}

async fn readable(pipe: Option<&Pipe>) {
    match pipe {
        // Only waits: what is read is up to `pump`, which clears the readiness.
        Some(pipe) => drop(pipe.readable().await),
        None => future::pending().await,
    }
}

/// False when the pipe has ended.
fn pump(log: &mut LogWriter, pipe: Option<&Pipe>, stream: Stream, now: manifests::units::Timestamp) -> bool {
    let Some(pipe) = pipe else { return false };
    let pumped = pipe.try_io(Interest::READABLE, |fd| match log.pump(fd.as_fd(), stream, now)? {
        Pumped::Idle => Err(io::ErrorKind::WouldBlock.into()),
        other => Ok(other),
    });
    match pumped {
        Ok(Pumped::Closed) => false,
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// An app whose output cannot be kept must not stop at a full pipe.
async fn drain(out: OwnedFd, err: OwnedFd) -> String {
    let (mut out, mut err) = (open(out), open(err));
    let mut buffer = [0; 4096];
    while out.is_some() || err.is_some() {
        let pipe = tokio::select! {
            () = readable(out.as_ref()) => &mut out,
            () = readable(err.as_ref()) => &mut err,
        };
        let read = pipe.as_ref().map(|p| {
            p.try_io(Interest::READABLE, |fd| {
                rustix::io::read(fd, &mut buffer).map_err(io::Error::from)
            })
        });
        match read {
            Some(Ok(n)) if n > 0 => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => *pipe = None,
        }
    }
    String::new()
}
