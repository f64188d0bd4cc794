//! What the pools of one gateway share: bounds, clock, the way reports take, and who has something to report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use manifests::exchange::{LoadReport, RevisionLoad};
use manifests::ids::{GatewayId, Generation};
use manifests::units::Clock;
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::Limits;
use crate::pool::Pool;

/// Shared by all pools of a gateway.
pub(crate) struct Shared {
    pub(crate) threads: usize,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// Bytes that wait in all queues together.
    queued_bytes: AtomicUsize,
    /// Pools that are not idle; the periodic report looks at no others.
    active: Mutex<Vec<Arc<Pool>>>,
    outbox: Mutex<Outbox>,
}

/// Numbers the reports; whoever takes a number sends before anybody takes the next, so that they arrive in order.
struct Outbox {
    gateway: GatewayId,
    last: Generation,
    reports: UnboundedSender<LoadReport>,
}

impl Shared {
    pub(crate) fn new(
        threads: usize,
        limits: Limits,
        clock: Clock,
        gateway: GatewayId,
        reports: UnboundedSender<LoadReport>,
    ) -> Self {
        // A gateway that starts again starts later.
        let last = Generation {
            epoch: clock().as_micros(),
            counter: 0,
        };
        let outbox = Outbox { gateway, last, reports };
        Self {
            threads,
            limits,
            clock,
            queued_bytes: AtomicUsize::new(0),
            active: Mutex::default(),
            outbox: Mutex::new(outbox),
        }
    }

    /// Takes `bytes` out of what may wait; false when there is not as much left.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let most = self.limits.total_queue_bytes;
        let add = |queued: usize| queued.checked_add(bytes).filter(|&sum| sum <= most);
        self.queued_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    /// Gives them back.
    pub(crate) fn unreserve(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Puts a pool on the list that the periodic report goes through.
    pub(crate) fn activate(&self, pool: Arc<Pool>) {
        relock(&self.active).push(pool);
    }

    /// Takes the whole list.
    pub(crate) fn take_active(&self) -> Vec<Arc<Pool>> {
        std::mem::take(&mut *relock(&self.active))
    }

    /// Puts pools back on the list.
    pub(crate) fn keep_active(&self, pools: Vec<Arc<Pool>>) {
        relock(&self.active).extend(pools);
    }

    /// Numbers a report.
    pub(crate) fn number(&self, revisions: Vec<RevisionLoad>) -> LoadReport {
        relock(&self.outbox).number(revisions)
    }

    /// Numbers a report and sends it. Nobody listens any more only while the process ends.
    pub(crate) fn send(&self, revisions: Vec<RevisionLoad>) {
        let mut outbox = relock(&self.outbox);
        let report = outbox.number(revisions);
        let _ = outbox.reports.send(report);
    }
}

impl Outbox {
    fn number(&mut self, revisions: Vec<RevisionLoad>) -> LoadReport {
        self.last = self.last.next();
        LoadReport {
            gateway: self.gateway.clone(),
            generation: self.last,
            revisions,
        }
    }
}

/// Locks, also after a panic of another holder: nothing here is left half done.
pub(crate) fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
