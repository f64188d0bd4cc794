//! A driver without processes: deterministic under tokio's paused time, for tests of everything above the drivers.
//!
//! What happens is set beforehand, per revision: how long the n-th start takes and how it ends, how an instance stops,
//! what answers a connection. What was asked for is recorded. All waiting is `tokio::time`, so that a test that pauses
//! the clock runs hours in milliseconds and always the same way.
//!
//! ```
//! # use std::time::Duration;
//! # use sandbox::fake::{Behaviour, FakeDriver, Start};
//! let driver = FakeDriver::new();
//! // The first start takes two seconds, the second fails, all later ones take 50 ms.
//! let starts = vec![
//!     Start::ready_after(Duration::from_secs(2)),
//!     Start::Refused("no such image".into()),
//!     Start::ready_after(Duration::from_millis(50)),
//! ];
//! driver.set_default(Behaviour { starts: starts.into(), ..Behaviour::default() });
//! ```

mod command;
mod life;
mod plan;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manifests::ids::{RevisionId, SandboxId};
use manifests::units::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

pub use command::{Commands, Streams};
pub use plan::{Behaviour, Call, Start, Starts, What};
pub use serve::{Handler, Serve};

use crate::details::Details;
use crate::driver::{
    BoxFuture, Capacity, Driver, DriverError, Event, Exit, ExitStatus, Limits, Reclaimed, SandboxSpec, StartError,
    Started, Stats,
};
use crate::exec::{Exec, ExecError, ExecSpec};
use life::wait_for_end;
use serve::Server;

/// The fake. Clones are one and the same driver.
#[derive(Clone)]
pub struct FakeDriver {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    born: Instant,
    /// Where log files go; made with the first one, removed with the driver.
    logs: PathBuf,
}

#[derive(Default)]
struct State {
    default: Behaviour,
    by_revision: HashMap<RevisionId, Behaviour>,
    starts: HashMap<RevisionId, u64>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    calls: Vec<Call>,
    capacity: Option<Capacity>,
    cannot_freeze: bool,
    shutting_down: bool,
}

/// A sandbox from the call of `start` until it is gone.
struct Sandbox {
    /// Tells a sandbox from a later one of the same name.
    serial: u64,
    revision: RevisionId,
    /// Its containers that run commands; the serving one first.
    containers: Vec<Arc<str>>,
    behaviour: Behaviour,
    limits: Limits,
    /// When `start` returned it; `None` before.
    ready: Option<Instant>,
    stop_asked: bool,
    stop_grace: Duration,
    /// Why its readiness probe fails, while it does.
    unready: Option<Arc<str>>,
    /// The liveness or startup probe that has failed.
    unhealthy: Option<Arc<str>>,
    /// Since when it is frozen, and how long it was before.
    frozen: Option<Instant>,
    stood_still: Duration,
    /// Grows with every freeze and thaw.
    turn: u64,
    ended: watch::Sender<Option<Exit>>,
    server: Option<Server>,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Default for FakeDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDriver {
    /// Every start takes 10 ms until told otherwise.
    pub fn new() -> Self {
        Self::with_event_capacity(1024)
    }

    /// As [`Self::new`]; an event receiver that is more than `capacity` events behind gets `Lagged`.
    pub fn with_event_capacity(capacity: usize) -> Self {
        let name = format!(
            "knarr-fake-{}-{}",
            std::process::id(),
            SERIAL.fetch_add(1, Ordering::Relaxed)
        );
        let shared = Shared {
            state: Mutex::default(),
            events: broadcast::channel(capacity).0,
            born: now(),
            logs: std::env::temp_dir().join(name),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How instances of revisions that have no behaviour of their own act, from the next start on.
    pub fn set_default(&self, behaviour: Behaviour) {
        self.state().default = behaviour;
    }

    /// How instances of one revision act, from the next start on.
    pub fn set(&self, revision: &RevisionId, behaviour: Behaviour) {
        self.state().by_revision.insert(revision.clone(), behaviour);
    }

    /// What [`Driver::capacity`] says from now on; 4 cores and 8 GiB at first.
    pub fn set_capacity(&self, capacity: Capacity) {
        self.state().capacity = Some(capacity);
    }

    /// Whether this host can freeze; it can at first.
    pub fn set_freezer(&self, can: bool) {
        self.state().cannot_freeze = !can;
    }

    /// Whether a sandbox is frozen; `None` when it is gone.
    pub fn is_frozen(&self, id: &SandboxId) -> Option<bool> {
        self.state().sandboxes.get(id).map(|s| s.frozen.is_some())
    }

    /// Tells that memory of a frozen sandbox was moved to swap.
    pub fn reclaim(&self, id: &SandboxId, reclaimed: Reclaimed) {
        let revision = self.state().sandboxes.get(id).map(|s| s.revision.clone());
        if let Some(revision) = revision {
            let id = id.clone();
            // Nobody may be listening.
            let _ = self.shared.events.send(Event::Reclaimed {
                id,
                revision,
                reclaimed,
            });
        }
    }

    /// Ends a sandbox from outside, as `kill -9` or a crash would; false when there is none of this name.
    pub fn kill(&self, id: &SandboxId, status: ExitStatus) -> bool {
        let serial = self.state().sandboxes.get(id).map(|s| s.serial);
        serial.is_some_and(|serial| self.end(id, serial, status, false))
    }

    /// Ends a sandbox as the kernel does when it has used up its memory.
    pub fn kill_for_memory(&self, id: &SandboxId) -> bool {
        let serial = self.state().sandboxes.get(id).map(|s| s.serial);
        serial.is_some_and(|serial| self.end(id, serial, ExitStatus::Signal(9), true))
    }

    /// Makes the readiness probe of a started sandbox fail for this reason, or pass again (`None`); false when there is
    /// no such sandbox or that is no change.
    pub fn set_readiness(&self, id: &SandboxId, unready: Option<&str>) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(id).filter(|s| s.ready.is_some()) else {
            return false;
        };
        if sandbox.unready.is_some() == unready.is_some() {
            return false;
        }
        sandbox.unready = unready.map(Arc::from);
        let event = Event::Readiness {
            id: id.clone(),
            revision: sandbox.revision.clone(),
            ready: unready.is_none(),
            why: unready.unwrap_or_default().into(),
        };
        // Under the lock, so that it cannot come after the exit. Nobody may be listening.
        let _ = self.shared.events.send(event);
        true
    }

    /// Makes the liveness probe of a started sandbox fail for good, and ends it for that reason; false when there is no
    /// such sandbox or it is ending already.
    pub fn fail_liveness(&self, id: &SandboxId, why: &str) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(id).filter(|s| s.ready.is_some()) else {
            return false;
        };
        if sandbox.stop_asked || sandbox.unhealthy.is_some() {
            return false;
        }
        let why: Arc<str> = why.into();
        sandbox.unhealthy = Some(Arc::clone(&why));
        let event = Event::Unhealthy {
            id: id.clone(),
            revision: sandbox.revision.clone(),
            why,
        };
        let _ = self.shared.events.send(event);
        let (serial, (after, status)) = (sandbox.serial, sandbox.behaviour.end_within(sandbox.stop_grace));
        self.end_later(id.clone(), serial, after, status);
        true
    }

    /// Everything that was asked for, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How often a start of the revision was tried.
    pub fn starts(&self, revision: &RevisionId) -> u64 {
        self.state().starts.get(revision).copied().unwrap_or(0)
    }

    /// The limits in force for a sandbox; `None` when it is gone.
    pub fn limits(&self, id: &SandboxId) -> Option<Limits> {
        self.state().sandboxes.get(id).map(|s| s.limits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, state: &mut State, id: &SandboxId, what: What) {
        let at = now() - self.shared.born;
        state.calls.push(Call {
            at,
            id: id.clone(),
            what,
        });
    }

    fn log_file(&self, id: &SandboxId) -> PathBuf {
        self.shared.logs.join(format!("{id}.log"))
    }
}

impl Driver for FakeDriver {
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Started, StartError>> {
        Box::pin(self.start_one(spec))
    }

    fn stop(&self, id: &SandboxId, grace: Duration) -> BoxFuture<'_, Result<Option<Exit>, DriverError>> {
        let id = id.clone();
        Box::pin(async move { Ok(self.stop_one(&id, grace).await) })
    }

    fn set_limits(&self, id: &SandboxId, limits: Limits) -> BoxFuture<'_, Result<(), DriverError>> {
        let id = id.clone();
        Box::pin(async move {
            let mut state = self.state();
            let state = &mut *state;
            self.record(state, &id, What::SetLimits { limits });
            let sandbox = state.sandboxes.get_mut(&id).ok_or(DriverError::NotFound(id))?;
            sandbox.limits = limits;
            Ok(())
        })
    }

    fn freeze(&self, id: &SandboxId) -> BoxFuture<'_, Result<Bytes, DriverError>> {
        let id = id.clone();
        Box::pin(async move { self.freeze_one(&id).await })
    }

    fn thaw(&self, id: &SandboxId) -> BoxFuture<'_, Result<(), DriverError>> {
        let id = id.clone();
        Box::pin(async move { self.thaw_one(&id).await })
    }

    fn freezer(&self) -> Option<&'static str> {
        (!self.state().cannot_freeze).then_some("fake")
    }

    fn stats(&self, id: &SandboxId) -> BoxFuture<'_, Result<Stats, DriverError>> {
        let id = id.clone();
        Box::pin(async move {
            let state = self.state();
            let sandbox = state.sandboxes.get(&id).ok_or(DriverError::NotFound(id))?;
            let until = sandbox.frozen.unwrap_or_else(now);
            let ran = sandbox.ready.map_or(Duration::ZERO, |ready| until - ready);
            let Behaviour { memory, cpu, .. } = sandbox.behaviour;
            Ok(Stats {
                cpu: (ran - sandbox.stood_still).mul_f64(cpu),
                memory,
                pids: Some(1),
                limits: sandbox.limits,
                main_pid: None,
                frozen: sandbox.frozen.is_some(),
                reclaimed: None,
            })
        })
    }

    fn inspect(&self, id: &SandboxId) -> BoxFuture<'_, Result<Details, DriverError>> {
        let state = self.state();
        let known = state.sandboxes.get(id).map(|sandbox| Details {
            revision: sandbox.revision.to_string(),
            isolation: "none: a fake".to_owned(),
            containers: sandbox.containers.iter().map(ToString::to_string).collect(),
            ready: match sandbox.ready {
                Some(_) => Ok(()),
                None => Err("it is starting".to_owned()),
            },
            ..Details::default()
        });
        let details = known.ok_or_else(|| DriverError::NotFound(id.clone()));
        Box::pin(async move { details })
    }

    fn dial(&self, id: &SandboxId) -> BoxFuture<'_, io::Result<TcpStream>> {
        let address = match self.state().sandboxes.get(id) {
            Some(Sandbox {
                server: Some(server), ..
            }) => Ok(server.address()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("sandbox {id} is not ready"),
            )),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no sandbox {id}"))),
        };
        Box::pin(async move {
            match address? {
                Some(address) => TcpStream::connect(address).await,
                None => Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the fake serves nothing",
                )),
            }
        })
    }

    fn exec(&self, id: &SandboxId, command: ExecSpec) -> BoxFuture<'_, Result<Exec, ExecError>> {
        let begun = self.begin_command(id, command);
        Box::pin(async move { begun })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    fn list(&self) -> Vec<SandboxId> {
        let state = self.state();
        state
            .sandboxes
            .iter()
            .filter(|(_, s)| s.ready.is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn unready(&self) -> Vec<(SandboxId, Arc<str>)> {
        let state = self.state();
        let unready = |(id, sandbox): (&SandboxId, &Sandbox)| Some((id.clone(), sandbox.unready.clone()?));
        state.sandboxes.iter().filter_map(unready).collect()
    }

    fn logs(&self, id: &SandboxId) -> Vec<PathBuf> {
        Some(self.log_file(id))
            .filter(|path| path.exists())
            .into_iter()
            .collect()
    }

    fn logged(&self) -> Vec<SandboxId> {
        let files = std::fs::read_dir(&self.shared.logs).into_iter().flatten().flatten();
        files
            .filter_map(|file| Some(SandboxId::new(file.file_name().to_str()?.strip_suffix(".log")?)))
            .collect()
    }

    fn capacity(&self) -> Capacity {
        self.state().capacity.unwrap_or(Capacity {
            cores: 4,
            free_memory: Bytes(8 << 30),
            budget: Bytes(8 << 30),
            used: Bytes(0),
        })
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ids: Vec<SandboxId> = {
                let mut state = self.state();
                state.shutting_down = true;
                state.sandboxes.keys().cloned().collect()
            };
            let stops: Vec<_> = ids.iter().filter_map(|id| self.begin_stop(id, grace)).collect();
            for mut stop in stops {
                wait_for_end(&mut stop).await;
            }
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Missing unless something was logged.
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the fake is a shell: its clock is tokio's, which tests pause"
)]
fn now() -> Instant {
    Instant::now()
}
