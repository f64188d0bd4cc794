//! All pools of one gateway: made and retired by snapshots, fed by endpoint sets, read once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use manifests::exchange::{EndpointSet, LoadKind, LoadReport, RevisionLoad, Snapshot};
use manifests::ids::{GatewayId, Generation, RevisionId};
use manifests::units::{Clock, Timestamp};
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::Limits;
use crate::outbox::{Shared, relock};
use crate::pool::Pool;

/// The registry of pools by revision.
///
/// Request threads only call [`Self::get`] (and keep what it returns in their routing table). Everything else is for
/// the control side: none of it waits for a request thread, nor makes one wait longer than a few instructions.
pub struct Pools {
    pools: DashMap<RevisionId, Arc<Pool>>,
    shared: Arc<Shared>,
    changes: Mutex<Changes>,
    reporter: Mutex<Reporter>,
}

/// What snapshots and endpoint sets leave behind.
#[derive(Default)]
struct Changes {
    snapshot: Generation,
    /// Sets that came before the snapshot that has their revision: the two come by different ways. A set without
    /// endpoints is never kept, so what is deleted leaves nothing behind.
    early: HashMap<RevisionId, EndpointSet>,
    /// Pools of deleted revisions on which something still runs; still in the registry.
    retired: Vec<Arc<Pool>>,
}

/// What one periodic report leaves to the next.
struct Reporter {
    last: Timestamp,
    /// Pools that were taken off the active list in the last report.
    resting: Vec<Arc<Pool>>,
}

impl Pools {
    /// A gateway's pools. `threads`: how many threads call [`Pool::enter`]. `reports` takes what cannot wait for the next
    /// periodic report; see [`Self::publish`].
    pub fn new(
        threads: usize,
        limits: Limits,
        clock: Clock,
        gateway: GatewayId,
        reports: UnboundedSender<LoadReport>,
    ) -> Self {
        let last = clock();
        Self {
            pools: DashMap::new(),
            shared: Arc::new(Shared::new(threads, limits, clock, gateway, reports)),
            changes: Mutex::default(),
            reporter: Mutex::new(Reporter {
                last,
                resting: Vec::new(),
            }),
        }
    }

    /// The pool of a revision that the newest snapshot has.
    pub fn get(&self, revision: &RevisionId) -> Option<Arc<Pool>> {
        self.pools
            .get(revision)
            .map(|pool| Arc::clone(&pool))
            .filter(|pool| !pool.is_retired())
    }

    /// How many revisions have a pool.
    pub fn len(&self) -> usize {
        self.pools.len()
    }

    /// Whether there is no pool.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The bounds in force.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// Bytes that wait in all queues together.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes()
    }

    /// Makes pools for new revisions, updates changed ones, retires those that are gone. A revision whose `Arc` is the
    /// one in place costs one look. A snapshot older than the one in place is refused.
    pub fn apply_snapshot(&self, snapshot: &Snapshot) -> bool {
        let mut changes = relock(&self.changes);
        if snapshot.generation < changes.snapshot {
            return false;
        }
        changes.snapshot = snapshot.generation;
        for (id, revision) in &snapshot.revisions {
            if let Some(pool) = self.pools.get(id) {
                pool.update(revision);
                if pool.is_retired() {
                    pool.revive();
                }
                continue;
            }
            let pool = Pool::new(Arc::clone(revision), Arc::clone(&self.shared));
            self.pools.insert(id.clone(), Arc::clone(&pool));
            if let Some(set) = changes.early.remove(id) {
                pool.apply(&set);
            }
        }
        if self.pools.len() > snapshot.revisions.len() {
            self.retire_absent(snapshot, &mut changes);
        }
        true
    }

    /// Puts an endpoint set in place; false when it is not newer than the one there, which then is acknowledged again.
    ///
    /// Generations of a revision must grow for as long as this gateway runs, also across a deletion and a new revision
    /// of the same name; the last set of a deleted revision must be empty. A set whose revision is not known yet is kept
    /// for it.
    pub fn apply(&self, set: &EndpointSet) -> bool {
        let pool = self.pools.get(&set.revision).map(|pool| Arc::clone(&pool));
        if let Some(pool) = pool {
            return pool.apply(set);
        }
        let mut changes = relock(&self.changes);
        // A snapshot may have made the pool while we waited for the lock.
        if let Some(pool) = self.pools.get(&set.revision).map(|pool| Arc::clone(&pool)) {
            drop(changes);
            return pool.apply(set);
        }
        if changes
            .early
            .get(&set.revision)
            .is_some_and(|early| early.generation >= set.generation)
        {
            return false;
        }
        if set.endpoints.is_empty() {
            changes.early.remove(&set.revision);
            drop(changes);
            self.acknowledge(set);
        } else {
            changes.early.insert(set.revision.clone(), set.clone());
        }
        true
    }

    /// The periodic report; a shell calls it once a second and sends it before anything else is reported. Prefer
    /// [`Self::publish`], which sees to that.
    pub fn report(&self, now: Timestamp) -> LoadReport {
        let revisions = self.collect(now);
        self.shared.number(revisions)
    }

    /// Makes the periodic report and sends it where wake-ups go, in the order of their generations.
    pub fn publish(&self, now: Timestamp) {
        let revisions = self.collect(now);
        self.shared.send(revisions);
    }

    fn collect(&self, now: Timestamp) -> Vec<RevisionLoad> {
        let mut reporter = relock(&self.reporter);
        let (period, before) = (now.since(reporter.last), reporter.last);
        reporter.last = now;
        for pool in std::mem::take(&mut reporter.resting) {
            if pool.overslept() {
                pool.activate(before);
            }
        }
        let active = self.shared.take_active();
        let mut revisions = Vec::with_capacity(active.len());
        let mut busy = Vec::with_capacity(active.len());
        for pool in active {
            let (load, stays) = pool.sample(now, period);
            revisions.push(load);
            if stays {
                busy.push(pool);
            } else {
                pool.rest();
                reporter.resting.push(pool);
            }
        }
        self.shared.keep_active(busy);
        drop(reporter);
        self.sweep();
        revisions
    }

    fn retire_absent(&self, snapshot: &Snapshot, changes: &mut Changes) {
        let absent = |pool: &Arc<Pool>, id: &RevisionId| !pool.is_retired() && !snapshot.revisions.contains_key(id);
        let gone: Vec<_> = self
            .pools
            .iter()
            .filter(|pool| absent(pool, pool.key()))
            .map(|pool| Arc::clone(&pool))
            .collect();
        for pool in &gone {
            pool.retire();
        }
        changes.retired.extend(gone);
        self.remove_empty(changes);
    }

    /// Removes pools of deleted revisions on which nothing runs any more.
    fn sweep(&self) {
        let mut changes = relock(&self.changes);
        self.remove_empty(&mut changes);
    }

    fn remove_empty(&self, changes: &mut Changes) {
        changes.retired.retain(|pool| {
            let removed = pool.is_retired() && pool.is_empty();
            if removed {
                self.pools.remove(&pool.revision().id);
            }
            pool.is_retired() && !removed
        });
    }

    /// Nothing of this revision runs here, and the set says that nothing should.
    fn acknowledge(&self, set: &EndpointSet) {
        self.shared.send(vec![RevisionLoad {
            revision: set.revision.clone(),
            kind: LoadKind::Sandboxes,
            concurrency: Default::default(),
            rps: Default::default(),
            work: Default::default(),
            in_flight: 0,
            waiting: 0,
            acked: set.generation,
            draining: Vec::new(),
            ejected: Vec::new(),
        }]);
    }
}
