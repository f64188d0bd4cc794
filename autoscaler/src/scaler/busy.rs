//! What the load is served on: the mix of the busy plan, made from what was measured and from what runs.

use std::sync::Arc;

use manifests::exchange::Rung;
use manifests::revision::{IdlePolicy, Metric, Reachability};
use manifests::units::{Concurrency, Replicas, Rps, Timestamp};

use super::Scaler;
use super::types::{Context, Sandbox, State};
use crate::decider::Observed;
use crate::evict::ASSUMED_START;
use crate::planner::busy::{BusyPlan, Kind, Load, MOST_KINDS, Part};
use crate::specs::Spec;

/// So many instances on a spec.
pub(super) type Share = (Arc<Spec>, u32);

/// Which of the instances are for which part of what shall run.
pub(super) struct Assigned {
    /// For each sandbox.
    pub(super) to: Vec<Option<usize>>,
    /// Of each part: how many there are not.
    pub(super) missing: Vec<u32>,
}

impl Assigned {
    /// Something is not there yet.
    pub(super) fn is_short(&self) -> bool {
        self.missing.iter().any(|count| *count > 0)
    }
}

impl Scaler {
    /// What shall run: the mix that serves, or `up` that are all alike.
    pub(super) fn shares(&self, up: u32) -> Vec<Share> {
        let mix = self.mix.as_ref().filter(|_| self.idle.is_none() && up > 0);
        mix.map_or_else(|| vec![(self.wanted_spec(), up)], |mix| mix.to_vec())
    }

    /// Who is for what: the ready ones first, and the oldest of them, so that warm caches live longest; on another spec only
    /// what can be changed in place.
    pub(super) fn assign(&self, shares: &[Share]) -> Assigned {
        let mut assigned = Assigned {
            to: vec![None; self.sandboxes.len()],
            missing: shares.iter().map(|(_, count)| *count).collect(),
        };
        for index in self.by_worth() {
            let spec = &self.sandboxes[index].spec;
            let same = |(spec_of, _): &Share| spec_of.name == spec.name;
            let fits = |(spec_of, _): &Share| self.specs.changes(spec, spec_of);
            let open = |what: &dyn Fn(&Share) -> bool| {
                let mut parts = shares.iter().zip(&assigned.missing);
                parts.position(|(share, missing)| *missing > 0 && what(share))
            };
            if let Some(part) = open(&same).or_else(|| open(&fits)) {
                assigned.to[index] = Some(part);
                assigned.missing[part] -= 1;
            }
        }
        assigned
    }

    /// Those that live, the most useful first: on their way from frozen, ready, not ready, being started; the oldest first.
    pub(super) fn by_worth(&self) -> Vec<usize> {
        let worth = |sandbox: &Sandbox| match sandbox.state {
            State::Thawing { .. } | State::Freezing { woken: Some(_) } => Some(0),
            State::Ready { .. } => Some(1),
            State::Unready { .. } => Some(2),
            State::Starting => Some(3),
            _ => None,
        };
        let live = self.sandboxes.iter().enumerate();
        let mut live: Vec<(u8, usize)> = live.filter_map(|(index, it)| Some((worth(it)?, index))).collect();
        live.sort_unstable();
        live.into_iter().map(|(_, index)| index).collect()
    }

    /// The mix for the load at hand, where there is more to choose from than full instances.
    pub(super) fn serve(&mut self, cx: &Context) -> Option<BusyPlan> {
        self.mix = None;
        if !self.mixes() {
            self.rest();
            return None;
        }
        let (kinds, load) = (self.could_serve(cx), self.load_at_hand(cx));
        let mind = self.mind.as_mut()?;
        let plan = mind.busy().plan(&load, kinds, cx.now);
        let part = |part: &Part| Some((Arc::clone(self.specs.named(&part.spec)?), part.count));
        let mix: Option<Box<[Share]>> = plan.mix.iter().map(part).collect();
        let mix = mix.filter(|mix| !mix.is_empty())?;
        let full = self.specs.full();
        self.low = match &*mix {
            [(spec, _)] if spec.name != full.name => Some(Arc::clone(spec)),
            _ => None,
        };
        self.mix = Some(mix);
        Some(plan)
    }

    /// Whether load may be served on cheaper specs, and there are any.
    fn mixes(&self) -> bool {
        let plans = self.revision.idle == IdlePolicy::Auto && self.revision.reachability != Reachability::Unreachable;
        plans
            && self.initialized
            && self.exclusive.is_none()
            // One instance is not worth the moves: after it comes an idle time, and what that wants to stand on is not this.
            && self.replicas.0 > 1
            && self.mind.as_ref().is_some_and(|mind| mind.stay_low)
            && self.specs.cheaper().iter().any(|spec| self.can_reserve(spec))
    }

    /// Each instance that is of a spec of which there is a limited stock; also those that are on their way out.
    pub(crate) fn limited(&self) -> Vec<Arc<str>> {
        let limited = self.sandboxes.iter().filter(|sandbox| sandbox.spec.stock.is_some());
        limited.map(|sandbox| Arc::clone(&sandbox.spec.name)).collect()
    }

    /// It stands idle.
    pub(super) fn rest(&mut self) {
        self.mix = None;
        if let Some(mind) = &mut self.mind {
            mind.rest();
        }
    }

    /// A start failed because there is no more of this spec.
    pub(super) fn out_of_stock(&mut self, spec: &Spec, now: Timestamp) {
        if let Some(mind) = &mut self.mind {
            mind.busy().out_of_stock(&spec.name, now);
        }
    }

    /// Ready ones as the decider counts: a mix stands for the full instances that were wanted, and what is ready of it for as
    /// much of them. Else less head room than the decider's would look like panic for ever.
    pub(super) fn ready_in_full(&self) -> Replicas {
        let ready = self.ready();
        let Some(mix) = self.mix.as_ref().filter(|_| ready.0 > 0) else {
            return ready;
        };
        let all: f64 = mix
            .iter()
            .map(|(spec, count)| f64::from(*count) * self.part_of_full(spec))
            .sum();
        let serving = self.sandboxes.iter().filter(|sandbox| sandbox.is_ready());
        let there: f64 = serving.map(|sandbox| self.part_of_full(&sandbox.spec)).sum();
        let stands_for = f64::from(self.replicas.0) * (there / all.max(f64::MIN_POSITIVE)).min(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a count")]
        let stands_for = (stands_for + 1e-9) as u32;
        Replicas(stands_for.max(1))
    }

    /// The part of a full one's load that an instance on this spec takes: of its requests at once by its CPU, one at least
    /// where one is counted, and as many fewer as they take longer there.
    pub(super) fn part_of_full(&self, spec: &Spec) -> f64 {
        let full = self.specs.full();
        if spec.name == full.name {
            return 1.0;
        }
        let total = self.total();
        let least = match self.revision.scaling.metric {
            Metric::Concurrency { .. } => 1.0 / total.max(1.0),
            Metric::Rps { .. } => 0.0,
        };
        spec.share(full).max(least) / self.slowdown(spec, spec.slow)
    }

    /// How many times longer requests take on a spec; `prior` before it was measured.
    fn slowdown(&self, spec: &Spec, prior: f64) -> f64 {
        if spec.rung == Rung::Full {
            return 1.0;
        }
        let there = self.known(spec).map(|known| known.usual).unwrap_or_default();
        there.slowdown(self.usual, prior)
    }

    /// The most that a full instance takes, in the decider's unit.
    fn total(&self) -> f64 {
        match self.revision.scaling.metric {
            Metric::Concurrency {
                total: Concurrency(total),
                ..
            }
            | Metric::Rps { total: Rps(total), .. } => total,
        }
    }

    fn could_serve(&self, cx: &Context) -> Vec<Kind> {
        let full = self.specs.full();
        let cheaper = self.specs.cheaper().iter().filter(|spec| self.can_reserve(spec));
        let mut specs: Vec<&Arc<Spec>> = cheaper.take(MOST_KINDS - 1).collect();
        specs.push(full);
        specs.into_iter().map(|spec| self.could_serve_on(spec, cx)).collect()
    }

    fn could_serve_on(&self, spec: &Arc<Spec>, cx: &Context) -> Kind {
        let full = self.specs.full();
        let is_full = spec.name == full.name;
        let sla = &self.revision.planning.sla;
        let starts = self.starts.estimate(sla, full.prior());
        let start_of_full = starts.map_or(ASSUMED_START.as_secs_f64(), |starts| starts.mean);
        let measured = self.known(spec).filter(|known| !known.starts.is_empty());
        let lead = match measured {
            Some(known) => known.starts.estimate(sla, None).map_or(start_of_full, |it| it.mean),
            None if is_full => start_of_full,
            None => start_of_full.max(spec.start.map_or(0.0, |start| start.median.as_secs_f64())),
        };
        let slow = self.slowdown(spec, spec.slow);
        let late = self.mind.as_ref().map_or(1.0, |mind| mind.late(slow, sla.limit));
        let own = super::count(self.sandboxes.iter().filter(|sandbox| sandbox.spec.name == spec.name)).0;
        Kind {
            name: Arc::clone(&spec.name),
            full: is_full,
            price: spec.price,
            capacity: self.total() * self.part_of_full(spec),
            late: if is_full { 0.0 } else { late },
            start: spec.start_money(lead),
            lead,
            // One that is changed in place is started as a full one, and has a minute as such.
            prompt: is_full || !spec.in_place && measured.is_some() && lead <= start_of_full * AS_QUICK,
            stock: spec.stock.map_or(u32::MAX, |stock| {
                let others = cx.stock.get(&spec.name).map_or(0, |all| all.saturating_sub(own));
                stock.saturating_sub(others)
            }),
            burst: spec.burst.map(|burst| {
                let cores = spec.limits.cpu.map_or(1.0, |cpu| f64::from(cpu.0) / 1000.0);
                (burst, cores)
            }),
            running: super::count(self.sandboxes.iter().filter(|sandbox| self.can_be_on(sandbox, spec))).0,
            serving: super::count(self.sandboxes.iter().filter(|sandbox| self.meets(sandbox, spec))).0,
        }
    }

    /// Whether a request meets a sandbox on this spec: what does not serve is raised to a full one.
    fn meets(&self, sandbox: &Sandbox, spec: &Spec) -> bool {
        let cold = sandbox.state.is_cold();
        if cold || sandbox.spec.rung < Rung::Reserve {
            let comes = cold || sandbox.is_live();
            comes && spec.rung == Rung::Full && self.specs.changes(&sandbox.spec, spec)
        } else {
            sandbox.is_live() && sandbox.spec.name == spec.name
        }
    }

    /// Whether a sandbox can be had on this spec without a start.
    fn can_be_on(&self, sandbox: &Sandbox, spec: &Spec) -> bool {
        let serves = sandbox.is_live() && sandbox.spec.rung >= Rung::Reserve;
        self.meets(sandbox, spec) || serves && self.specs.changes(&sandbox.spec, spec)
    }

    fn load_at_hand(&self, cx: &Context) -> Load {
        let scaling = &self.revision.scaling;
        let observed = self
            .hot
            .as_ref()
            .and_then(|hot| hot.collector.observed(scaling, cx.now));
        let average = observed.map_or(0.0, |Observed { stable, panic }| stable.max(panic));
        // Those that wait are no average yet.
        let (in_flight, waiting) = self.loads.requests(&cx.gateways, cx.now);
        let (now, longer) = match scaling.metric {
            Metric::Concurrency { .. } if waiting > self.absorbed => (f64::from(in_flight), self.longer()),
            Metric::Concurrency { .. } => (0.0, self.longer()),
            Metric::Rps { .. } => (0.0, 1.0),
        };
        let bounds = self.bounds();
        let rests = self.revision.planning.min_scale_as < Rung::Full && !self.is_warm();
        Load {
            average: average / longer,
            now: now / longer,
            count: self.replicas.0,
            target: self.target().1 / longer,
            quantile: self.revision.planning.sla.quantile,
            least: bounds.min.0,
            least_full: if rests { 0 } else { bounds.min.0 },
            most: bounds.max.map_or(u32::MAX, |max| max.0).max(self.replicas.0),
        }
    }

    /// How many times longer a request is in flight on what is ready now than it would be on full instances; as far as that
    /// was measured. Requests go where there is room for them.
    fn longer(&self) -> f64 {
        let (mut weights, mut sum) = (0.0_f64, 0.0_f64);
        for Sandbox { spec, .. } in self.sandboxes.iter().filter(|sandbox| sandbox.is_ready()) {
            let weight = self.part_of_full(spec);
            weights += weight;
            sum += weight * self.slowdown(spec, 1.0);
        }
        if weights > 0.0 { sum / weights } else { 1.0 }
    }
}

/// Starts on a spec that take up to so many times as long as a full one's keep nobody waiting for longer.
const AS_QUICK: f64 = 1.25;
