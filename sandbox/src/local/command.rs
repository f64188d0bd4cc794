//! Commands in running sandboxes, as Knarr sees them: asked for, followed by what the spawner tells, ended.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::members::Member;
use super::shell::{Failure, Stage};
use super::state::{Inner, Sandbox};
use super::watched;
use crate::driver::{BoxFuture, DriverError, ExitStatus};
use crate::exec::{Exec, ExecError, ExecSpec, Input, Output, Process, WindowSize};
use crate::spawner::command::window;
use crate::spawner::protocol::{CommandId, Event, Plan, Request, Step};
use crate::wire;

/// The commands that run, by number.
#[derive(Default)]
pub(super) struct Commands(Mutex<Running>);

#[derive(Default)]
struct Running {
    next: u64,
    all: HashMap<CommandId, Arc<Command>>,
}

/// One command, from the request to its end.
struct Command {
    id: CommandId,
    progress: watch::Sender<Progress>,
    pidfd: OnceLock<OwnedFd>,
}

/// How far it has come.
#[derive(Clone, Debug)]
enum Progress {
    Asked,
    Executed,
    Failed(Failure),
    Exited(ExitStatus),
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) -> Arc<Command> {
        let mut running = self.lock();
        running.next += 1;
        let command = Arc::new(Command {
            id: CommandId(running.next),
            progress: watch::Sender::new(Progress::Asked),
            pidfd: OnceLock::new(),
        });
        running.all.insert(command.id, Arc::clone(&command));
        command
    }

    fn get(&self, id: CommandId) -> Option<Arc<Command>> {
        self.lock().all.get(&id).cloned()
    }

    fn remove(&self, id: CommandId) -> Option<Arc<Command>> {
        self.lock().all.remove(&id)
    }
}

/// The container of this name; the serving one without a name.
fn container(sandbox: &Sandbox, name: Option<&str>) -> Result<Arc<Member>, ExecError> {
    let serving = &sandbox.spec.workload.serving.name;
    if name.is_none_or(|name| name == &**serving) {
        return Ok(Arc::new(Member {
            shell: Arc::clone(&sandbox.shell),
            app: Arc::clone(&sandbox.app),
            account: sandbox.account.clone(),
        }));
    }
    let others = sandbox.others();
    let named = |member: &&Arc<Member>| Some(&*member.container(sandbox).name) == name;
    others.iter().find(named).cloned().ok_or_else(|| {
        let names = sandbox.spec.workload.running().map(|it| format!("\"{}\"", it.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let text = format!(
            "{} has no container \"{}\" that runs; it has {names}",
            sandbox.id,
            name.unwrap_or_default()
        );
        ExecError::Refused(text)
    })
}

/// Runs a command in a sandbox whose program runs, ready or not; returns when the command's own program does.
pub(super) async fn run(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, spec: ExecSpec) -> Result<Exec, ExecError> {
    let found = container(sandbox, spec.container.as_deref())?;
    let shell = &found.shell;
    let gone = || ExecError::Driver(DriverError::NotFound(sandbox.id.clone()));
    if !matches!(*shell.stage.borrow(), Stage::Executed) {
        return Err(gone());
    }
    if sandbox.is_frozen() {
        let text = format!(
            "{} is frozen: no command can run in it until a request wakes it",
            sandbox.id
        );
        return Err(ExecError::Refused(text));
    }
    // The kernel refuses a fork past the limit, but lets anybody join.
    if let Ok(usage) = shell.cgroup.usage()
        && usage.limits.pids.is_some_and(|most| usage.pids >= Some(most))
    {
        return Err(full(sandbox));
    }
    if found.app.is_handed_over() {
        let (of, who) = ((&sandbox.spec, sandbox.port), (&*found.shell, &found.account));
        let program = spec.command.first().map(String::as_str);
        if !found.app.may_have_program(inner, of, who, program) {
            return Err(missing(&spec, sandbox));
        }
    }
    let found = match &spec.user {
        None => found,
        Some(user) => {
            let account = found.app.other_account(inner, &sandbox.spec, &found.shell, user);
            let account = account.map_err(|why| ExecError::Refused(format!("user \"{user}\": {why}")))?;
            Arc::new(Member {
                shell: Arc::clone(&found.shell),
                app: Arc::clone(&found.app),
                account,
            })
        }
    };
    let shell = &found.shell;
    let file = found.app.is_handed_over().then(|| ProcessFile::new(inner));
    let (plan, said) = plan(inner, sandbox, &found, &spec, file.as_ref()).map_err(ExecError::Refused)?;
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    let mut strings = spec.command.iter().chain(variables);
    if spec.command.is_empty() || strings.any(|text| text.contains('\0')) {
        return Err(ExecError::Refused(
            "the command is empty, or has a NUL character in it".to_owned(),
        ));
    }
    let begin = |error: io::Error| DriverError::Io {
        context: format!("run a command in {}", sandbox.id),
        source: error,
    };
    let (ends, theirs) = Ends::new(&spec).map_err(begin)?;
    let join = shell.cgroup.open_join().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => gone(),
        _ => begin(error).into(),
    })?;
    if let (Some(file), Some(said)) = (&file, said) {
        file.write(&said).map_err(begin)?;
    }
    // From here on it is ended when this future is dropped.
    let process = LocalProcess {
        _file: file,
        inner: Arc::clone(inner),
        command: inner.commands.add(),
        terminal: OnceLock::new(),
    };
    let request = Request::Command {
        command: process.command.id,
        shell: shell.id,
        plan: Box::new(plan),
        terminal: spec.terminal.map(|size| (size.rows, size.columns)),
    };
    let fds: Vec<OwnedFd> = theirs.into_iter().chain(join).collect();
    match inner.spawner().map(|link| link.send(&request, &fds)) {
        Some(Ok(())) => {}
        // The spawner died, and the sandbox with it.
        None => return Err(gone()),
        Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Err(gone()),
        Some(Err(error)) => return Err(begin(error).into()),
    }
    drop(fds);
    let begun = process.command.until(|it| !matches!(it, Progress::Asked)).await;
    if let Progress::Failed(failure) = begun {
        return Err(blame(&failure, &spec, sandbox));
    }
    ends.exec(process).map_err(|error| begin(error).into())
}

/// The plan of a command, and for an OCI runtime what the file for it says.
fn plan(
    inner: &Inner,
    sandbox: &Sandbox,
    found: &Member,
    command: &ExecSpec,
    file: Option<&ProcessFile>,
) -> Result<(Plan, Option<String>), String> {
    let Member { shell, app, account } = found;
    let (spec, port) = (&sandbox.spec, sandbox.port);
    let plan = app.plan(inner, spec, account, (shell.id, true), None, port)?;
    let file = file.map_or(Path::new(""), |file| &file.0);
    app.for_command((inner, spec, port), account, command, (plan, file))
}

/// What an OCI runtime is to run, for it alone to read: there may be secrets in it. Removed with the command.
struct ProcessFile(PathBuf);

impl ProcessFile {
    /// Nothing is there yet.
    fn new(inner: &Inner) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(inner.data_dir.join(DIR).join(format!("{number}.json")))
    }

    fn write(&self, said: &str) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.0)?;
        file.write_all(said.as_bytes())
    }
}

impl Drop for ProcessFile {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where [`ProcessFile`]s are, empty and for this user alone.
pub(super) fn make_dir(data_dir: &Path) -> io::Result<()> {
    let dir = data_dir.join(DIR);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(dir)
}

const DIR: &str = "commands";

/// Our ends of a command's streams.
enum Ends {
    Streams {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The terminal comes over this socket.
    Terminal(OwnedFd),
}

impl Ends {
    /// Ours and the command's.
    fn new(spec: &ExecSpec) -> io::Result<(Self, Vec<OwnedFd>)> {
        if spec.terminal.is_some() {
            let (ours, theirs) = wire::pair()?;
            return Ok((Self::Terminal(ours), vec![theirs]));
        }
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let ours = Self::Streams {
            // Closed at once it is an empty input.
            stdin: spec.stdin.then_some(stdin),
            stdout,
            stderr,
        };
        Ok((ours, vec![their_stdin, their_stdout, their_stderr]))
    }

    fn exec(self, process: LocalProcess) -> io::Result<Exec> {
        let read = |fd| pipe::Receiver::from_owned_fd_unchecked(nonblocking(fd)?);
        let write = |fd| pipe::Sender::from_owned_fd_unchecked(nonblocking(fd)?);
        match self {
            Self::Streams { stdin, stdout, stderr } => Ok(Exec {
                stdin: stdin.map(write).transpose()?.map(|it| Box::new(it) as Input),
                stdout: Box::new(read(stdout)?),
                stderr: Some(Box::new(read(stderr)?)),
                process: Box::new(process),
            }),
            Self::Terminal(socket) => {
                let (_, fds) = wire::receive::<()>(socket.as_fd())?;
                let master = fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof)?;
                let (reader, writer) = (read(master.try_clone()?)?, write(master.try_clone()?)?);
                let _ = process.terminal.set(master);
                Ok(Exec {
                    stdin: Some(Box::new(writer)),
                    stdout: Box::new(Master(reader)) as Output,
                    stderr: None,
                    process: Box::new(process),
                })
            }
        }
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

/// What a terminal says. Its end is an error to the kernel: nobody has the other side open any more.
struct Master(pipe::Receiver);

impl AsyncRead for Master {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

/// Whose fault a failed step is.
fn blame(failure: &Failure, spec: &ExecSpec, sandbox: &Sandbox) -> ExecError {
    let program = spec.command.first().map_or("", String::as_str);
    match failure.step {
        Some(Step::Execute) if failure.errno == libc::ENOENT || failure.errno == libc::ENOTDIR => {
            missing(spec, sandbox)
        }
        Some(Step::Execute) => ExecError::Refused(format!("cannot execute {program}: {}", failure.error())),
        Some(Step::JoinCgroup) if failure.errno == libc::ENODEV => DriverError::NotFound(sandbox.id.clone()).into(),
        Some(Step::Enter) if failure.errno == libc::ESRCH => DriverError::NotFound(sandbox.id.clone()).into(),
        Some(Step::Clone) if failure.errno == libc::EAGAIN => full(sandbox),
        None => DriverError::NotFound(sandbox.id.clone()).into(),
        Some(_) => DriverError::Io {
            context: format!("run a command in {}: cannot {}", sandbox.id, failure.context()),
            source: failure.error(),
        }
        .into(),
    }
}

fn missing(spec: &ExecSpec, sandbox: &Sandbox) -> ExecError {
    let program = spec.command.first().map_or("", String::as_str);
    ExecError::NotFound(format!("there is no program \"{program}\" in {}", sandbox.id))
}

fn full(sandbox: &Sandbox) -> ExecError {
    let id = &sandbox.id;
    ExecError::Refused(format!(
        "{id} has as many processes as it may have: no command can be started in it"
    ))
}

/// A running command's handle.
struct LocalProcess {
    inner: Arc<Inner>,
    command: Arc<Command>,
    terminal: OnceLock<OwnedFd>,
    _file: Option<ProcessFile>,
}

impl Process for LocalProcess {
    fn wait(&self) -> BoxFuture<'_, ExitStatus> {
        Box::pin(async move {
            match self.command.until(|it| matches!(it, Progress::Exited(_))).await {
                Progress::Exited(status) => status,
                _ => ExitStatus::Signal(libc::SIGKILL),
            }
        })
    }

    fn signal(&self, signal: i32) {
        if matches!(
            *self.command.progress.borrow(),
            Progress::Exited(_) | Progress::Failed(_)
        ) {
            return;
        }
        if let Some(link) = self.inner.spawner() {
            let command = self.command.id;
            // A spawner that is gone has taken it along.
            let _ = link.send(&Request::Signal { command, signal }, &[]);
        }
    }

    fn resize(&self, size: WindowSize) -> io::Result<()> {
        let terminal = self
            .terminal
            .get()
            .ok_or_else(|| io::Error::other("the command has no terminal"))?;
        Ok(rustix::termios::tcsetwinsize(
            terminal,
            window(size.rows, size.columns),
        )?)
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

impl Command {
    fn is_over(&self, progress: Progress) {
        self.progress.send_if_modified(|now| {
            let first = !matches!(now, Progress::Exited(_) | Progress::Failed(_));
            if first {
                *now = progress;
            }
            first
        });
    }

    async fn until(&self, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let mut progress = self.progress.subscribe();
        // The sender is `self`, so it is there.
        match progress
            .wait_for(|it| wanted(it) || matches!(it, Progress::Failed(_)))
            .await
        {
            Ok(progress) => progress.clone(),
            Err(_) => Progress::Failed(Failure::spawner_died()),
        }
    }
}

/// The spawner has said something about a command.
pub(super) fn told(inner: &Inner, event: Event, fds: Vec<OwnedFd>) -> io::Result<()> {
    let commands = &inner.commands;
    match event {
        Event::CommandMade { command } => {
            let pidfd = fds.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
            if let Some(command) = commands.get(command) {
                let _ = command.pidfd.set(pidfd);
            }
        }
        Event::CommandExecuted { command } => {
            if let Some(command) = commands.get(command) {
                command.progress.send_replace(Progress::Executed);
            }
        }
        Event::CommandFailed { command, step, errno } => {
            if let Some(command) = commands.get(command) {
                command.is_over(Progress::Failed(Failure {
                    step: Some(step),
                    detail: String::new(),
                    errno,
                }));
                // Otherwise its end is still told.
                if command.pidfd.get().is_none() {
                    commands.remove(command.id);
                }
            }
        }
        Event::CommandExited { command, status } => {
            if let Some(command) = commands.remove(command) {
                command.is_over(Progress::Exited(status));
            }
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    Ok(())
}

/// The spawner is dead. Its sandboxes die with it, and a PID namespace ends only when everybody in it was waited for:
/// where this process is init, that is our turn.
pub(super) async fn bury_all(inner: &Inner) {
    let all = std::mem::take(&mut inner.commands.lock().all);
    for command in all.into_values() {
        if let Some(pidfd) = command.pidfd.get() {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            if let Ok(watched) = pidfd.try_clone().and_then(|fd| watched::watch(Arc::new(fd))) {
                let _ = watched.readable().await;
            }
            while matches!(
                waitid(
                    WaitId::PidFd(pidfd.as_fd()),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG
                ),
                Err(Errno::INTR)
            ) {}
        }
        let killed = Progress::Exited(ExitStatus::Signal(libc::SIGKILL));
        command.is_over(if matches!(*command.progress.borrow(), Progress::Asked) {
            Progress::Failed(Failure::spawner_died())
        } else {
            killed
        });
    }
}
