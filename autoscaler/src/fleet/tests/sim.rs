//! A world for the fleet in virtual time: a host that starts and stops sandboxes, gateways that route, queue and report.
//!
//! Gateways act as Knarr's do: a slot per request up to `containerConcurrency`, a queue behind, a wake-up when nobody can
//! serve and whenever the queue has doubled, a report every second, acknowledgement of endpoint sets that drop sandboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use manifests::exchange::{Draining, EndpointSet, LoadKind, RevisionLoad, RevisionStatus, Rung, Work};
use manifests::ids::{GatewayId, ObjectId};
use manifests::instances::Instances;
use manifests::revision::IdlePolicy;
use manifests::units::{Bytes, Concurrency, Rps};
use sandbox::driver::{Capacity, Limits, Phases};

use super::*;

/// How a revision's sandboxes start.
pub(super) type StartPlan = Box<dyn FnMut(u32) -> (Duration, Result<(), StartError>)>;

pub(super) struct Sim {
    pub(super) fleet: Fleet,
    pub(super) now: Timestamp,
    pub(super) explain: Explain,
    snapshot: Snapshot,
    plans: BTreeMap<RevisionId, (u32, StartPlan)>,
    /// Exclusive ones, of every revision that ever was.
    claims: BTreeMap<RevisionId, Vec<ObjectId>>,
    /// What runs, with what limits.
    pub(super) host: BTreeMap<SandboxId, Hosted>,
    pub(super) gateways: Vec<SimGateway>,
    pub(super) statuses: BTreeMap<RevisionId, RevisionStatus>,
    pub(super) sets: BTreeMap<RevisionId, EndpointSet>,
    /// (when, number, what): what the world does next.
    agenda: BTreeMap<(Timestamp, u64), Next>,
    number: u64,
    /// Everything that was told, for tables: (when, what).
    pub(super) log: Vec<(Timestamp, String)>,
    pub(super) stop_takes: Duration,
    pub(super) ack_takes: Duration,
    /// An idle connection of a dropped sandbox is closed after this long.
    pub(super) close_takes: Duration,
    pub(super) freeze_takes: Duration,
    pub(super) thaw_takes: Duration,
    /// Freezing fails.
    pub(super) cannot_freeze: bool,
    /// Lowering limits fails.
    pub(super) cannot_limit: bool,
    /// Every sandbox that was ever started, in order.
    pub(super) named: Vec<SandboxId>,
    /// What each sandbox has.
    pub(super) memory: Bytes,
    /// The most that a sandbox had which is killed.
    pub(super) peak: Option<Bytes>,
    room: Arc<Mutex<Capacity>>,
    pub(super) reporting: bool,
    pub(super) served: u64,
    /// Segments of the recording, when it is on.
    pub(super) recorded: Option<Vec<Vec<u8>>>,
}

pub(super) struct Hosted {
    pub(super) revision: RevisionId,
    pub(super) limits: Limits,
    pub(super) ready: bool,
    /// Its readiness probe fails.
    pub(super) unready: bool,
    pub(super) stopping: bool,
    pub(super) frozen: bool,
}

#[derive(Default)]
pub(super) struct SimGateway {
    name: u32,
    counter: u64,
    pools: BTreeMap<RevisionId, Pool>,
}

#[derive(Default)]
pub(super) struct Pool {
    pub(super) set: Option<EndpointSet>,
    /// In flight by sandbox.
    pub(super) running: BTreeMap<SandboxId, u32>,
    /// Sandboxes with a connection open; an idle one stays.
    pub(super) open: BTreeSet<SandboxId>,
    /// Sandboxes that have answered a request, until that was said when they left the set.
    answered: BTreeSet<SandboxId>,
    /// Lengths, and when it came while nothing was in flight.
    pub(super) waiting: Vec<(Duration, Option<Timestamp>)>,
    /// How long such a one was here that has ended since the last report.
    first: Option<Duration>,
    told: u32,
    counted_by_wake: bool,
    arrivals: u32,
    area: f64,
    touched: Timestamp,
    sampled: Timestamp,
    in_table: bool,
    resting: bool,
}

enum Next {
    StartEnds(SandboxId, Result<(), StartError>),
    StopEnds(SandboxId),
    Dies(SandboxId, Arc<str>),
    Apply(usize, EndpointSet),
    RequestEnds(usize, RevisionId, SandboxId, Option<Timestamp>),
    Disconnect(usize, RevisionId, SandboxId),
    FreezeEnds(RevisionId, SandboxId),
    ThawEnds(RevisionId, SandboxId),
    Report(usize),
}

pub(super) fn at(seconds: f64) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs_f64(1_000_000.0 + seconds))
}

impl Sim {
    pub(super) fn new(gateways: u32, cores: u32, free: Bytes) -> Self {
        let explain = Explain::default();
        let room = Arc::new(Mutex::new(Capacity {
            cores,
            free_memory: free,
            budget: free,
            used: Bytes(0),
        }));
        let asked = Arc::clone(&room);
        let capacity = Box::new(move || *asked.lock().unwrap());
        let mut sim = Self {
            fleet: Fleet::new(explain.clone(), 1, capacity),
            now: at(0.0),
            explain,
            snapshot: Snapshot {
                generation: Generation::first(1),
                ..Snapshot::default()
            },
            plans: BTreeMap::new(),
            claims: BTreeMap::new(),
            host: BTreeMap::new(),
            gateways: (0..gateways)
                .map(|name| SimGateway {
                    name,
                    ..SimGateway::default()
                })
                .collect(),
            statuses: BTreeMap::new(),
            sets: BTreeMap::new(),
            agenda: BTreeMap::new(),
            number: 0,
            log: Vec::new(),
            stop_takes: Duration::from_millis(20),
            ack_takes: Duration::from_millis(1),
            close_takes: Duration::from_millis(300),
            freeze_takes: Duration::from_millis(2),
            thaw_takes: Duration::from_millis(1),
            cannot_freeze: false,
            cannot_limit: false,
            named: Vec::new(),
            memory: Bytes(0),
            peak: None,
            room,
            reporting: true,
            served: 0,
            recorded: None,
        };
        for gateway in 0..sim.gateways.len() {
            let first = sim
                .now
                .plus(Duration::from_millis(1000 + 130 * u64::try_from(gateway).unwrap()));
            sim.later(first, Next::Report(gateway));
        }
        sim
    }

    /// Turns the flight recorder on.
    pub(super) fn record(mut self) -> Self {
        self.fleet = self.fleet.recorded();
        self.recorded = Some(Vec::new());
        self
    }

    /// Takes what was recorded; segments are short.
    fn keep_recorded(&mut self) {
        let Some(segments) = &mut self.recorded else { return };
        let lines = self.fleet.take_recorded();
        if lines.begins {
            segments.push(Vec::new());
        }
        let segment = segments.last_mut().unwrap();
        segment.extend(lines.text);
        if segment.len() > 100_000 {
            self.fleet.begin_segment();
        }
    }

    /// Every start takes this long.
    pub(super) fn deploy(&mut self, revision: Revision, start: Duration) -> RevisionId {
        self.deploy_with(revision, Box::new(move |_| (start, Ok(()))))
    }

    pub(super) fn deploy_with(&mut self, revision: Revision, plan: StartPlan) -> RevisionId {
        let id = revision.id.clone();
        self.plans.insert(id.clone(), (0, plan));
        let claims = revision.workload.exclusive_claims().cloned().collect();
        self.claims.insert(id.clone(), claims);
        self.change(|revisions| drop(revisions.insert(revision.id.clone(), Arc::new(revision))));
        id
    }

    /// From now on its starts go like this, counted from the first one ever.
    pub(super) fn starts_by(&mut self, id: &RevisionId, plan: StartPlan) {
        self.plans.get_mut(id).unwrap().1 = plan;
    }

    /// Another catalogue.
    pub(super) fn price_by(&mut self, instances: Arc<Instances>) {
        self.snapshot.instances = instances;
        self.change(|_| ());
    }

    pub(super) fn remove(&mut self, id: &RevisionId) {
        self.change(|revisions| drop(revisions.remove(id)));
    }

    pub(super) fn change(&mut self, edit: impl FnOnce(&mut BTreeMap<RevisionId, Arc<Revision>>)) {
        edit(&mut self.snapshot.revisions);
        self.snapshot.generation = self.snapshot.generation.next();
        self.feed(Event::Snapshot(Arc::new(self.snapshot.clone())));
    }

    /// Lets time pass.
    pub(super) fn until(&mut self, end: Timestamp) {
        loop {
            let next = self.agenda.keys().next().map(|(at, _)| *at);
            let next = next.into_iter().chain(self.fleet.next_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => {
                    let next = entry.remove();
                    self.happen(next);
                }
                None => {
                    self.weigh();
                    self.fleet.handle_timeout(self.now);
                    self.outputs();
                }
            }
        }
        self.now = self.now.max(end);
    }

    /// A request of this length arrives at a gateway.
    pub(super) fn request(&mut self, gateway: usize, id: &RevisionId, length: Duration) {
        let now = self.now;
        let cc = self
            .snapshot
            .revisions
            .get(id)
            .and_then(|r| r.container_concurrency.limit())
            .unwrap_or(u32::MAX);
        let pool = self.gateways[gateway].pools.entry(id.clone()).or_default();
        pool.touch(now);
        if pool.resting || pool.arrivals == 0 && pool.in_flight() == 0 {
            pool.resting = false;
            pool.sampled = pool.sampled.max(now);
        }
        pool.arrivals += 1;
        let first = (pool.in_flight() == 0).then_some(now);
        pool.waiting.push((length, first));
        let (slots, low) = (
            pool.slots(cc),
            pool.set.as_ref().is_some_and(|set| set.rung < Rung::Full),
        );
        self.dispatch(gateway, id);
        let pool = self.gateways[gateway].pools.get_mut(id).unwrap();
        let waiting = u32::try_from(pool.waiting.len()).unwrap();
        let wake = waiting > 0 && waiting >= (pool.told * 2).max(slots).max(1);
        if wake || low {
            pool.told = waiting;
            self.send(gateway, id, LoadKind::Wake);
        }
    }

    /// Kills a sandbox from outside.
    pub(super) fn kill(&mut self, id: &SandboxId, status: ExitStatus) {
        let hosted = self.host.remove(id).unwrap();
        self.say(format!("{id} killed"));
        let exit = Exit {
            status,
            oom_killed: false,
            requested: false,
            unhealthy: None,
            last_output: "boom".into(),
            peak_memory: self.peak,
        };
        for gateway in &mut self.gateways {
            for pool in gateway.pools.values_mut() {
                pool.running.remove(id);
                pool.open.remove(id);
            }
        }
        self.feed(Event::Exited {
            revision: hosted.revision,
            id: id.clone(),
            exit,
        });
    }

    /// A sandbox's readiness probe fails for this reason, or passes again.
    pub(super) fn readiness(&mut self, id: &SandboxId, unready: Option<&str>) {
        let hosted = self.host.get_mut(id).unwrap();
        hosted.unready = unready.is_some();
        let revision = hosted.revision.clone();
        self.feed(Event::Readiness {
            revision,
            id: id.clone(),
            unready: unready.map(Arc::from),
        });
    }

    /// A sandbox's liveness probe fails for good; it ends when the stop of others would.
    pub(super) fn unhealthy(&mut self, id: &SandboxId, why: &str) {
        let hosted = self.host.get_mut(id).unwrap();
        hosted.stopping = true;
        let revision = hosted.revision.clone();
        self.say(format!("{id} unhealthy"));
        let event = Event::Unhealthy {
            revision,
            id: id.clone(),
            why: why.into(),
        };
        self.feed(event);
        self.later(self.now.plus(self.stop_takes), Next::Dies(id.clone(), why.into()));
    }

    /// A gateway gives up on a sandbox.
    pub(super) fn eject(&mut self, gateway: usize, id: &RevisionId, sandbox: &SandboxId) {
        let pool = self.gateways[gateway].pools.get_mut(id).unwrap();
        let mut load = pool.entry(id, LoadKind::Sandboxes, self.now);
        load.ejected = vec![sandbox.clone()];
        self.report(gateway, vec![load]);
    }

    /// Ready and wanted sandboxes of a revision.
    pub(super) fn endpoints(&self, id: &RevisionId) -> Vec<SandboxId> {
        self.sets
            .get(id)
            .map(|set| set.endpoints.iter().map(|e| e.sandbox.clone()).collect())
            .unwrap_or_default()
    }

    pub(super) fn hosted(&self, id: &RevisionId) -> usize {
        self.host.values().filter(|hosted| hosted.revision == *id).count()
    }

    /// Starts in flight now.
    pub(super) fn starting(&self) -> usize {
        self.host
            .values()
            .filter(|hosted| !hosted.ready && !hosted.stopping)
            .count()
    }

    /// What was logged since the last call, with seconds from the beginning.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
            .into_iter()
            .map(|(when, what)| format!("{:.3} {what}", when.since(at(0.0)).as_secs_f64()))
            .collect()
    }

    pub(super) fn feed(&mut self, event: Event) {
        self.weigh();
        self.fleet.handle(event, self.now);
        self.outputs();
    }

    /// What is free now.
    fn weigh(&mut self) {
        let used = self.memory.0 * u64::try_from(self.host.len()).unwrap();
        let mut room = self.room.lock().unwrap();
        room.used = Bytes(used);
        room.free_memory = Bytes(room.budget.0.saturating_sub(used));
    }

    pub(super) fn frozen(&self) -> usize {
        self.host.values().filter(|hosted| hosted.frozen).count()
    }

    pub(super) fn send(&mut self, gateway: usize, id: &RevisionId, kind: LoadKind) {
        let pool = self.gateways[gateway].pools.get_mut(id).unwrap();
        let load = pool.entry(id, kind, self.now);
        self.report(gateway, vec![load]);
    }

    fn report(&mut self, gateway: usize, revisions: Vec<RevisionLoad>) {
        let sender = &mut self.gateways[gateway];
        sender.counter += 1;
        let report = LoadReport {
            gateway: GatewayId(format!("g{}", sender.name).into()),
            generation: Generation {
                epoch: 1,
                counter: sender.counter,
            },
            revisions,
        };
        self.feed(Event::Report(report));
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::StartEnds(id, result) => {
                let Some(hosted) = self.host.get_mut(&id) else { return };
                let revision = hosted.revision.clone();
                hosted.ready = true;
                if result.is_err() {
                    self.host.remove(&id);
                }
                let phases = Phases {
                    spawned: Duration::ZERO,
                    ready: Duration::ZERO,
                };
                let result = result.map(|()| Started {
                    phases,
                    warnings: Vec::new(),
                });
                self.feed(Event::Started { revision, id, result });
            }
            Next::StopEnds(id) => {
                let Some(hosted) = self.host.remove(&id) else { return };
                let (revision, result) = (hosted.revision, Ok(()));
                self.feed(Event::Stopped { revision, id, result });
            }
            Next::Dies(id, why) => {
                let Some(hosted) = self.host.remove(&id) else { return };
                for gateway in &mut self.gateways {
                    for pool in gateway.pools.values_mut() {
                        pool.running.remove(&id);
                        pool.open.remove(&id);
                    }
                }
                let exit = Exit {
                    status: ExitStatus::Signal(9),
                    oom_killed: false,
                    requested: false,
                    unhealthy: Some(why),
                    last_output: String::new(),
                    peak_memory: None,
                };
                let revision = hosted.revision;
                self.feed(Event::Exited { revision, id, exit });
            }
            Next::Apply(gateway, set) => self.apply(gateway, set),
            Next::RequestEnds(gateway, id, sandbox, first) => {
                let pool = self.gateways[gateway].pools.get_mut(&id).unwrap();
                pool.touch(self.now);
                // Killed sandboxes take their requests with them.
                let Some(running) = pool.running.get_mut(&sandbox) else {
                    return;
                };
                *running -= 1;
                self.served += 1;
                if let Some(since) = first {
                    pool.first.get_or_insert(self.now.since(since));
                }
                pool.answered.insert(sandbox.clone());
                if *running == 0 && !pool.serves(&sandbox) {
                    self.later(
                        self.now.plus(self.close_takes),
                        Next::Disconnect(gateway, id.clone(), sandbox),
                    );
                    self.send(gateway, &id, LoadKind::Sandboxes);
                }
                self.dispatch(gateway, &id);
            }
            Next::Disconnect(gateway, id, sandbox) => {
                let pool = self.gateways[gateway].pools.get_mut(&id).unwrap();
                let used = pool.serves(&sandbox) || pool.running.get(&sandbox).is_some_and(|n| *n > 0);
                if !used && pool.open.remove(&sandbox) {
                    self.send(gateway, &id, LoadKind::Sandboxes);
                }
            }
            Next::FreezeEnds(revision, id) => {
                let Some(hosted) = self.host.get_mut(&id) else { return };
                let result = if self.cannot_freeze {
                    Err(DriverError::CannotFreeze("no".into()))
                } else {
                    hosted.frozen = true;
                    Ok(self.memory.max(Bytes(1 << 20)))
                };
                self.feed(Event::Frozen { revision, id, result });
            }
            Next::ThawEnds(revision, id) => {
                let Some(hosted) = self.host.get_mut(&id) else { return };
                hosted.frozen = false;
                let result = Ok(());
                self.feed(Event::Thawed { revision, id, result });
            }
            Next::Report(gateway) => {
                let next = self.now.plus(Duration::from_secs(1));
                self.later(next, Next::Report(gateway));
                if self.reporting {
                    let now = self.now;
                    let pools = self.gateways[gateway].pools.iter_mut();
                    let loads = pools.filter_map(|(id, pool)| pool.sample(id, now)).collect();
                    self.report(gateway, loads);
                }
            }
        }
    }

    fn apply(&mut self, gateway: usize, set: EndpointSet) {
        let id = set.revision.clone();
        let pool = self.gateways[gateway].pools.entry(id.clone()).or_default();
        pool.touch(self.now);
        let now = self.now;
        let keeps: BTreeSet<_> = set.endpoints.iter().map(|endpoint| &endpoint.sandbox).collect();
        let idle = |id: &&SandboxId| !keeps.contains(id) && pool.running.get(*id).is_none_or(|n| *n == 0);
        let closes: Vec<SandboxId> = pool.open.iter().filter(idle).cloned().collect();
        let old = pool.set.iter().flat_map(|set| &set.endpoints);
        let drops = old.filter(|endpoint| !keeps.contains(&endpoint.sandbox)).count() > 0;
        assert!(
            pool.set.as_ref().is_none_or(|old| old.generation < set.generation),
            "generations grow"
        );
        pool.set = Some(set);
        for sandbox in closes {
            self.later(
                now.plus(self.close_takes),
                Next::Disconnect(gateway, id.clone(), sandbox),
            );
        }
        if drops {
            self.send(gateway, &id, LoadKind::Sandboxes);
        }
        self.dispatch(gateway, &id);
    }

    /// Gives waiting requests to free slots.
    fn dispatch(&mut self, gateway: usize, id: &RevisionId) {
        let cc = self
            .snapshot
            .revisions
            .get(id)
            .and_then(|r| r.container_concurrency.limit())
            .unwrap_or(u32::MAX);
        let now = self.now;
        let pool = self.gateways[gateway].pools.get_mut(id).unwrap();
        let mut ends = Vec::new();
        while !pool.waiting.is_empty() {
            let endpoints = pool.set.iter().flat_map(|set| &set.endpoints);
            let load = |id: &SandboxId| pool.running.get(id).copied().unwrap_or(0);
            let free = endpoints.filter(|endpoint| load(&endpoint.sandbox) < cc);
            // By what each takes, where that differs.
            let least = free.min_by_key(|endpoint| match endpoint.weight {
                0 => load(&endpoint.sandbox) * 1000,
                weight => (load(&endpoint.sandbox) + 1) * 1_000_000 / weight,
            });
            let Some(sandbox) = least.map(|endpoint| endpoint.sandbox.clone()) else {
                break;
            };
            *pool.running.entry(sandbox.clone()).or_default() += 1;
            pool.open.insert(sandbox.clone());
            let (length, first) = pool.waiting.remove(0);
            ends.push((now.plus(length), sandbox, first));
        }
        for (end, sandbox, first) in ends {
            // A gateway may hold a set that still names a killed one.
            let hosted = self.host.get(&sandbox);
            assert!(
                !hosted.is_some_and(|hosted| hosted.frozen),
                "S4: a request reaches {sandbox}, which is frozen"
            );
            if hosted.is_some_and(|hosted| hosted.ready) {
                self.later(end, Next::RequestEnds(gateway, id.clone(), sandbox, first));
            } else {
                self.gateways[gateway]
                    .pools
                    .get_mut(id)
                    .unwrap()
                    .running
                    .remove(&sandbox);
            }
        }
    }

    fn outputs(&mut self) {
        self.keep_recorded();
        while let Some(output) = self.fleet.poll_output() {
            match output {
                Output::Start(spec) => {
                    self.named.push(spec.id.clone());
                    self.say(format!("start {}", spec.id));
                    for claim in spec.workload.exclusive_claims() {
                        let mut others = self.host.iter().map(|(id, hosted)| (id, &hosted.revision));
                        let has = |of: &RevisionId| self.claims.get(of).is_some_and(|claims| claims.contains(claim));
                        let other = others.find(|(_, of)| has(of)).map(|(id, _)| id);
                        assert_eq!(other, None, "S7: {} starts while it has {claim}", spec.id);
                    }
                    let (count, plan) = self.plans.get_mut(&spec.revision).unwrap();
                    let (after, result) = plan(*count);
                    *count += 1;
                    let (revision, limits) = (spec.revision, spec.limits);
                    let hosted = Hosted {
                        revision,
                        limits,
                        ready: false,
                        unready: false,
                        stopping: false,
                        frozen: false,
                    };
                    assert!(
                        self.host.insert(spec.id.clone(), hosted).is_none(),
                        "{} started twice",
                        spec.id
                    );
                    self.later(self.now.plus(after), Next::StartEnds(spec.id, result));
                }
                Output::Cancel(id) => {
                    self.say(format!("cancel {id}"));
                    assert!(!self.host.remove(&id).expect("a start in flight").ready);
                }
                Output::Stop { id, .. } => {
                    self.say(format!("stop {id}"));
                    // S2: no request of any gateway runs there.
                    for gateway in &self.gateways {
                        for pool in gateway.pools.values() {
                            assert_eq!(
                                pool.running.get(&id).copied().unwrap_or(0),
                                0,
                                "{id} stopped under a request"
                            );
                        }
                    }
                    if let Some(hosted) = self.host.get_mut(&id) {
                        hosted.stopping = true;
                    }
                    self.later(self.now.plus(self.stop_takes), Next::StopEnds(id));
                }
                Output::Freeze { revision, id } => {
                    self.say(format!("freeze {id}"));
                    // S4: neither a request nor a connection of any gateway is there.
                    for pool in self.gateways.iter().filter_map(|gateway| gateway.pools.get(&revision)) {
                        assert_eq!(
                            pool.running.get(&id).copied().unwrap_or(0),
                            0,
                            "{id} frozen under a request"
                        );
                        assert!(!pool.open.contains(&id), "{id} frozen under a connection");
                    }
                    assert!(
                        !self.endpoints(&revision).contains(&id),
                        "S3: {id} is frozen in the endpoint set"
                    );
                    let of = self.host.values().filter(|hosted| hosted.revision == revision);
                    let frozen = of.filter(|hosted| hosted.frozen).count();
                    let wants = self.snapshot.revisions.get(&revision).unwrap();
                    let most = wants.scaling.min_scale.0.max(1);
                    assert!(frozen < most as usize, "S4: {frozen} more of {revision:?} are frozen");
                    let asked = wants.idle != IdlePolicy::Knative || wants.planning.min_scale_as == Rung::Frozen;
                    assert!(asked, "S4: nobody asked for it");
                    self.later(self.now.plus(self.freeze_takes), Next::FreezeEnds(revision, id));
                }
                Output::Thaw { revision, id } => {
                    self.say(format!("thaw {id}"));
                    self.later(self.now.plus(self.thaw_takes), Next::ThawEnds(revision, id));
                }
                Output::SetLimits { revision, id, limits } => {
                    self.say(format!("limit {id} to {:?}", limits.cpu.map(|cpu| cpu.0)));
                    let mut result = Ok(());
                    if let Some(hosted) = self.host.get_mut(&id) {
                        let lower = limits.cpu.is_some() && hosted.limits.cpu.is_none_or(|cpu| Some(cpu) > limits.cpu);
                        if lower && self.cannot_limit {
                            let (context, source) = ("limit".into(), std::io::ErrorKind::ResourceBusy.into());
                            result = Err(DriverError::Io { context, source });
                        } else {
                            hosted.limits = limits;
                        }
                    }
                    self.fleet.handle(Event::LimitsSet { revision, id, result }, self.now);
                }
                Output::Endpoints(set) => {
                    self.say(format!("{} endpoints, {}", set.endpoints.len(), set.rung.as_str()));
                    for endpoint in &set.endpoints {
                        let hosted = self.host.get(&endpoint.sandbox);
                        assert!(
                            hosted.is_some_and(|h| h.ready && !h.unready && !h.stopping && !h.frozen),
                            "S3: {} {:?} {:#?}",
                            endpoint.sandbox,
                            hosted.map(|h| (h.ready, h.stopping, h.frozen)),
                            self.log.iter().rev().take(30).collect::<Vec<_>>()
                        );
                    }
                    for gateway in 0..self.gateways.len() {
                        self.later(self.now.plus(self.ack_takes), Next::Apply(gateway, set.clone()));
                    }
                    self.sets.insert(set.revision.clone(), set);
                }
                Output::Status(status) => drop(self.statuses.insert(status.revision.clone(), status)),
            }
        }
    }

    fn later(&mut self, when: Timestamp, next: Next) {
        self.number += 1;
        self.agenda.insert((when, self.number), next);
    }

    fn say(&mut self, what: String) {
        self.log.push((self.now, what));
    }
}

impl Pool {
    fn in_flight(&self) -> u32 {
        self.running.values().sum::<u32>() + u32::try_from(self.waiting.len()).unwrap()
    }

    fn serves(&self, sandbox: &SandboxId) -> bool {
        self.set
            .iter()
            .flat_map(|set| &set.endpoints)
            .any(|endpoint| endpoint.sandbox == *sandbox)
    }

    fn slots(&self, cc: u32) -> u32 {
        let endpoints = self.set.as_ref().map_or(0, |set| set.endpoints.len());
        cc.saturating_mul(u32::try_from(endpoints).unwrap())
    }

    fn touch(&mut self, now: Timestamp) {
        self.area += f64::from(self.in_flight()) * now.since(self.touched).as_secs_f64();
        self.touched = now;
    }

    /// The periodic entry; `None` when there was nothing.
    fn sample(&mut self, id: &RevisionId, now: Timestamp) -> Option<RevisionLoad> {
        self.touch(now);
        let mut load = self.entry(id, LoadKind::Periodic, now);
        let busy = self.area > 0.0 || self.arrivals > 0;
        if !busy && load.draining.is_empty() {
            (self.in_table, self.resting) = (false, true);
            return None;
        }
        let elapsed = now.since(self.sampled).as_secs_f64();
        let average = if elapsed > 0.0 {
            self.area / elapsed
        } else {
            f64::from(self.in_flight())
        };
        load.concurrency = Concurrency(match (self.counted_by_wake, busy && !self.in_table) {
            (true, _) => (average - 1.0).max(0.0),
            (false, true) => average.max(1.0),
            (false, false) => average,
        });
        load.work = Work {
            arrivals: self.arrivals,
            time: Duration::from_secs_f64(self.area),
            first: self.first.take(),
        };
        load.rps = Rps((f64::from(self.arrivals) - f64::from(u8::from(self.counted_by_wake))).max(0.0));
        (self.area, self.arrivals, self.sampled, self.in_table) = (0.0, 0, now, busy);
        self.counted_by_wake = false;
        self.told = u32::try_from(self.waiting.len()).unwrap();
        Some(load)
    }

    fn entry(&mut self, id: &RevisionId, kind: LoadKind, now: Timestamp) -> RevisionLoad {
        self.touch(now);
        let first = kind == LoadKind::Wake && !std::mem::replace(&mut self.counted_by_wake, true);
        let one = if first { 1.0 } else { 0.0 };
        let serving: BTreeSet<_> = self
            .set
            .iter()
            .flat_map(|set| &set.endpoints)
            .map(|e| e.sandbox.clone())
            .collect();
        let left = self.running.iter().filter(|(_, n)| **n > 0).map(|(id, _)| id);
        let left: BTreeSet<SandboxId> = left.chain(&self.open).chain(&self.answered).cloned().collect();
        let draining: Vec<_> = left
            .into_iter()
            .filter(|id| !serving.contains(id))
            .map(|sandbox| Draining {
                in_flight: self.running.get(&sandbox).copied().unwrap_or(0),
                connections: u32::from(self.open.contains(&sandbox)),
                answered: self.answered.contains(&sandbox),
                sandbox,
            })
            .collect();
        self.running.retain(|id, n| *n > 0 || serving.contains(id));
        let (running, open) = (&self.running, &self.open);
        self.answered
            .retain(|id| serving.contains(id) || running.contains_key(id) || open.contains(id));
        RevisionLoad {
            revision: id.clone(),
            kind,
            concurrency: Concurrency(one),
            rps: Rps(one),
            work: Work::default(),
            in_flight: self.in_flight(),
            waiting: u32::try_from(self.waiting.len()).unwrap(),
            acked: self.set.as_ref().map(|set| set.generation).unwrap_or_default(),
            draining,
            ejected: Vec::new(),
        }
    }
}
