//! PURE  One revision's scaling: what happens to it goes in, what shall be done comes out. No clock, no task, no driver.
//!
//! ```text
//!            load, tick ──▶ decide: decider ─▶ bounds ─▶ queue ─▶ gate ─▶ planner      (decide.rs)
//! started, exited, gone ──▶   │
//!                             ▼
//!                          execute: limits ─▶ starts ─▶ drains ─▶ stops                (execute.rs)
//!                             ▼
//!                          report: EndpointSet, RevisionStatus, metrics, explain      (report.rs)
//! ```
//!
//! A sandbox goes through: *starting* ─▶ *ready* (in the endpoint set) ─▶ *draining* (out of the set, until every gateway
//! has nothing there) ─▶ *stopping* ─▶ gone. A start that is not wanted any more is cancelled; a sandbox that exits is gone
//! from wherever it was. One whose readiness probe fails is *unready*: out of the endpoint set, but still one of those that
//! run (as a Pod that is not Ready still counts for its Deployment), until it is ready again. One whose liveness probe has
//! failed is *stopping* at once, by its driver, and is replaced.
//!
//! One that shall stay frozen drains like any other, until every gateway has neither a request nor a connection there; then:
//! *freezing* ─▶ *frozen* ─▶ *thawing* ─▶ *ready*. Woken while it drains, it is ready again at once; woken while it is being
//! frozen, it is thawed as soon as it stands still.
//!
//! Where an idle revision stands follows from its policy (idle.rs) or from the planner's schedule (course.rs, menu.rs). What
//! a sandbox runs on is a spec of the catalogue: changed in place where it can be, else another sandbox is started beside, and
//! the first one serves until that is ready, on the way down as on the way up. What arrives on a cheaper instance stays there
//! while it is enough. With `knarr.dev/idle: auto` load is served on the cheapest mix of at most two specs (busy.rs).
//!
//! S1. Never more sandboxes starting or ready than `max-scale` allows (initial-scale and min-scale may ask for more). One that
//!     is to be replaced by another on a different spec, and that one, count as one.
//! S2. A sandbox is stopped only after it left the endpoint set and every gateway released it, or its drain deadline passed.
//! S3. Every sandbox in the endpoint set is ready, and none of them is frozen or being frozen.
//! S4. A sandbox is frozen only after it left the endpoint set and every gateway has neither a request nor a connection
//!     there, and only where the manifest asks for it; at most one of a revision, or as many as min-scale says.
//! S5. A frozen sandbox counts as no replica: it is neither ready nor starting.
//! S6. Idle sandboxes are evicted only while something does not fit, in the order of [`crate::evict`], and never one that a
//!     request needs.
//! S7. Of all revisions that share a claim which one sandbox may have at a time, at most one has a sandbox, and only one;
//!     see [`crate::claims`].

mod busy;
mod claims;
mod cost;
mod course;
mod decide;
mod events;
mod execute;
mod freeze;
mod idle;
mod learn;
mod memory;
mod menu;
mod report;
mod types;

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{Condition, EndpointSet, Rung};
use manifests::ids::{Generation, ObjectId, RevisionId, SandboxId};
use manifests::revision::Revision;
use manifests::units::{Bytes, Replicas, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, Setbacks};
use crate::collect::{Collector, Loads};
use crate::conditions::{Health, Trouble, deploying};
use crate::decider::{Decider, DeciderSpec, Decision, TICK};
use crate::evict::Rhythm;
use crate::explain::Cause;
use crate::gate::Phase;
use crate::learned::Learned;
use crate::metrics::Handles;
use crate::planner::Gaps;
use crate::slowdown::Usual;
use crate::specs::{Spec, Specs};
use crate::start_latency::Latencies;

use busy::Share;
use course::{Elsewhere, Mind};
pub(crate) use types::Context;
use types::{Hot, Sandbox, State};
pub use types::{Output, Planners};

/// One revision.
#[derive(Serialize, Deserialize)]
pub(crate) struct Scaler {
    #[serde(with = "crate::flight::manifest")]
    revision: Arc<Revision>,
    removed: bool,
    /// Claims that it shares with nobody at a time.
    exclusive: Option<Arc<[ObjectId]>>,
    /// Knative's PodAutoscaler: where its `Active` condition is, since when, and since when it is in Proxy mode.
    phase: Phase,
    phase_since: Timestamp,
    active: Condition,
    proxy_since: Option<Timestamp>,
    initialized: bool,
    excess_burst_capacity: i32,
    /// What the decider said last; `None` is Knative's -1.
    desired: Option<Replicas>,
    /// What shall run: the `replicas` of Knative's Deployment.
    replicas: Replicas,
    /// What the queue has raised the count to, until when: as long as panic mode would hold it.
    floor: Option<(Replicas, Timestamp)>,
    /// Standing idle on this rung, by policy or by plan.
    idle: Option<Rung>,
    /// The cheaper spec that all instances shall run on now; `None` is the full one, or a mix.
    low: Option<Arc<Spec>>,
    /// What the load is served on, by the busy plan; `None` is `replicas` alike.
    mix: Option<Box<[Share]>>,
    /// What instances may run on.
    specs: Arc<Specs>,
    /// What only a revision has that plans its idle times, or serves on a cheaper spec.
    mind: Option<Box<Mind>>,
    /// Whether the hours of keep-warm are open, or about to be, and until when that was looked at; `None` without any.
    warm: Option<(bool, Timestamp)>,
    sandboxes: Vec<Sandbox>,
    health: Health,
    trouble: Option<Box<Trouble>>,
    backoff: Backoff,
    start_fails: bool,
    /// Rungs that are not tried for now.
    setbacks: Setbacks,
    starts: Latencies,
    /// How long requests take on a full instance.
    usual: Usual,
    /// What was measured on cheaper specs.
    elsewhere: Vec<Elsewhere>,
    upgrades: Latencies,
    thaws: Latencies,
    /// Since when no gateway has had a request; `None` while one has.
    quiet_since: Option<Timestamp>,
    /// How often it is woken, for evictions.
    rhythm: Rhythm,
    /// Something of it is among what may be evicted.
    stands: bool,
    /// The memory of its idle sandbox was needed elsewhere: none stays until it is woken.
    evicted: bool,
    /// The most memory that its last sandbox had.
    peak: Option<Bytes>,
    /// Since when a start does not fit into memory.
    short_since: Option<Timestamp>,
    /// The call that an upgrade in flight answers.
    woken: Option<Timestamp>,
    /// The last look: what was due until then is done.
    looked: Timestamp,
    loads: Loads,
    /// Requests that sandboxes made ready since the last report can have taken from the queue.
    absorbed: u32,
    hot: Option<Box<Hot>>,
    in_line: bool,
    gauged: bool,
    #[serde(skip)]
    gauges: Option<Box<Handles>>,
    /// The gate, a lack of memory, the planned downgrade, the freeze delay: look again then.
    gate_at: Option<Timestamp>,
    memory_at: Option<Timestamp>,
    downgrade_at: Option<Timestamp>,
    freeze_at: Option<Timestamp>,
    #[serde(with = "crate::flight::endpoints")]
    published: EndpointSet,
    status: Option<manifests::exchange::RevisionStatus>,
}

impl Scaler {
    /// A new revision: its initial scale starts at once. `learned` is what it has taught before a restart of Knarr.
    pub(crate) fn new(revision: Arc<Revision>, learned: Option<Box<Learned>>, cx: &mut Context) -> Self {
        let now = cx.now;
        let scaling = &revision.scaling;
        let published = EndpointSet {
            revision: revision.id.clone(),
            generation: Generation::default(),
            rung: Rung::Zero,
            endpoints: Vec::new(),
            trouble: None,
            refuses: false,
        };
        let mut new = Self {
            removed: false,
            exclusive: claims::of(&revision),
            phase: Phase::Activating,
            phase_since: now,
            active: deploying(now),
            proxy_since: None,
            initialized: false,
            excess_burst_capacity: decide::initial_burst_capacity(&revision),
            desired: None,
            replicas: scaling.initial_scale,
            floor: None,
            idle: None,
            low: None,
            mix: None,
            specs: cx.specs(&revision),
            mind: Mind::of(&revision, cx),
            warm: None,
            sandboxes: Vec::new(),
            health: Health::deploying(now),
            trouble: None,
            backoff: Backoff::default(),
            start_fails: false,
            setbacks: Setbacks::default(),
            starts: Latencies::default(),
            usual: Usual::default(),
            elsewhere: Vec::new(),
            upgrades: Latencies::default(),
            thaws: Latencies::default(),
            quiet_since: None,
            rhythm: Rhythm::default(),
            stands: false,
            evicted: false,
            peak: None,
            short_since: None,
            woken: None,
            looked: now,
            loads: Loads::default(),
            absorbed: 0,
            hot: None,
            in_line: false,
            gauged: false,
            gauges: None,
            gate_at: None,
            memory_at: None,
            downgrade_at: None,
            freeze_at: None,
            published,
            status: None,
            revision,
        };
        if let Some(learned) = learned {
            new.learn(*learned);
            cx.population.shown(None, new.gaps());
        }
        // Ticks of revisions that were made together are spread over the two seconds.
        let first = now.plus(TICK + spread(&new.revision.id));
        new.heat(cx, first);
        new.look(cx, Cause::Created);
        new
    }

    /// What it scales.
    pub(crate) const fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    /// The idle times that its planner has seen.
    fn gaps(&self) -> Option<&Gaps> {
        self.mind.as_ref()?.gaps()
    }

    /// Which revision it is.
    pub(crate) fn id(&self) -> &RevisionId {
        &self.revision.id
    }

    /// Takes over what a revision of the same name left behind, which was removed and is made anew.
    pub(crate) fn inherit(&mut self, old: Self) {
        self.loads = old.loads;
        self.published.generation = old.published.generation;
        self.sandboxes.extend(old.sandboxes);
    }

    /// Sandboxes that should run and are not in the list.
    pub(crate) fn missing(&self, running: &[SandboxId]) -> Vec<SandboxId> {
        let gone = |sandbox: &&Sandbox| sandbox.state != State::Starting && !running.contains(&sandbox.id);
        self.sandboxes
            .iter()
            .filter(gone)
            .map(|sandbox| sandbox.id.clone())
            .collect()
    }

    /// Running sandboxes whose readiness is not what it is known to be, with what it is.
    pub(crate) fn readiness_differs(&self, unready: &[(SandboxId, Arc<str>)]) -> Vec<(SandboxId, Option<Arc<str>>)> {
        let now = |id: &SandboxId| unready.iter().find(|(of, _)| of == id).map(|(_, why)| Arc::clone(why));
        self.sandboxes
            .iter()
            .map(|sandbox| (sandbox.id.clone(), sandbox.state, now(&sandbox.id)))
            .filter(|(_, state, why)| match state {
                State::Ready { .. } => why.is_some(),
                State::Unready { .. } => why.is_none(),
                _ => false,
            })
            .map(|(id, _, why)| (id, why))
            .collect()
    }

    /// Nothing runs and nothing is left to say: a removed revision can be forgotten.
    pub(crate) fn is_gone(&self) -> bool {
        self.removed && self.sandboxes.is_empty()
    }

    /// What a sandbox runs on, or was asked to change to.
    pub(crate) fn spec_of(&self, id: &SandboxId) -> Option<Arc<Spec>> {
        let sandbox = self.sandboxes.iter().find(|sandbox| sandbox.id == *id)?;
        Some(Arc::clone(sandbox.changes.as_ref().unwrap_or(&sandbox.spec)))
    }

    /// Its routes or its configuration's annotations changed.
    pub(crate) fn update(&mut self, revision: Arc<Revision>, cx: &mut Context) {
        if let Some(hot) = &mut self.hot {
            hot.collector.resize(&revision.scaling, cx.now);
            hot.decider.update(DeciderSpec::of(&revision));
        }
        self.exclusive = claims::of(&revision);
        self.specs = cx.specs(&revision);
        if self.revision.idle != revision.idle {
            cx.population.shown(self.gaps(), None);
            self.mind = Mind::of(&revision, cx);
        }
        self.warm = None;
        self.setbacks = Setbacks::default();
        self.forget_course();
        self.revision = revision;
        self.look(cx, Cause::Changed);
    }

    /// The catalogue changed.
    pub(crate) fn price_anew(&mut self, cx: &mut Context) {
        let specs = cx.specs(&self.revision);
        if *specs == *self.specs {
            return;
        }
        for sandbox in &mut self.sandboxes {
            // What the driver was told is the same; what it costs is not.
            if let Some(spec) = specs.named(&sandbox.spec.name)
                && spec.limits == sandbox.spec.limits
            {
                sandbox.spec = Arc::clone(spec);
            }
        }
        self.low = self.low.take().and_then(|low| specs.named(&low.name).cloned());
        self.mix = None;
        self.specs = specs;
        self.forget_course();
        self.look(cx, Cause::Changed);
    }

    /// It is gone from the snapshot: everything drains and stops.
    pub(crate) fn remove(&mut self, cx: &mut Context) {
        if !self.removed {
            self.removed = true;
            cx.population.shown(self.gaps(), None);
            self.look(cx, Cause::Removed);
        }
    }

    /// Decides, executes, reports.
    fn look(&mut self, cx: &mut Context, cause: Cause) {
        if self.setbacks.until(self.looked).is_some_and(|until| until <= cx.now) {
            // There is more to choose from again.
            self.forget_course();
        }
        self.looked = cx.now;
        let from = self.wanted();
        let mut decided = if self.removed {
            self.nothing(cx)
        } else {
            self.decide(cx)
        };
        self.give_way(&mut decided, cx);
        self.execute(&decided, cx);
        self.settle(cx.now);
        self.report(from, decided, cause, cx);
        self.advance(cx);
        self.stand(cx);
        self.cool(cx);
    }

    /// Makes windows and decider, when load comes.
    fn heat(&mut self, cx: &Context, next_tick: Timestamp) {
        let scaling = &self.revision.scaling;
        let spec = DeciderSpec::of(&self.revision);
        self.hot = Some(Box::new(Hot {
            collector: Collector::new(scaling),
            decider: Decider::new(spec, scaling.scale_down_delay, self.ready(), cx.now),
            decision: None,
            next_tick,
        }));
    }

    /// What the decider said last, with why.
    fn decision(&self) -> Option<&Decision> {
        self.hot.as_ref()?.decision.as_ref()
    }

    /// Drops them when they hold nothing that a new one would not: from then on the revision costs no time.
    fn cool(&mut self, cx: &Context) {
        let idle = (self.phase == Phase::Inactive || self.idle.is_some())
            && (self.replicas.0 == 0 || self.idle.is_some())
            && self.desired.unwrap_or_default().0 == 0
            && self.loads.is_idle(&cx.gateways, cx.now);
        let settled = |hot: &Hot| hot.collector.is_empty(cx.now) && hot.decider.is_settled(cx.now);
        if self.removed || idle && self.hot.as_deref().is_some_and(settled) {
            self.hot = None;
        }
        if self.hot.is_none() {
            self.shrink();
        }
    }

    /// Gives back what a look makes anew when it needs it: an idle revision is one of very many.
    fn shrink(&mut self) {
        self.gauges = None;
        self.sandboxes.shrink_to_fit();
        for latencies in [&mut self.starts, &mut self.upgrades, &mut self.thaws] {
            latencies.shrink();
        }
        for known in &mut self.elsewhere {
            known.starts.shrink();
        }
    }

    fn ready(&self) -> Replicas {
        count(self.sandboxes.iter().filter(|sandbox| sandbox.is_ready()))
    }

    /// Why none is ready, when that is for a readiness probe.
    fn unready_why(&self) -> Option<&Arc<str>> {
        let mut newest = self.sandboxes.iter().rev();
        let newest = newest.find(|sandbox| matches!(sandbox.state, State::Unready { .. }))?;
        newest.unready.as_ref().filter(|_| self.ready().0 == 0)
    }

    /// Those that run or are on their way, ready or not: the Pods of Knative's Deployment.
    fn live(&self) -> u32 {
        count(self.sandboxes.iter().filter(|sandbox| sandbox.is_live())).0
    }

    /// On their way to ready: being started or thawed.
    fn starting(&self) -> Replicas {
        let coming = |sandbox: &&Sandbox| {
            matches!(
                sandbox.state,
                State::Starting | State::Thawing { .. } | State::Freezing { woken: Some(_) }
            )
        };
        count(self.sandboxes.iter().filter(coming))
    }

    /// Requests one replica can take at once.
    fn slots(&self) -> u32 {
        self.revision.container_concurrency.limit().unwrap_or(u32::MAX)
    }

    /// Replicas that shall run.
    fn wanted(&self) -> Replicas {
        match self.idle {
            // A frozen one does not count.
            Some(Rung::Frozen) => Replicas(0),
            Some(rung) if rung > Rung::Zero => Replicas(self.stands_with()),
            _ => match &self.mix {
                Some(mix) => Replicas(mix.iter().map(|(_, count)| count).sum()),
                None => self.replicas,
            },
        }
    }
}

fn count<'a>(sandboxes: impl Iterator<Item = &'a Sandbox>) -> Replicas {
    Replicas(u32::try_from(sandboxes.count()).unwrap_or(u32::MAX))
}

/// A part of the tick interval, always the same for one name (FNV-1a).
fn spread(revision: &RevisionId) -> Duration {
    let bytes = revision.namespace().bytes().chain(revision.name().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    Duration::from_millis(hash % 1000 * 2)
}
