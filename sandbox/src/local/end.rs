//! The end of a sandbox: asked for, or noticed; and the end of all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use tokio::time::timeout;

use super::freeze;
use super::members;
use super::network;
use super::output;
use super::proc;
use super::shell::{Shell, Stage};
use super::state::{Inner, Patience, Reserved, Sandbox, Slot};
use crate::driver::{Event, Exit, ExitStatus};
use crate::spawner::protocol::Isolation;

/// How long a dead sandbox's pipes may stay open: only plain processes can leave somebody behind who holds them.
const OUTPUT: Duration = Duration::from_secs(1);

/// How long the kernel may take to let go of a cgroup.
const CGROUP: Duration = Duration::from_secs(5);

/// Most sandboxes say little, and the log directory need not be looked through after each.
const PRUNE_EVERY: u64 = 32;

/// What a stop waits for.
pub(super) enum Stopping {
    /// There is no such sandbox.
    Nothing,
    /// A start that has no shell yet gives up.
    Reserved(Arc<Reserved>),
    /// It ends.
    Live(Arc<Sandbox>),
}

/// Begins to stop whatever this name stands for.
pub(super) fn begin_stop(inner: &Arc<Inner>, id: &SandboxId, grace: Duration) -> Stopping {
    let found = match inner.lock().sandboxes.get(id) {
        None => Stopping::Nothing,
        Some(Slot::Reserved(reserved)) => Stopping::Reserved(Arc::clone(reserved)),
        Some(Slot::Live(sandbox)) => Stopping::Live(Arc::clone(sandbox)),
    };
    match &found {
        Stopping::Nothing => {}
        Stopping::Reserved(reserved) => drop(reserved.stopped.send_replace(true)),
        Stopping::Live(sandbox) => request(inner, sandbox, grace),
    }
    found
}

/// Begins to stop a sandbox; it happens whatever becomes of the caller.
pub(super) fn request(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, grace: Duration) {
    sandbox.requested.store(true, Ordering::Relaxed);
    sandbox.rest(|quiet| quiet.ending = true);
    ask(inner, sandbox, grace);
}

/// Asks it to end, and ends it after the grace; what for is said elsewhere.
pub(super) fn ask(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, grace: Duration) {
    if grace.is_zero() {
        kill(inner, sandbox);
        freeze::end(inner, sandbox);
        return;
    }
    // All containers at once (Kubernetes), each by its image's signal; they share the grace.
    sandbox.be_patient(Patience::Grace);
    members::ask(sandbox);
    if hears_stop(inner, sandbox) {
        sandbox.shell.signal(sandbox.app.stop_signal);
    } else {
        inner.kill(&sandbox.shell);
    }
    freeze::end(inner, sandbox);
    let (inner, sandbox) = (Arc::clone(inner), Arc::clone(sandbox));
    inner.clone().runtime.spawn(async move {
        if timeout(grace, sandbox.gone()).await.is_err() {
            kill(&inner, &sandbox);
        }
    });
}

/// Ends every container of it at once.
pub(super) fn kill(inner: &Inner, sandbox: &Sandbox) {
    sandbox.be_patient(Patience::Over);
    inner.kill(&sandbox.shell);
}

/// Whether SIGTERM would do anything. One that has not executed yet cannot hear; waiting for the grace would be in vain.
fn hears_stop(inner: &Inner, sandbox: &Sandbox) -> bool {
    let executed = matches!(*sandbox.shell.stage.borrow(), Stage::Executed);
    let Some(held) = sandbox.shell.held() else { return false };
    executed && (inner.isolation == Isolation::None || proc::listens_to(held.pid, sandbox.app.stop_signal.as_raw()))
}

/// A shell has no process any more: removes what is left of it and tells whoever waits.
pub(super) async fn bury(inner: Arc<Inner>, shell: Arc<Shell>, status: ExitStatus) {
    let sandbox = inner
        .lock()
        .shells
        .get(&shell.id)
        .and_then(|(_, sandbox)| sandbox.clone());
    let mut last_output = String::new();
    if let Some(sandbox) = &sandbox {
        output::begin(&inner, sandbox);
        let output = {
            let mut progress = sandbox.progress();
            progress.ended = true;
            progress.output.take()
        };
        if let Some(mut output) = output {
            last_output = match timeout(OUTPUT, &mut output).await {
                Ok(tail) => tail.unwrap_or_default(),
                Err(_) => {
                    output.abort();
                    String::new()
                }
            };
        }
    }
    if let Some(sandbox) = &sandbox {
        last_output = last_words(sandbox, &shell, last_output);
    }
    let memory = Memory {
        oom_killed: shell.cgroup.usage().is_ok_and(|usage| usage.oom_kills > 0),
        peak: shell.cgroup.peak_memory(),
    };
    if let Some(sandbox) = &sandbox {
        members::end(&inner, sandbox).await;
        network::detach(sandbox).await;
    }
    remove_cgroup(&inner, &shell).await;
    if let Some(sandbox) = &sandbox {
        remove_volumes(&inner, sandbox).await;
    }
    let sandbox = {
        let mut state = inner.lock();
        state.pool.remove(shell.id);
        // It may have been taken from the pool in the meantime.
        let sandbox = state.shells.remove(&shell.id).and_then(|(_, sandbox)| sandbox);
        if let Some(sandbox) = &sandbox {
            forget(&mut state.sandboxes, sandbox);
        }
        sandbox
    };
    shell.set_buried();
    if let Some(sandbox) = sandbox {
        farewell(&inner, &sandbox, status, memory, last_output);
    }
    if shell.id.0.is_multiple_of(PRUNE_EVERY) {
        prune_logs(&inner).await;
    }
}

/// What the app has written for that, or else, unless it was asked otherwise, the end of its output. Kubernetes takes that
/// of failed ones only, but a server that ends by itself has failed, whatever it says.
fn last_words(sandbox: &Sandbox, shell: &Shell, output: String) -> String {
    let message = shell.message();
    let wants_output = sandbox.spec.workload.serving.termination.fall_back_to_logs;
    match (message.is_empty(), wants_output) {
        (false, _) => message,
        (true, true) => output,
        (true, false) => String::new(),
    }
}

/// Off the driver's thread: there may be much in them.
async fn remove_volumes(inner: &Inner, sandbox: &Arc<Sandbox>) {
    if sandbox.volumes.is_none() {
        return;
    }
    let own = Arc::clone(sandbox);
    let removed = inner
        .runtime
        .spawn_blocking(move || own.volumes.as_ref().map_or(Ok(()), |volumes| volumes.remove()));
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(sandbox = %sandbox.id, %error, "volumes are left");
    }
}

/// Keeps the logs of those that are gone within their bound.
async fn prune_logs(inner: &Arc<Inner>) {
    let own = Arc::clone(inner);
    let pruned = inner
        .runtime
        .spawn_blocking(move || own.logs.prune(|id| own.lock().sandboxes.contains_key(id)));
    if let Ok(Err(error)) = pruned.await {
        tracing::warn!(%error, "old logs are left");
    }
}

/// The shell died in the pool and was buried before the sandbox could have it.
pub(super) fn without_shell(inner: &Inner, sandbox: &Arc<Sandbox>) {
    if let Some(volumes) = &sandbox.volumes
        && let Err(error) = volumes.remove()
    {
        tracing::warn!(sandbox = %sandbox.id, %error, "volumes are left");
    }
    forget(&mut inner.lock().sandboxes, sandbox);
    farewell(
        inner,
        sandbox,
        ExitStatus::Signal(libc::SIGKILL),
        Memory::default(),
        String::new(),
    );
}

fn forget(sandboxes: &mut std::collections::HashMap<manifests::ids::SandboxId, Slot>, sandbox: &Arc<Sandbox>) {
    if matches!(sandboxes.get(&sandbox.id), Some(Slot::Live(live)) if Arc::ptr_eq(live, sandbox)) {
        sandboxes.remove(&sandbox.id);
    }
}

/// What its cgroup said at the end.
#[derive(Default)]
struct Memory {
    oom_killed: bool,
    peak: Option<Bytes>,
}

fn farewell(inner: &Inner, sandbox: &Sandbox, status: ExitStatus, memory: Memory, last_output: String) {
    let (started, unhealthy) = {
        let mut progress = sandbox.progress();
        progress.ended = true;
        (progress.started, progress.unhealthy.clone())
    };
    let exit = Exit {
        status,
        oom_killed: memory.oom_killed,
        requested: sandbox.was_requested(),
        unhealthy,
        last_output,
        peak_memory: memory.peak,
    };
    if started {
        // Nobody listening is fine.
        let _ = inner.events.send(Event::Exited {
            id: sandbox.id.clone(),
            revision: sandbox.revision.clone(),
            exit: exit.clone(),
        });
    }
    sandbox.set_gone(exit);
}

/// Usually two or three `rmdir`; off the driver's thread, for the kernel sometimes wants to be asked again.
async fn remove_cgroup(inner: &Inner, shell: &Arc<Shell>) {
    let shell = Arc::clone(shell);
    let id = shell.id;
    let removed = inner
        .runtime
        .spawn_blocking(move || shell.cgroup.kill_all(CGROUP).and_then(|()| shell.cgroup.remove(CGROUP)));
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(shell = id.0, %error, "a cgroup is left");
    }
}

/// Stops everything and waits until nothing is left, the spawner included.
pub(super) async fn shutdown(inner: &Arc<Inner>, grace: Duration) {
    let live: Vec<Arc<Sandbox>> = {
        let mut state = inner.lock();
        state.closing = true;
        for reserved in state.reserved() {
            reserved.stopped.send_replace(true);
        }
        state.live().collect()
    };
    for sandbox in &live {
        request(inner, sandbox, grace);
    }
    for sandbox in &live {
        sandbox.gone().await;
    }
    inner.abandon();
    let mut finished = inner.finished.subscribe();
    let _ = finished.wait_for(|finished| *finished).await;
}
