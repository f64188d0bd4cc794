//! What `knarr top` shows: every ready sandbox with what it uses now. `docs/status.md` describes the fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use activator::Sandbox;
use futures_util::FutureExt as _;
use manifests::ids::RevisionId;
use manifests::resources::Revision;
use sandbox::driver::Driver;
use serde::{Deserialize, Serialize};

use crate::answers::Live;
use crate::metrics;

/// One look at all sandboxes. What grows (CPU time, requests) is a total: two looks make a rate.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    /// When, in microseconds of a clock that never goes back.
    pub at_us: u64,
    /// Cores of this machine.
    pub cores: u32,
    /// Memory that all sandboxes together may use, bytes.
    pub memory_budget: u64,
    /// What they use now, bytes; prepared ones that wait for an app are in it.
    pub memory_used: u64,
    /// Ready sandboxes, by revision and name.
    pub sandboxes: Vec<SandboxUse>,
}

/// One sandbox.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxUse {
    /// Its namespace.
    pub namespace: String,
    /// The Service above it, empty for a bare Configuration's.
    pub service: String,
    /// Its revision.
    pub revision: String,
    /// Its name.
    pub sandbox: String,
    /// `frozen`, `throttled` or `full`.
    pub rung: String,
    /// CPU time so far, microseconds.
    pub cpu_us: u64,
    /// CPU limit in force, thousandths of a core; absent when there is none.
    pub cpu_limit_millis: Option<u32>,
    /// Memory charged to it, bytes.
    pub memory: u64,
    /// Memory limit in force, bytes; absent when there is none.
    pub memory_limit: Option<u64>,
    /// Processes and threads; absent where the host does not count them.
    pub pids: Option<u32>,
    /// Requests in flight in it.
    pub in_flight: u32,
    /// Requests that its revision has answered so far, all its sandboxes together.
    pub revision_requests: u64,
    /// How long it has been ready, milliseconds.
    pub age_ms: u64,
    /// Its place in the order in which idle sandboxes go when memory runs short, 1 first; absent while it does not stand
    /// idle.
    pub evicted: Option<u32>,
}

impl Live {
    /// Looks now.
    pub(crate) async fn uses(&self) -> Top {
        let totals = metrics::totals(&self.metrics.render());
        let order: BTreeMap<String, u32> = self
            .evictions
            .order((self.clock)())
            .into_iter()
            .zip(1..)
            .map(|(standing, place)| (standing.sandbox.to_string(), place))
            .collect();
        let found: Vec<(SandboxUse, Arc<Sandbox>)> = {
            let desired = self.desired();
            let revisions = desired.store().all::<Revision>().values();
            let mut found: Vec<_> = revisions
                .flat_map(|revision| self.of_revision(revision, &totals))
                .collect();
            for (known, _) in &mut found {
                known.evicted = order.get(&known.sandbox).copied();
            }
            found
        };
        let driver = Arc::clone(&self.driver);
        // Some files for each: for a thousand sandboxes too long for a thread that others need.
        let looked = tokio::task::spawn_blocking(move || {
            let capacity = driver.capacity();
            let sandboxes = found
                .into_iter()
                .filter_map(|(use_, sandbox)| look(driver.as_ref(), use_, &sandbox));
            Top {
                at_us: 0,
                cores: capacity.cores,
                memory_budget: capacity.budget.0,
                memory_used: capacity.used.0,
                sandboxes: sandboxes.collect(),
            }
        });
        Top {
            at_us: (self.clock)().as_nanos() / 1_000,
            ..looked.await.unwrap_or_default()
        }
    }

    fn of_revision(
        &self,
        revision: &Revision,
        totals: &BTreeMap<(String, String), metrics::Totals>,
    ) -> Vec<(SandboxUse, Arc<Sandbox>)> {
        let meta = &revision.metadata;
        let Some(pool) = self
            .pools
            .get(&RevisionId::new(meta.namespace.as_str(), meta.name.as_str()))
        else {
            return Vec::new();
        };
        let now = (self.clock)();
        let service = meta.labels.get("serving.knative.dev/service");
        let requests = totals
            .get(&(meta.namespace.clone(), meta.name.clone()))
            .map_or(0, |totals| totals.requests.total);
        let of_sandbox = |sandbox: Arc<Sandbox>| {
            let known = SandboxUse {
                namespace: meta.namespace.clone(),
                service: service.cloned().unwrap_or_default(),
                revision: meta.name.clone(),
                sandbox: sandbox.id().to_string(),
                rung: pool.rung().as_str().to_owned(),
                in_flight: sandbox.in_flight(),
                revision_requests: requests,
                age_ms: u64::try_from(now.since(sandbox.since()).as_millis()).unwrap_or(u64::MAX),
                ..SandboxUse::default()
            };
            (known, sandbox)
        };
        pool.sandboxes().into_iter().map(of_sandbox).collect()
    }
}

/// `None` for one that has gone meanwhile.
fn look(driver: &dyn Driver, known: SandboxUse, sandbox: &Sandbox) -> Option<SandboxUse> {
    // A driver answers this at once.
    let stats = driver.stats(sandbox.id()).now_or_never()?.ok()?;
    Some(SandboxUse {
        cpu_us: u64::try_from(stats.cpu.as_micros()).unwrap_or(u64::MAX),
        cpu_limit_millis: stats.limits.cpu.map(|limit| limit.0),
        memory: stats.memory.0,
        memory_limit: stats.limits.memory.map(|limit| limit.0),
        pids: stats.pids,
        ..known
    })
}
