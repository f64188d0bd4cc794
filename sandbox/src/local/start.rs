//! A start, from the spec to a ready app.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Timestamp;

use super::account::{Account, Users as ImageUsers};
use super::app::{App, From, Role};
use super::dial;
use super::end;
use super::evict;
use super::health::Monitor;
use super::link::Link;
use super::members;
use super::meters;
use super::network;
use super::output;
use super::pool::{Key, Lease};
use super::shell::{Failure, Shell, Stage};
use super::state::{AccountKey, Inner, Reserved, Sandbox, Slot};
use super::texts;
use crate::driver::{DriverError, Exit, ExitStatus, Limits, Phases, SandboxSpec, StartError, Started};
use crate::probe::Verdict;
use crate::spawner::protocol::{Isolation, Plan, Request, ShellId, Step, Users};
use crate::volumes::Made;

/// A start that loses its spawner is tried again with the next one, this often.
const TRIES: u32 = 3;

/// Starts one sandbox. Dropping the future ends what it has begun; the driver's thread cleans up.
pub(super) async fn start(inner: &Arc<Inner>, spec: SandboxSpec) -> Result<Started, StartError> {
    let reservation = Reservation::take(inner, &spec.id)?;
    let mut stopped = reservation.reserved.stopped.subscribe();
    tokio::select! {
        biased;
        // Before it has a shell; from then on the sandbox itself is stopped.
        Ok(_) = stopped.wait_for(|stopped| *stopped) => Err(StartError::Exited(stopped_early())),
        started = start_as(inner, &spec, reservation) => started,
    }
}

async fn start_as(inner: &Arc<Inner>, spec: &SandboxSpec, reservation: Reservation) -> Result<Started, StartError> {
    let begun = (inner.config.clock)();
    let deadline = tokio::time::sleep(spec.deadline);
    tokio::pin!(deadline);
    let app = tokio::select! {
        app = App::find(inner, spec, Role::Serving) => Arc::new(app?),
        () = &mut deadline => {
            let last = format!("{} was not there yet", spec.workload.serving.image);
            return Err(StartError::NotReady { after: spec.deadline, last });
        }
    };
    let mut dead: Option<Arc<Link>> = None;
    let mut first = Some(reservation);
    for _ in 0..TRIES {
        let spawner = tokio::select! {
            spawner = next_spawner(inner, dead.as_ref()) => spawner?,
            () = &mut deadline => break,
        };
        let reservation = match first.take() {
            Some(reservation) => reservation,
            None => Reservation::take(inner, &spec.id)?,
        };
        let attempt = async {
            let prepared = async {
                let account = account(inner, spec, &app).await?;
                let claim = make_volumes(inner, spec, reservation).await.map_err(Trouble::Told)?;
                Running::begin(inner, spec, &app, &account, claim)
            };
            let mut running = tokio::select! {
                running = prepared => running.map_err(|trouble| (trouble, None))?,
                () = &mut deadline => {
                    let last = "the sandbox was not made yet".to_owned();
                    return Err((Trouble::Told(StartError::NotReady { after: spec.deadline, last }), None));
                }
            };
            let mut result = tokio::select! {
                result = running.get_ready(spec, begun) => result,
                () = &mut deadline => if let Some(exit) = running.failed.take() {
                    Err(Trouble::Told(StartError::Exited(exit)))
                } else {
                    let last = running.monitor.as_ref().map_or("the program was not executed yet", Monitor::last);
                    Err(Trouble::Told(StartError::NotReady { after: spec.deadline, last: last.to_owned() }))
                }
            };
            if let Err(Trouble::Unhealthy(Verdict { why, grace })) = result {
                running.give_up(why, grace.unwrap_or(spec.workload.stop_grace));
                tokio::select! {
                    _ = running.sandbox.gone() => {}
                    () = &mut deadline => {}
                }
                result = Err(Trouble::Ended);
            }
            match result.and_then(|phases| running.commit(phases).map(|()| phases)) {
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
            // A shell that was only to be looked into was killed: the spawner lives.
            Err((Trouble::Ended, None)) => {}
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

/// It was stopped before anything of it ran.
fn stopped_early() -> Exit {
    Exit {
        status: ExitStatus::Signal(libc::SIGKILL),
        oom_killed: false,
        requested: true,
        unhealthy: None,
        last_output: String::new(),
        peak_memory: None,
    }
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
pub(super) enum Trouble {
    Told(StartError),
    /// The app has ended; how, is known when it is cleaned up.
    Ended,
    /// A startup or liveness probe has failed for good.
    Unhealthy(Verdict),
    SpawnerDied,
}

/// A sandbox on its way. Dropped before [`Self::commit`], it is killed.
struct Running<'a> {
    inner: &'a Arc<Inner>,
    sandbox: Arc<Sandbox>,
    /// Until it is sent on its way.
    plan: Option<Box<Plan>>,
    /// How an init container failed, while it is tried again.
    failed: Option<Exit>,
    /// Once the program runs.
    monitor: Option<Monitor>,
    handed_over: bool,
}

impl<'a> Running<'a> {
    /// Takes a shell for the name.
    fn begin(
        inner: &'a Arc<Inner>,
        spec: &SandboxSpec,
        app: &Arc<App>,
        account: &Account,
        claim: Claim,
    ) -> Result<Self, Trouble> {
        let port = match inner.isolation {
            Isolation::None => free_port().map_err(|e| Trouble::Told(exhausted("find a free port", e)))?,
            _ => spec.workload.port,
        };
        let users = app.users(inner, account);
        let pooled = !claim.volumes.as_ref().is_some_and(Made::needs_new_shell);
        let (shell, rooted) = match pooled {
            true => take_shell(inner, spec, app, users)?,
            false => (new_shell(inner, &app.role.limits(spec), app, users, None)?, true),
        };
        let plan = app.plan(inner, spec, account, (shell.id, rooted), claim.volumes.as_ref(), port);
        let plan = plan.map_err(|text| {
            inner.kill(&shell);
            Trouble::Told(StartError::Refused(text))
        })?;
        let what = (Arc::clone(app), account.clone());
        let Claim { volumes, reservation } = claim;
        let sandbox = Arc::new(Sandbox::new(spec.clone(), what, shell, volumes, port));
        reservation.fill(&sandbox);
        Ok(Self {
            inner,
            sandbox,
            plan: Some(Box::new(plan)),
            failed: None,
            monitor: None,
            handed_over: false,
        })
    }

    /// Sends the app on its way.
    fn go(&mut self) -> Result<(), Trouble> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let shell = self.sandbox.shell.id;
        let request = Request::Go { shell, plan };
        match self.inner.spawner().map(|link| link.send(&request, &[])) {
            // A broken pipe is found again, as the shell's end.
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(Err(source)) => {
                let context = "send the plan to the spawner".to_owned();
                Err(Trouble::Told(DriverError::Io { context, source }.into()))
            }
        }
    }

    /// Init containers to their end, then those beside; the first shell waits meanwhile, and its end is theirs.
    async fn start_others(&mut self) -> Result<(), Trouble> {
        let (inner, sandbox) = (self.inner, Arc::clone(&self.sandbox));
        let others = async {
            members::initialise(inner, &sandbox, &mut self.failed).await?;
            members::start_sidecars(inner, &sandbox).await
        };
        tokio::select! {
            biased;
            stage = sandbox.shell.until(|s| matches!(s, Stage::Failed(_) | Stage::Ended(_))) => match stage {
                Stage::Failed(failure) | Stage::Ended(Some(failure)) => Err(blame(&failure)),
                _ => Err(Trouble::Ended),
            },
            others = others => others,
        }
    }

    async fn get_ready(&mut self, spec: &SandboxSpec, begun: Timestamp) -> Result<Phases, Trouble> {
        let clock = &self.inner.config.clock;
        self.sandbox.shell.until(|stage| !matches!(stage, Stage::Asked)).await;
        // Before the app runs: it may connect at once.
        network::attach(self.inner, &self.sandbox, spec).await;
        if !spec.workload.init.is_empty() || !spec.workload.sidecars.is_empty() {
            self.start_others().await?;
        }
        let sandbox = &self.sandbox;
        hand_over(self.inner, spec, (&sandbox.shell, &sandbox.app, &sandbox.account)).await?;
        self.go()?;
        let shell = &self.sandbox.shell;
        output::begin(self.inner, &self.sandbox);
        dial::refill(self.inner, &self.sandbox);
        let over = |s: &Stage| matches!(s, Stage::Executed | Stage::Failed(_) | Stage::Ended(_));
        match shell.until(over).await {
            Stage::Failed(failure) | Stage::Ended(Some(failure)) => return Err(blame(&failure)),
            Stage::Ended(None) => return Err(Trouble::Ended),
            _ => {}
        }
        drop(shell.take_root());
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
                Err(verdict) => Err(Trouble::Unhealthy(verdict)),
            },
        }
    }

    /// From here on its end is an event.
    fn commit(&mut self, phases: Phases) -> Result<(), Trouble> {
        let mut progress = self.sandbox.progress();
        if progress.ended || self.sandbox.was_requested() {
            return Err(Trouble::Ended);
        }
        progress.started = true;
        drop(progress);
        let _ = self.sandbox.phases.set(phases);
        self.handed_over = true;
        if let Some(monitor) = self.monitor.take() {
            monitor.go_on();
        }
        evict::watch(self.inner, &self.sandbox);
        Ok(())
    }

    /// A probe has failed for good: asks it to end.
    fn give_up(&self, why: Arc<str>, grace: Duration) {
        self.sandbox.progress().unhealthy = Some(why);
        end::ask(self.inner, &self.sandbox, grace);
    }

    /// Ends it, and waits until nothing is left.
    async fn end(self) -> Exit {
        end::kill(self.inner, &self.sandbox);
        self.sandbox.gone().await
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.handed_over {
            end::kill(self.inner, &self.sandbox);
        }
    }
}

/// Holds a name while there is no shell for it yet.
struct Reservation {
    inner: Arc<Inner>,
    id: SandboxId,
    reserved: Arc<Reserved>,
}

/// What a sandbox needs before its shell. Dropped, the volumes go first: they are called after the name.
struct Claim {
    volumes: Option<Made>,
    reservation: Reservation,
}

impl Reservation {
    fn take(inner: &Arc<Inner>, id: &SandboxId) -> Result<Self, DriverError> {
        let mut state = inner.lock();
        if state.closing {
            return Err(DriverError::ShuttingDown);
        }
        if state.sandboxes.contains_key(id) {
            return Err(DriverError::Exists(id.clone()));
        }
        let reserved = Arc::new(Reserved::default());
        let slot = Slot::Reserved(Arc::clone(&reserved));
        state.sandboxes.insert(id.clone(), slot);
        Ok(Self {
            inner: Arc::clone(inner),
            id: id.clone(),
            reserved,
        })
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
        let _ = self.reserved.sandbox.set(Arc::clone(sandbox));
        if ended {
            end::without_shell(&self.inner, sandbox);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        let ours = |slot: &Slot| matches!(slot, Slot::Reserved(it) if Arc::ptr_eq(it, &self.reserved));
        if state.sandboxes.get(&self.id).is_some_and(ours) {
            state.sandboxes.remove(&self.id);
        }
        drop(state);
        self.reserved.over.send_replace(true);
    }
}

/// One from the pool, which has no limits, with the app's; else a new one. True when the root is mounted, or about to be.
fn take_shell(inner: &Inner, spec: &SandboxSpec, app: &App, users: Users) -> Result<(Arc<Shell>, bool), Trouble> {
    let (key, lease) = kept(app, users);
    let generic = users == inner.abilities.host_users();
    let (stale, pooled) = {
        let mut state = inner.lock();
        // Before the same image, fetched anew, is taken for the one that was removed.
        let stale = state.pool.sweep();
        (
            stale,
            state
                .pool
                .take((&key, &spec.revision), lease, generic, inner.pool_bounds()),
        )
    };
    for shell in stale {
        inner.kill(&shell);
    }
    meters::found(&spec.revision, pooled.as_ref().map(|(_, rooted)| *rooted));
    inner.refill.notify_one();
    if let Some((shell, rooted)) = pooled {
        let (old, new) = (Limits::default(), app.role.limits(spec));
        return match shell.cgroup.change_limits(&old, &new) {
            Ok(()) => Ok((shell, rooted)),
            Err(error) => {
                inner.kill(&shell);
                Err(Trouble::Told(limits_refused(error)))
            }
        };
    }
    new_shell(inner, &app.role.limits(spec), app, users, None).map(|shell| (shell, true))
}

/// What a shell that is kept for an app depends on.
pub(super) fn kept(app: &App, users: Users) -> (Arc<Key>, Option<Lease>) {
    let key = Key {
        users,
        root: app.root.clone(),
    };
    let lease = match &app.from {
        From::Host(_) => None,
        From::Image(image) => {
            let weak: Lease = Arc::downgrade(image) as Lease;
            Some(weak)
        }
    };
    (Arc::new(key), lease)
}

/// Made now, with the root.
pub(super) fn new_shell(
    inner: &Inner,
    limits: &Limits,
    app: &App,
    users: Users,
    beside: Option<ShellId>,
) -> Result<Arc<Shell>, Trouble> {
    let made = inner.new_shell(limits, users, Some(&app.root), beside);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Trouble::SpawnerDied,
        _ => Trouble::Told(limits_refused(error)),
    })
}

/// Off the caller's runtime: a claim may be large, and belong to another group. The name is held until they are there, or
/// gone again, whatever becomes of the caller.
async fn make_volumes(inner: &Inner, spec: &SandboxSpec, reservation: Reservation) -> Result<Claim, StartError> {
    if spec.workload.volumes.is_empty() {
        let volumes = None;
        return Ok(Claim { volumes, reservation });
    }
    inner.volumes.free(&spec.id, &spec.workload).await;
    let (volumes, spec) = (Arc::clone(&inner.volumes), spec.clone());
    let made = tokio::task::spawn_blocking(move || {
        let facts = texts::facts(&spec, spec.workload.port);
        let made = volumes.make(&spec.id, &spec.workload, &facts)?;
        let volumes = Some(made);
        Ok(Claim { volumes, reservation })
    });
    match made.await {
        Ok(made) => made,
        Err(error) => Err(DriverError::Io {
            context: "make volumes".to_owned(),
            source: io::Error::other(error),
        }
        .into()),
    }
}

/// Who the app runs as. What an image says about its users is looked up in its mounted root, once.
pub(super) async fn account(inner: &Inner, spec: &SandboxSpec, app: &App) -> Result<Account, Trouble> {
    let From::Image(image) = &app.from else {
        return Ok(Account::default());
    };
    let security = &app.role.container(&spec.workload).security;
    let key = AccountKey {
        layers: image.layers.clone(),
        user: image.config.user.clone(),
        asked: (security.user, security.group, security.non_root),
    };
    if let Some(account) = inner.lock().accounts.get(&key) {
        return Ok(account.clone());
    }
    let shell = new_shell(inner, &Limits::default(), app, inner.abilities.image_users(0, 0), None)?;
    let looked = look_up(&shell).await;
    let account = looked.and_then(|users| {
        let account = app.account(spec, &users);
        account.map_err(|text| Trouble::Told(StartError::Refused(text)))
    });
    inner.kill(&shell);
    let account = account?;
    inner.lock().accounts.insert(key, account.clone());
    Ok(account)
}

async fn look_up(shell: &Shell) -> Result<ImageUsers, Trouble> {
    let stage = shell
        .until(|stage| !matches!(stage, Stage::Asked | Stage::Prepared))
        .await;
    if let Stage::Failed(failure) | Stage::Ended(Some(failure)) = stage {
        return Err(blame(&failure));
    }
    let root = shell.take_root().ok_or(Trouble::Ended)?;
    ImageUsers::read(&root).map_err(|source| {
        let context = "read the image's users".to_owned();
        Trouble::Told(DriverError::Io { context, source }.into())
    })
}

fn limits_refused(error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::InvalidInput => StartError::Refused(format!("limits the kernel does not take: {error}")),
        _ => exhausted("make a cgroup", error),
    }
}

/// What a runtime would only say in its output is told by name: that there is no such program.
pub(super) async fn hand_over(
    inner: &Inner,
    spec: &SandboxSpec,
    (shell, app, account): (&Shell, &App, &Account),
) -> Result<(), Trouble> {
    if !app.is_handed_over() {
        return Ok(());
    }
    shell
        .until(|stage| !matches!(stage, Stage::Asked | Stage::Prepared))
        .await;
    if app.may_have_program(inner, (spec, spec.workload.port), (shell, account), None) {
        return Ok(());
    }
    let container = app.role.container(&spec.workload);
    let text = format!(
        "cannot execute the program of {}: there is no such file in it",
        container.image
    );
    Err(Trouble::Told(StartError::Refused(text)))
}

/// Whose fault a failed step is.
pub(super) fn blame(failure: &Failure) -> Trouble {
    let error = failure.error();
    let Some(step) = failure.step else {
        return Trouble::SpawnerDied;
    };
    let text = format!("cannot {}: {error}", failure.context());
    // It was killed at once, or what it was to be beside has ended.
    if matches!(step, Step::Clone | Step::Enter) && matches!(failure.errno, libc::ESRCH | libc::EINTR) {
        return Trouble::Ended;
    }
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

/// Free now; somebody else may take it before the app does, and the app then ends with "address in use".
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The longest a start may wait for the next spawner is its own deadline; this is how often one is tried.
pub(super) const RESPAWN: Duration = Duration::from_millis(500);
