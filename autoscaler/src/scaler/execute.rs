//! From what shall run to starts, limits, drains and stops; each step looks at what there is now.

use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::SandboxId;
use manifests::units::Timestamp;
use sandbox::driver::{Limits, SandboxSpec, StartError};

use super::Scaler;
use super::decide::{DOWNGRADE_AFTER, Decided};
use super::types::{Context, Level, Output, Sandbox, State, Then};
use crate::admission::Refused;
use crate::catalogue::{self, Catalogue};
use crate::conditions::Trouble;

impl Scaler {
    /// Limits first: an upgrade in place is what a waiting request needs soonest.
    pub(super) fn execute(&mut self, decided: &Decided, cx: &mut Context) {
        self.set_levels(cx);
        self.thaw_missing(decided.up.0, cx);
        self.start_missing(decided.up.0, cx);
        self.drop_excess(decided.keep.0, cx);
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
        let missing = self.live() < self.wanted().0;
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
            .chain(if missing { self.memory_at } else { None })
            .chain(if missing { self.backoff.until(now) } else { None })
            .min()
    }

    fn set_levels(&mut self, cx: &mut Context) {
        let level = if self.idle == Some(Rung::Throttled) {
            Level::Throttled
        } else {
            Level::Full
        };
        let downgrades = level == Level::Throttled && self.ready_at(Level::Full);
        self.downgrade_at = match self.downgrade_at {
            _ if !downgrades => None,
            // The rung goes out with this look; the limit follows when every gateway has it.
            None => Some(cx.now.plus(DOWNGRADE_AFTER)),
            at => at,
        };
        if self.downgrade_at.is_some_and(|at| at > cx.now) {
            return;
        }
        self.downgrade_at = None;
        for sandbox in &mut self.sandboxes {
            let ready = matches!(sandbox.state, State::Ready { .. });
            if ready && sandbox.limits != level && !sandbox.changing {
                sandbox.changing = true;
                let (revision, id) = (self.revision.id.clone(), sandbox.id.clone());
                let limits = limits(&cx.catalogue, level, &self.revision);
                cx.outputs.push_back(Output::SetLimits { revision, id, limits });
            }
        }
        if level == Level::Full && !self.ready_at(Level::Throttled) {
            self.woken = None;
        }
    }

    fn ready_at(&self, level: Level) -> bool {
        self.sandboxes
            .iter()
            .any(|sandbox| matches!(sandbox.state, State::Ready { .. }) && sandbox.limits == level)
    }

    fn start_missing(&mut self, up: u32, cx: &mut Context) {
        let now = cx.now;
        self.memory_at = self.memory_at.filter(|at| *at > now);
        if self.live() >= up || self.must_wait(cx) {
            return self.fits(cx);
        }
        if self.in_line || self.backoff.until(now).is_some() || self.memory_at.is_some() {
            return;
        }
        let needs = self.promise(cx);
        let mut live = self.live();
        while live < up {
            let id = cx.names.next(&self.revision.id);
            match cx.admission.admit(&id, needs, now) {
                Ok(()) => self.start(id, cx),
                Err(Refused::Busy) => {
                    self.in_line = true;
                    return cx.admission.join(self.revision.id.clone());
                }
                Err(Refused::Memory(short)) => return self.does_not_fit(short, cx),
            }
            live += 1;
        }
        self.fits(cx);
    }

    fn start(&mut self, id: SandboxId, cx: &mut Context) {
        if self.trouble.as_ref().is_some_and(Trouble::is_unschedulable) {
            self.trouble = None;
        }
        let revision = &self.revision;
        cx.outputs.push_back(Output::Start(SandboxSpec {
            id: id.clone(),
            revision: revision.id.clone(),
            configuration: revision.configuration.clone(),
            service: revision.service.clone(),
            workload: revision.workload.clone(),
            limits: limits(&cx.catalogue, Level::Full, revision),
            deadline: revision.scaling.progress_deadline,
        }));
        let (state, limits) = (State::Starting, Level::Full);
        self.sandboxes.push(Sandbox {
            id,
            ordered: cx.now,
            state,
            limits,
            changing: false,
            unready: None,
            memory: None,
        });
    }

    /// The newest go first, starts before unready and those before ready ones, so that warm caches live longest.
    fn drop_excess(&mut self, keep: u32, cx: &mut Context) {
        let mut live = self.live();
        while live > keep {
            if let Some(index) = self.last_where(|state| state == State::Starting) {
                let sandbox = self.sandboxes.remove(index);
                cx.admission.release(&sandbox.id);
                cx.outputs.push_back(Output::Cancel(sandbox.id));
            } else if let Some(index) = self
                .last_where(|state| matches!(state, State::Unready { .. }))
                .or_else(|| self.last_where(|state| matches!(state, State::Ready { .. })))
            {
                let freezes = self.idle == Some(Rung::Frozen)
                    && live == 1
                    && matches!(self.sandboxes[index].state, State::Ready { .. })
                    && !self.sandboxes.iter().any(|sandbox| sandbox.state.is_cold());
                self.sandboxes[index].state = State::Draining {
                    set: None,
                    since: cx.now,
                    then: if freezes { Then::Freeze } else { Then::Stop },
                };
            }
            live -= 1;
        }
    }

    fn last_where(&self, is: impl Fn(State) -> bool) -> Option<usize> {
        self.sandboxes.iter().rposition(|sandbox| is(sandbox.state))
    }
}

/// The limits of an instance of `revision` at a level; without a throttled spec there is only full.
fn limits(catalogue: &Catalogue, level: Level, revision: &manifests::revision::Revision) -> Limits {
    let workload = &revision.workload;
    match level {
        Level::Full => catalogue::limits(catalogue.full(workload), workload),
        Level::Throttled => catalogue.throttled_limits(workload),
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

/// After a start that did not fit, look again this much later.
pub(super) const MEMORY_RETRY: Duration = Duration::from_secs(1);

/// After a stop that failed, try again this much later.
pub(super) const STOP_RETRY: Duration = Duration::from_secs(5);

/// How long an evicted sandbox may take to end by itself.
const EVICTION_GRACE: Duration = Duration::from_secs(2);

const DRAIN_LOOK: Duration = Duration::from_secs(1);

/// A drain may take as long as a request may, and a little more.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
