//! Standing frozen instead of at zero: when, how it comes about, and the way back.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::SandboxId;
use manifests::revision::IdlePolicy;
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::{DriverError, Reclaimed};

use super::Scaler;
use super::busy::Share;
use super::types::{Context, Output, Sandbox, State, Then};
use crate::explain::Cause;
use crate::gate::Phase;
use crate::metrics;

impl Scaler {
    /// A report tells of requests.
    pub(super) fn asked(&mut self, now: Timestamp) {
        self.quiet_since = None;
        self.rhythm.asked(now);
    }

    /// Keeps count of how long no gateway has had a request.
    pub(super) fn look_whether_quiet(&mut self, cx: &Context) {
        let quiet = self.loads.is_idle(&cx.gateways, cx.now);
        self.quiet_since = quiet.then(|| self.quiet_since.unwrap_or(cx.now));
        self.freeze_at = self
            .delay_ends(cx)
            .filter(|_| self.idle.is_none() && self.ready().0 > 0);
    }

    /// Whether this revision may be frozen on this host.
    pub(super) fn can_freeze(&self, cx: &Context) -> bool {
        let fails = match self.revision.idle {
            IdlePolicy::Auto => self.setbacks.holds(Rung::Frozen, self.looked),
            // Another try would keep it from zero for a while.
            _ => self.setbacks.has(Rung::Frozen),
        };
        cx.freezes && !fails
    }

    /// Whether `knarr.dev/freeze-delay` is over, counted from the last request or from when it was ready, whichever is
    /// later. It does what Knative's window, grace and retention do otherwise, and no more: what keeps a revision from
    /// zero (min-scale, scale-to-zero off, a start that is not over) keeps it from being frozen, and one that nobody can
    /// reach goes to zero.
    pub(super) fn delay_is_over(&self, cx: &Context) -> bool {
        self.delay_ends(cx).is_some_and(|at| at <= cx.now)
    }

    /// When that is.
    pub(super) fn delay_ends(&self, cx: &Context) -> Option<Timestamp> {
        let IdlePolicy::Frozen { delay: Some(delay) } = self.revision.idle else {
            return None;
        };
        let may = self.initialized
            && self.phase != Phase::Activating
            && self.least_rung() <= Rung::Frozen
            && self.can_freeze(cx);
        let quiet = self.quiet_since.filter(|_| may)?;
        let ready = self.sandboxes.iter().filter_map(|sandbox| match sandbox.state {
            State::Ready { since, .. } => Some(since),
            _ => None,
        });
        Some(ready.max().map_or(quiet, |ready| ready.max(quiet)).plus(delay))
    }

    /// The gateways have let go of it.
    pub(super) fn freeze(&mut self, id: &SandboxId, cx: &mut Context) {
        if let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) {
            sandbox.state = State::Freezing { woken: None };
            let (revision, id) = (self.revision.id.clone(), id.clone());
            cx.outputs.push_back(Output::Freeze { revision, id });
        }
    }

    /// A frozen sandbox comes before a start; one on its way there before it.
    pub(super) fn thaw_missing(&mut self, shares: &[Share], cx: &mut Context) {
        let mut missing = self.assign(shares).missing;
        for index in 0..self.sandboxes.len() {
            let spec = &self.sandboxes[index].spec;
            let mut parts = shares.iter().zip(&missing);
            let part = parts.position(|((target, _), missing)| *missing > 0 && self.specs.changes(spec, target));
            let Some(part) = part else { continue };
            let target = Arc::clone(&shares[part].0);
            let state = self.sandboxes[index].state;
            if state == State::Frozen && self.sandboxes[index].spec.name != target.name {
                // Before it runs again, so that it runs at full speed.
                self.change(index, &target, cx);
            }
            let sandbox = &mut self.sandboxes[index];
            match state {
                State::Draining { then: Then::Freeze, .. } => {
                    sandbox.state = State::of(sandbox.unready.is_none(), cx.now, Duration::ZERO);
                }
                State::Freezing { woken: None } => sandbox.state = State::Freezing { woken: Some(cx.now) },
                State::Frozen => {
                    let (revision, id) = (self.revision.id.clone(), sandbox.id.clone());
                    cx.outputs.push_back(Output::Thaw { revision, id });
                    sandbox.state = State::Thawing { since: cx.now };
                }
                _ => continue,
            }
            missing[part] -= 1;
        }
    }

    /// Stops what is frozen and shall not be any more.
    pub(super) fn drop_frozen(&mut self, cx: &mut Context) {
        if self.idle == Some(Rung::Frozen) {
            return;
        }
        let mut stops = Vec::new();
        for Sandbox { id, state, .. } in &mut self.sandboxes {
            match state {
                State::Draining { then, .. } => *then = Then::Stop,
                State::Frozen => stops.push(id.clone()),
                _ => {}
            }
        }
        for id in stops {
            self.stop(&id, cx);
        }
    }

    /// A freeze ended, with the memory that is held.
    pub(crate) fn frozen(&mut self, id: &SandboxId, result: Result<Bytes, DriverError>, cx: &mut Context) {
        let found = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id);
        let Some((sandbox, woken)) = found.and_then(|sandbox| match sandbox.state {
            State::Freezing { woken } => Some((sandbox, woken)),
            _ => None,
        }) else {
            return;
        };
        let cause = match result {
            Ok(memory) => {
                sandbox.memory = Some(memory);
                sandbox.state = match woken {
                    Some(since) => {
                        let (revision, id) = (self.revision.id.clone(), id.clone());
                        cx.outputs.push_back(Output::Thaw { revision, id });
                        State::Thawing { since }
                    }
                    None => State::Frozen,
                };
                self.setbacks.forget(Rung::Frozen);
                metrics::frozen(&self.revision.id, true);
                Cause::Frozen(memory)
            }
            // Its exit is on the way.
            Err(DriverError::NotFound(_)) => return,
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "sandbox could not be frozen");
                sandbox.state = State::of(sandbox.unready.is_none(), cx.now, Duration::ZERO);
                self.cannot_stand_on(Rung::Frozen, cx.now);
                metrics::frozen(&self.revision.id, false);
                Cause::FreezeFailed(error.to_string())
            }
        };
        self.look(cx, cause);
    }

    /// A thaw ended.
    pub(crate) fn thawed(&mut self, id: &SandboxId, result: Result<(), DriverError>, cx: &mut Context) {
        let found = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id);
        let Some((sandbox, since)) = found.and_then(|sandbox| match sandbox.state {
            State::Thawing { since } => Some((sandbox, since)),
            _ => None,
        }) else {
            return;
        };
        let cause = match result {
            Ok(()) => {
                let took = cx.now.since(since);
                let ready = sandbox.unready.is_none();
                sandbox.state = State::of(ready, cx.now, took);
                self.thaws.add(took);
                if ready {
                    self.absorbed = self.absorbed.saturating_add(self.slots());
                }
                self.trouble = None;
                metrics::thawed(&self.revision.id, took);
                Cause::Thawed(took)
            }
            Err(DriverError::NotFound(_)) => return,
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "sandbox could not be thawed, it is replaced");
                self.stop(id, cx);
                Cause::FreezeFailed(error.to_string())
            }
        };
        self.look(cx, cause);
    }

    /// Memory of a frozen sandbox was moved to swap.
    pub(crate) fn reclaimed(&mut self, id: &SandboxId, reclaimed: Reclaimed, cx: &mut Context) {
        if let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == *id) {
            sandbox.memory = Some(reclaimed.after);
            metrics::reclaimed(&self.revision.id, reclaimed);
            self.look(cx, Cause::Reclaimed(reclaimed));
        }
    }
}
