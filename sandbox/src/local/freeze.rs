//! Freezing: which way works on this host, and the state of one sandbox between running and frozen.
//!
//! ```text
//! warm ──freeze──▶ asked ──all stand still──▶ frozen ──a moment later──▶ memory to swap, where there is one
//!   ▲                └──────────thaw, stop───────┴───────────────────────────┘
//! ```
//!
//! A thaw is one write and never waits for anything. The later of two calls wins: a freeze that is still waiting when a
//! thaw comes gives up.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use manifests::units::Bytes;
use tokio::time::sleep;

use super::shell::Shell;
use super::signals::{self, Held};
use super::state::{Inner, Sandbox};
use crate::cgroup::{Freezer, Hierarchy};
use crate::driver::{DriverError, Event, Reclaimed};
use crate::spawner::protocol::Isolation;

/// How sandboxes are frozen on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freezing {
    /// `cgroup.freeze`; also in the unified tree of a hybrid host, without any controller.
    CgroupV2,
    /// The v1 freezer.
    CgroupV1,
    /// SIGSTOP and SIGCONT to every process. The app's own parent processes can see it (`waitpid` with `WUNTRACED`).
    Signals,
}

impl Freezing {
    /// The word for the user.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1 freezer",
            Self::Signals => "SIGSTOP",
        }
    }

    /// What works here, by trying: `wanted` when it does.
    pub(super) fn probe(wanted: Option<Self>, hierarchy: &mut Hierarchy, group: &str) -> Option<Self> {
        if wanted == Some(Self::CgroupV1) {
            hierarchy.prefer_v1_freezer();
        }
        let found = match wanted {
            Some(Self::Signals) => None,
            _ => hierarchy.freezer(group),
        };
        let found = match found {
            Some(Freezer::V2) => Self::CgroupV2,
            Some(Freezer::V1) => Self::CgroupV1,
            // Signals work wherever processes do.
            None => Self::Signals,
        };
        wanted.is_none_or(|wanted| wanted == found).then_some(found)
    }

    const fn freezer(self) -> Option<Freezer> {
        match self {
            Self::CgroupV2 => Some(Freezer::V2),
            Self::CgroupV1 => Some(Freezer::V1),
            Self::Signals => None,
        }
    }
}

/// How cold a sandbox is.
#[derive(Default)]
pub(super) struct Ice {
    asked: bool,
    frozen: bool,
    /// Grows with every freeze, thaw and stop.
    turn: u64,
    /// Nothing is frozen any more: it is being stopped.
    ended: bool,
    /// What was stopped by signals.
    held: Held,
    reclaimed: Option<Reclaimed>,
}

impl Sandbox {
    fn ice(&self) -> MutexGuard<'_, Ice> {
        self.ice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is frozen, or about to be.
    pub(super) fn is_frozen(&self) -> bool {
        self.ice().asked
    }

    pub(super) fn reclaimed(&self) -> Option<Reclaimed> {
        self.ice().reclaimed
    }
}

pub(super) async fn freeze(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<Bytes, DriverError> {
    let method = inner
        .freezing
        .ok_or_else(|| DriverError::CannotFreeze("this host has no way to".to_owned()))?;
    let fails = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DriverError::NotFound(sandbox.id.clone()),
        _ => DriverError::CannotFreeze(format!("{}: {source}", sandbox.id)),
    };
    let turn = ask(sandbox, method).map_err(fails)?;
    let settled = match method.freezer() {
        Some(freezer) => wait(sandbox, turn, || all(sandbox, |shell| shell.cgroup.is_frozen(freezer))).await,
        None => {
            let isolated = inner.isolation != Isolation::None;
            wait(sandbox, turn, || stop_processes(sandbox, turn, isolated)).await
        }
    };
    if let Err(error) = settled {
        let mut ice = sandbox.ice();
        if ice.turn == turn {
            let _ = undo(sandbox, &mut ice, method);
        }
        return Err(fails(error));
    }
    reclaim_later(inner, sandbox, turn);
    Ok(sandbox.stats().map(|stats| stats.memory).unwrap_or_default())
}

/// One write; idempotent.
pub(super) fn thaw(inner: &Inner, sandbox: &Sandbox) -> Result<(), DriverError> {
    let Some(method) = inner.freezing else { return Ok(()) };
    let mut ice = sandbox.ice();
    if !ice.asked {
        return Ok(());
    }
    undo(sandbox, &mut ice, method).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DriverError::NotFound(sandbox.id.clone()),
        _ => DriverError::Io {
            context: format!("thaw {}", sandbox.id),
            source,
        },
    })
}

/// It is being stopped: it hears signals again, and nothing freezes it any more. Call it after a signal was sent, so that
/// the first thing it does is to hear it.
pub(super) fn end(inner: &Inner, sandbox: &Sandbox) {
    let mut ice = sandbox.ice();
    ice.ended = true;
    if let (Some(method), true) = (inner.freezing, ice.asked) {
        // Its cgroup is gone only when it is.
        let _ = undo(sandbox, &mut ice, method);
    }
}

/// A container has begun to run: one that was started again while signals stopped the others has not heard them.
pub(super) async fn stand_still(inner: &Inner, sandbox: &Sandbox) {
    let turn = {
        let ice = sandbox.ice();
        (inner.freezing == Some(Freezing::Signals) && ice.asked).then_some(ice.turn)
    };
    let Some(turn) = turn else { return };
    let isolated = inner.isolation != Isolation::None;
    if let Err(error) = wait(sandbox, turn, || stop_processes(sandbox, turn, isolated)).await {
        tracing::debug!(sandbox = %sandbox.id, %error, "a container that was started again does not stand still");
    }
}

fn ask(sandbox: &Sandbox, method: Freezing) -> io::Result<u64> {
    let mut ice = sandbox.ice();
    if ice.ended {
        return Err(io::ErrorKind::NotFound.into());
    }
    if !ice.asked {
        // Nothing is asked of one that could not answer.
        sandbox.rest(|quiet| quiet.frozen = true);
        if let Some(freezer) = method.freezer()
            && let Err(error) = all(sandbox, |shell| shell.cgroup.freeze(freezer).map(|()| true))
        {
            let _ = all(sandbox, |shell| shell.cgroup.thaw(freezer).map(|()| true));
            sandbox.rest(|quiet| quiet.frozen = false);
            return Err(error);
        }
        (ice.asked, ice.frozen, ice.reclaimed) = (true, false, None);
        ice.turn += 1;
    }
    Ok(ice.turn)
}

fn undo(sandbox: &Sandbox, ice: &mut Ice, method: Freezing) -> io::Result<()> {
    match method.freezer() {
        Some(freezer) => drop(all(sandbox, |shell| shell.cgroup.thaw(freezer).map(|()| true))?),
        None => std::mem::take(&mut ice.held).resume(),
    }
    (ice.asked, ice.frozen) = (false, false);
    ice.turn += 1;
    sandbox.rest(|quiet| quiet.frozen = false);
    Ok(())
}

/// Does it to every container, and whether it is true of all; one that has ended meanwhile is passed over.
fn all(sandbox: &Sandbox, does: impl Fn(&Shell) -> io::Result<bool>) -> io::Result<bool> {
    let mut true_of_all = does(&sandbox.shell)?;
    for member in sandbox.others() {
        match does(&member.shell) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            done => true_of_all &= done.unwrap_or(true),
        }
    }
    Ok(true_of_all)
}

/// Looks until it stands still. Most do within 0.1 ms; what sits in the kernel (on a slow disk, say) takes longer.
async fn wait(sandbox: &Sandbox, turn: u64, stands: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    let mut waited = Duration::ZERO;
    loop {
        if sandbox.ice().turn != turn {
            return Err(io::Error::other("it was thawed meanwhile"));
        }
        if stands()? {
            let mut ice = sandbox.ice();
            if ice.turn == turn {
                ice.frozen = true;
                return Ok(());
            }
            continue;
        }
        if waited >= SETTLE {
            let text = "a process did not stand still within 2 s: it is in a system call that cannot be interrupted";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Stops everything that is not stopped yet; true when there was nothing: what forks while it is looked at is found the
/// next time.
fn stop_processes(sandbox: &Sandbox, turn: u64, isolated: bool) -> io::Result<bool> {
    let held = sandbox.shell.held().ok_or(io::ErrorKind::NotFound)?;
    let mut found = signals::processes(&sandbox.shell.cgroup, held.pid, isolated)?;
    for member in sandbox.others() {
        if let Some(held) = member.shell.held() {
            found.extend(signals::processes(&member.shell.cgroup, held.pid, isolated)?);
        }
    }
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut ice = sandbox.ice();
    if ice.turn != turn {
        return Ok(false);
    }
    ice.held.stop(&found)
}

/// Moves the memory of what stays frozen to swap: later, so that a quick thaw finds it all; one sandbox at a time, off
/// every path.
fn reclaim_later(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, turn: u64) {
    if !inner.config.reclaim {
        return;
    }
    let (own, sandbox) = (Arc::clone(inner), Arc::clone(sandbox));
    inner.runtime.spawn(async move {
        sleep(RECLAIM_AFTER).await;
        let Ok(_alone) = own.reclaiming.acquire().await else {
            return;
        };
        let frozen = {
            let sandbox = Arc::clone(&sandbox);
            move || {
                let ice = sandbox.ice();
                ice.turn == turn && ice.frozen
            }
        };
        if !frozen() || !has_swap() || !sandbox.shell.cgroup.can_reclaim() {
            return;
        }
        let Some(before) = sandbox.shell.cgroup.memory() else {
            return;
        };
        let (shell, still) = (Arc::clone(&sandbox.shell), frozen.clone());
        let done = own.runtime.spawn_blocking(move || shell.cgroup.reclaim(still)).await;
        if let Ok(Err(error)) = &done {
            tracing::debug!(sandbox = %sandbox.id, %error, "memory was not taken back");
        }
        let Some(after) = sandbox.shell.cgroup.memory() else {
            return;
        };
        let reclaimed = Reclaimed { before, after };
        {
            let mut ice = sandbox.ice();
            if ice.turn != turn {
                return;
            }
            ice.reclaimed = Some(reclaimed);
        }
        // Nobody listening is fine.
        let _ = own.events.send(Event::Reclaimed {
            id: sandbox.id.clone(),
            revision: sandbox.revision.clone(),
            reclaimed,
        });
    });
}

/// Without swap only the page cache could go, which the kernel takes by itself when it needs it.
pub(super) fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// How long a sandbox may take to stand still.
const SETTLE: Duration = Duration::from_secs(2);

/// What is wanted again sooner keeps its memory where it is.
const RECLAIM_AFTER: Duration = Duration::from_secs(1);
