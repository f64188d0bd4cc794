//! One machine's money is memory: what a start is promised, what happens when it does not fit, and what may go for it.

use std::time::Duration;

use manifests::exchange::Rung;
use manifests::units::Bytes;

use super::Scaler;
use super::types::{Context, State};
use crate::admission::Short;
use crate::conditions::Trouble;
use crate::evict::{ASSUMED_START, Standing};
use crate::explain::Cause;
use crate::planner::{ASSUMED_MEMORY, ASSUMED_THAW, ASSUMED_UPGRADE};

impl Scaler {
    /// What a start takes: what the manifest requests, or what the last sandbox of this revision had at most, when that was
    /// more; without either its limit, and without that [`ASSUMED_MEMORY`]. Never more than the limit. A measurement counts
    /// for half of the budget at most: a leak must not keep a service from ever starting again.
    pub(crate) fn promise(&self, cx: &Context) -> Bytes {
        let workload = &self.revision.workload;
        let half = cx.admission.budget().map_or(u64::MAX, |Bytes(budget)| budget / 2);
        let peak = self.peak.map(|Bytes(peak)| Bytes(peak.min(half)));
        let known = peak.max(workload.memory_request());
        let limit = workload
            .memory_limit()
            .into_iter()
            .chain(self.wanted_spec().limits.memory)
            .min();
        let promise = known.or(limit).unwrap_or(ASSUMED_MEMORY);
        limit.map_or(promise, |limit| promise.min(limit))
    }

    /// What an idle sandbox of this revision holds, or will.
    pub(super) fn holds(&self) -> Bytes {
        let measured = self.sandboxes.iter().rev().find_map(|sandbox| sandbox.memory);
        let limit = self.revision.workload.memory_limit();
        measured.or(self.peak).or(limit).unwrap_or(ASSUMED_MEMORY)
    }

    /// A start waits for memory.
    pub(super) fn does_not_fit(&mut self, short: Short, cx: &mut Context) {
        self.memory_at = Some(cx.now.plus(super::execute::MEMORY_RETRY));
        self.short_since.get_or_insert(cx.now);
        self.trouble = Some(Box::new(Trouble::unschedulable(short.text())));
        let lacks = Bytes(short.needs.0.saturating_sub(short.free.0));
        let id = &self.revision.id;
        match cx.hungry.iter_mut().find(|(known, _)| known == id) {
            Some((_, known)) => *known = lacks,
            None => cx.hungry.push_back((id.clone(), lacks)),
        }
    }

    /// Nothing of it waits for memory any more.
    pub(super) fn has_room(&mut self, cx: &mut Context) {
        if self.short_since.take().is_some() {
            cx.hungry.retain(|(hungry, _)| *hungry != self.revision.id);
        }
    }

    /// Whether requests are refused rather than held: nothing runs, and room was waited for long enough, or will never be.
    pub(super) fn refuses(&self, cx: &Context) -> bool {
        let never = cx.admission.budget().is_some_and(|budget| self.promise(cx) > budget);
        let long = self.short_since.is_some_and(|since| cx.now >= since.plus(PATIENCE));
        self.trouble.as_deref().is_some_and(Trouble::is_unschedulable) && (never || long)
    }

    /// Some memory came free.
    pub(crate) fn memory_freed(&mut self, cx: &mut Context) {
        self.memory_at = None;
        self.look(cx, Cause::Due);
    }

    /// Its idle sandbox goes: the memory is needed for something of more value.
    pub(crate) fn evict(&mut self, cx: &mut Context) {
        self.evicted = true;
        crate::metrics::evicted(&self.revision.id);
        self.look(cx, Cause::Evicted);
    }

    /// What stands idle by policy and serves nobody.
    pub(super) fn standing(&self, cx: &Context) -> Option<Standing> {
        let idle = self.idle.filter(|_| !self.removed && !self.evicted)?;
        // What min-scale and keep-warm ask for stays.
        if self.bounds().min.0 > 0 {
            return None;
        }
        let sandbox = self.sandboxes.iter().find(|sandbox| match idle {
            Rung::Frozen => sandbox.state == State::Frozen,
            _ => sandbox.is_ready(),
        })?;
        if !self.loads.is_idle(&cx.gateways, cx.now) {
            return None;
        }
        let wake = match idle {
            Rung::Frozen => self.thaws.median().unwrap_or(ASSUMED_THAW),
            Rung::Throttled => self.upgrades.median().unwrap_or(ASSUMED_UPGRADE),
            Rung::Full | Rung::Reserve | Rung::Zero => Duration::ZERO,
        };
        Some(Standing {
            revision: self.revision.id.clone(),
            sandbox: sandbox.id.clone(),
            rung: idle,
            memory: sandbox.memory.unwrap_or_else(|| self.holds()),
            start: self.starts.median().unwrap_or(ASSUMED_START),
            wake,
            rhythm: self.rhythm,
        })
    }

    /// Says what could be evicted, or that nothing can.
    pub(super) fn stand(&mut self, cx: &Context) {
        match self.standing(cx) {
            Some(standing) => {
                self.stands = true;
                cx.evictions.set(standing);
            }
            None if self.stands => {
                self.stands = false;
                cx.evictions.forget(&self.revision.id);
            }
            None => {}
        }
    }
}

/// How long requests wait for memory before they are refused; evictions and ends of others take milliseconds to seconds.
const PATIENCE: Duration = Duration::from_secs(10);
