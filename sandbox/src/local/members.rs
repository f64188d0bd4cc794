//! The other containers of a sandbox: those that run before the serving one, and those beside it. Each is one more shell,
//! in the network, IPC and host name namespaces of the first, with a root, processes, a cgroup and limits of its own.
//!
//! ```text
//! first shell waits ─▶ init containers, one after the other ─▶ sidecars ─▶ the serving container goes
//! a sidecar ends ─▶ it is started again, later each time
//! stop ─▶ all hear the stop signal at once, and share the grace; the serving one ends by itself ─▶ the others are stopped
//! ```

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use manifests::workload::Container;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::account::Account;
use super::app::{App, Role};
use super::backoff::Backoff;
use super::freeze;
use super::limits;
use super::output;
use super::proc;
use super::shell::{Shell, Stage};
use super::start::{Trouble, account, blame, hand_over, new_shell};
use super::state::{Inner, Patience, Sandbox};
use crate::driver::{DriverError, Exit, ExitStatus, SandboxSpec, StartError};
use crate::spawner::protocol::{Isolation, Request};

/// How long a dead container's pipes may stay open.
const OUTPUT: Duration = Duration::from_secs(1);

/// The containers beside the serving one that have a process, or are about to.
#[derive(Default)]
pub(super) struct Members {
    /// The serving container has ended: no more.
    closed: bool,
    list: Vec<Arc<Member>>,
}

/// One of them, once: started again it is another.
pub(super) struct Member {
    pub shell: Arc<Shell>,
    pub app: Arc<App>,
    pub account: Account,
}

/// What is known of a container before it runs.
#[derive(Clone)]
struct Known {
    app: Arc<App>,
    account: Account,
}

/// A member that runs, and the end of what it says.
struct Running {
    member: Arc<Member>,
    output: JoinHandle<String>,
}

impl Member {
    pub(super) fn container<'a>(&self, sandbox: &'a Sandbox) -> &'a Container {
        self.app.role.container(&sandbox.spec.workload)
    }
}

impl Sandbox {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have a process.
    pub(super) fn others(&self) -> Vec<Arc<Member>> {
        let mut members = self.members();
        members
            .list
            .retain(|member| !matches!(*member.shell.stage.borrow(), Stage::Ended(_)));
        members.list.clone()
    }

    fn is_closed(&self) -> bool {
        self.members().closed || self.was_requested() || self.progress().ended
    }
}

/// Runs every init container to its successful end. One that fails is tried again, as the kubelet does; `failed` then says
/// how, for a start that runs out of time.
pub(super) async fn initialise(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    failed: &mut Option<Exit>,
) -> Result<(), Trouble> {
    for nth in 0..sandbox.spec.workload.init.len() {
        let known = find(inner, &sandbox.spec, Role::Init(nth)).await?;
        let mut backoff = Backoff::default();
        loop {
            let begun = (inner.config.clock)();
            let mut running = run(inner, sandbox, &known).await?;
            running
                .member
                .shell
                .until(|stage| matches!(stage, Stage::Ended(_)))
                .await;
            let status = running.member.shell.status();
            let said = match timeout(OUTPUT, &mut running.output).await {
                Ok(tail) => tail.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if status == ExitStatus::Code(0) {
                break;
            }
            if sandbox.is_closed() {
                return Err(Trouble::Ended);
            }
            let name = &running.member.container(sandbox).name;
            *failed = Some(Exit {
                status,
                oom_killed: false,
                requested: false,
                unhealthy: None,
                last_output: format!("init container {name:?} failed with {status}: {said}"),
                peak_memory: None,
            });
            sleep(backoff.next((inner.config.clock)().since(begun))).await;
        }
    }
    *failed = None;
    Ok(())
}

/// Starts every sidecar, and sees to it that they go on running.
pub(super) async fn start_sidecars(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), Trouble> {
    for nth in 0..sandbox.spec.workload.sidecars.len() {
        let known = find(inner, &sandbox.spec, Role::Sidecar(nth)).await?;
        let running = run(inner, sandbox, &known).await?;
        let keeper = keep(Arc::clone(inner), Arc::clone(sandbox), known, running);
        inner.runtime.spawn(keeper);
    }
    Ok(())
}

/// Starts a sidecar again and again, until the sandbox ends.
async fn keep(inner: Arc<Inner>, sandbox: Arc<Sandbox>, known: Known, running: Running) {
    let mut backoff = Backoff::default();
    let mut member = running.member;
    loop {
        let begun = (inner.config.clock)();
        member.shell.until(|stage| matches!(stage, Stage::Ended(_))).await;
        let mut wait = backoff.next((inner.config.clock)().since(begun));
        loop {
            if sandbox.is_closed() {
                return;
            }
            let mut quiet = sandbox.quiet.subscribe();
            let due = async {
                sleep(wait).await;
                // One that stands still starts nothing. The sender is the sandbox, so it is there.
                let _ = quiet.wait_for(|quiet| !quiet.frozen).await;
            };
            tokio::select! {
                _ = sandbox.gone() => return,
                () = due => {}
            }
            match run(&inner, &sandbox, &known).await {
                Ok(running) => member = running.member,
                Err(_) if sandbox.is_closed() => return,
                // It was frozen in between.
                Err(_) if sandbox.is_frozen() => {
                    wait = Duration::ZERO;
                    continue;
                }
                // It had a process, whose end is waited for; else the next try is later.
                Err(_) => tracing::warn!(sandbox = %sandbox.id, "a container beside cannot be started again"),
            }
            break;
        }
    }
}

async fn find(inner: &Inner, spec: &SandboxSpec, role: Role) -> Result<Known, Trouble> {
    let app = Arc::new(App::find(inner, spec, role).await.map_err(Trouble::Told)?);
    let account = account(inner, spec, &app).await?;
    Ok(Known { app, account })
}

/// Starts one; returns when its program runs.
async fn run(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, known: &Known) -> Result<Running, Trouble> {
    let (app, spec) = (&known.app, &sandbox.spec);
    let users = app.users(inner, &known.account);
    let limits = limits::of(app.role, &spec.workload, &sandbox.limits());
    let shell = new_shell(inner, &limits, app, users, Some(sandbox.shell.id))?;
    let member = Arc::new(Member {
        shell,
        app: Arc::clone(app),
        account: known.account.clone(),
    });
    let shell = &member.shell;
    let late = {
        let mut members = sandbox.members();
        if !members.closed {
            members.list.push(Arc::clone(&member));
        }
        members.closed
    };
    // What freezes the sandbox from here on finds it in the list.
    if late || sandbox.is_frozen() {
        inner.kill(shell);
        return Err(Trouble::Ended);
    }
    let plan = app.plan(
        inner,
        spec,
        &known.account,
        (shell.id, true),
        sandbox.volumes.as_ref(),
        sandbox.port,
    );
    let plan = plan.map_err(|text| {
        inner.kill(shell);
        Trouble::Told(StartError::Refused(text))
    })?;
    let name = Arc::clone(&member.container(sandbox).name);
    let stage = shell.until(|stage| !matches!(stage, Stage::Asked)).await;
    if let Stage::Failed(failure) | Stage::Ended(Some(failure)) = stage {
        return Err(named(&name, blame(&failure)));
    }
    hand_over(inner, spec, (shell, app, &known.account))
        .await
        .map_err(|trouble| named(&name, trouble))?;
    let output = output::of_member(inner, sandbox, shell, &name);
    let request = Request::Go {
        shell: shell.id,
        plan: Box::new(plan),
    };
    if let Some(Err(source)) = inner.spawner().map(|link| link.send(&request, &[]))
        && source.kind() != std::io::ErrorKind::BrokenPipe
    {
        let context = "send the plan to the spawner".to_owned();
        return Err(Trouble::Told(DriverError::Io { context, source }.into()));
    }
    let over = |stage: &Stage| matches!(stage, Stage::Executed | Stage::Failed(_) | Stage::Ended(_));
    match shell.until(over).await {
        Stage::Failed(failure) | Stage::Ended(Some(failure)) => Err(named(&name, blame(&failure))),
        _ => {
            drop(shell.take_root());
            freeze::stand_still(inner, sandbox).await;
            Ok(Running { member, output })
        }
    }
}

/// Says which container could not be started.
fn named(name: &str, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Told(StartError::Refused(text)) => {
            Trouble::Told(StartError::Refused(format!("container {name:?}: {text}")))
        }
        other => other,
    }
}

/// Asks all of them to end; the serving container is asked at the same time.
pub(super) fn ask(sandbox: &Sandbox) {
    for member in sandbox.others() {
        member.shell.signal(member.app.stop_signal);
    }
}

/// The serving container has ended: lets the others end within what is left of the grace, then ends them, and waits until
/// nothing of them is left.
pub(super) async fn end(inner: &Inner, sandbox: &Sandbox) {
    let list = {
        let mut members = sandbox.members();
        members.closed = true;
        std::mem::take(&mut members.list)
    };
    if list.is_empty() {
        return;
    }
    let mut patience = sandbox.patience.subscribe();
    let before = *patience.borrow_and_update();
    let alone = match before {
        Patience::Unasked => {
            for member in &list {
                member.shell.signal(member.app.stop_signal);
            }
            sandbox.spec.workload.stop_grace.min(AFTER_CRASH)
        }
        // Whoever has asked counts the time.
        Patience::Grace | Patience::Over => Duration::MAX,
    };
    for member in list.iter().filter(|member| !hears_stop(inner, member)) {
        inner.kill(&member.shell);
    }
    let gone = async {
        for member in &list {
            member.shell.buried().await;
        }
    };
    tokio::pin!(gone);
    let ended = tokio::select! {
        () = &mut gone => true,
        // The sender is the sandbox, so it is there.
        _ = patience.wait_for(|patience| *patience == Patience::Over) => false,
        () = sleep(alone) => false,
    };
    if !ended {
        for member in &list {
            inner.kill(&member.shell);
        }
        gone.await;
    }
}

/// Whether waiting for it to end by itself is of use: it runs, and does not ignore the signal.
fn hears_stop(inner: &Inner, member: &Member) -> bool {
    let executed = matches!(*member.shell.stage.borrow(), Stage::Executed);
    let Some(held) = member.shell.held() else { return false };
    executed && (inner.isolation == Isolation::None || proc::listens_to(held.pid, member.app.stop_signal.as_raw()))
}

/// How long sidecars may take when the serving container has ended by itself: the next sandbox waits for their end.
const AFTER_CRASH: Duration = Duration::from_secs(10);
