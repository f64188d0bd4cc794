//! Where an idle revision stands: by its policy, by what min-scale and keep-warm leave, or by the planner's schedule.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::revision::{IdlePolicy, Reachability};
use manifests::units::{Replicas, Timestamp};

use super::Scaler;
use super::types::Context;
use crate::bounds::Bounds;
use crate::evict::ASSUMED_START;
use crate::gate::{Phase, Why};
use crate::planner::Plan;
use crate::specs::Spec;
use crate::zero_to_n::Demand;

/// Where to stand instead of serving.
pub(super) struct Wish {
    pub(super) rung: Rung,
    /// The cheaper spec on it.
    pub(super) spec: Option<Arc<Spec>>,
    /// Why, after what the plan says of itself.
    pub(super) reason: String,
    pub(super) plan: Option<Plan>,
}

impl Scaler {
    /// Where to stand by an instant of the policy's own, which need not be Knative's.
    pub(super) fn wish(&mut self, demand: Demand, cx: &mut Context) -> Option<Wish> {
        let reachable = self.revision.reachability != Reachability::Unreachable;
        if demand.replicas.0 > 0 || !self.initialized {
            self.forget_course();
            return None;
        }
        match self.revision.idle {
            IdlePolicy::Frozen { delay: Some(_) } if self.delay_is_over(cx) => {
                let reason = "no request for knarr.dev/freeze-delay";
                // One that nobody can reach keeps nothing.
                let rung = if reachable { Rung::Frozen } else { Rung::Zero };
                return Some(self.standing_on(rung, reason));
            }
            IdlePolicy::Auto if reachable => return self.scheduled(cx),
            _ => self.forget_course(),
        }
        let rung = self.policy_rung().max(self.least_rung());
        if reachable && self.min_scale_rests() && rung < Rung::Full {
            return Some(self.standing_on(self.available(rung, cx), "nothing was asked for a whole stable window"));
        }
        None
    }

    /// Where to stand when Knative would go to zero, for revisions that say so and that anybody can reach.
    pub(super) fn stand_idle(&self, zero: Option<Why>, reason: &str, cx: &Context) -> Option<Wish> {
        let unreachable = self.revision.reachability == Reachability::Unreachable;
        if zero.is_none_or(|why| why == Why::ActivationTimeout) || unreachable {
            return None;
        }
        let rung = match self.policy_rung() {
            // Zero is what comes before frozen; what comes before the others is a full instance.
            Rung::Frozen if !self.can_freeze(cx) => Rung::Zero,
            rung => self.available(rung, cx),
        };
        (rung > Rung::Zero).then(|| self.standing_on(rung, reason))
    }

    fn standing_on(&self, rung: Rung, reason: &str) -> Wish {
        let spec = matches!(rung, Rung::Throttled | Rung::Reserve).then(|| Arc::clone(self.specs.on(rung)));
        let many = self.stands_with();
        let stays = match (rung, many) {
            (Rung::Zero, _) => String::new(),
            (Rung::Frozen, 1) => "; one sandbox stays, frozen".to_owned(),
            (_, 1) => format!("; one sandbox stays, {}", stands(rung)),
            _ => format!("; {many} sandboxes stay, {}", stands(rung)),
        };
        Wish {
            rung,
            spec,
            reason: format!("{reason}{stays}"),
            plan: None,
        }
    }

    /// What the policy keeps at the instant at which Knative would keep nothing.
    fn policy_rung(&self) -> Rung {
        match self.revision.idle {
            IdlePolicy::Knative | IdlePolicy::Zero | IdlePolicy::Auto => Rung::Zero,
            IdlePolicy::Frozen { .. } => Rung::Frozen,
            IdlePolicy::Throttled => Rung::Throttled,
            IdlePolicy::Reserve => Rung::Reserve,
            IdlePolicy::Keep => Rung::Full,
        }
    }

    /// This rung, or the next one above it that can be had here.
    fn available(&self, rung: Rung, cx: &Context) -> Rung {
        let has = |rung: Rung| match rung {
            Rung::Zero | Rung::Full => true,
            Rung::Frozen => self.can_freeze(cx),
            Rung::Throttled => !self.setbacks.holds(rung, self.looked) && self.specs.on(rung).rung == rung,
            Rung::Reserve => self.specs.cheaper().iter().any(|spec| self.can_reserve(spec)),
        };
        let above = [Rung::Zero, Rung::Frozen, Rung::Throttled, Rung::Reserve, Rung::Full];
        above
            .into_iter()
            .find(|it| *it >= rung && has(*it))
            .unwrap_or(Rung::Full)
    }

    /// Whether it could stand on this spec. Another sandbox beside is none for what only one sandbox may have.
    pub(super) fn can_reserve(&self, spec: &Spec) -> bool {
        spec.rung == Rung::Reserve
            && !self.setbacks.holds(spec.rung, self.looked)
            && (spec.in_place || self.exclusive.is_none())
    }

    /// This host could not put a sandbox there; it is tried again later.
    pub(super) fn cannot_stand_on(&mut self, rung: Rung, now: Timestamp) {
        if matches!(rung, Rung::Frozen | Rung::Throttled | Rung::Reserve) {
            self.setbacks.failed(rung, now);
        }
        self.forget_course();
    }

    /// The lowest rung that it may stand on: what min-scale, keep-warm and scale-to-zero leave.
    pub(super) fn least_rung(&self) -> Rung {
        let min = Bounds::of(&self.revision, self.initialized).min;
        if self.is_warm() {
            Rung::Full
        } else if min.0 > 0 {
            self.revision.planning.min_scale_as
        } else if self.revision.scaling.scale_to_zero {
            Rung::Zero
        } else {
            Rung::Full
        }
    }

    /// Sandboxes that stand idle together: one, or as many as min-scale or the reserve says.
    pub(super) fn stands_with(&self) -> u32 {
        let Bounds { min, max } = Bounds::of(&self.revision, self.initialized);
        let reserve = self.revision.planning.reserve.as_ref();
        let kept = reserve.filter(|_| self.revision.idle == IdlePolicy::Reserve);
        let kept = kept.map_or(1, |reserve| reserve.replicas.0);
        kept.min(max.map_or(u32::MAX, |max| max.0)).max(min.0).max(1)
    }

    /// min-scale holds replicas for nobody: nothing is in flight and the stable window has no load.
    fn min_scale_rests(&self) -> bool {
        let unloaded = match (&self.hot, self.decision()) {
            (None, _) => true,
            (Some(_), Some(decision)) => decision.stable_wants == 0.0 && !decision.panicking,
            (Some(_), None) => false,
        };
        let holds = Bounds::of(&self.revision, self.initialized).min > Replicas(0);
        holds && unloaded && self.quiet_since.is_some() && self.phase != Phase::Activating
    }

    /// Inside of `knarr.dev/keep-warm`, or so shortly before that a start begun now is over in time.
    pub(super) fn is_warm(&self) -> bool {
        self.warm.is_some_and(|(warm, _)| warm)
    }

    /// When that changes.
    pub(super) fn warm_at(&self) -> Option<Timestamp> {
        self.warm.map(|(_, until)| until)
    }

    pub(super) fn look_whether_warm(&mut self, now: Timestamp) {
        let reachable = self.revision.reachability != Reachability::Unreachable;
        let Some(hours) = self.revision.planning.keep_warm.as_ref().filter(|_| reachable) else {
            self.warm = None;
            return;
        };
        if self.warm.is_some_and(|(_, until)| now < until) {
            return;
        }
        let starts = self
            .starts
            .estimate(&self.revision.planning.sla, self.specs.full().prior());
        let lead = starts
            .and_then(|starts| Duration::try_from_secs_f64(starts.most).ok())
            .unwrap_or(ASSUMED_START);
        let (open, changes) = hours.open(now);
        let (soon, opens) = hours.open(now.plus(lead));
        self.warm = Some(if open || soon {
            (true, changes)
        } else {
            (false, now.plus(opens.since(now).saturating_sub(lead)))
        });
    }
}

/// How a sandbox on a rung stands, in a word.
pub(super) const fn stands(rung: Rung) -> &'static str {
    match rung {
        Rung::Zero => "stopped",
        Rung::Frozen => "frozen",
        Rung::Throttled => "throttled",
        Rung::Reserve => "on a cheaper spec",
        Rung::Full => "full",
    }
}
