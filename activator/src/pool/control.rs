//! What changes a pool and what it says about itself: snapshots, endpoint sets, sandboxes that fail, reports.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifests::exchange::{EndpointSet, LoadKind, RevisionLoad, Rung};
use manifests::revision::Revision;
use manifests::units::Timestamp;

use crate::outbox::relock;
use crate::pool::Pool;
use crate::reject::Reject;
use crate::sandbox::Sandbox;
use crate::slot::Slot;
use crate::word::Word;

impl Pool {
    /// Takes over changed settings.
    pub(crate) fn update(&self, revision: &Arc<Revision>) {
        let members = relock(&self.members);
        let state = self.state.load();
        if !Arc::ptr_eq(&state.revision, revision) {
            self.state.store(Arc::new(state.with_revision(Arc::clone(revision))));
        }
        drop(members);
    }

    /// Puts an endpoint set in place; false when it is not newer than the one there.
    pub(crate) fn apply(&self, set: &EndpointSet) -> bool {
        let now = (self.shared.clock)();
        let mut members = relock(&self.members);
        let before = self.state.load_full();
        if set.generation <= before.acked {
            drop(members);
            // Scaling says it again, so it has not heard the answer.
            self.activate(now);
            return false;
        }
        let limit = before.revision.container_concurrency.limit().unwrap_or(Word::UNLIMITED);
        let make = |id: &_, start| {
            Sandbox::new(
                Clone::clone(id),
                start,
                limit,
                now,
                Arc::clone(&self.gate),
                Weak::clone(&self.this),
            )
        };
        let dropped = members.replace(&set.endpoints, make);
        let after = before.with_set(set, members.serving());
        let deserted = after.serving.is_empty() && !before.serving.is_empty();
        let refused = after.refused();
        self.state.store(Arc::new(after));
        self.low_rung_told.store(false, Ordering::Relaxed);
        drop(members);
        dropped.iter().for_each(|sandbox| sandbox.parking().close());
        if !dropped.is_empty() {
            self.activate(now);
            self.tell_sandboxes();
        }
        if self.gate.freed() {
            self.serve_waiting();
        }
        match refused {
            Some(why) => self.dismiss(&Reject::Refused { why }),
            None => self.raise_if(deserted),
        }
        true
    }

    /// A sandbox was given up on: called once for each, after its word says so.
    pub(crate) fn ejected(&self, sandbox: &Sandbox) {
        let members = relock(&self.members);
        let before = self.state.load();
        let serving = members.serving();
        let deserted = serving.is_empty() && !before.serving.is_empty();
        self.state.store(Arc::new(before.with_serving(serving)));
        drop(members);
        tracing::warn!(sandbox = %sandbox.id(), "sandbox ejected");
        self.activate((self.shared.clock)());
        self.tell_sandboxes();
        self.raise_if(deserted);
    }

    /// A sandbox that drains has finished its last request, or its last connection is closed.
    pub(crate) fn drained(&self, sandbox: &Sandbox) {
        sandbox.parking().close();
        self.tell_sandboxes();
    }

    /// The revision is gone: nobody waits for it any more. What runs goes on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.gate.with(|line| line.retired = true);
        self.dismiss(&Reject::Retired);
    }

    /// Answers all who wait.
    fn dismiss(&self, reject: &Reject) {
        let waiters = self
            .gate
            .with(|line| std::iter::from_fn(|| line.queue.pop()).collect::<Vec<_>>());
        for (waiter, bytes) in waiters {
            self.shared.unreserve(bytes);
            let _ = waiter.send(Err(reject.clone()));
        }
    }

    /// It is back.
    pub(crate) fn revive(&self) {
        self.gate.with(|line| line.retired = false);
        self.retired.store(false, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Nothing runs, waits or is left to stop.
    pub(crate) fn is_empty(&self) -> bool {
        relock(&self.members).is_empty() && self.in_flight() == 0 && self.waiting() == 0
    }

    /// The periodic entry, and whether the pool stays on the list of those that have something to report.
    pub(crate) fn sample(&self, now: Timestamp, period: Duration) -> (RevisionLoad, bool) {
        let sums = self.shards.sums(&self.shared.clock);
        let woken = self.counted_by_wake.swap(false, Ordering::Relaxed);
        let taken = relock(&self.sampled).take(sums, woken, now, period);
        let mut load = self.load(LoadKind::Periodic);
        (load.concurrency, load.rps, load.work) = (taken.concurrency, taken.rps, taken.work);
        load.work.first = self.shards.take_first();
        self.gate.with(|line| line.alarm.reported(line.waiting()));
        self.refusal_told.store(false, Ordering::Relaxed);
        let busy = taken.busy || load.waiting > 0 || !load.draining.is_empty() || !load.ejected.is_empty();
        if !busy {
            self.low_rung_told.store(false, Ordering::Relaxed);
        }
        (load, busy)
    }

    /// Takes the pool off the list; a request that begins later puts it back.
    pub(crate) fn rest(&self) {
        self.active.store(false, Ordering::Release);
    }

    /// Whether it rests, although a request has begun: one that read the flag in the instant in which it fell.
    pub(crate) fn overslept(&self) -> bool {
        !self.active.load(Ordering::Acquire) && relock(&self.sampled).behind(self.shards.sums(&self.shared.clock))
    }

    pub(crate) fn activate(&self, now: Timestamp) {
        if self.active.load(Ordering::Relaxed) || self.active.swap(true, Ordering::AcqRel) {
            return;
        }
        relock(&self.sampled).begin(now);
        if let Some(this) = self.this.upgrade() {
            self.shared.activate(this);
        }
    }

    /// The first request at a rung below full: scaling hears at once (a set that changes the rung comes back).
    pub(super) fn tell_low_rung(&self, slot: &Slot) {
        if slot.rung() < Rung::Full && !self.low_rung_told.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// A request was refused because nothing will run soon: the first since the last report has scaling look again.
    pub(super) fn tell_refusal(&self) {
        if !self.refusal_told.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    fn raise_if(&self, deserted: bool) {
        if deserted && self.gate.with(|line| line.alarm.deserted(line.waiting())) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        self.activate((self.shared.clock)());
        let mut load = self.load(LoadKind::Wake);
        if !self.counted_by_wake.swap(true, Ordering::Relaxed) {
            (load.concurrency.0, load.rps.0) = (1.0, 1.0);
        }
        self.shared.send(vec![load]);
    }

    fn tell_sandboxes(&self) {
        self.shared.send(vec![self.load(LoadKind::Sandboxes)]);
    }

    /// An entry without averages.
    fn load(&self, kind: LoadKind) -> RevisionLoad {
        let mut members = relock(&self.members);
        let state = self.state.load();
        RevisionLoad {
            revision: state.revision.id.clone(),
            kind,
            concurrency: Default::default(),
            rps: Default::default(),
            work: Default::default(),
            in_flight: self.in_flight(),
            waiting: self.waiting(),
            acked: state.acked,
            draining: members.take_draining(),
            ejected: members.ejected(),
        }
    }
}
