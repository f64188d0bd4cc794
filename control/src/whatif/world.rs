//! The shipped fleet among simulated gateways and sandboxes, in virtual time, with the requests of a recording.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use autoscaler::Output;
use autoscaler::explain::Explain;
use autoscaler::fleet::{Event, Fleet};
use autoscaler::flight::replay::Watch as _;
use autoscaler::planner::ASSUMED_MEMORY;
use manifests::exchange::{LoadKind, LoadReport, RevisionLoad, Snapshot};
use manifests::ids::{GatewayId, Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::revision::Revision;
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::{Capacity, Limits, Phases, Started};

use super::pool::Pool;
use crate::happened::{Happened, Life};

/// One run.
pub(super) struct World {
    fleet: Fleet,
    now: Timestamp,
    end: Timestamp,
    apps: BTreeMap<RevisionId, App>,
    hosted: HashMap<SandboxId, Hosted>,
    agenda: BinaryHeap<Reverse<(Timestamp, u64, Next)>>,
    number: u64,
    counter: u64,
    used: Arc<AtomicU64>,
    instances: Arc<Instances>,
    happened: Happened,
}

struct App {
    revision: Arc<Revision>,
    pool: Pool,
    /// Seconds with requests, the last one first.
    arrivals: Vec<(Timestamp, u32)>,
    /// What a request takes on a full instance.
    length: Duration,
    /// What starts take, again and again.
    starts: Vec<Duration>,
    started: usize,
    memory: Bytes,
    /// What it holds when it is frozen.
    frozen: Bytes,
}

struct Hosted {
    revision: RevisionId,
    slow: f64,
    memory: Bytes,
}

/// What happens at an instant that is known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Started(SandboxId),
    Stopped(SandboxId),
    Frozen(SandboxId),
    Thawed(SandboxId),
    Ends(SandboxId),
    Arrives(RevisionId),
    Second(RevisionId),
    Report,
}

impl World {
    pub(super) fn new(recorded: &Happened, change: impl Fn(&mut Revision), instances: &Arc<Instances>) -> Self {
        let (begin, end) = recorded.span.unwrap_or_default();
        // The first requests stand in a report of the second after.
        let begin = begin.minus(SECOND);
        let used = Arc::new(AtomicU64::new(0));
        let (room, in_use) = (recorded.room, Arc::clone(&used));
        let capacity = move || {
            let used = Bytes(in_use.load(Ordering::Relaxed));
            Capacity {
                free_memory: Bytes(room.budget.0.saturating_sub(used.0)),
                used,
                ..room
            }
        };
        let mut snapshot = Snapshot {
            generation: Generation::first(1),
            instances: Arc::clone(instances),
            ..Snapshot::default()
        };
        let mut apps = BTreeMap::new();
        for (id, life) in &recorded.revisions {
            let mut revision = Revision::clone(&life.revision);
            revision.created = begin;
            change(&mut revision);
            let revision = Arc::new(revision);
            snapshot.revisions.insert(id.clone(), Arc::clone(&revision));
            apps.insert(id.clone(), App::new(revision, life));
        }
        let mut world = Self {
            fleet: Fleet::new(Explain::default(), 1, Box::new(capacity)).with_freezer(true),
            now: begin,
            // The requests of the last second are reported after it.
            end: end.plus(SECOND),
            apps,
            hosted: HashMap::new(),
            agenda: BinaryHeap::new(),
            number: 0,
            counter: 0,
            used,
            instances: Arc::clone(instances),
            happened: Happened::default(),
        };
        for (id, life) in &recorded.revisions {
            if let Some((first, ..)) = life.arrivals.first() {
                world.later(first.minus(SECOND).max(begin), Next::Second(id.clone()));
            }
            let revision = world.apps.get(id).map(|app| Arc::clone(&app.revision));
            revision.inspect(|revision| world.happened.was_there(begin, revision));
        }
        world.later(begin.plus(SECOND), Next::Report);
        world.feed(Event::Snapshot(Arc::new(snapshot)));
        world
    }

    /// To the end of the recording.
    pub(super) fn run(&mut self) {
        loop {
            let next = self.agenda.peek().map(|Reverse((at, ..))| *at);
            let timeout = self.fleet.next_timeout();
            let Some(at) = next.into_iter().chain(timeout).min().filter(|at| *at <= self.end) else {
                return;
            };
            self.now = self.now.max(at);
            if next.is_some_and(|next| next <= self.now) {
                if let Some(Reverse((_, _, next))) = self.agenda.pop() {
                    self.happen(next);
                }
            } else {
                self.happened.event(self.now, None);
                self.fleet.handle_timeout(self.now);
                self.obey();
            }
        }
    }

    /// What it came to.
    pub(super) fn finish(mut self) -> Happened {
        self.happened.event(self.end, None);
        self.happened.close();
        self.happened
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Report => self.report(),
            Next::Second(id) => self.second(&id),
            Next::Arrives(id) => self.arrive(&id),
            Next::Ends(sandbox) => {
                let Some(hosted) = self.hosted.get(&sandbox) else {
                    return;
                };
                let id = hosted.revision.clone();
                let Some(app) = self.apps.get_mut(&id) else { return };
                let drained = app.pool.end(&sandbox, self.now);
                self.dispatch(&id);
                if drained {
                    self.send(&id, LoadKind::Sandboxes);
                }
            }
            Next::Started(id) => {
                let result = Ok(Started {
                    phases: Phases::default(),
                    warnings: Vec::new(),
                });
                self.with(&id, |revision, id| Event::Started { revision, id, result });
            }
            Next::Thawed(id) => self.with(&id, |revision, id| Event::Thawed {
                revision,
                id,
                result: Ok(()),
            }),
            Next::Frozen(id) => {
                let app = self.hosted.get(&id).and_then(|hosted| self.apps.get(&hosted.revision));
                let memory = app.map_or(Bytes(0), |app| app.frozen);
                self.with(&id, |revision, id| Event::Frozen {
                    revision,
                    id,
                    result: Ok(memory),
                });
            }
            Next::Stopped(id) => {
                let Some(hosted) = self.hosted.remove(&id) else { return };
                self.used.fetch_sub(hosted.memory.0, Ordering::Relaxed);
                self.feed(Event::Stopped {
                    revision: hosted.revision,
                    id,
                    result: Ok(()),
                });
            }
        }
    }

    fn with(&mut self, id: &SandboxId, event: impl FnOnce(RevisionId, SandboxId) -> Event) {
        if let Some(hosted) = self.hosted.get(id) {
            let event = event(hosted.revision.clone(), id.clone());
            self.feed(event);
        }
    }

    /// The requests of a second, spread evenly over it; and when the next such second begins.
    fn second(&mut self, id: &RevisionId) {
        let Some(app) = self.apps.get_mut(id) else { return };
        let Some((end, count)) = app.arrivals.pop() else { return };
        let next = app.arrivals.last().map(|(end, _)| *end);
        let begin = end.minus(SECOND).max(self.now);
        for nth in 0..count {
            let at = begin.plus(end.since(begin) * (2 * nth + 1) / (2 * count));
            self.later(at, Next::Arrives(id.clone()));
        }
        if let Some(next) = next {
            self.later(next.minus(SECOND).max(end), Next::Second(id.clone()));
        }
    }

    fn arrive(&mut self, id: &RevisionId) {
        let Some(app) = self.apps.get_mut(id) else { return };
        let (length, slots) = (app.length, slots(&app.revision));
        let (taken, wakes) = app.pool.arrive(length, slots, self.now);
        if taken {
            self.dispatch(id);
        }
        if wakes {
            self.send(id, LoadKind::Wake);
        }
    }

    fn dispatch(&mut self, id: &RevisionId) {
        let Some(app) = self.apps.get_mut(id) else { return };
        for (sandbox, length) in app.pool.dispatch(slots(&app.revision), self.now) {
            let slow = self.hosted.get(&sandbox).map_or(1.0, |hosted| hosted.slow);
            self.later(self.now.plus(length.mul_f64(slow)), Next::Ends(sandbox));
        }
    }

    fn report(&mut self) {
        self.later(self.now.plus(SECOND), Next::Report);
        let now = self.now;
        let loads = self.apps.iter_mut().filter_map(|(id, app)| app.pool.sample(id, now));
        let loads = loads.collect();
        self.tell(loads);
    }

    fn send(&mut self, id: &RevisionId, kind: LoadKind) {
        if let Some(app) = self.apps.get_mut(id) {
            let load = app.pool.entry(id, kind, self.now);
            self.tell(vec![load]);
        }
    }

    fn tell(&mut self, revisions: Vec<RevisionLoad>) {
        self.counter += 1;
        self.feed(Event::Report(LoadReport {
            gateway: GatewayId("simulated".into()),
            generation: Generation {
                epoch: 1,
                counter: self.counter,
            },
            revisions,
        }));
    }

    fn feed(&mut self, event: Event) {
        self.happened.event(self.now, Some(&event));
        self.fleet.handle(event, self.now);
        self.obey();
    }

    /// Does what the fleet orders.
    fn obey(&mut self) {
        while let Some(order) = self.fleet.poll_output() {
            self.happened.orders(self.now, std::slice::from_ref(&order));
            match order {
                Output::Start(spec) => {
                    let slow = self.slow(&spec.revision, spec.limits);
                    let Some(app) = self.apps.get_mut(&spec.revision) else {
                        continue;
                    };
                    let took = app.start();
                    let memory = app.memory;
                    self.used.fetch_add(memory.0, Ordering::Relaxed);
                    let hosted = Hosted {
                        revision: spec.revision,
                        slow,
                        memory,
                    };
                    self.hosted.insert(spec.id.clone(), hosted);
                    self.later(self.now.plus(took), Next::Started(spec.id));
                }
                Output::Cancel(id) => {
                    if let Some(hosted) = self.hosted.remove(&id) {
                        self.used.fetch_sub(hosted.memory.0, Ordering::Relaxed);
                    }
                }
                Output::Stop { id, .. } => self.later(self.now.plus(STOP), Next::Stopped(id)),
                Output::Freeze { id, .. } => self.later(self.now.plus(FREEZE), Next::Frozen(id)),
                Output::Thaw { id, .. } => self.later(self.now.plus(THAW), Next::Thawed(id)),
                Output::SetLimits { revision, id, limits } => {
                    let slow = self.slow(&revision, limits);
                    if let Some(hosted) = self.hosted.get_mut(&id) {
                        hosted.slow = slow;
                    }
                    let event = Event::LimitsSet {
                        revision,
                        id,
                        result: Ok(()),
                    };
                    self.fleet.handle(event, self.now);
                }
                Output::Endpoints(set) => {
                    let id = set.revision.clone();
                    let Some(app) = self.apps.get_mut(&id) else { continue };
                    let leaves = app.pool.apply(set, self.now);
                    self.dispatch(&id);
                    if leaves && let Some(app) = self.apps.get_mut(&id) {
                        let load = app.pool.entry(&id, LoadKind::Sandboxes, self.now);
                        self.acknowledge(load);
                    }
                }
                Output::Status(_) => {}
            }
        }
    }

    /// As [`Self::tell`], from inside [`Self::obey`].
    fn acknowledge(&mut self, load: RevisionLoad) {
        self.counter += 1;
        let report = LoadReport {
            gateway: GatewayId("simulated".into()),
            generation: Generation {
                epoch: 1,
                counter: self.counter,
            },
            revisions: vec![load],
        };
        let event = Event::Report(report);
        self.happened.event(self.now, Some(&event));
        self.fleet.handle(event, self.now);
    }

    /// How many times longer a request takes under these limits, by the catalogue's word for the spec that has them.
    fn slow(&self, revision: &RevisionId, limits: Limits) -> f64 {
        let Some(app) = self.apps.get(revision) else { return 1.0 };
        let workload = &app.revision.workload;
        let full = self.instances.full_for(workload, &app.revision.planning.specs);
        if limits.cpu == full.cpu_of(workload) {
            return 1.0;
        }
        let found = self
            .instances
            .specs
            .iter()
            .find(|spec| spec.cpu_of(workload) == limits.cpu);
        found.map_or(1.0, |spec| (spec.slow / full.slow).max(1.0))
    }

    fn later(&mut self, at: Timestamp, next: Next) {
        self.number += 1;
        self.agenda.push(Reverse((at, self.number, next)));
    }
}

impl App {
    fn new(revision: Arc<Revision>, life: &Life) -> Self {
        let arrivals = life.arrivals.iter().rev().map(|(end, count, _)| (*end, *count));
        let mut lengths: Vec<Duration> = life.arrivals.iter().map(|(_, _, each)| *each).collect();
        // Half of the seconds: those in which requests waited are in the other half.
        lengths.sort_unstable();
        let length = lengths
            .get(lengths.len() / 2)
            .copied()
            .unwrap_or(Duration::from_millis(10));
        let workload = &revision.workload;
        let memory = workload
            .memory_request()
            .or(workload.memory_limit())
            .unwrap_or(ASSUMED_MEMORY);
        Self {
            arrivals: arrivals.collect(),
            pool: Pool::default(),
            length,
            starts: life.started.clone(),
            started: 0,
            frozen: life.frozen.unwrap_or(memory),
            memory,
            revision,
        }
    }

    fn start(&mut self) -> Duration {
        let took = self.starts.get(self.started % self.starts.len().max(1));
        self.started += 1;
        took.copied().unwrap_or(ASSUMED_START)
    }
}

fn slots(revision: &Revision) -> u32 {
    revision.container_concurrency.limit().unwrap_or(u32::MAX)
}

const SECOND: Duration = Duration::from_secs(1);

/// Of a revision that was never started in the recording.
const ASSUMED_START: Duration = Duration::from_secs(1);

/// What the driver takes for the rest on a quiet machine.
const STOP: Duration = Duration::from_millis(20);
const FREEZE: Duration = Duration::from_millis(5);
const THAW: Duration = Duration::from_millis(1);
