//! The world in virtual time: arrivals, a gateway, a host that bills, around the real [`Fleet`]. PURE.
//!
//! ```text
//! trace ─▶ arrivals ─▶ pool: slots, queue ─▶ runs on a sandbox ─▶ ends
//!                        │ wake-up at once, report each second
//!                        ▼
//!                      Fleet ─▶ Start, Stop, Freeze ... ─▶ host: latencies, prices ─▶ events
//!                        └────▶ EndpointSet ─▶ pool
//! ```
//!
//! What happens at the same instant happens in the order in which it was caused. The same seed gives the same world.

mod host;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use autoscaler::fleet::{Event, Fleet};
use autoscaler::specs::Specs;
use manifests::exchange::{EndpointSet, LoadKind, LoadReport, RevisionLoad, Rung, Snapshot};
use manifests::ids::{GatewayId, Generation, RevisionId, SandboxId};
use manifests::revision::Revision;
use manifests::units::{Bytes, Clock, Timestamp};

use super::arena::{Arena, Key};
use super::bill::Meter;
use super::market::Market;
use super::policy::Policy;
use super::pool::{Place, Pool, Told};
use super::settings::Settings;
use super::tally::Tally;
use crate::trace::{Invocation, Trace};
use host::Sandbox;

/// One run of one policy.
pub(super) struct Engine<'a> {
    trace: &'a Trace,
    settings: &'a Settings,
    seed: u64,
    fleet: Fleet,
    gateway: GatewayId,
    now: Timestamp,
    apps: Vec<App>,
    index: HashMap<RevisionId, usize>,
    /// What is deployed, and the functions that are not yet.
    snapshot: Snapshot,
    waiting: Vec<Option<Arc<Revision>>>,
    sandboxes: Arena<Sandbox>,
    names: HashMap<SandboxId, Key>,
    requests: Arena<Request>,
    agenda: BinaryHeap<Reverse<(Timestamp, u64, Next)>>,
    /// How many entries the agenda ever had.
    entries: u64,
    /// The calls of one minute, the next one last.
    calls: Vec<Invocation>,
    minutes: Range<u32>,
    /// Functions that have something to report.
    active: Vec<usize>,
    /// The last periodic report, and the number of the last report of any kind.
    reported: Timestamp,
    generation: Generation,
    /// Given out and not in place yet.
    sets: VecDeque<EndpointSet>,
    used: Arc<AtomicU64>,
    /// When the fleet wants to look again, and whether it may have something to say.
    timeout: Option<Timestamp>,
    stirred: bool,
    watch: Option<Stopwatch>,
}

/// A function and what runs for it.
struct App {
    id: RevisionId,
    pool: Pool,
    meter: Meter,
    tally: Tally,
    sandboxes: Vec<Key>,
    /// What it may run on.
    specs: Arc<Specs>,
    /// What an instance holds.
    memory: Bytes,
    /// Of its starts.
    median: Duration,
    /// Starts since the last call.
    starts: u64,
}

/// A call on its way.
struct Request {
    app: usize,
    arrived: Timestamp,
    /// On a full instance.
    work: Duration,
    /// No other was in flight when it came.
    idle: bool,
    /// Where it runs, since when at which speed, and what was left then.
    sandbox: Option<Key>,
    begun: Timestamp,
    slowdown: f64,
    left: Duration,
    /// Ends of it that were foreseen and are not any more.
    revision: u32,
}

/// What happens at an instant that is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// The functions that are called for the first time in this minute are deployed.
    Deploy,
    Started(Key),
    Stopped(Key),
    Resized(Key),
    Frozen(Key),
    Thawed(Key),
    Ends(Key, u32),
    /// The gateway closes connections of this function that lead nowhere any more.
    Sweep(usize),
}

/// How long the fleet works, in real time.
pub(super) struct Stopwatch {
    pub(super) clock: Clock,
    /// Nanoseconds of work in each tick of two seconds.
    pub(super) ticks: Vec<u64>,
    /// Calls of the fleet.
    pub(super) calls: u64,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        trace: &'a Trace,
        settings: &'a Settings,
        market: &'a Market,
        policy: &Policy,
        seed: u64,
    ) -> Self {
        let now = instant(MINUTE * trace.minutes.start);
        let used = Arc::new(AtomicU64::new(0));
        let fleet = policy.fleet(trace, settings, market, seed, Arc::clone(&used));
        let mut engine = Self {
            trace,
            settings,
            seed,
            fleet,
            gateway: GatewayId("simulated".into()),
            now,
            apps: Vec::with_capacity(trace.functions.len()),
            index: HashMap::with_capacity(trace.functions.len()),
            snapshot: policy.snapshot(trace, settings, market, now),
            waiting: Vec::new(),
            sandboxes: Arena::default(),
            names: HashMap::new(),
            requests: Arena::default(),
            agenda: BinaryHeap::new(),
            entries: 0,
            calls: Vec::new(),
            minutes: trace.minutes.clone(),
            active: Vec::new(),
            // As if it had reported before the beginning.
            reported: now.minus(if settings.phase.is_zero() {
                Duration::ZERO
            } else {
                REPORT - settings.phase
            }),
            generation: Generation::first(1),
            sets: VecDeque::new(),
            used,
            timeout: None,
            stirred: false,
            watch: None,
        };
        let mut known: Option<Arc<Specs>> = None;
        for (index, function) in trace.functions.iter().enumerate() {
            let id = super::policy::revision_id(index);
            let revision = engine.snapshot.revisions.get(&id);
            let specs = revision.map_or_else(|| market.specs(&super::policy::typical()), |it| market.specs(it));
            // Nearly all have the same.
            let specs = known
                .take()
                .filter(|known| **known == specs)
                .unwrap_or_else(|| Arc::new(specs));
            known = Some(Arc::clone(&specs));
            engine.apps.push(App {
                specs,
                pool: Pool::new(id.clone(), settings.concurrency),
                id: id.clone(),
                meter: Meter::default(),
                tally: Tally::default(),
                sandboxes: Vec::new(),
                memory: function.memory.unwrap_or(settings.memory_of_app),
                median: settings.starts.median_of(function, seed),
                starts: 0,
            });
            engine.index.insert(id, index);
        }
        if settings.initial_scale > 0 {
            let mut later = std::mem::take(&mut engine.snapshot.revisions);
            let of = |app: &App| later.remove(&app.id);
            engine.waiting = engine.apps.iter().map(of).collect();
        }
        engine.handle(Event::Snapshot(Arc::new(engine.snapshot.clone())));
        engine.settle();
        engine
    }

    /// Measures how long the fleet works from now on.
    pub(super) fn with_stopwatch(mut self, clock: Clock) -> Self {
        self.watch = Some(Stopwatch {
            clock,
            ticks: Vec::new(),
            calls: 0,
        });
        self
    }

    /// Lives through all of it; `minute` is called after each minute and may end it by `false`.
    pub(super) fn run(&mut self, mut minute: impl FnMut() -> bool) {
        let end = instant(MINUTE * self.trace.minutes.end);
        let mut next_minute = self.now.plus(MINUTE);
        while self.step(end) {
            while next_minute <= self.now {
                next_minute = next_minute.plus(MINUTE);
                if !minute() {
                    return;
                }
            }
        }
        self.now = end;
    }

    /// The next thing that happens before `end`; false when nothing does.
    fn step(&mut self, end: Timestamp) -> bool {
        let call = self.next_call();
        let agenda = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let report = self.reported.plus(REPORT);
        let next = [agenda, call, self.timeout]
            .into_iter()
            .flatten()
            .fold(report, Timestamp::min);
        if next >= end {
            return false;
        }
        self.now = self.now.max(next);
        if agenda == Some(next) {
            if let Some(Reverse((_, _, next))) = self.agenda.pop() {
                self.happen(next);
            }
        } else if call == Some(next) {
            if let Some(call) = self.calls.pop() {
                self.arrive(call);
            }
        } else if report == next {
            self.report();
        } else {
            self.work(|fleet, now| fleet.handle_timeout(now));
        }
        if self.stirred {
            self.settle();
        }
        true
    }

    /// When the next call comes; fetches the calls of the next minute.
    fn next_call(&mut self) -> Option<Timestamp> {
        while self.calls.is_empty() {
            let minute = self.minutes.next()?;
            self.calls = self.trace.minute(minute, self.seed);
            self.calls.reverse();
            let new = |call: &Invocation| self.waiting.get(call.function).is_some_and(Option::is_some);
            if self.calls.iter().any(new) {
                self.later(instant(MINUTE * minute).max(self.now), Next::Deploy);
            }
        }
        self.calls.last().map(|call| instant(call.at))
    }

    /// Deploys what is called for the first time in the minute at hand.
    fn deploy(&mut self) {
        for call in &self.calls {
            if let Some(revision) = self.waiting.get_mut(call.function).and_then(Option::take) {
                self.snapshot.revisions.insert(revision.id.clone(), revision);
            }
        }
        self.snapshot.generation = self.snapshot.generation.next();
        self.handle(Event::Snapshot(Arc::new(self.snapshot.clone())));
    }

    fn arrive(&mut self, call: Invocation) {
        let index = call.function;
        let Some(app) = self.apps.get_mut(index) else { return };
        // The first call of a deployment is not the end of an idle time.
        let first = app.tally.arrivals == 0 && self.settings.initial_scale > 0;
        let idle = app.pool.in_flight() == 0 && !first;
        let work = call.duration.unwrap_or(self.settings.duration) + self.settings.overhead;
        let request = self.requests.insert(Request {
            app: index,
            arrived: self.now,
            work,
            idle,
            sandbox: None,
            begun: self.now,
            slowdown: 1.0,
            left: work,
            revision: 0,
        });
        app.tally.arrivals += 1;
        app.tally.idle += u64::from(idle);
        app.starts = 0;
        app.meter.set_busy(self.now.as_nanos(), true);
        if app.pool.activate(self.now) {
            self.active.push(index);
        }
        let (place, told) = app.pool.arrive(request, self.now);
        app.tally.cold += u64::from(idle && place == Place::Waits && app.pool.rung() == Rung::Zero);
        match place {
            Place::Runs(sandbox) => self.begin(request, sandbox),
            Place::Waits => {}
            Place::Refused => self.refuse(request, false),
        }
        if told == Told::Now {
            self.wake(index);
        }
    }

    /// A request has a slot.
    fn begin(&mut self, key: Key, sandbox: Key) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let app = &self.apps[request.app];
        let running = app.pool.running_on(sandbox);
        let slowdown = self
            .sandboxes
            .get(sandbox)
            .map_or(1.0, |sandbox| sandbox.slowdown(app.specs.full(), running));
        request.sandbox = Some(sandbox);
        request.begun = self.now;
        request.slowdown = slowdown;
        let end = self.now.plus(request.left.mul_f64(slowdown));
        let next = Next::Ends(key, request.revision);
        self.later(end, next);
    }

    /// A request has run to its end.
    fn end(&mut self, key: Key, revision: u32) {
        if self
            .requests
            .get(key)
            .is_none_or(|request| request.revision != revision)
        {
            return;
        }
        let Some(request) = self.requests.remove(key) else {
            return;
        };
        let app = &mut self.apps[request.app];
        let added = self.now.since(request.arrived).saturating_sub(request.work);
        let late = added > self.settings.sla.limit;
        app.tally.answered += 1;
        app.tally.late += u64::from(late);
        if request.idle {
            app.tally.violations += u64::from(late);
            app.tally.added.add(added);
            app.pool.ended_first(self.now.since(request.arrived));
        }
        let drained = request
            .sandbox
            .is_some_and(|sandbox| app.pool.release(sandbox, self.now));
        app.meter.set_busy(self.now.as_nanos(), app.pool.in_flight() > 0);
        if drained {
            self.tell(request.app, LoadKind::Sandboxes);
        }
        self.serve(request.app);
    }

    /// A request goes without an answer: refused, or after it has waited for too long.
    fn refuse(&mut self, key: Key, expired: bool) {
        let Some(request) = self.requests.remove(key) else {
            return;
        };
        let app = &mut self.apps[request.app];
        app.tally.refused += u64::from(!expired);
        app.tally.expired += u64::from(expired);
        app.tally.late += 1;
        app.tally.violations += u64::from(request.idle);
        app.meter.set_busy(self.now.as_nanos(), app.pool.in_flight() > 0);
    }

    /// Gives free slots to those who wait.
    fn serve(&mut self, index: usize) {
        while let Some((request, sandbox, told)) = self.apps[index].pool.serve(self.now) {
            self.begin(request, sandbox);
            if told == Told::Now {
                self.wake(index);
            }
        }
    }

    fn wake(&mut self, index: usize) {
        let load = self.apps[index].pool.wake();
        self.send(vec![load]);
    }

    fn tell(&mut self, index: usize, kind: LoadKind) {
        let load = self.apps[index].pool.load(kind);
        self.send(vec![load]);
    }

    /// The report of the second; those who have waited for too long are let go before it.
    fn report(&mut self) {
        let period = self.now.since(self.reported);
        self.reported = self.now;
        let mut active = std::mem::take(&mut self.active);
        let mut loads = Vec::with_capacity(active.len());
        active.retain(|index| {
            while let Some(first) = self.apps[*index].pool.first()
                && self
                    .requests
                    .get(first)
                    .is_none_or(|it| it.arrived.plus(PATIENCE) <= self.now)
            {
                self.apps[*index].pool.dismiss(self.now);
                self.refuse(first, true);
            }
            let (load, stays) = self.apps[*index].pool.sample(self.now, period);
            loads.push(load);
            stays
        });
        self.active = active;
        self.send(loads);
    }

    fn send(&mut self, revisions: Vec<RevisionLoad>) {
        self.generation = self.generation.next();
        let report = LoadReport {
            gateway: self.gateway.clone(),
            generation: self.generation,
            revisions,
        };
        self.handle(Event::Report(report));
    }

    fn handle(&mut self, event: Event) {
        self.work(|fleet, now| fleet.handle(event, now));
    }

    fn work(&mut self, what: impl FnOnce(&mut Fleet, Timestamp)) {
        self.stirred = true;
        let Some(watch) = &mut self.watch else {
            return what(&mut self.fleet, self.now);
        };
        let begun = (watch.clock)();
        what(&mut self.fleet, self.now);
        let took = (watch.clock)().since(begun);
        let tick = self.now.since(instant(MINUTE * self.trace.minutes.start)).as_secs() / 2;
        let tick = usize::try_from(tick).unwrap_or(usize::MAX);
        if watch.ticks.len() <= tick {
            watch.ticks.resize(tick + 1, 0);
        }
        watch.ticks[tick] += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        watch.calls += 1;
    }

    fn later(&mut self, at: Timestamp, next: Next) {
        self.entries += 1;
        self.agenda.push(Reverse((at, self.entries, next)));
    }

    /// What was measured.
    pub(super) fn stopwatch(&mut self) -> Option<Stopwatch> {
        self.watch.take()
    }

    /// How each function fared, in the order of the trace.
    pub(super) fn finish(mut self) -> Vec<Tally> {
        let now = self.now;
        let open: Vec<Key> = self.requests.iter().map(|(key, _)| key).collect();
        for key in open {
            let Some(request) = self.requests.remove(key) else {
                continue;
            };
            let tally = &mut self.apps[request.app].tally;
            let waited = if request.sandbox.is_none() {
                now.since(request.arrived)
            } else {
                request.begun.since(request.arrived)
            };
            let late = waited > self.settings.sla.limit;
            tally.open += 1;
            tally.late += u64::from(late);
            tally.violations += u64::from(late && request.idle);
        }
        let finish = |mut app: App| {
            app.tally.costs = app.meter.costs(now.as_nanos());
            app.tally
        };
        self.apps.into_iter().map(finish).collect()
    }
}

/// Minute 0 of a trace: a Monday in July 2019, at midnight.
pub(super) fn instant(at: Duration) -> Timestamp {
    Timestamp::from_millis(1_563_148_800_000).plus(at)
}

const MINUTE: Duration = Duration::from_secs(60);
const REPORT: Duration = Duration::from_secs(1);

/// Knative's default `timeoutSeconds`, queueing included.
const PATIENCE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
