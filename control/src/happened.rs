//! What really happened in a recording: the requests that came, what was started for them, who waited, and what it cost.
//!
//! Made from what the recording has: reports of gateways, to the second, and the orders that the fleet gives when it decides
//! again. It is what another policy is compared with, and what drives its simulation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use autoscaler::Output;
use autoscaler::fleet::{Change, Event};
use autoscaler::flight::replay::Watch;
use manifests::exchange::{LoadKind, LoadReport, RevisionLoad};
use manifests::ids::{RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::revision::Revision;
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::Capacity;

/// Looks on while a recording is replayed.
#[derive(Debug, Default)]
pub struct Happened {
    /// By name.
    pub revisions: BTreeMap<RevisionId, Life>,
    /// The first event, and the last.
    pub span: Option<(Timestamp, Timestamp)>,
    /// What the host had, for how many starts at once and how much memory.
    pub room: Capacity,
    /// The catalogue at the end.
    pub instances: Arc<Instances>,
    /// Starts in flight, with when they were ordered.
    pub(crate) ordered: HashMap<SandboxId, Timestamp>,
}

/// One revision.
#[derive(Debug)]
pub struct Life {
    /// As it was last.
    pub revision: Arc<Revision>,
    /// Seconds with requests: their end, how many came, and how long each was here on average.
    pub arrivals: Vec<(Timestamp, u32, Duration)>,
    /// What it held when it was frozen last.
    pub frozen: Option<Bytes>,
    /// How long starts took.
    pub started: Vec<Duration>,
    /// Sandboxes that were ordered.
    pub starts: u64,
    /// Requests that came while the gateway refused them (503).
    pub refused: u64,
    /// Times at which a request came and none was in flight.
    pub idle: u64,
    /// Of them, those that waited for longer than the limit.
    pub late: u64,
    /// Money, by the prices of the recording.
    pub cost: f64,
    /// The part of it while no request was in flight.
    pub idle_cost: f64,
    busy: bool,
    /// An idle arrival waits since then.
    waits: Option<Timestamp>,
    serves: bool,
    refuses: bool,
    /// Per second, since then.
    price: (f64, Timestamp),
}

impl Life {
    pub(crate) fn new(revision: Arc<Revision>, now: Timestamp) -> Self {
        Self {
            revision,
            arrivals: Vec::new(),
            frozen: None,
            started: Vec::new(),
            starts: 0,
            refused: 0,
            idle: 0,
            late: 0,
            cost: 0.0,
            idle_cost: 0.0,
            busy: false,
            waits: None,
            serves: false,
            refuses: false,
            price: (0.0, now),
        }
    }

    /// Requests that came.
    pub fn requests(&self) -> u64 {
        self.arrivals.iter().map(|(_, count, _)| u64::from(*count)).sum()
    }

    fn pay(&mut self, price: f64, now: Timestamp) {
        let money = self.price.0 * now.since(self.price.1).as_secs_f64();
        self.cost += money;
        if !self.busy {
            self.idle_cost += money;
        }
        self.price = (price, now);
    }

    fn report(&mut self, load: &RevisionLoad, now: Timestamp) {
        let busy = load.in_flight > 0;
        let arrivals = load.work.arrivals;
        if arrivals > 0 {
            let each = load.work.time / arrivals;
            self.arrivals.push((now, arrivals, each));
            if self.refuses {
                self.refused += u64::from(arrivals);
            }
        }
        let comes = busy || load.kind == LoadKind::Periodic && arrivals > 0;
        if load.kind != LoadKind::Sandboxes {
            if comes && !self.busy {
                self.idle += 1;
                if !self.serves {
                    self.waits = Some(now);
                }
            }
            if busy != self.busy {
                self.pay(self.price.0, now);
                self.busy = busy;
            }
        }
    }

    /// Something serves, or nothing does any more.
    fn serve(&mut self, serves: bool, now: Timestamp) {
        self.serves = serves;
        if serves
            && let Some(since) = self.waits.take()
            && now.since(since) > self.revision.planning.sla.limit
        {
            self.late += 1;
        }
    }
}

impl Happened {
    /// To be called when the recording is over.
    pub fn close(&mut self) {
        let Some((_, end)) = self.span else { return };
        for life in self.revisions.values_mut() {
            life.pay(0.0, end);
            // It is late already, or nobody knows.
            if life
                .waits
                .is_some_and(|since| end.since(since) > life.revision.planning.sla.limit)
            {
                life.late += 1;
            }
        }
    }

    fn report(&mut self, report: &LoadReport, now: Timestamp) {
        let mut named: Vec<&RevisionId> = Vec::with_capacity(report.revisions.len());
        for load in &report.revisions {
            named.push(&load.revision);
            if let Some(life) = self.revisions.get_mut(&load.revision) {
                life.report(load, now);
            }
        }
        // A whole picture: who is not in it has nothing in flight.
        let whole = report.revisions.is_empty() || report.revisions.iter().any(|it| it.kind == LoadKind::Periodic);
        if whole {
            named.sort_unstable();
            let absent = self
                .revisions
                .iter_mut()
                .filter(|(id, life)| life.busy && named.binary_search(id).is_err());
            for (_, life) in absent {
                life.pay(life.price.0, now);
                life.busy = false;
            }
        }
    }
}

impl Watch for Happened {
    fn begin(&mut self) {
        let Some((_, end)) = self.span else { return };
        for life in self.revisions.values_mut() {
            life.pay(0.0, end);
            (life.busy, life.serves, life.refuses, life.waits) = (false, false, false, None);
        }
        self.ordered.clear();
    }

    fn room(&mut self, capacity: Capacity) {
        self.room = capacity;
    }

    fn was_there(&mut self, now: Timestamp, revision: &Arc<Revision>) {
        let life = self.revisions.entry(revision.id.clone());
        life.or_insert_with(|| Life::new(Arc::clone(revision), now));
    }

    fn event(&mut self, now: Timestamp, event: Option<&Event>) {
        let from = self.span.map_or(now, |(from, _)| from);
        self.span = Some((from, now));
        match event {
            Some(Event::Report(report)) => self.report(report, now),
            Some(Event::Changes { instances, changes, .. }) => {
                if let Some(instances) = instances {
                    self.instances = Arc::clone(instances);
                }
                for change in changes {
                    let (Change::New(revision, ..) | Change::Replaced(revision, ..) | Change::Updated(revision)) =
                        change
                    else {
                        continue;
                    };
                    let life = self.revisions.entry(revision.id.clone());
                    life.or_insert_with(|| Life::new(Arc::clone(revision), now)).revision = Arc::clone(revision);
                }
            }
            Some(Event::Started { revision, id, result }) => {
                let ordered = self.ordered.remove(id);
                if let (Some(life), Some(ordered), Ok(_)) = (self.revisions.get_mut(revision), ordered, result) {
                    life.started.push(now.since(ordered));
                }
            }
            Some(Event::Frozen { revision, result, .. }) => {
                if let (Some(life), Ok(memory)) = (self.revisions.get_mut(revision), result) {
                    life.frozen = Some(*memory);
                }
            }
            _ => {}
        }
    }

    fn orders(&mut self, now: Timestamp, orders: &[Output]) {
        for order in orders {
            match order {
                Output::Start(spec) => {
                    self.ordered.insert(spec.id.clone(), now);
                    if let Some(life) = self.revisions.get_mut(&spec.revision) {
                        life.starts += 1;
                    }
                }
                Output::Cancel(id) => drop(self.ordered.remove(id)),
                Output::Endpoints(set) => {
                    if let Some(life) = self.revisions.get_mut(&set.revision) {
                        life.refuses = set.refuses;
                        life.serve(!set.endpoints.is_empty(), now);
                    }
                }
                Output::Status(status) => {
                    if let Some(life) = self.revisions.get_mut(&status.revision) {
                        life.pay(status.price.0 / 3600.0, now);
                    }
                }
                _ => {}
            }
        }
    }
}
