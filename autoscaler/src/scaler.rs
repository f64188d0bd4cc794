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
//! S1. Never more sandboxes starting or ready than `max-scale` allows (initial-scale and min-scale may ask for more).
//! S2. A sandbox is stopped only after it left the endpoint set and every gateway released it, or its drain deadline passed.
//! S3. Every sandbox in the endpoint set is ready.

mod decide;
mod execute;
mod report;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{Condition, EndpointSet, LoadKind, RevisionLoad, RevisionStatus, Rung};
use manifests::ids::{GatewayId, Generation, RevisionId, SandboxId};
use manifests::revision::Revision;
use manifests::units::{Replicas, Timestamp};
use sandbox::driver::{DriverError, Exit, ExitStatus, Limits, SandboxSpec, StartError, Started};

use crate::admission::Admission;
use crate::backoff::{Backoff, WELL};
use crate::catalogue::Catalogue;
use crate::collect::{Collector, Gateways, Loads};
use crate::conditions::{Health, Trouble};
use crate::decider::{Decider, DeciderSpec, Decision, TICK};
use crate::explain::{Cause, Explain};
use crate::gate::Phase;
use crate::metrics;
use crate::names::Names;
use crate::start_latency::Latencies;

/// What the shell shall do. The order matters: limits before endpoints, endpoints before stops.
#[derive(Clone, Debug)]
pub enum Output {
    /// Start a sandbox; its end comes back as [`crate::fleet::Event::Started`].
    Start(SandboxSpec),
    /// Drop the future of that start; nothing comes back unless it was ready already.
    Cancel(SandboxId),
    /// Stop a sandbox; comes back as [`crate::fleet::Event::Stopped`].
    Stop {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// Change limits in place; comes back as [`crate::fleet::Event::LimitsSet`].
    SetLimits {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// To what.
        limits: Limits,
    },
    /// For every gateway.
    Endpoints(EndpointSet),
    /// For control.
    Status(RevisionStatus),
}

/// What all revisions share, and where they put what they want done.
pub(crate) struct Context {
    pub(crate) now: Timestamp,
    pub(crate) catalogue: Catalogue,
    pub(crate) gateways: Gateways,
    pub(crate) admission: Admission,
    pub(crate) names: Names,
    pub(crate) explain: Explain,
    /// The last one given out. One count for all revisions, so that it also grows for one that was deleted and made anew.
    pub(crate) generation: Generation,
    pub(crate) outputs: VecDeque<Output>,
}

impl Context {
    fn next_generation(&mut self) -> Generation {
        self.generation = self.generation.next();
        self.generation
    }
}

/// One revision.
pub(crate) struct Scaler {
    revision: Arc<Revision>,
    removed: bool,
    /// Knative's PodAutoscaler: where its `Active` condition is, since when, and since when it is in Proxy mode.
    phase: Phase,
    phase_since: Timestamp,
    active: Condition,
    proxy_since: Option<Timestamp>,
    initialized: bool,
    excess_burst_capacity: i32,
    /// What the decider said last; `None` is Knative's -1.
    desired: Option<Replicas>,
    decision: Option<Decision>,
    /// What shall run: the `replicas` of Knative's Deployment.
    replicas: Replicas,
    /// What the queue has raised the count to, until when: as long as panic mode would hold it.
    floor: Option<(Replicas, Timestamp)>,
    /// Standing idle on this rung by plan.
    idle: Option<Rung>,
    sandboxes: Vec<Sandbox>,
    health: Health,
    trouble: Option<Trouble>,
    backoff: Backoff,
    start_fails: bool,
    throttle_fails: bool,
    starts: Latencies,
    upgrades: Latencies,
    /// The call that an upgrade in flight answers.
    woken: Option<Timestamp>,
    loads: Loads,
    /// Requests that sandboxes made ready since the last report can have taken from the queue.
    absorbed: u32,
    hot: Option<Box<Hot>>,
    in_line: bool,
    gauged: bool,
    /// The gate, a lack of memory, the planned downgrade: look again then.
    gate_at: Option<Timestamp>,
    memory_at: Option<Timestamp>,
    downgrade_at: Option<Timestamp>,
    published: EndpointSet,
    status: Option<RevisionStatus>,
}

/// What only a revision with recent load has; the rest of 100,000 idle ones is small.
struct Hot {
    collector: Collector,
    decider: Decider,
    next_tick: Timestamp,
}

struct Sandbox {
    id: SandboxId,
    ordered: Timestamp,
    state: State,
    /// The limits in force, and whether the other ones were asked for and are not confirmed yet.
    limits: Level,
    changing: bool,
    /// Why its readiness probe fails, while it does.
    unready: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready {
        since: Timestamp,
        start: Duration,
    },
    /// `since` and `start` as they were when it was ready first.
    Unready {
        since: Timestamp,
        start: Duration,
    },
    /// `set` is the first endpoint set without it; `None` until that is published.
    Draining {
        set: Option<Generation>,
        since: Timestamp,
    },
    Stopping {
        retry: Option<Timestamp>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Full,
    Throttled,
}

impl Scaler {
    /// A new revision: its initial scale starts at once.
    pub(crate) fn new(revision: Arc<Revision>, cx: &mut Context) -> Self {
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
            phase: Phase::Activating,
            phase_since: now,
            active: Condition::unknown("Deploying", "", now),
            proxy_since: None,
            initialized: false,
            excess_burst_capacity: decide::initial_burst_capacity(&revision),
            desired: None,
            decision: None,
            replicas: scaling.initial_scale,
            floor: None,
            idle: None,
            sandboxes: Vec::new(),
            health: Health::deploying(now),
            trouble: None,
            backoff: Backoff::default(),
            start_fails: false,
            throttle_fails: false,
            starts: Latencies::default(),
            upgrades: Latencies::default(),
            woken: None,
            loads: Loads::default(),
            absorbed: 0,
            hot: None,
            in_line: false,
            gauged: false,
            gate_at: None,
            memory_at: None,
            downgrade_at: None,
            published,
            status: None,
            revision,
        };
        // Ticks of revisions that were made together are spread over the two seconds.
        let first = now.plus(TICK + spread(&new.revision.id));
        new.heat(cx, first);
        new.look(cx, Cause::Created);
        new
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

    /// Its routes or its configuration's annotations changed.
    pub(crate) fn update(&mut self, revision: Arc<Revision>, cx: &mut Context) {
        if let Some(hot) = &mut self.hot {
            hot.collector.resize(&revision.scaling, cx.now);
            hot.decider.update(DeciderSpec::of(&revision));
        }
        self.revision = revision;
        self.look(cx, Cause::Changed);
    }

    /// It is gone from the snapshot: everything drains and stops.
    pub(crate) fn remove(&mut self, cx: &mut Context) {
        if !self.removed {
            self.removed = true;
            self.look(cx, Cause::Removed);
        }
    }

    /// One entry of an accepted report.
    pub(crate) fn load(&mut self, gateway: &GatewayId, generation: Generation, load: &RevisionLoad, cx: &mut Context) {
        self.loads.update(gateway, generation, load);
        let ejected = self.eject(&load.ejected, cx.now);
        let counts = load.kind != LoadKind::Sandboxes && !self.removed;
        let busy = load.concurrency.0 > 0.0 || load.rps.0 > 0.0 || load.waiting > 0 || load.in_flight > 0;
        if counts {
            self.absorbed = 0;
            if busy && self.hot.is_none() {
                self.heat(cx, cx.now.plus(TICK));
            }
            if let Some(hot) = &mut self.hot {
                hot.collector.record(cx.now, load.concurrency.0, load.rps.0);
            }
        }
        let wake = load.kind == LoadKind::Wake;
        if wake {
            self.woken.get_or_insert(cx.now);
        }
        // Knative: a statistic with load triggers an evaluation at once while the last decision is zero.
        if counts && busy && self.desired.unwrap_or_default().0 == 0 {
            self.tick(cx);
            self.look(cx, Cause::Wake);
        } else if ejected {
            self.look(cx, Cause::Ejected);
        } else if counts && (wake || load.waiting > 0) {
            self.look(cx, Cause::Wake);
        } else {
            self.advance(cx);
        }
    }

    /// A start ended.
    pub(crate) fn started(&mut self, id: &SandboxId, result: Result<Started, StartError>, cx: &mut Context) {
        cx.admission.release(id);
        let found = self
            .sandboxes
            .iter_mut()
            .find(|sandbox| sandbox.id == *id && sandbox.state == State::Starting);
        let Some(sandbox) = found else {
            if result.is_ok() {
                // It was cancelled an instant too late.
                self.sandboxes.push(Sandbox::surplus(id.clone(), cx.now));
                self.stop(id, cx);
            }
            return;
        };
        let ordered = sandbox.ordered;
        let took = cx.now.since(ordered);
        let cause = match result {
            Ok(started) => {
                for warning in &started.warnings {
                    tracing::debug!(sandbox = %id, %warning, "isolation is degraded");
                }
                let (since, start) = (cx.now, took);
                let ready = sandbox.unready.is_none();
                sandbox.state = State::of(ready, since, start);
                self.starts.add(took);
                if ready {
                    self.absorbed = self.absorbed.saturating_add(self.slots());
                }
                self.trouble = None;
                self.start_fails = false;
                metrics::start_ended(&self.revision.id, Ok(took));
                Cause::Started(took)
            }
            Err(error) => {
                self.sandboxes.retain(|sandbox| sandbox.id != *id);
                tracing::warn!(sandbox = %id, %error, "start failed");
                metrics::start_ended(&self.revision.id, Err(execute::outcome(&error)));
                match error {
                    StartError::Exhausted(_) => self.memory_at = Some(cx.now.plus(execute::MEMORY_RETRY)),
                    StartError::Refused(_) => self.backoff.refused(cx.now),
                    _ => self.backoff.failed(ordered, cx.now),
                }
                self.start_fails = true;
                self.trouble = Some(Trouble::start(&error));
                Cause::StartFailed(error.to_string())
            }
        };
        self.look(cx, cause);
    }

    /// The readiness of a running sandbox changed; `unready` says why it is not.
    pub(crate) fn readiness(&mut self, id: &SandboxId, unready: Option<Arc<str>>, cx: &mut Context) {
        let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) else {
            return;
        };
        let ready = unready.is_none();
        sandbox.unready.clone_from(&unready);
        match sandbox.state {
            State::Ready { since, start } if !ready => sandbox.state = State::of(false, since, start),
            State::Unready { since, start } if ready => sandbox.state = State::of(true, since, start),
            // A start's result is on its way behind this; the others are out of the endpoint set for good.
            _ => return,
        }
        if ready {
            self.absorbed = self.absorbed.saturating_add(self.slots());
        }
        match unready {
            Some(why) => {
                tracing::warn!(sandbox = %id, %why, "sandbox is not ready");
                self.look(cx, Cause::Unready(why.as_ref().into()));
            }
            None => {
                tracing::info!(sandbox = %id, "sandbox is ready again");
                self.look(cx, Cause::ReadyAgain);
            }
        }
    }

    /// Its liveness probe failed for good: the driver ends it, and it is replaced.
    pub(crate) fn unhealthy(&mut self, id: &SandboxId, why: &Arc<str>, cx: &mut Context) {
        let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) else {
            return;
        };
        let (State::Ready { since, .. } | State::Unready { since, .. }) = sandbox.state else {
            return;
        };
        tracing::warn!(sandbox = %id, %why, "sandbox is not alive any more");
        sandbox.state = State::Stopping { retry: None };
        let ordered = sandbox.ordered;
        self.ran(ordered, since, false, cx);
        self.trouble = Some(Trouble::unhealthy(why));
        self.look(cx, Cause::Unhealthy(why.as_ref().into()));
    }

    /// A sandbox is gone.
    pub(crate) fn exited(&mut self, id: &SandboxId, exit: &Exit, cx: &mut Context) {
        let Some(index) = self.sandboxes.iter().position(|sandbox| sandbox.id == *id) else {
            return;
        };
        let sandbox = self.sandboxes.remove(index);
        cx.admission.release(id);
        if !exit.requested {
            metrics::exited(&self.revision.id);
            tracing::warn!(sandbox = %id, how = %exit.status, oom = exit.oom_killed, "sandbox ended by itself");
        }
        let since = match sandbox.state {
            State::Ready { since, .. } | State::Unready { since, .. } => since,
            // It ended in the instant in which it became ready, and this came first.
            State::Starting => cx.now,
            State::Draining { .. } | State::Stopping { .. } => {
                let told = exit.unhealthy.as_deref().map(Trouble::unhealthy);
                if told.is_some() && self.trouble == told {
                    self.trouble = Some(Trouble::exited(exit));
                }
                return self.look(cx, Cause::Due);
            }
        };
        let killed = exit.status == ExitStatus::Signal(9) && !exit.oom_killed;
        self.ran(sandbox.ordered, since, killed && exit.unhealthy.is_none(), cx);
        self.trouble = Some(Trouble::exited(exit));
        let memory = if exit.oom_killed { ", out of memory" } else { "" };
        self.look(cx, Cause::Exited(format!("{}{memory}", exit.status)));
    }

    /// A sandbox that was ready since `since` ended or fails for good: when the next one may start.
    fn ran(&mut self, ordered: Timestamp, since: Timestamp, killed: bool, cx: &Context) {
        if cx.now.since(since) >= WELL {
            self.backoff.recovered();
        } else if !killed {
            self.backoff.failed(ordered, cx.now);
        }
    }

    /// A stop ended. Its exit event may have come before.
    pub(crate) fn stopped(&mut self, id: &SandboxId, result: Result<(), DriverError>, cx: &mut Context) {
        match result {
            Ok(()) => self.sandboxes.retain(|sandbox| sandbox.id != *id),
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "stop failed, will be tried again");
                if let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) {
                    sandbox.state = State::Stopping {
                        retry: Some(cx.now.plus(execute::STOP_RETRY)),
                    };
                }
            }
        }
        self.look(cx, Cause::Due);
    }

    /// Limits were changed, or not.
    pub(crate) fn limits_set(&mut self, id: &SandboxId, result: Result<(), DriverError>, cx: &mut Context) {
        let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) else {
            return;
        };
        sandbox.changing = false;
        let asked = sandbox.limits.other();
        match result {
            Ok(()) => {
                sandbox.limits = asked;
                if asked == Level::Full
                    && let Some(woken) = self.woken.take()
                {
                    self.upgrades.add(cx.now.since(woken));
                }
            }
            Err(DriverError::NotFound(_)) => return,
            Err(error) if asked == Level::Throttled => {
                tracing::warn!(sandbox = %id, %error, "limits cannot be changed here, the throttled rung is not used");
                self.throttle_fails = true;
            }
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "limits could not be raised, the sandbox is replaced");
                self.eject(std::slice::from_ref(id), cx.now);
            }
        }
        self.look(cx, Cause::Due);
    }

    /// Its turn to start one of the replicas it wants.
    pub(crate) fn turn(&mut self, cx: &mut Context) {
        self.in_line = false;
        self.look(cx, Cause::Due);
    }

    /// Something that was to be looked at again is due.
    pub(crate) fn timeout(&mut self, cx: &mut Context) {
        let ticks = self.hot.as_ref().is_some_and(|hot| hot.next_tick <= cx.now);
        if ticks && !self.removed {
            self.tick(cx);
            if let Some(hot) = &mut self.hot {
                // As Go's tickers: those that were missed are not made up for.
                let next = hot.next_tick.plus(TICK);
                hot.next_tick = if next > cx.now { next } else { cx.now.plus(TICK) };
            }
            self.look(cx, Cause::Tick);
        } else {
            self.look(cx, Cause::Due);
        }
    }

    /// Decides, executes, reports.
    fn look(&mut self, cx: &mut Context, cause: Cause) {
        let from = self.wanted();
        let decided = if self.removed {
            self.nothing(cx)
        } else {
            self.decide(cx)
        };
        self.execute(&decided, cx);
        self.report(from, decided, cause, cx);
        self.advance(cx);
        self.cool(cx);
    }

    /// Makes windows and decider, when load comes.
    fn heat(&mut self, cx: &Context, next_tick: Timestamp) {
        let scaling = &self.revision.scaling;
        let spec = DeciderSpec::of(&self.revision);
        self.hot = Some(Box::new(Hot {
            collector: Collector::new(scaling),
            decider: Decider::new(spec, scaling.scale_down_delay, self.ready(), cx.now),
            next_tick,
        }));
    }

    /// Drops them when they hold nothing that a new one would not: from then on the revision costs no time.
    fn cool(&mut self, cx: &Context) {
        let idle = self.phase == Phase::Inactive
            && (self.replicas.0 == 0 || self.idle.is_some())
            && self.desired.unwrap_or_default().0 == 0
            && self.loads.is_idle(&cx.gateways, cx.now);
        let settled = |hot: &Hot| hot.collector.is_empty(cx.now) && hot.decider.is_settled(cx.now);
        if self.removed || idle && self.hot.as_deref().is_some_and(settled) {
            self.hot = None;
            self.decision = None;
        }
    }

    fn ready(&self) -> Replicas {
        count(
            self.sandboxes
                .iter()
                .filter(|sandbox| matches!(sandbox.state, State::Ready { .. })),
        )
    }

    /// Running ones whose readiness probe fails.
    fn unready(&self) -> Replicas {
        let unready = |sandbox: &&Sandbox| matches!(sandbox.state, State::Unready { .. });
        count(self.sandboxes.iter().filter(unready))
    }

    /// Why none is ready, when that is for a readiness probe.
    fn unready_why(&self) -> Option<&Arc<str>> {
        let mut newest = self.sandboxes.iter().rev();
        let newest = newest.find(|sandbox| matches!(sandbox.state, State::Unready { .. }))?;
        newest.unready.as_ref().filter(|_| self.ready().0 == 0)
    }

    /// Those that run or are on their way, ready or not: the Pods of Knative's Deployment.
    fn live(&self) -> u32 {
        self.ready().0 + self.unready().0 + self.starting().0
    }

    fn starting(&self) -> Replicas {
        count(self.sandboxes.iter().filter(|sandbox| sandbox.state == State::Starting))
    }

    /// Requests one replica can take at once.
    fn slots(&self) -> u32 {
        self.revision.container_concurrency.limit().unwrap_or(u32::MAX)
    }

    /// Replicas that shall run.
    fn wanted(&self) -> Replicas {
        match self.idle {
            Some(rung) if rung > Rung::Zero => Replicas(1),
            _ => self.replicas,
        }
    }
}

impl Sandbox {
    /// One that nobody wants any more.
    fn surplus(id: SandboxId, now: Timestamp) -> Self {
        Self {
            id,
            ordered: now,
            state: State::Draining { set: None, since: now },
            limits: Level::Full,
            changing: false,
            unready: None,
        }
    }
}

impl State {
    const fn of(ready: bool, since: Timestamp, start: Duration) -> Self {
        if ready {
            Self::Ready { since, start }
        } else {
            Self::Unready { since, start }
        }
    }
}

impl Level {
    const fn other(self) -> Self {
        match self {
            Self::Full => Self::Throttled,
            Self::Throttled => Self::Full,
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
