//! The local Linux driver: sandboxes on this machine, by namespaces and cgroups, through the spawner.
//!
//! ```text
//! start: program ─▶ shell (from the pool, or new) ─▶ plan ─▶ spawner ─▶ executed ─▶ probes ─▶ ready
//! end:   spawner says exited ─▶ output read to its end ─▶ cgroup removed ─▶ Exited
//! ```
//!
//! One thread of its own, with a small runtime, reads what the spawner says, moves output into log files and cleans up;
//! so the end of a sandbox does not depend on any caller's future or runtime. `start` and `stop` run in their callers.

mod account;
mod app;
mod backoff;
mod bundle;
mod capacity;
mod command;
mod config;
mod dial;
mod doctor;
mod end;
mod evict;
mod expect;
mod freeze;
mod health;
mod image;
mod inspect;
mod limits;
mod link;
mod members;
mod meters;
mod network;
mod output;
mod pool;
mod probe;
mod proc;
mod profile;
mod rights;
mod shell;
mod signals;
mod start;
mod state;
mod supervise;
mod texts;
pub(crate) mod watched;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::Bytes;
use tokio::net::TcpStream;
use tokio::sync::broadcast;

pub use bundle::Runtime;
pub use capacity::share_of_memory;
pub use config::{LocalConfig, SetupError};
pub use doctor::{is_hopeless, refused};
use end::Stopping;
pub use expect::Expected;
pub use freeze::Freezing;
pub use meters::{TABLE as POOL_METRICS, describe as describe_pool};
use state::Inner;
pub(crate) use supervise::group;

use crate::details::Details;
use crate::driver::{
    BoxFuture, Capacity, Driver, DriverError, Event, Exit, Limits, SandboxSpec, StartError, Started, Stats,
};
use crate::exec::{Exec, ExecError, ExecSpec};
use crate::volumes;

/// Shells that wait for an app, and what became of starts since the driver began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolStats {
    /// Shells that any app can take.
    pub generic: usize,
    /// Shells with the root of a service mounted.
    pub rooted: usize,
    /// Starts that found a shell with their root.
    pub rooted_starts: u64,
    /// Starts that found a shell without.
    pub generic_starts: u64,
    /// Starts that found none: it was made on their path.
    pub direct_starts: u64,
    /// Shells with their root mounted, by revision; those with the same root share them, and each is told of all.
    pub revisions: Vec<(RevisionId, usize)>,
}

/// Runs sandboxes on this machine.
pub struct LocalDriver {
    inner: Arc<Inner>,
}

impl LocalDriver {
    /// Finds out how this host can isolate, removes what a crash has left of the same data directory, and starts the
    /// spawner. Blocks for some milliseconds; needs no runtime.
    ///
    /// # Errors
    /// Why no sandbox can run here, in words for the user.
    pub fn new(config: LocalConfig) -> Result<Arc<Self>, SetupError> {
        Ok(Arc::new(Self {
            inner: supervise::begin(config)?,
        }))
    }

    /// What isolation is missing on this host, for every status line; empty when everything holds.
    pub fn isolation_warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Where its images are.
    pub fn images(&self) -> &images::Store {
        &self.inner.images
    }

    /// Shells kept ready, and how starts found them.
    pub fn pool(&self) -> PoolStats {
        let state = self.inner.lock();
        let (generic, rooted) = state.pool.sizes();
        let counts = state.pool.counts;
        PoolStats {
            generic,
            rooted,
            rooted_starts: counts.rooted,
            generic_starts: counts.generic,
            direct_starts: counts.missed,
            revisions: state.pool.revisions(),
        }
    }

    /// Says that a revision that never started may start soon: where the pool has room for one more service, a shell with
    /// its root is made now. Nothing of the app runs.
    pub async fn expect(&self, spec: &SandboxSpec) -> Expected {
        expect::expect(&self.inner, spec).await
    }

    /// Sets the gauges of the pool to what is so now.
    pub fn gauge_pool(&self) {
        self.inner.gauges.update(&self.pool());
    }

    /// Says which PersistentVolumeClaims there are, and which are there no more since the last time. The directory of one that
    /// is gone goes too: at once, or with the last sandbox that has it; until then no other sandbox gets it.
    pub fn settle_claims(&self, there: &[ObjectId], deleted: &[ObjectId]) {
        for out in self.inner.volumes.settle_claims(there, deleted) {
            let remove = |out: PathBuf| {
                if let Err(error) = volumes::clear(&out) {
                    tracing::warn!(directory = %out.display(), %error, "what was claimed is left");
                }
            };
            match out {
                Ok(out) => drop(self.inner.runtime.spawn_blocking(move || remove(out))),
                Err(error) => tracing::warn!(%error, "a deleted PersistentVolumeClaim is left"),
            }
        }
    }

    /// How sandboxes are isolated and limited here, in one line.
    pub fn describe(&self) -> String {
        self.inner.describe()
    }
}

impl Driver for LocalDriver {
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Started, StartError>> {
        Box::pin(start::start(&self.inner, spec))
    }

    fn stop(&self, id: &SandboxId, grace: Duration) -> BoxFuture<'_, Result<Option<Exit>, DriverError>> {
        // Now, not when the future is first polled: dropping it does not undo the stop.
        let stopping = end::begin_stop(&self.inner, id, grace);
        Box::pin(async move {
            let sandbox = match stopping {
                Stopping::Nothing => None,
                Stopping::Live(sandbox) => Some(sandbox),
                Stopping::Reserved(reserved) => {
                    // The sender is `reserved`, so it is there.
                    let _ = reserved.over.subscribe().wait_for(|over| *over).await;
                    // It may have got a shell just then.
                    let late = reserved.sandbox.get().cloned();
                    late.inspect(|sandbox| end::request(&self.inner, sandbox, grace))
                }
            };
            match sandbox {
                Some(sandbox) => Ok(Some(sandbox.gone().await)),
                None => Ok(None),
            }
        })
    }

    fn set_limits(&self, id: &SandboxId, limits: Limits) -> BoxFuture<'_, Result<(), DriverError>> {
        let result = self
            .inner
            .find(id)
            .and_then(|sandbox| sandbox.set_limits(&self.inner, limits));
        Box::pin(async move { result })
    }

    fn freeze(&self, id: &SandboxId) -> BoxFuture<'_, Result<Bytes, DriverError>> {
        let sandbox = self.inner.find_started(id);
        Box::pin(async move { freeze::freeze(&self.inner, &sandbox?).await })
    }

    fn thaw(&self, id: &SandboxId) -> BoxFuture<'_, Result<(), DriverError>> {
        // Now, not when the future is first polled: a request waits for it.
        let result = self
            .inner
            .find_started(id)
            .and_then(|sandbox| freeze::thaw(&self.inner, &sandbox));
        Box::pin(async move { result })
    }

    fn freezer(&self) -> Option<&'static str> {
        self.inner.freezing.map(Freezing::as_str)
    }

    fn stats(&self, id: &SandboxId) -> BoxFuture<'_, Result<Stats, DriverError>> {
        let result = self.inner.find(id).and_then(|sandbox| sandbox.stats());
        Box::pin(async move { result })
    }

    fn inspect(&self, id: &SandboxId) -> BoxFuture<'_, Result<Details, DriverError>> {
        let result = self
            .inner
            .find(id)
            .and_then(|sandbox| inspect::inspect(&self.inner, &sandbox));
        Box::pin(async move { result })
    }

    fn dial(&self, id: &SandboxId) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        let sandbox = self.inner.sandbox(id);
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, format!("no sandbox {id}"));
        Box::pin(async move { dial::dial(&self.inner, sandbox.ok_or(missing)?).await })
    }

    fn exec(&self, id: &SandboxId, command: ExecSpec) -> BoxFuture<'_, Result<Exec, ExecError>> {
        let sandbox = self.inner.find(id);
        Box::pin(async move { command::run(&self.inner, &sandbox?, command).await })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    fn list(&self) -> Vec<SandboxId> {
        self.inner.started()
    }

    fn unready(&self) -> Vec<(SandboxId, Arc<str>)> {
        self.inner.unready()
    }

    fn logs(&self, id: &SandboxId) -> Vec<PathBuf> {
        self.inner.logs.files(id)
    }

    fn logged(&self) -> Vec<SandboxId> {
        self.inner.logs.names()
    }

    fn capacity(&self) -> Capacity {
        capacity::now(&self.inner)
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(end::shutdown(&self.inner, grace))
    }
}

impl Drop for LocalDriver {
    fn drop(&mut self) {
        self.inner.abandon();
    }
}
