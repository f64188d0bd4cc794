//! A start, from the spec to a ready app.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Timestamp;
use manifests::workload::Image;

use super::dial;
use super::end;
use super::health::Monitor;
use super::link::Link;
use super::output;
use super::shell::{Failure, Shell, Stage};
use super::state::{Inner, Sandbox, Slot};
use super::texts::{self, PATH, environment};
use super::unbuilt::unbuilt;
use crate::driver::{DriverError, Exit, Phases, SandboxSpec, StartError, Started};
use crate::exec::ExecSpec;
use crate::program::{self, Program};
use crate::rootfs;
use crate::spawner::protocol::{Isolation, Plan, Request, Step};

/// A start that loses its spawner is tried again with the next one, this often.
const TRIES: u32 = 3;

/// Starts one sandbox. Dropping the future ends what it has begun; the driver's thread cleans up.
pub(super) async fn start(inner: &Arc<Inner>, spec: SandboxSpec) -> Result<Started, StartError> {
    let begun = (inner.config.clock)();
    let deadline = tokio::time::sleep(spec.deadline);
    tokio::pin!(deadline);
    let app = App::find(inner, &spec).map_err(StartError::Refused)?;
    let mut dead: Option<Arc<Link>> = None;
    for _ in 0..TRIES {
        let spawner = tokio::select! {
            spawner = next_spawner(inner, dead.as_ref()) => spawner?,
            () = &mut deadline => break,
        };
        let attempt = async {
            let mut running = match Running::begin(inner, &spec, &app) {
                Ok(running) => running,
                Err(trouble) => return Err((trouble, None)),
            };
            let mut result = tokio::select! {
                result = running.get_ready(&spec, begun) => result,
                () = &mut deadline => {
                    let last = running.monitor.as_ref().map_or("the program was not executed yet", Monitor::last);
                    Err(Trouble::Told(StartError::NotReady { after: spec.deadline, last: last.to_owned() }))
                }
            };
            if let Err(Trouble::Unhealthy(why)) = result {
                running.give_up(why, spec.workload.stop_grace);
                tokio::select! {
                    _ = running.sandbox.gone() => {}
                    () = &mut deadline => {}
                }
                result = Err(Trouble::Ended);
            }
            match result.and_then(|phases| running.commit().map(|()| phases)) {
                Ok(phases) => Ok(phases),
                // An error is told when nothing is left.
                Err(trouble) => Err((trouble, Some(running.end().await))),
            }
        };
        match attempt.await {
            Ok(phases) => {
                return Ok(Started {
                    phases,
                    warnings: inner.warnings.clone(),
                });
            }
            Err((Trouble::Told(error), _)) => return Err(error),
            Err((Trouble::Ended, Some(exit))) => return Err(StartError::Exited(exit)),
            Err(_) => dead = Some(spawner),
        }
    }
    let failure = Failure::spawner_died();
    Err(DriverError::Io {
        context: failure.context(),
        source: failure.error(),
    }
    .into())
}

/// The spawner of the moment, or the one after `dead`.
async fn next_spawner(inner: &Inner, dead: Option<&Arc<Link>>) -> Result<Arc<Link>, DriverError> {
    let mut link = inner.link.subscribe();
    loop {
        if inner.lock().closing {
            return Err(DriverError::ShuttingDown);
        }
        if let Some(link) = &*link.borrow_and_update()
            && dead.is_none_or(|dead| !Arc::ptr_eq(dead, link))
        {
            return Ok(Arc::clone(link));
        }
        // The sender is `inner`, so it is there.
        let _ = link.changed().await;
    }
}

/// Why a start did not come to its end.
enum Trouble {
    Told(StartError),
    /// The app has ended; how, is known when it is cleaned up.
    Ended,
    /// A startup or liveness probe has failed for good.
    Unhealthy(Arc<str>),
    SpawnerDied,
}

/// What is executed, found once per start.
struct App {
    program: Program,
    /// The program's name for itself, where `command` does not say it.
    name: Option<Vec<u8>>,
}

impl App {
    fn find(inner: &Inner, spec: &SandboxSpec) -> Result<Self, String> {
        let workload = &spec.workload.serving;
        let Image::Host(name) = &workload.image else {
            return Err(format!("not supported yet: {}", workload.image));
        };
        let mut program = program::find(name, &inner.data_dir)?;
        if let Some(unbuilt) = unbuilt(&spec.workload) {
            return Err(unbuilt);
        }
        let mut argv0 = None;
        if let Some(command) = workload.command.first() {
            let command = command.fill(&texts::facts(spec, spec.workload.port));
            let other = program::find(Path::new(&command), &inner.data_dir)?;
            program = Program {
                path: other.path,
                show: program.show.into_iter().chain(other.show).collect(),
            };
            program.show.dedup();
        } else {
            argv0 = Some(program.path.as_os_str().as_encoded_bytes().to_vec());
        }
        let mut texts = workload
            .command
            .iter()
            .chain(&workload.args)
            .chain(workload.env.values());
        if texts.any(|text| text.contains('\0')) || workload.env.keys().any(|name| name.contains('\0')) {
            return Err("an argument or environment variable has a NUL character in it".to_owned());
        }
        Ok(Self { program, name: argv0 })
    }
}

/// A sandbox on its way. Dropped before [`Self::commit`], it is killed.
struct Running<'a> {
    inner: &'a Arc<Inner>,
    sandbox: Arc<Sandbox>,
    /// Once the program runs.
    monitor: Option<Monitor>,
    handed_over: bool,
}

impl<'a> Running<'a> {
    /// Takes the name and a shell, and sends the app on its way.
    fn begin(inner: &'a Arc<Inner>, spec: &SandboxSpec, app: &App) -> Result<Self, Trouble> {
        let reservation = Reservation::take(inner, &spec.id).map_err(|e| Trouble::Told(e.into()))?;
        let port = match inner.isolation {
            Isolation::None => free_port().map_err(|e| Trouble::Told(exhausted("find a free port", e)))?,
            _ => spec.workload.port,
        };
        let shell = take_shell(inner, spec)?;
        let sandbox = Arc::new(Sandbox::new(spec.clone(), shell, port));
        reservation.fill(&sandbox);
        let running = Self {
            inner,
            sandbox,
            monitor: None,
            handed_over: false,
        };
        let plan = plan(inner, spec, app, &running.sandbox);
        let request = Request::Go {
            shell: running.sandbox.shell.id,
            plan: Box::new(plan),
        };
        match inner.spawner().map(|link| link.send(&request, &[])) {
            // A broken pipe is found again, as the shell's end.
            None | Some(Ok(())) => Ok(running),
            Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(running),
            Some(Err(source)) => {
                let context = "send the plan to the spawner".to_owned();
                Err(Trouble::Told(DriverError::Io { context, source }.into()))
            }
        }
    }

    async fn get_ready(&mut self, spec: &SandboxSpec, begun: Timestamp) -> Result<Phases, Trouble> {
        let clock = &self.inner.config.clock;
        let shell = &self.sandbox.shell;
        shell.until(|stage| !matches!(stage, Stage::Asked)).await;
        output::begin(self.inner, &self.sandbox);
        dial::refill(self.inner, &self.sandbox);
        let over = |s: &Stage| matches!(s, Stage::Executed | Stage::Failed(_) | Stage::Ended(_));
        match shell.until(over).await {
            Stage::Failed(failure) | Stage::Ended(Some(failure)) => return Err(blame(&failure)),
            Stage::Ended(None) => return Err(Trouble::Ended),
            _ => {}
        }
        let spawned = clock().since(begun);
        let monitor = self
            .monitor
            .insert(Monitor::new(self.inner, &self.sandbox, &spec.workload));
        tokio::select! {
            biased;
            stage = shell.until(|s| matches!(s, Stage::Failed(_) | Stage::Ended(_))) => match stage {
                Stage::Failed(failure) | Stage::Ended(Some(failure)) => Err(blame(&failure)),
                _ => Err(Trouble::Ended),
            },
            ready = monitor.until_ready() => match ready {
                Ok(()) => Ok(Phases { spawned, ready: clock().since(begun) }),
                Err(_) if self.sandbox.progress().ended => Err(Trouble::Ended),
                Err(why) => Err(Trouble::Unhealthy(why)),
            },
        }
    }

    /// From here on its end is an event.
    fn commit(&mut self) -> Result<(), Trouble> {
        let mut progress = self.sandbox.progress();
        if progress.ended || self.sandbox.was_requested() {
            return Err(Trouble::Ended);
        }
        progress.started = true;
        drop(progress);
        self.handed_over = true;
        if let Some(monitor) = self.monitor.take() {
            monitor.go_on();
        }
        Ok(())
    }

    /// A probe has failed for good: asks it to end.
    fn give_up(&self, why: Arc<str>, grace: Duration) {
        self.sandbox.progress().unhealthy = Some(why);
        end::ask(self.inner, &self.sandbox, grace);
    }

    /// Ends it, and waits until nothing is left.
    async fn end(self) -> Exit {
        self.inner.kill(&self.sandbox.shell);
        self.sandbox.gone().await
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.handed_over {
            self.inner.kill(&self.sandbox.shell);
        }
    }
}

/// Holds a name while there is no shell for it yet.
struct Reservation<'a> {
    inner: &'a Inner,
    id: &'a SandboxId,
}

impl<'a> Reservation<'a> {
    fn take(inner: &'a Inner, id: &'a SandboxId) -> Result<Self, DriverError> {
        let mut state = inner.lock();
        if state.closing {
            return Err(DriverError::ShuttingDown);
        }
        if state.sandboxes.contains_key(id) {
            return Err(DriverError::Exists(id.clone()));
        }
        state.sandboxes.insert(id.clone(), Slot::Reserved);
        Ok(Self { inner, id })
    }

    /// The name and the shell are the sandbox's now; one whose shell has died meanwhile is ended by the caller's `kill`.
    fn fill(self, sandbox: &Arc<Sandbox>) {
        let ended = {
            let mut state = self.inner.lock();
            state.sandboxes.insert(self.id.clone(), Slot::Live(Arc::clone(sandbox)));
            match state.shells.get_mut(&sandbox.shell.id) {
                Some(entry) => {
                    entry.1 = Some(Arc::clone(sandbox));
                    false
                }
                None => true,
            }
        };
        if ended {
            end::without_shell(self.inner, sandbox);
        }
        std::mem::forget(self);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.inner.lock().sandboxes.remove(self.id);
    }
}

/// One from the pool, with its limits rewritten; else a new one.
fn take_shell(inner: &Inner, spec: &SandboxSpec) -> Result<Arc<Shell>, Trouble> {
    loop {
        let pooled = inner.lock().pool.pop_front();
        inner.refill.notify_one();
        let Some(shell) = pooled else { break };
        if matches!(*shell.stage.borrow(), Stage::Failed(_) | Stage::Ended(_)) {
            continue;
        }
        match shell.cgroup.set_limits(&spec.limits) {
            Ok(()) => return Ok(shell),
            Err(error) => {
                inner.kill(&shell);
                return Err(Trouble::Told(limits_refused(error)));
            }
        }
    }
    inner.new_shell(&spec.limits).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Trouble::SpawnerDied,
        _ => Trouble::Told(limits_refused(error)),
    })
}

fn limits_refused(error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::InvalidInput => StartError::Refused(format!("limits the kernel does not take: {error}")),
        _ => exhausted("make a cgroup", error),
    }
}

/// Whose fault a failed step is.
fn blame(failure: &Failure) -> Trouble {
    let error = failure.error();
    let Some(step) = failure.step else {
        return Trouble::SpawnerDied;
    };
    let text = format!("cannot {}: {error}", failure.context());
    let out_of = matches!(
        failure.errno,
        libc::ENOMEM | libc::EAGAIN | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::EUSERS
    );
    Trouble::Told(match step {
        _ if out_of => StartError::Exhausted(text),
        Step::Execute if failure.errno == libc::ENOENT => StartError::Refused(format!(
            "{text}: the interpreter of a script, or the program's loader, is not visible in a sandbox (only /usr, /bin, \
             /sbin, /lib* and the program's own directory are)"
        )),
        Step::Execute | Step::WorkingDir => StartError::Refused(text),
        // A program or directory that went away after it was found.
        Step::Files if failure.errno == libc::ENOENT => StartError::Refused(text),
        _ => DriverError::Io {
            context: failure.context(),
            source: error,
        }
        .into(),
    })
}

fn exhausted(what: &str, error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StartError::Exhausted(format!("cannot {what}: {error}"))
        }
        _ => DriverError::Io {
            context: what.to_owned(),
            source: error,
        }
        .into(),
    }
}

fn plan(inner: &Inner, spec: &SandboxSpec, app: &App, sandbox: &Sandbox) -> Plan {
    let memory = spec.limits.memory.map(|m| m.0);
    let common = common_plan(inner, sandbox);
    let (facts, serving) = (texts::facts(spec, sandbox.port), &spec.workload.serving);
    let mut argv: Vec<Vec<u8>> = app.name.iter().cloned().collect();
    argv.extend(texts::filled(&serving.command, &facts));
    argv.extend(texts::filled(&serving.args, &facts));
    Plan {
        root: rootfs::of_app(&app.program, spec.id.as_str(), common.uid, memory),
        program: app.program.path.as_os_str().as_encoded_bytes().to_vec(),
        argv,
        env: variables(environment(spec, serving, &facts, true)),
        ..common
    }
}

/// What the app and commands in its sandbox have in common: everything but what they run.
fn common_plan(inner: &Inner, sandbox: &Sandbox) -> Plan {
    let spec = &sandbox.spec;
    let unlimited = inner.hierarchy.missing().iter().any(|m| m.starts_with("memory"));
    Plan {
        root: Vec::new(),
        program: Vec::new(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: spec.workload.serving.working_dir.clone().unwrap_or_else(|| "/".into()),
        hostname: spec.id.as_str().to_owned(),
        uid: inner.uid(sandbox.shell.id),
        data_limit: spec.limits.memory.map(|m| m.0).filter(|_| unlimited),
    }
}

/// The plan of a command in a running sandbox, and the places where its program may be.
pub(super) fn command_plan(inner: &Inner, sandbox: &Sandbox, command: &ExecSpec) -> (Plan, Vec<Vec<u8>>) {
    let spec = &sandbox.spec;
    let facts = texts::facts(spec, sandbox.port);
    let mut env = environment(spec, &spec.workload.serving, &facts, true);
    env.extend(command.env.iter().cloned());
    let program = command.command.first().map_or("", String::as_str);
    let programs = if program.contains('/') {
        vec![program.as_bytes().to_vec()]
    } else {
        let path = env.get("PATH").map_or(PATH, String::as_str);
        let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
        dirs.map(|dir| format!("{dir}/{program}").into_bytes()).collect()
    };
    let plan = Plan {
        argv: command.command.iter().map(|a| a.clone().into_bytes()).collect(),
        env: variables(env),
        ..common_plan(inner, sandbox)
    };
    (plan, programs)
}

fn variables(env: BTreeMap<String, String>) -> Vec<Vec<u8>> {
    env.into_iter().map(|(k, v)| format!("{k}={v}").into_bytes()).collect()
}

/// Free now; somebody else may take it before the app does, and the app then ends with "address in use".
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The longest a start may wait for the next spawner is its own deadline; this is how often one is tried.
pub(super) const RESPAWN: Duration = Duration::from_millis(500);
