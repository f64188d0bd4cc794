//! What the tests share: a clock under their control, revisions, endpoint sets.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "test support"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activator::{Limits, Pool, Pools};
use manifests::exchange::{Endpoint, EndpointSet, LoadReport, Rung, Snapshot};
use manifests::ids::{GatewayId, Generation, RevisionId, SandboxId};
use manifests::revision::*;
use manifests::units::*;
use manifests::workload::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A gateway's pools with a clock that stands still until it is told.
pub struct World {
    pub pools: Arc<Pools>,
    pub reports: UnboundedReceiver<LoadReport>,
    pub time: Arc<AtomicU64>,
    pub snapshot: Snapshot,
    counter: u64,
}

pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

impl World {
    pub fn new(threads: usize, limits: Limits) -> Self {
        let time = Arc::new(AtomicU64::new(START.as_nanos()));
        let read = Arc::clone(&time);
        let clock: Clock = Arc::new(move || Timestamp::from_nanos(read.load(Ordering::SeqCst)));
        Self::with_clock(threads, limits, clock, time)
    }

    pub fn with_clock(threads: usize, limits: Limits, clock: Clock, time: Arc<AtomicU64>) -> Self {
        let (sender, reports) = unbounded_channel();
        let pools = Arc::new(Pools::new(threads, limits, clock, GatewayId("gw".into()), sender));
        Self {
            pools,
            reports,
            time,
            snapshot: Snapshot::default(),
            counter: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.time.load(Ordering::SeqCst))
    }

    pub fn pass(&self, by: Duration) {
        self.time.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Deploys a revision and returns its pool.
    pub fn deploy(&mut self, name: &str, limit: u32) -> Arc<Pool> {
        let id = RevisionId::new("default", name);
        self.snapshot.generation.counter += 1;
        self.snapshot
            .revisions
            .insert(id.clone(), Arc::new(revision(name, limit)));
        self.pools.apply_snapshot(&self.snapshot);
        self.pools.get(&id).unwrap()
    }

    pub fn remove(&mut self, name: &str) {
        self.snapshot.generation.counter += 1;
        self.snapshot.revisions.remove(&RevisionId::new("default", name));
        self.pools.apply_snapshot(&self.snapshot);
    }

    pub fn set(&mut self, name: &str, rung: Rung, sandboxes: &[&str]) -> EndpointSet {
        self.counter += 1;
        EndpointSet {
            revision: RevisionId::new("default", name),
            generation: Generation {
                epoch: 1,
                counter: self.counter,
            },
            rung,
            endpoints: sandboxes
                .iter()
                .map(|&id| Endpoint {
                    sandbox: SandboxId::new(id),
                    start: Duration::from_millis(50),
                    weight: 0,
                })
                .collect(),
            trouble: None,
            refuses: false,
        }
    }

    /// Puts these sandboxes in place, at full.
    pub fn serve(&mut self, name: &str, sandboxes: &[&str]) -> bool {
        let set = self.set(name, Rung::Full, sandboxes);
        self.pools.apply(&set)
    }

    /// The generation of the last set made here.
    pub fn acked(&self) -> Generation {
        Generation {
            epoch: self.counter.min(1),
            counter: self.counter,
        }
    }

    /// Everything reported since the last call.
    pub fn reported(&mut self) -> Vec<LoadReport> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }
}

pub fn revision(name: &str, limit: u32) -> Revision {
    Revision {
        container_concurrency: ContainerConcurrency(limit),
        ..Revision::new(RevisionId::new("default", name), Workload::host("/bin/true"))
    }
}
