//! PURE  Every revision: events in, outputs out, and the instant to look again.
//!
//! The shell in `run`, the simulator and the tests drive the same object:
//!
//! ```text
//! fleet.handle(event, now);  fleet.handle_timeout(now);
//! while let Some(output) = fleet.poll_output() { .. }
//! sleep until fleet.next_timeout()
//! ```
//!
//! Only revisions that have something to wait for stand in the timer set; one that is idle at zero, or stands idle on a
//! rung, costs nothing until a report names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{LoadReport, Snapshot};
use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::revision::Revision;
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::{Capacity, Exit, ExitStatus};

use crate::admission::{Admission, CapacityOf};
use crate::claims::Claims;
use crate::collect::Gateways;
use crate::cost::Costs;
use crate::evict::{self, Enough, Evictions};
use crate::explain::Explain;
use crate::flight::Recording;
use crate::learned::{Learned, program};
use crate::names::Names;
use crate::planner::{Pilot, Population};
use crate::scaler::{Context, Output, Planners, Scaler};
use crate::specs::Spec;

/// Every revision that exists, and those whose last sandboxes are still stopping.
pub struct Fleet {
    revisions: HashMap<RevisionId, Entry>,
    due: BTreeSet<(Timestamp, RevisionId)>,
    /// The one in place; the next is compared with it.
    snapshot: Arc<Snapshot>,
    /// Its generation.
    generation: Generation,
    cx: Context,
    /// Evicted and not gone yet, with the memory that comes free by it.
    freeing: BTreeMap<SandboxId, Bytes>,
    /// Memory in use is looked at again then.
    relieve_at: Timestamp,
    /// What was learned before this start of Knarr, of revisions that are not back yet.
    before: HashMap<RevisionId, Learned>,
    /// Touched since they were asked what they have learned.
    touched: Vec<RevisionId>,
    /// The flight recorder, when it is on.
    recording: Option<Recording>,
}

struct Entry {
    scaler: Box<Scaler>,
    /// Where it stands in `due`.
    due: Option<Timestamp>,
    /// The segment of the recording that it stands in; 0 is none.
    segment: u32,
    /// It stands in `touched`.
    touched: bool,
}

impl Fleet {
    /// `epoch` is the number of Knarr's start; generations of endpoint sets and statuses carry it. `capacity` is asked
    /// whenever a start is considered. The catalogue comes with the snapshots.
    pub fn new(explain: Explain, epoch: u64, capacity: CapacityOf) -> Self {
        Self {
            revisions: HashMap::new(),
            due: BTreeSet::new(),
            snapshot: Arc::default(),
            cx: Context {
                now: Timestamp::EPOCH,
                instances: Arc::default(),
                gateways: Gateways::default(),
                admission: Admission::new(capacity),
                names: Names::new(epoch),
                explain,
                generation: Generation { epoch, counter: 0 },
                outputs: Default::default(),
                freezes: false,
                evictions: Evictions::default(),
                claims: Claims::default(),
                population: Population::default(),
                planners: Box::new(|_| Box::new(Pilot::default())),
                specs: None,
                stock: Default::default(),
                hungry: Default::default(),
                costs: Costs::default(),
                tally: None,
            },
            generation: Generation::default(),
            freeing: BTreeMap::new(),
            relieve_at: Timestamp::EPOCH,
            before: HashMap::new(),
            touched: Vec::new(),
            recording: None,
        }
    }

    /// Whether the driver can freeze; it cannot until told so.
    #[must_use]
    pub fn with_freezer(mut self, can: bool) -> Self {
        self.cx.freezes = can;
        self
    }

    /// Where it says what could be evicted.
    #[must_use]
    pub fn with_evictions(mut self, evictions: Evictions) -> Self {
        self.cx.evictions = evictions;
        self
    }

    /// Where it keeps the accounts.
    #[must_use]
    pub fn with_costs(mut self, costs: Costs) -> Self {
        self.cx.costs = costs;
        self
    }

    /// What revisions have taught before this start of Knarr.
    #[must_use]
    pub fn with_learned(mut self, before: HashMap<RevisionId, Learned>) -> Self {
        self.before = before;
        self
    }

    /// What revisions have taught that something happened to since they were asked last, at most so many of them.
    pub fn take_learned(&mut self, most: usize) -> Vec<(RevisionId, Learned)> {
        let begin = self.touched.len().saturating_sub(most);
        let mut learned = Vec::new();
        for id in self.touched.drain(begin..) {
            if let Some(entry) = self.revisions.get_mut(&id) {
                entry.touched = false;
                let known = entry.scaler.learned();
                learned.extend((!known.is_empty()).then_some((id, known)));
            }
        }
        learned
    }

    /// By what idle times are planned; [`Pilot`]s by default.
    #[must_use]
    pub fn with_planners(mut self, planners: Planners) -> Self {
        self.cx.planners = planners;
        self
    }

    /// What is believed of the idle times of revisions that are not known yet.
    #[must_use]
    pub fn with_population(mut self, population: Population) -> Self {
        self.cx.population = population;
        self
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        let event = self.difference(event);
        let begun = self.begin_step(Some(&event), now);
        self.happen(event);
        self.turns();
        self.end_step(begun);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Snapshot(_) => {}
            Event::Changes {
                generation,
                instances,
                changes,
            } => self.change(generation, instances, changes),
            Event::Report(report) => self.report(&report),
            Event::Started { revision, id, result } => {
                if self.revisions.contains_key(&revision) {
                    self.with(&revision, |scaler, cx| scaler.started(&id, result, cx));
                } else if result.is_ok() {
                    // Its revision was forgotten while a cancelled start could not be held up any more.
                    self.cx.outputs.push_back(Output::Stop {
                        revision,
                        id,
                        grace: Duration::ZERO,
                    });
                }
            }
            Event::Exited { revision, id, exit } => {
                self.with(&revision, |scaler, cx| scaler.exited(&id, &exit, cx));
                self.freed(&id);
            }
            Event::Stopped { revision, id, result } => {
                self.with(&revision, |scaler, cx| scaler.stopped(&id, result, cx));
                self.freed(&id);
            }
            Event::Frozen { revision, id, result } => {
                self.with(&revision, |scaler, cx| scaler.frozen(&id, result, cx));
            }
            Event::Thawed { revision, id, result } => {
                self.with(&revision, |scaler, cx| scaler.thawed(&id, result, cx));
            }
            Event::Reclaimed {
                revision,
                id,
                reclaimed,
            } => {
                self.with(&revision, |scaler, cx| scaler.reclaimed(&id, reclaimed, cx));
                self.freed(&id);
            }
            Event::LimitsSet { revision, id, result } => {
                self.with(&revision, |scaler, cx| scaler.limits_set(&id, result, cx));
            }
            Event::Readiness { revision, id, unready } => {
                self.with(&revision, |scaler, cx| scaler.readiness(&id, unready, cx));
            }
            Event::Unhealthy { revision, id, why } => {
                self.with(&revision, |scaler, cx| scaler.unhealthy(&id, &why, cx));
            }
            Event::Running { running, unready } => self.running(&running, &unready),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let begun = self.begin_step(None, now);
        let due = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, revision)| revision.clone());
        for revision in due.collect::<Vec<_>>() {
            self.with(&revision, Scaler::timeout);
        }
        self.relieve();
        self.turns();
        self.end_step(begun);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(at, _)| *at);
        let (admission, claims) = (&self.cx.admission, &self.cx.claims);
        due.into_iter()
            .chain(admission.next_timeout(self.cx.now))
            .chain(claims.next_timeout(self.cx.now))
            .min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.cx.outputs.pop_front();
        if output.is_none() {
            // A snapshot with a hundred thousand new revisions must not leave its queue behind.
            self.cx.outputs.shrink_to(64);
        }
        output
    }

    /// What a sandbox runs on, or will once it has changed to what it was asked to: for those who bill it.
    pub fn spec_of(&self, revision: &RevisionId, sandbox: &SandboxId) -> Option<Arc<Spec>> {
        self.revisions.get(revision)?.scaler.spec_of(sandbox)
    }

    /// Revisions known, those that are going away included.
    pub fn len(&self) -> usize {
        self.revisions.len()
    }

    /// No revision, and no sandbox left of one.
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Revisions that wait for an instant; the others cost nothing.
    pub fn active(&self) -> usize {
        self.due.len()
    }

    /// A snapshot as what it changes; one that is older than the one in place changes nothing.
    fn difference(&mut self, event: Event) -> Event {
        let Event::Snapshot(snapshot) = event else { return event };
        let generation = snapshot.generation;
        if generation < self.generation {
            return Event::Changes {
                generation,
                instances: None,
                changes: Vec::new(),
            };
        }
        let old = std::mem::replace(&mut self.snapshot, Arc::clone(&snapshot));
        let instances = &snapshot.instances;
        let instances = (!Arc::ptr_eq(&old.instances, instances)).then(|| Arc::clone(instances));
        let mut changes = event::changes(&old, &snapshot);
        for change in &mut changes {
            if let Change::New(revision, learned) = change {
                let known = self.before.remove(&revision.id);
                *learned = known.filter(|known| known.program == program(revision)).map(Box::new);
            }
        }
        Event::Changes {
            generation,
            instances,
            changes,
        }
    }

    fn change(&mut self, generation: Generation, instances: Option<Arc<Instances>>, changes: Vec<Change>) {
        self.generation = self.generation.max(generation);
        if let Some(instances) = instances {
            (self.cx.instances, self.cx.specs) = (instances, None);
            // Before the revisions that change with it: those know only what they had and what they get.
            let mut ids: Vec<RevisionId> = self.revisions.keys().cloned().collect();
            ids.sort_unstable();
            for id in ids {
                self.with(&id, Scaler::price_anew);
            }
        }
        for change in changes {
            match change {
                Change::Gone(id) => self.with(&id, Scaler::remove),
                Change::New(revision, learned) if !self.revisions.contains_key(&revision.id) => {
                    self.create(&revision, learned);
                }
                Change::New(revision, _) | Change::Replaced(revision) => self.replace(&revision),
                Change::Updated(revision) => {
                    self.with(&revision.id, |scaler, cx| scaler.update(Arc::clone(&revision), cx));
                }
            }
        }
    }

    fn create(&mut self, revision: &Arc<Revision>, learned: Option<Box<Learned>>) {
        let scaler = Box::new(Scaler::new(Arc::clone(revision), learned, &mut self.cx));
        self.cx.take_stock(&[], &scaler.limited());
        let segment = self.recording.as_ref().map_or(0, Recording::segment);
        let entry = Entry {
            scaler,
            due: None,
            segment,
            touched: false,
        };
        self.revisions.insert(revision.id.clone(), entry);
        self.with(&revision.id, |_, _| ());
    }

    /// A revision of this name was deleted and made anew: nothing of the old one may serve for it.
    fn replace(&mut self, revision: &Arc<Revision>) {
        let id = &revision.id;
        self.with(id, Scaler::remove);
        let old = self.revisions.remove(id);
        if let Some(entry) = &old {
            self.cx.take_stock(&entry.scaler.limited(), &[]);
            unschedule(&mut self.due, entry.due, id);
        }
        self.create(revision, None);
        if let Some(old) = old {
            self.with(id, |scaler, _| scaler.inherit(*old.scaler));
        }
    }

    fn report(&mut self, report: &LoadReport) {
        if !self.cx.gateways.accept(report, self.cx.now) {
            return;
        }
        for load in &report.revisions {
            let (gateway, generation) = (&report.gateway, report.generation);
            self.with(&load.revision, |scaler, cx| scaler.load(gateway, generation, load, cx));
        }
    }

    /// Events were missed: whatever should run and does not has exited, and the others are ready or not.
    fn running(&mut self, running: &[SandboxId], unready: &[(SandboxId, Arc<str>)]) {
        let exit = Exit {
            status: ExitStatus::Signal(9),
            oom_killed: false,
            requested: false,
            unhealthy: None,
            last_output: String::new(),
            peak_memory: None,
        };
        let mut ids: Vec<RevisionId> = self.revisions.keys().cloned().collect();
        ids.sort_unstable();
        for revision in ids {
            let missing = self
                .revisions
                .get(&revision)
                .map(|entry| entry.scaler.missing(running))
                .unwrap_or_default();
            for id in missing {
                self.with(&revision, |scaler, cx| scaler.exited(&id, &exit, cx));
            }
            let changed = self
                .revisions
                .get(&revision)
                .map(|entry| entry.scaler.readiness_differs(unready))
                .unwrap_or_default();
            for (id, why) in changed {
                self.with(&revision, |scaler, cx| scaler.readiness(&id, why, cx));
            }
        }
    }

    /// A sandbox is gone, or part of its memory: those that wait for memory look again, in order, until one waits on.
    fn freed(&mut self, id: &SandboxId) {
        self.freeing.remove(id);
        for _ in 0..self.cx.hungry.len() {
            let Some((revision, _)) = self.cx.hungry.pop_front() else {
                return;
            };
            self.with(&revision, Scaler::memory_freed);
            if let Some(last) = self.cx.hungry.pop_back_if(|(hungry, _)| *hungry == revision) {
                return self.cx.hungry.push_front(last);
            }
        }
    }

    /// What a start lacks is taken from idle sandboxes, when that is enough for it; else for the next in line.
    fn make_room(&mut self) {
        let coming: u64 = self.freeing.values().map(|memory| memory.0).sum();
        for at in 0..self.cx.hungry.len() {
            let Some((_, lacks)) = self.cx.hungry.get(at) else {
                return;
            };
            let shortage = Bytes(lacks.0.saturating_sub(coming));
            if shortage.0 == 0 || self.evict(shortage, Enough::All) {
                return;
            }
        }
    }

    /// Sandboxes may grow after their start: near the end of the budget idle ones go before the kernel has to kill.
    fn relieve(&mut self) {
        if self.cx.now < self.relieve_at {
            return;
        }
        self.relieve_at = self.cx.now.plus(RELIEF);
        let Capacity { budget, used, .. } = self.cx.admission.look();
        let (high, low) = (budget.0 / 100 * HIGH_PERCENT, budget.0 / 100 * LOW_PERCENT);
        let used = used
            .0
            .saturating_sub(self.freeing.values().map(|memory| memory.0).sum());
        if budget.0 > 0 && used > high {
            self.evict(Bytes(used - low), Enough::Some);
        }
    }

    /// Whether any was chosen.
    fn evict(&mut self, shortage: Bytes, enough: Enough) -> bool {
        let order = self.cx.evictions.order(self.cx.now);
        let chosen = evict::choose(order, shortage, enough);
        for standing in &chosen {
            tracing::info!(sandbox = %standing.sandbox, bytes = standing.memory.0, "evicted: memory is short");
            self.freeing.insert(standing.sandbox.clone(), standing.memory);
            self.with(&standing.revision, Scaler::evict);
        }
        !chosen.is_empty()
    }

    /// Whoever waits for a claim, when it is its turn; whoever stands in line for a start, while there is room; and whoever
    /// lacks memory gets it from those that idle.
    fn turns(&mut self) {
        self.give_claims();
        self.make_room();
        while let Some(revision) = self.cx.admission.begin_turn(self.cx.now) {
            self.with(&revision, Scaler::turn);
            self.cx.admission.end_turn();
        }
    }

    /// Turns with exclusive claims. Each change lets a sandbox go or start, which ends it soon; a bound all the same.
    fn give_claims(&mut self) {
        for _ in 0..CLAIM_ROUNDS {
            let changed = self.cx.claims.arbitrate(self.cx.now);
            if changed.is_empty() {
                return;
            }
            for revision in changed {
                self.with(&revision, Scaler::turn_changed);
            }
        }
    }

    /// Lets something happen to a revision, and puts it where it belongs afterwards.
    fn with(&mut self, id: &RevisionId, what: impl FnOnce(&mut Scaler, &mut Context)) {
        let Some(entry) = self.revisions.get_mut(id) else {
            return;
        };
        if let Some(recording) = &mut self.recording
            && entry.segment != recording.segment()
        {
            entry.segment = recording.segment();
            recording.state(entry.due, &entry.scaler);
        }
        let before = entry.scaler.limited();
        what(&mut entry.scaler, &mut self.cx);
        self.cx.take_stock(&before, &entry.scaler.limited());
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push(id.clone());
        }
        entry.scaler.account(&self.cx);
        if entry.scaler.is_gone() {
            unschedule(&mut self.due, entry.due, id);
            self.revisions.remove(id);
            self.cx.explain.forget(id);
            self.cx.evictions.forget(id);
            self.cx.claims.forget(id);
            self.cx.costs.forget(id, self.cx.now);
            self.cx.hungry.retain(|(hungry, _)| hungry != id);
            return;
        }
        match entry.scaler.claiming(&self.cx) {
            Some(standing) => self.cx.claims.set(id, standing, self.cx.now),
            None => self.cx.claims.forget(id),
        }
        let due = entry.scaler.next_timeout(self.cx.now);
        if due != entry.due {
            unschedule(&mut self.due, entry.due, id);
            self.due.extend(due.map(|at| (at, id.clone())));
            entry.due = due;
        }
    }
}

/// Takes a revision out of the timer set.
fn unschedule(due: &mut BTreeSet<(Timestamp, RevisionId)>, at: Option<Timestamp>, id: &RevisionId) {
    if let Some(at) = at {
        due.remove(&(at, id.clone()));
    }
}

/// Turns with claims are given this often for one event.
const CLAIM_ROUNDS: usize = 8;

/// How often memory in use is looked at, while anything is due at all.
const RELIEF: Duration = Duration::from_secs(1);

/// Above this share of the budget idle sandboxes are evicted, down to the other one.
const HIGH_PERCENT: u64 = 95;
const LOW_PERCENT: u64 = 90;

mod event;
mod record;
pub use event::{Change, Event};
pub(crate) use record::Shared;

#[cfg(test)]
mod tests;
