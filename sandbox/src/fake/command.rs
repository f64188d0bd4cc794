//! Commands inside fake sandboxes: a task of the test in place of a process.

use std::fmt;
use std::io;
use std::sync::Arc;

use manifests::ids::SandboxId;
use tokio::io::{DuplexStream, duplex, empty};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::life::wait_for_end;
use super::{FakeDriver, What};
use crate::driver::{BoxFuture, DriverError, Exit, ExitStatus};
use crate::exec::{Exec, ExecError, ExecSpec, Input, Output, Process, WindowSize};

/// What commands inside an instance do.
#[derive(Clone)]
pub struct Commands(Arc<Handler>);

type Handler = dyn Fn(&SandboxId, ExecSpec, Streams) -> Option<BoxFuture<'static, ExitStatus>> + Send + Sync;

/// A fake command's ends of its streams.
pub struct Streams {
    /// What it reads; empty when no input was asked for.
    pub stdin: Output,
    /// What it says. With a terminal there is only this one.
    pub stdout: Input,
    /// What it complains.
    pub stderr: Input,
}

impl Commands {
    /// For each command what it does until it ends, and how it ends; `None` is a program that does not exist.
    pub fn by(
        handler: impl Fn(&SandboxId, ExecSpec, Streams) -> Option<BoxFuture<'static, ExitStatus>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(handler))
    }

    /// Every command ends at once, silently, as said.
    pub fn all_end(status: ExitStatus) -> Self {
        Self::by(move |_, _, _| Some(Box::pin(async move { status })))
    }
}

impl Default for Commands {
    /// There is no program at all.
    fn default() -> Self {
        Self::by(|_, _, _| None)
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commands")
    }
}

/// As much as a pipe holds.
const PIPE: usize = 64 * 1024;

impl FakeDriver {
    pub(super) fn begin_command(&self, id: &SandboxId, spec: ExecSpec) -> Result<Exec, ExecError> {
        let (commands, containers, frozen, sandbox_ended) = {
            let mut state = self.state();
            let state = &mut *state;
            let command = spec.command.clone();
            self.record(state, id, What::Exec { command });
            let sandbox = state.sandboxes.get(id).filter(|sandbox| sandbox.ready.is_some());
            let sandbox = sandbox.ok_or_else(|| DriverError::NotFound(id.clone()))?;
            let (commands, frozen) = (sandbox.behaviour.commands.clone(), sandbox.frozen.is_some());
            (commands, sandbox.containers.clone(), frozen, sandbox.ended.subscribe())
        };
        let Some(program) = spec.command.first().cloned() else {
            return Err(ExecError::Refused("no command".to_owned()));
        };
        if let Some(container) = spec.container.as_ref().filter(|name| !containers.contains(name)) {
            return Err(ExecError::Refused(format!(
                "{id} has no container \"{container}\" that runs"
            )));
        }
        if frozen {
            return Err(ExecError::Refused(format!("{id} is frozen")));
        }
        let terminal = spec.terminal.is_some();
        let (stdin, theirs): (Option<Input>, Output) = if spec.stdin || terminal {
            let (ours, theirs) = duplex(PIPE);
            (Some(Box::new(ours)), Box::new(theirs))
        } else {
            (None, Box::new(empty()))
        };
        let (stdout, out): (DuplexStream, DuplexStream) = duplex(PIPE);
        let (stderr, err): (Option<Output>, Input) = if terminal {
            (None, Box::new(tokio::io::sink()))
        } else {
            let (ours, theirs) = duplex(PIPE);
            (Some(Box::new(ours)), Box::new(theirs))
        };
        let streams = Streams {
            stdin: theirs,
            stdout: Box::new(out),
            stderr: err,
        };
        let Some(run) = commands.0(id, spec, streams) else {
            return Err(ExecError::NotFound(format!("no program \"{program}\" in {id}")));
        };
        let ended = Arc::new(watch::Sender::new(None));
        let task = tokio::spawn(run_until(run, sandbox_ended, Arc::clone(&ended)));
        Ok(Exec {
            stdin,
            stdout: Box::new(stdout),
            stderr,
            process: Box::new(Command {
                ended,
                task: task.abort_handle(),
                terminal,
            }),
        })
    }
}

/// Runs it until it ends by itself or with its sandbox.
async fn run_until(
    run: BoxFuture<'static, ExitStatus>,
    mut sandbox_ended: watch::Receiver<Option<Exit>>,
    ended: Arc<watch::Sender<Option<ExitStatus>>>,
) {
    let status = tokio::select! {
        biased;
        _ = wait_for_end(&mut sandbox_ended) => ExitStatus::Signal(9),
        status = run => status,
    };
    settle(&ended, status);
}

/// The first end counts; true when this is it.
fn settle(ended: &watch::Sender<Option<ExitStatus>>, status: ExitStatus) -> bool {
    ended.send_if_modified(|now| {
        let first = now.is_none();
        now.get_or_insert(status);
        first
    })
}

struct Command {
    ended: Arc<watch::Sender<Option<ExitStatus>>>,
    task: AbortHandle,
    terminal: bool,
}

impl Process for Command {
    fn wait(&self) -> BoxFuture<'_, ExitStatus> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move {
            match ended.wait_for(Option::is_some).await.map(|status| *status) {
                Ok(Some(status)) => status,
                // The sender is `self`, so it is there.
                Ok(None) | Err(_) => ExitStatus::Signal(9),
            }
        })
    }

    /// Every signal ends a fake command.
    fn signal(&self, signal: i32) {
        if settle(&self.ended, ExitStatus::Signal(signal)) {
            self.task.abort();
        }
    }

    fn resize(&self, _: WindowSize) -> io::Result<()> {
        if self.terminal {
            Ok(())
        } else {
            Err(io::Error::other("the command has no terminal"))
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.task.abort();
    }
}
