//! What happens to a revision: reports, ends of starts and stops, probes, exits; each ends in a new look.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{LoadKind, RevisionLoad, Rung};
use manifests::ids::{GatewayId, Generation, SandboxId};
use manifests::units::Timestamp;
use sandbox::driver::{DriverError, Exit, ExitStatus, StartError, Started};

use super::types::{Context, Sandbox, State};
use super::{Scaler, execute};
use crate::backoff::{End, Run};
use crate::conditions::Trouble;
use crate::decider::TICK;
use crate::explain::Cause;
use crate::metrics;

impl Scaler {
    /// One entry of an accepted report.
    pub(crate) fn load(&mut self, gateway: &GatewayId, generation: Generation, load: &RevisionLoad, cx: &mut Context) {
        self.loads.update(gateway, generation, load);
        let ejected = self.eject(&load.ejected, cx.now);
        let mut had_served = false;
        for left in load.draining.iter().filter(|left| left.answered) {
            had_served |= self.backoff.answered(&left.sandbox);
        }
        let counts = load.kind != LoadKind::Sandboxes && !self.removed;
        let busy = load.concurrency.0 > 0.0 || load.rps.0 > 0.0 || load.waiting > 0 || load.in_flight > 0;
        if counts {
            self.absorbed = 0;
            // What a wake-up has told of is in the averages no more.
            if busy || load.work.arrivals > 0 {
                self.met(load, cx.now);
            }
            if busy {
                self.asked(cx.now);
            }
            if busy && self.hot.is_none() {
                self.heat(cx, cx.now.plus(TICK));
            }
            if let Some(hot) = &mut self.hot {
                hot.collector.record(cx.now, load.concurrency.0, load.rps.0);
            }
        }
        self.look_whether_quiet(cx);
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
        } else if had_served {
            self.look(cx, Cause::HadServed);
        } else if counts && (wake || load.waiting > 0) {
            self.look(cx, Cause::Wake);
        } else if counts && (self.goes_on_otherwise() || busy && (self.low.is_some() || self.mix.is_some())) {
            self.look(
                cx,
                if self.quiet_since.is_some() {
                    Cause::Quiet
                } else {
                    Cause::Wake
                },
            );
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
                let full = Arc::clone(self.specs.full());
                self.sandboxes.push(Sandbox::surplus(id.clone(), full, cx.now));
                self.stop(id, cx);
            }
            return;
        };
        let (ordered, spec) = (sandbox.ordered, Arc::clone(&sandbox.spec));
        let took = cx.now.since(ordered);
        let cause = match result {
            Ok(started) => {
                for warning in &started.warnings {
                    tracing::debug!(sandbox = %id, %warning, "isolation is degraded");
                }
                let (since, start) = (cx.now, took);
                let ready = sandbox.unready.is_none();
                sandbox.state = State::of(ready, since, start);
                self.starts_on(&spec).add(took);
                if ready {
                    self.absorbed = self.absorbed.saturating_add(self.slots());
                }
                self.trouble = None;
                if spec.rung == Rung::Reserve {
                    self.setbacks.forget(spec.rung);
                }
                if spec.rung == Rung::Full {
                    self.start_fails = false;
                    self.setbacks.forget(Rung::Frozen);
                }
                metrics::start_ended(&self.revision.id, Ok(took));
                Cause::Started(took)
            }
            Err(error) => {
                self.let_go(id, cx);
                tracing::warn!(sandbox = %id, %error, "start failed");
                metrics::start_ended(&self.revision.id, Err(execute::outcome(&error)));
                if spec.rung < Rung::Full {
                    // What it was to replace serves on.
                    match error {
                        StartError::Exhausted(_) => {
                            self.memory_at = Some(cx.now.plus(execute::MEMORY_RETRY));
                            self.out_of_stock(&spec, cx.now);
                        }
                        _ => self.cannot_stand_on(spec.rung, cx.now),
                    }
                    return self.look(cx, Cause::StartFailed(error.to_string()));
                }
                match error {
                    StartError::Exhausted(_) => self.memory_at = Some(cx.now.plus(execute::MEMORY_RETRY)),
                    StartError::Refused(_) => self.backoff.refused(cx.now),
                    _ => self.backoff.failed(ordered, cx.now),
                }
                self.start_fails = true;
                self.trouble = Some(Box::new(Trouble::start(&error)));
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
        if sandbox.state.is_cold() {
            // On its way to frozen or back: it ends instead.
            sandbox.state = State::Stopping { retry: None };
            return self.look(cx, Cause::Unhealthy(why.as_ref().into()));
        }
        let (State::Ready { since, start } | State::Unready { since, start }) = sandbox.state else {
            return;
        };
        tracing::warn!(sandbox = %id, %why, "sandbox is not alive any more");
        sandbox.state = State::Stopping { retry: None };
        let ordered = sandbox.ordered;
        self.ran(id, ordered, (since, start), End::Unhealthy, cx);
        self.trouble = Some(Box::new(Trouble::unhealthy(why)));
        self.look(cx, Cause::Unhealthy(why.as_ref().into()));
    }

    /// A sandbox is gone.
    pub(crate) fn exited(&mut self, id: &SandboxId, exit: &Exit, cx: &mut Context) {
        let Some(sandbox) = self.let_go(id, cx) else { return };
        cx.admission.release(id);
        self.peak = exit.peak_memory.or(self.peak);
        if !exit.requested {
            metrics::exited(&self.revision.id);
            tracing::warn!(sandbox = %id, how = %exit.status, oom = exit.oom_killed, "sandbox ended by itself");
        }
        let was_ready = match sandbox.state {
            State::Ready { since, start } | State::Unready { since, start } => (since, start),
            // It ended in the instant in which it became ready, and this came first.
            State::Starting => (cx.now, cx.now.since(sandbox.ordered)),
            State::Thawing { since } => (since, Duration::ZERO),
            State::Freezing { .. } | State::Frozen => {
                let memory = if exit.oom_killed { ", out of memory" } else { "" };
                return self.look(cx, Cause::Exited(format!("{}{memory}, frozen", exit.status)));
            }
            State::Draining { .. } | State::Stopping { .. } => {
                let told = exit.unhealthy.as_deref().map(Trouble::unhealthy);
                if told.is_some() && self.trouble.as_deref() == told.as_ref() {
                    self.trouble = Some(Box::new(Trouble::exited(exit)));
                }
                return self.look(cx, Cause::Due);
            }
        };
        let end = match exit.status {
            _ if exit.unhealthy.is_some() => End::Unhealthy,
            ExitStatus::Signal(9) if !exit.oom_killed => End::Killed,
            _ => End::Itself,
        };
        self.ran(id, sandbox.ordered, was_ready, end, cx);
        self.trouble = Some(Box::new(Trouble::exited(exit)));
        let memory = if exit.oom_killed { ", out of memory" } else { "" };
        self.look(cx, Cause::Exited(format!("{}{memory}", exit.status)));
    }

    /// A sandbox that is ready since then, after a start of that length, ended or fails for good: when the next may start.
    fn ran(
        &mut self,
        id: &SandboxId,
        ordered: Timestamp,
        (since, start): (Timestamp, Duration),
        end: End,
        cx: &Context,
    ) {
        let ready = cx.now.since(since);
        let run = Run {
            ordered,
            start,
            ready,
            end,
        };
        self.backoff.ended(id, run, cx.now);
    }

    /// A stop ended. Its exit event may have come before.
    pub(crate) fn stopped(&mut self, id: &SandboxId, result: Result<(), DriverError>, cx: &mut Context) {
        match result {
            Ok(()) => drop(self.let_go(id, cx)),
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
        let Some(asked) = sandbox.changes.take() else { return };
        let raised = asked.price > sandbox.spec.price;
        match result {
            Ok(()) => {
                if !raised {
                    self.setbacks.forget(asked.rung);
                }
                sandbox.spec = asked;
                if raised && let Some(woken) = self.woken.take() {
                    self.upgrades.add(cx.now.since(woken));
                }
            }
            Err(DriverError::NotFound(_)) => return,
            Err(error) if !raised => {
                let rung = asked.rung.as_str();
                tracing::warn!(sandbox = %id, %error, rung, "limits cannot be lowered here, the rung is not used");
                self.cannot_stand_on(asked.rung, cx.now);
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
}
