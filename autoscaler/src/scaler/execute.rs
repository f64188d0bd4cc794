//! From what shall run to starts, limits, drains and stops; each step looks at what there is now.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::SandboxId;
use manifests::units::Timestamp;
use sandbox::driver::{SandboxSpec, StartError};

use super::Scaler;
use super::busy::Share;
use super::decide::{DOWNGRADE_AFTER, Decided};
use super::types::{Context, Output, Sandbox, State, Then};
use crate::admission::Refused;
use crate::conditions::Trouble;
use crate::specs::Spec;

impl Scaler {
    /// Limits first: an upgrade in place is what a waiting request needs soonest.
    pub(super) fn execute(&mut self, decided: &Decided, cx: &mut Context) {
        let shares = self.shares(decided.up.0);
        self.change_specs(&shares, cx);
        self.thaw_missing(&shares, cx);
        self.start_missing(&shares, cx);
        self.drop_surplus(&shares, decided.keep.0.saturating_sub(decided.up.0), cx);
        self.drop_frozen(cx);
    }

    /// Gives up on sandboxes that a gateway could not use any more; true when one of them was still in use.
    pub(super) fn eject(&mut self, ids: &[SandboxId], now: Timestamp) -> bool {
        let mut any = false;
        for sandbox in &mut self.sandboxes {
            if matches!(sandbox.state, State::Ready { .. } | State::Unready { .. }) && ids.contains(&sandbox.id) {
                sandbox.state = State::drain(now);
                any = true;
            }
        }
        any
    }

    /// Stops or freezes what has drained.
    pub(super) fn advance(&mut self, cx: &mut Context) {
        let longest = self.revision.timeouts.request + DRAIN_MARGIN;
        let (mut stops, mut freezes) = (Vec::new(), Vec::new());
        for Sandbox { id, state, .. } in &self.sandboxes {
            match *state {
                State::Draining {
                    set: Some(set),
                    since,
                    then,
                } => {
                    let late = cx.now >= since.plus(longest);
                    let (loads, gateways) = (&self.loads, &cx.gateways);
                    match then {
                        Then::Freeze if loads.disconnected(gateways, id, set, since, cx.now) => {
                            freezes.push(id.clone())
                        }
                        // A connection that does not end: it is no use to anybody.
                        Then::Freeze if late => stops.push(id.clone()),
                        Then::Stop if late || loads.released(gateways, id, set, since, cx.now) => {
                            stops.push(id.clone())
                        }
                        _ => {}
                    }
                }
                State::Stopping { retry: Some(at) } if at <= cx.now => stops.push(id.clone()),
                _ => {}
            }
        }
        for id in freezes {
            self.freeze(&id, cx);
        }
        for id in stops {
            self.stop(&id, cx);
        }
    }

    pub(super) fn stop(&mut self, id: &SandboxId, cx: &mut Context) {
        let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) else {
            return;
        };
        sandbox.state = State::Stopping { retry: None };
        let revision = self.revision.id.clone();
        let mut grace = self.revision.workload.stop_grace;
        if self.evicted {
            // Somebody waits for its memory.
            grace = grace.min(EVICTION_GRACE);
        }
        cx.outputs.push_back(Output::Stop {
            revision,
            id: id.clone(),
            grace,
        });
    }

    /// When to look again by time alone.
    pub(crate) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        // What keeps a start back counts only while one is missing.
        let held = [self.memory_at, self.backoff.until(now)].into_iter().flatten().min();
        let missing = || self.assign(&self.shares(self.wanted().0)).is_short();
        let drains = self.sandboxes.iter().filter_map(|sandbox| match sandbox.state {
            // Absence from whole pictures frees sandboxes too, and causes no call.
            State::Draining { .. } => Some(now.plus(DRAIN_LOOK)),
            State::Stopping { retry } => retry,
            _ => None,
        });
        drains
            .chain(self.hot.as_ref().map(|hot| hot.next_tick))
            .chain(self.gate_at)
            .chain(self.downgrade_at)
            .chain(self.freeze_at)
            .chain(self.step_at())
            .chain(self.warm_at())
            .chain(self.setbacks.until(self.looked))
            .chain(held.filter(|_| missing()))
            .min()
    }

    /// What instances shall run on now.
    pub(super) fn wanted_spec(&self) -> Arc<Spec> {
        Arc::clone(self.low.as_ref().unwrap_or_else(|| self.specs.full()))
    }

    /// Changes what is ready to the spec that is wanted, where that can be done in place.
    fn change_specs(&mut self, shares: &[Share], cx: &mut Context) {
        if self.wanted().0 == 0 {
            // What goes, or is frozen, goes as it is.
            self.downgrade_at = None;
            return;
        }
        let assigned = self.assign(shares).to;
        let target = |index: usize| assigned[index].map(|part| &shares[part].0);
        let other = |spec: &Spec, target: &Spec| spec.name != target.name || spec.limits != target.limits;
        let due: Vec<(usize, Arc<Spec>)> = (0..self.sandboxes.len())
            .filter(|index| self.sandboxes[*index].is_ready())
            .filter_map(|index| Some((index, Arc::clone(target(index)?))))
            .filter(|(index, target)| other(&self.sandboxes[*index].spec, target))
            .collect();
        let lowers = due
            .iter()
            .any(|(index, to)| self.sandboxes[*index].spec.price > to.price);
        self.downgrade_at = match self.downgrade_at {
            _ if !lowers => None,
            // The rung goes out with this look; the limit follows when every gateway has it.
            None => Some(cx.now.plus(DOWNGRADE_AFTER)),
            at => at,
        };
        if self.downgrade_at.is_none_or(|at| at <= cx.now) {
            self.downgrade_at = None;
            for (index, target) in &due {
                self.change(*index, target, cx);
            }
        }
        if due.is_empty() {
            self.woken = None;
        }
    }

    /// Asks the driver for other limits, unless it is asked already.
    pub(super) fn change(&mut self, index: usize, target: &Arc<Spec>, cx: &mut Context) {
        let sandbox = &mut self.sandboxes[index];
        if sandbox.changes.is_none() {
            sandbox.changes = Some(Arc::clone(target));
            let (revision, id) = (self.revision.id.clone(), sandbox.id.clone());
            let limits = target.limits;
            cx.outputs.push_back(Output::SetLimits { revision, id, limits });
        }
    }

    fn start_missing(&mut self, shares: &[Share], cx: &mut Context) {
        let now = cx.now;
        self.memory_at = self.memory_at.filter(|at| *at > now);
        let assigned = self.assign(shares);
        if !assigned.is_short() || self.must_wait(cx) {
            return self.has_room(cx);
        }
        if self.in_line || self.backoff.until(now).is_some() || self.memory_at.is_some() {
            return;
        }
        // What is for nothing here serves on until it is replaced.
        let serves = self.by_worth().into_iter().any(|index| assigned.to[index].is_none());
        let needs = self.promise(cx);
        for ((target, _), missing) in shares.iter().zip(assigned.missing) {
            // Changed in place when it is ready: an app starts faster with all of its CPU.
            let spec = if target.in_place { self.specs.full() } else { target };
            let spec = Arc::clone(spec);
            for _ in 0..missing {
                let id = cx.names.next(&self.revision.id);
                match cx.admission.admit(&id, needs, now) {
                    Ok(()) => self.start(id, Arc::clone(&spec), cx),
                    Err(Refused::Busy) => {
                        self.in_line = true;
                        return cx.admission.join(self.revision.id.clone());
                    }
                    // Nobody has to make room for what only replaces something.
                    Err(Refused::Memory(_)) if serves => {
                        self.memory_at = Some(now.plus(MEMORY_RETRY));
                        return;
                    }
                    Err(Refused::Memory(short)) => return self.does_not_fit(short, cx),
                }
            }
        }
        self.has_room(cx);
    }

    fn start(&mut self, id: SandboxId, spec: Arc<Spec>, cx: &mut Context) {
        if self.trouble.as_deref().is_some_and(Trouble::is_unschedulable) {
            self.trouble = None;
        }
        let revision = &self.revision;
        cx.outputs.push_back(Output::Start(SandboxSpec {
            id: id.clone(),
            revision: revision.id.clone(),
            configuration: revision.configuration.clone(),
            service: revision.service.clone(),
            workload: revision.workload.clone(),
            limits: spec.limits,
            deadline: revision.scaling.progress_deadline,
        }));
        self.sandboxes.push(Sandbox::ordered(id, spec, cx.now));
    }

    /// What is for nothing goes, the newest first, starts before unready and those before ready ones; `spare` of it may stay.
    /// What serves goes only when what replaces it is ready: until then as much serves as shall.
    fn drop_surplus(&mut self, shares: &[Share], mut spare: u32, cx: &mut Context) {
        let assigned = self.assign(shares);
        let target = self.wanted_spec();
        let cold = super::count(self.sandboxes.iter().filter(|sandbox| sandbox.state.is_cold())).0;
        let part = |index: usize| self.part_of_full(&self.sandboxes[index].spec);
        let all: f64 = shares
            .iter()
            .map(|(spec, count)| f64::from(*count) * self.part_of_full(spec))
            .sum();
        let (stays, surplus): (Vec<usize>, Vec<usize>) = self
            .by_worth()
            .into_iter()
            .partition(|index| assigned.to[*index].is_some());
        let mut serving: f64 = stays
            .iter()
            .filter(|index| self.sandboxes[**index].is_ready())
            .map(|index| part(*index))
            .sum();
        let fits = |index: &usize| self.specs.changes(&self.sandboxes[*index].spec, &target);
        let mut fitting = u32::try_from(stays.iter().filter(|index| fits(index)).count()).unwrap_or(u32::MAX);
        let mut goes = Vec::new();
        for index in surplus {
            let sandbox = &self.sandboxes[index];
            let (ready, fits) = (sandbox.is_ready(), fits(&index));
            if sandbox.state.is_cold() {
                // It cannot be stopped before it stands still or runs.
                continue;
            }
            let alike = shares.iter().any(|(spec, _)| self.specs.changes(&sandbox.spec, spec));
            if alike && spare > 0 {
                spare -= 1;
            } else if serving < all * ENOUGH && (ready || !alike) {
                serving += part(index);
            } else {
                let freezes = self.idle == Some(Rung::Frozen) && fits && fitting + cold < self.stands_with() && ready;
                goes.push((sandbox.id.clone(), if freezes { Then::Freeze } else { Then::Stop }));
            }
            fitting += u32::from(fits);
        }
        for (id, then) in goes.into_iter().rev() {
            if let Some(index) = self.sandboxes.iter().position(|sandbox| sandbox.id == id) {
                self.drop_one(index, then, cx);
            }
        }
    }

    fn drop_one(&mut self, index: usize, then: Then, cx: &mut Context) {
        if self.sandboxes[index].state == State::Starting {
            let sandbox = self.sandboxes.remove(index);
            self.pay_rest(&sandbox, cx);
            cx.admission.release(&sandbox.id);
            cx.outputs.push_back(Output::Cancel(sandbox.id));
        } else {
            self.sandboxes[index].state = State::Draining {
                set: None,
                since: cx.now,
                then,
            };
        }
    }
}

/// The label of a failed start in metrics.
pub(super) const fn outcome(error: &StartError) -> &'static str {
    match error {
        StartError::Exited(_) => "exited",
        StartError::NotReady { .. } => "not_ready",
        StartError::Refused(_) => "refused",
        StartError::Exhausted(_) => "exhausted",
        StartError::Driver(_) => "driver",
    }
}

/// Sums of parts are as exact as this.
const ENOUGH: f64 = 1.0 - 1e-9;

/// After a start that did not fit, look again this much later.
pub(super) const MEMORY_RETRY: Duration = Duration::from_secs(1);

/// After a stop that failed, try again this much later.
pub(super) const STOP_RETRY: Duration = Duration::from_secs(5);

/// How long an evicted sandbox may take to end by itself.
const EVICTION_GRACE: Duration = Duration::from_secs(2);

const DRAIN_LOOK: Duration = Duration::from_secs(1);

/// A drain may take as long as a request may, and a little more.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
