//! The host: starts, stops, changes and freezes instances, each in its time, and knows what each costs. PURE.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use autoscaler::Output;
use autoscaler::fleet::Event;
use autoscaler::specs::{Spec, Specs};
use manifests::exchange::{EndpointSet, LoadKind, Rung};
use manifests::ids::{RevisionId, SandboxId};
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::{Exit, ExitStatus, Phases, SandboxSpec, Started};

use super::{Engine, Next, REPORT};
use crate::simulate::arena::Key;
use crate::simulate::market::{capacity, start_factor};
use crate::simulate::pool::Told;
use crate::simulate::starts::thaw;

/// One instance.
pub(super) struct Sandbox {
    app: usize,
    id: SandboxId,
    ordered: Timestamp,
    stage: Stage,
    spec: Arc<Spec>,
    /// The spec that it is being changed to.
    coming: Arc<Spec>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Running,
    Frozen,
}

impl Sandbox {
    /// How many times as long a call takes with so many at once.
    pub(super) fn slowdown(&self, full: &Spec, running: u32) -> f64 {
        if self.spec.rung == Rung::Full {
            return 1.0;
        }
        self.spec.slow * (f64::from(running) / capacity(&self.spec, full)).max(1.0)
    }

    /// Per second, when it holds so much memory frozen.
    fn price(&self, specs: &Specs, holds: Bytes) -> f64 {
        match self.stage {
            Stage::Frozen => specs.frozen_price(holds),
            Stage::Starting | Stage::Running => self.spec.price,
        }
    }
}

impl Engine<'_> {
    /// Does what the fleet says, until it says no more.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(output) = self.fleet.poll_output() {
                self.execute(output);
            }
            let Some(set) = self.sets.pop_front() else { break };
            self.put(&set);
        }
        self.stirred = false;
        self.timeout = self.fleet.next_timeout();
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Start(spec) => self.start(&spec),
            Output::Cancel(id) => {
                if let Some(key) = self.names.get(&id).copied() {
                    self.gone(key);
                }
            }
            Output::Stop { id, .. } => self.after(&id, STOP, Next::Stopped),
            Output::SetLimits { revision, id, .. } => {
                if let Some(sandbox) = self.names.get(&id).and_then(|key| self.sandboxes.get_mut(*key))
                    && let Some(spec) = self.fleet.spec_of(&revision, &id)
                {
                    sandbox.coming = spec;
                }
                self.after(&id, self.settings.resize, Next::Resized);
            }
            Output::Freeze { id, .. } => self.after(&id, FREEZE, Next::Frozen),
            Output::Thaw { id, .. } => {
                // From here on it uses CPU again.
                self.stage(&id, Stage::Running);
                let takes = self.thaw(&id);
                self.after(&id, takes, Next::Thawed);
            }
            Output::Endpoints(set) => self.sets.push_back(set),
            Output::Status(_) => {}
        }
    }

    fn thaw(&self, id: &SandboxId) -> Duration {
        let sandbox = self.names.get(id).and_then(|key| self.sandboxes.get(*key));
        let Some(index) = sandbox.map(|sandbox| sandbox.app) else {
            return self.settings.thaw;
        };
        let calls = self.apps[index].tally.arrivals;
        thaw(self.settings, &self.trace.functions[index], self.seed, calls)
    }

    fn start(&mut self, spec: &SandboxSpec) {
        let Some(index) = self.index.get(&spec.revision).copied() else {
            return;
        };
        let app = &mut self.apps[index];
        let calls = app.tally.arrivals;
        // Whom a start is for draws the same whether it waits for it or is expected.
        let before = if app.pool.in_flight() > 0 {
            calls.saturating_sub(1)
        } else {
            calls
        };
        let function = &self.trace.functions[index];
        let latency = self
            .settings
            .starts
            .latency(function, self.seed, app.median, before, app.starts);
        app.starts += 1;
        app.tally.starts += 1;
        let full = app.specs.full();
        // One that was ordered and is not wanted any more is cancelled right away.
        let of = self.fleet.spec_of(&spec.revision, &spec.id);
        let of = of.unwrap_or_else(|| Arc::clone(full));
        let latency = latency.mul_f64(start_factor(&of, full));
        let key = self.sandboxes.insert(Sandbox {
            app: index,
            id: spec.id.clone(),
            ordered: self.now,
            stage: Stage::Starting,
            coming: Arc::clone(&of),
            spec: of,
        });
        app.sandboxes.push(key);
        self.names.insert(spec.id.clone(), key);
        self.used.fetch_add(app.memory.0, Ordering::Relaxed);
        self.price(index);
        self.later(self.now.plus(latency), Next::Started(key));
    }

    /// What happens at the instant that was foreseen.
    pub(super) fn happen(&mut self, next: Next) {
        match next {
            Next::Deploy => self.deploy(),
            Next::Ends(request, revision) => self.end(request, revision),
            Next::Sweep(index) => {
                if self.apps[index].pool.sweep() {
                    self.tell(index, LoadKind::Sandboxes);
                }
            }
            Next::Started(key) => {
                let Some((revision, id)) = self.named(key) else { return };
                self.stage(&id, Stage::Running);
                let phases = Phases::default();
                let warnings = Vec::new();
                let result = Ok(Started { phases, warnings });
                self.handle(Event::Started { revision, id, result });
            }
            Next::Stopped(key) => {
                let Some((revision, id)) = self.named(key) else { return };
                let peak = self.sandboxes.get(key).map(|sandbox| self.apps[sandbox.app].memory);
                self.gone(key);
                // As the real driver: that it ended, with what it had used, and that all of it is gone.
                self.handle(Event::Exited {
                    revision: revision.clone(),
                    id: id.clone(),
                    exit: Exit {
                        status: ExitStatus::Code(0),
                        oom_killed: false,
                        requested: true,
                        unhealthy: None,
                        last_output: String::new(),
                        peak_memory: peak,
                    },
                });
                let result = Ok(());
                self.handle(Event::Stopped { revision, id, result });
            }
            Next::Resized(key) => {
                let Some((revision, id)) = self.named(key) else { return };
                self.resize(key);
                let result = Ok(());
                self.handle(Event::LimitsSet { revision, id, result });
            }
            Next::Frozen(key) => {
                let Some((revision, id)) = self.named(key) else { return };
                self.stage(&id, Stage::Frozen);
                let app = self.sandboxes.get(key).map_or(0, |sandbox| sandbox.app);
                let result = Ok(self.apps[app].memory);
                self.handle(Event::Frozen { revision, id, result });
            }
            Next::Thawed(key) => {
                let Some((revision, id)) = self.named(key) else { return };
                let result = Ok(());
                self.handle(Event::Thawed { revision, id, result });
            }
        }
    }

    /// An endpoint set reaches the gateway.
    fn put(&mut self, set: &EndpointSet) {
        let Some(index) = self.index.get(&set.revision).copied() else {
            return;
        };
        let (names, pool) = (&self.names, &mut self.apps[index].pool);
        let (drops, told) = pool.apply(set, |id| names.get(id).copied());
        if drops {
            if pool.activate(self.now) {
                self.active.push(index);
            }
            self.tell(index, LoadKind::Sandboxes);
            let next = self.reported.plus(SWEEP);
            let next = if next > self.now { next } else { next.plus(REPORT) };
            self.later(next, Next::Sweep(index));
        }
        self.serve(index);
        if set.refuses {
            while let Some(request) = self.apps[index].pool.dismiss(self.now) {
                self.refuse(request, false);
            }
        }
        if told == Told::Now {
            self.wake(index);
        }
    }

    fn named(&self, key: Key) -> Option<(RevisionId, SandboxId)> {
        let sandbox = self.sandboxes.get(key)?;
        Some((self.apps[sandbox.app].id.clone(), sandbox.id.clone()))
    }

    fn after(&mut self, id: &SandboxId, takes: Duration, next: impl FnOnce(Key) -> Next) {
        if let Some(key) = self.names.get(id).copied() {
            self.later(self.now.plus(takes), next(key));
        }
    }

    fn stage(&mut self, id: &SandboxId, stage: Stage) {
        let key = self.names.get(id).copied();
        if let Some(sandbox) = key.and_then(|key| self.sandboxes.get_mut(key)) {
            sandbox.stage = stage;
            let app = sandbox.app;
            self.price(app);
        }
    }

    /// Its calls go on at another speed.
    fn resize(&mut self, key: Key) {
        let Some(sandbox) = self.sandboxes.get_mut(key) else {
            return;
        };
        sandbox.spec = Arc::clone(&sandbox.coming);
        let app = sandbox.app;
        self.price(app);
        let running = self.apps[app].pool.running_on(key);
        let full = self.apps[app].specs.full();
        let slowdown = self.sandboxes.get(key).map_or(1.0, |it| it.slowdown(full, running));
        if running == 0 {
            return;
        }
        let here: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.sandbox == Some(key))
            .map(|(key, _)| key)
            .collect();
        for request_key in here {
            let Some(request) = self.requests.get_mut(request_key) else {
                continue;
            };
            let done = self.now.since(request.begun).div_f64(request.slowdown);
            request.left = request.left.saturating_sub(done);
            (request.begun, request.slowdown) = (self.now, slowdown);
            request.revision += 1;
            let (end, revision) = (self.now.plus(request.left.mul_f64(slowdown)), request.revision);
            self.later(end, Next::Ends(request_key, revision));
        }
    }

    /// An instance is gone, and its bill is made.
    fn gone(&mut self, key: Key) {
        let Some(sandbox) = self.sandboxes.remove(key) else {
            return;
        };
        self.names.remove(&sandbox.id);
        let app = &mut self.apps[sandbox.app];
        app.sandboxes.retain(|other| *other != key);
        self.used.fetch_sub(app.memory.0, Ordering::Relaxed);
        let over = sandbox.spec.unused(self.now.since(sandbox.ordered));
        let price = sandbox.price(&app.specs, app.memory);
        app.meter.charge_residue(over.as_secs_f64() * price);
        self.price(sandbox.app);
    }

    /// What the instances of a function cost from now on.
    fn price(&mut self, index: usize) {
        let app = &mut self.apps[index];
        let (mut starting, mut running) = (0.0, 0.0);
        for sandbox in app.sandboxes.iter().filter_map(|key| self.sandboxes.get(*key)) {
            let price = sandbox.price(&app.specs, app.memory);
            match sandbox.stage {
                Stage::Starting => starting += price,
                Stage::Running | Stage::Frozen => running += price,
            }
        }
        app.meter.set(self.now.as_nanos(), starting, running);
    }
}

/// From the order to stop an instance until it is gone.
const STOP: Duration = Duration::from_millis(50);

/// When within the second between two reports the gateway closes connections that lead nowhere any more: it does so once a
/// second, at any time of it, and only then may a sandbox be frozen.
const SWEEP: Duration = Duration::from_millis(500);

/// From the order to freeze one until it stands still.
const FREEZE: Duration = Duration::from_millis(2);
