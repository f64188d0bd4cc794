//! From what was measured to what shall run: decider, bounds, queue, gate, planner, in Knative's order.

use std::time::Duration;

use manifests::exchange::{Condition, Rung, shared};
use manifests::revision::{Metric, Revision};
use manifests::units::{Replicas, Timestamp};

use super::idle::Wish;
use super::{Context, Scaler};
use crate::bounds::{Bounded, Bounds, active_threshold};
use crate::conditions::{ActiveInput, Trouble, active, set};
use crate::gate::{GateInput, Phase, Verdict, Why, judge};
use crate::planner::Plan;
use crate::planner::busy::BusyPlan;
use crate::zero_to_n::{Demand, Queue, demand};

/// What was decided, in numbers and words.
pub(super) struct Decided {
    /// Start sandboxes up to here.
    pub(super) up: Replicas,
    /// Stop sandboxes down to here; at least `up`.
    pub(super) keep: Replicas,
    pub(super) clamps: Vec<String>,
    /// Why, after what the plan says of itself.
    pub(super) reason: String,
    pub(super) plan: Option<Plan>,
    pub(super) busy: Option<BusyPlan>,
}

/// Knative's start value: unlimited is -1, none is 0, else what the initial scale has left over the burst.
pub(super) fn initial_burst_capacity(revision: &Revision) -> i32 {
    let (Metric::Concurrency {
        total: manifests::units::Concurrency(total),
        ..
    }
    | Metric::Rps {
        total: manifests::units::Rps(total),
        ..
    }) = revision.scaling.metric;
    match revision.scaling.target_burst_capacity {
        None => -1,
        Some(0.0) => 0,
        #[expect(clippy::cast_possible_truncation, reason = "out of range saturates")]
        Some(burst) => (f64::from(revision.scaling.initial_scale.0) * total - burst) as i32,
    }
}

impl Scaler {
    /// One evaluation of the decider.
    pub(super) fn tick(&mut self, cx: &Context) {
        let (ready, now) = (self.ready_in_full(), cx.now);
        // A ready replica without load reports zeros, as Knative's scrapes would; one that stands idle by plan does not once
        // the decider wants nothing, so that its windows run empty and it costs nothing. Nor does one at zero by plan, of which
        // no tick need see the end of its load.
        let rests = self.idle.is_some() || self.is_planned();
        let Some(hot) = &mut self.hot else { return };
        if ready.0 > 0 && !(rests && self.desired == Some(Replicas(0))) {
            hot.collector.record(now, 0.0, 0.0);
        }
        if rests && hot.collector.is_empty(now) {
            self.desired = Some(Replicas(0));
        }
        let observed = hot.collector.observed(&self.revision.scaling, now);
        if let Some(decision) = hot.decider.tick(now, observed, ready) {
            self.desired = Some(decision.desired);
            self.excess_burst_capacity = decision.excess_burst_capacity;
            hot.decision = Some(decision);
        }
    }

    /// A removed revision runs nothing.
    pub(super) fn nothing(&mut self, _: &Context) -> Decided {
        self.replicas = Replicas(0);
        (self.idle, self.floor, self.gate_at, self.freeze_at) = (None, None, None, None);
        (self.low, self.mix) = (None, None);
        self.forget_course();
        let reason = "the revision was removed".into();
        Decided {
            up: Replicas(0),
            keep: Replicas(0),
            clamps: Vec::new(),
            reason,
            plan: None,
            busy: None,
        }
    }

    /// What shall run.
    pub(super) fn decide(&mut self, cx: &mut Context) -> Decided {
        self.look_whether_quiet(cx);
        self.look_whether_warm(cx.now);
        let mut clamps = self.decider_clamps();
        let demand = self.demand(cx, &mut clamps);
        let wish = self.wish(demand, cx);
        if wish.is_some() {
            self.freeze_at = None;
        }
        let mut bounded = self.bounded();
        let mut verdict = self.scale(bounded.map(Bounded::replicas), demand, wish.as_ref(), cx.now);
        // Going inactive, or active for the first time, makes Knative reconcile again at once.
        while self.update_active(verdict.want, cx.now) {
            bounded = self.bounded();
            verdict = self.scale(bounded.map(Bounded::replicas), demand, wish.as_ref(), cx.now);
        }
        match bounded.filter(|_| wish.is_none()) {
            Some(Bounded::Raised(to)) if self.initialized => clamps.push(format!("raised to min-scale {to}")),
            Some(Bounded::Raised(to)) => clamps.push(format!("raised to {to}: initial-scale was not reached yet")),
            Some(Bounded::Lowered(to)) => clamps.push(format!("lowered to max-scale {to}")),
            Some(Bounded::Inside(_)) | None => {}
        }
        self.update_proxy(verdict.want, cx.now);
        let mut reason = verdict.reason;
        self.evicted &= verdict.zero.is_some() || wish.is_some();
        let wish = wish.or_else(|| self.stand_idle(verdict.zero, &reason, cx));
        let stays_low = wish.is_none() && self.stays_low(demand, cx);
        let busy = if wish.is_none() { self.serve(cx) } else { None };
        let (mut idle, mut plan) = (None, None);
        match (wish, &busy) {
            (Some(wish), _) => {
                (idle, self.low, plan) = (Some(wish.rung), wish.spec, wish.plan);
                self.rest();
                reason = wish.reason;
            }
            (None, Some(busy)) => reason = format!("{reason}; {}", busy.reason()),
            (None, None) if stays_low => reason.push_str("; the cheaper instance is enough"),
            (None, None) => self.low = None,
        }
        if self.evicted {
            (idle, self.low) = (None, None);
            reason.push_str("; evicted, its memory was needed");
        }
        self.idle = idle.filter(|rung| *rung > Rung::Zero);
        let up = self.wanted();
        let keep = self.keep(verdict.want, cx.now).max(up);
        if keep > up {
            clamps.push(format!(
                "{keep} kept: a queue asked for them less than a stable window ago"
            ));
        }
        Decided {
            up,
            keep,
            clamps,
            reason,
            plan,
            busy,
        }
    }

    /// Bounds over the decider's wish; `None` while Knative would leave everything as it is.
    fn bounded(&self) -> Option<Bounded> {
        let undecided = self.desired.is_none() && self.phase != Phase::Activating;
        (!undecided || self.is_warm()).then(|| self.bounds().apply(self.desired))
    }

    /// Knative's bounds, and at least one inside of `knarr.dev/keep-warm`.
    pub(super) fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::of(&self.revision, self.initialized);
        if self.is_warm() {
            bounds.min = bounds.min.max(Replicas(1));
        }
        bounds
    }

    /// Knative's `scale`: applies a count, or asks the gate. Sets `replicas` when it says so.
    /// `wish`: where an idle revision stands by an instant of its own.
    fn scale(&mut self, bounded: Option<Replicas>, demand: Demand, wish: Option<&Wish>, now: Timestamp) -> Scaled {
        self.gate_at = None;
        if let Some(wish) = wish {
            // What runs and can serve counts as active, as it would in Knative.
            let serves = wish.rung >= Rung::Reserve && !self.evicted;
            self.replicas = Replicas(if serves { self.stands_with() } else { 0 });
            if !serves && self.phase == Phase::Activating {
                (self.phase, self.phase_since) = (Phase::Inactive, now);
            }
            return Scaled {
                want: Some(self.replicas),
                zero: None,
                reason: String::new(),
            };
        }
        let queued = demand.replicas.0 > 0 && demand.replicas > bounded.unwrap_or_default();
        let Some(wanted) = bounded.filter(|_| !queued).or(queued.then_some(demand.replicas)) else {
            return Scaled {
                want: None,
                zero: None,
                reason: "no data yet".into(),
            };
        };
        if queued {
            self.raise_floor(demand.replicas, now);
        }
        if wanted.0 > 0 {
            self.replicas = wanted;
            let reason = match (queued, self.desired) {
                (true, _) => "requests wait or came to an idle revision".into(),
                (false, None) => "the first replicas are on their way".into(),
                (false, Some(_)) => self.load_reason(),
            };
            return Scaled {
                want: Some(wanted),
                zero: None,
                reason,
            };
        }
        let input = GateInput {
            now,
            phase: self.phase,
            since: self.phase_since,
            proxy_since: self.proxy_since,
        };
        let said = |why: Why| why.text().to_owned();
        match judge(&self.revision, input) {
            Verdict::KeepOne(until, why) => {
                self.gate_at = until;
                self.replicas = Replicas(1);
                Scaled {
                    want: Some(Replicas(1)),
                    zero: None,
                    reason: said(why),
                }
            }
            Verdict::Undecided(until) => {
                self.gate_at = Some(until);
                Scaled {
                    want: None,
                    zero: None,
                    reason: "the first replicas are on their way".into(),
                }
            }
            Verdict::Deactivate => {
                let reason = "idle for the stable window".into();
                Scaled {
                    want: Some(Replicas(0)),
                    zero: None,
                    reason,
                }
            }
            Verdict::Wait(until, why) => {
                self.gate_at = Some(until);
                Scaled {
                    want: Some(Replicas(0)),
                    zero: None,
                    reason: said(why),
                }
            }
            Verdict::Zero(why) => {
                self.replicas = Replicas(0);
                Scaled {
                    want: Some(Replicas(0)),
                    zero: Some(why),
                    reason: said(why),
                }
            }
        }
    }

    /// The `Active` condition; true when its status changed.
    fn update_active(&mut self, want: Option<Replicas>, now: Timestamp) -> bool {
        let ready = self.ready();
        let threshold = active_threshold(&self.revision, self.initialized);
        let before = self.phase;
        let (phase, reason, message) = active(ActiveInput {
            want,
            ready,
            threshold,
            phase: before,
        });
        self.initialized |= ready >= threshold;
        if reason == "TimedOut" && !self.initialized && self.trouble.is_none() {
            self.trouble = Some(Box::new(Trouble::never_ready()));
        }
        if phase != before {
            self.phase = phase;
            self.phase_since = now;
        }
        let condition = match phase {
            Phase::Active => Condition::yes(now),
            Phase::Activating => match self.unready_why() {
                Some(why) => {
                    let message = format!("{message} A replica is not ready: {why}");
                    Condition::unknown(shared(reason), message, now)
                }
                None => Condition::unknown(shared(reason), shared(message), now),
            },
            Phase::Inactive => Condition::no(shared(reason), shared(message), now),
        };
        set(&mut self.active, condition);
        phase != before && before != Phase::Inactive
    }

    /// Knative's mode: requests go straight to replicas (Serve) only while some are wanted and there is room for a burst.
    fn update_proxy(&mut self, want: Option<Replicas>, now: Timestamp) {
        let serve = want.is_some_and(|want| want.0 > 0) && self.excess_burst_capacity >= 0;
        self.proxy_since = if serve { None } else { self.proxy_since.or(Some(now)) };
    }

    /// What the queue asks for. Requests in flight without a queue ask for one replica.
    fn demand(&self, cx: &Context, clamps: &mut Vec<String>) -> Demand {
        let (in_flight, waiting) = self.loads.requests(&cx.gateways, cx.now);
        let waiting = waiting.saturating_sub(self.absorbed);
        if waiting == 0 {
            return Demand {
                replicas: Replicas(u32::from(in_flight > 0)),
                limit: None,
            };
        }
        let needs = self.promise(cx);
        let (cores, fits_memory) = cx.admission.room(needs);
        let (ready, starting) = (self.ready(), self.starting());
        let demand = demand(
            &self.revision,
            Queue {
                waiting,
                ready,
                starting,
                cores,
                fits_memory,
            },
        );
        if let Some(limit) = demand.limit {
            clamps.push(format!(
                "{waiting} waiting requests ask for more, limited by {} to {}",
                limit.text(),
                demand.replicas
            ));
        }
        demand
    }

    fn raise_floor(&mut self, to: Replicas, now: Timestamp) {
        let until = now.plus(self.revision.scaling.stable_window);
        self.floor = match self.floor {
            Some((floor, old)) if floor > to && old > now => Some((floor, old)),
            _ => Some((to, until)),
        };
    }

    /// What the queue has raised the count to stays as long as panic mode would hold it, but never keeps a revision from
    /// going to zero.
    fn keep(&mut self, want: Option<Replicas>, now: Timestamp) -> Replicas {
        let expired = self.floor.is_some_and(|(_, until)| until <= now);
        if expired || want == Some(Replicas(0)) || self.idle.is_some() {
            self.floor = None;
        }
        let most = self.revision.scaling.max_scale.unwrap_or(Replicas(u32::MAX));
        self.floor.map_or(Replicas(0), |(floor, _)| floor.min(most))
    }

    /// What changed the decider's own count on its way.
    fn decider_clamps(&self) -> Vec<String> {
        let mut clamps = Vec::new();
        let Some(decision) = self.decision() else { return clamps };
        let (down, up) = decision.rate_limits;
        let wants = if decision.panicking {
            decision.stable_wants.max(decision.panic_wants)
        } else {
            decision.stable_wants
        };
        let undelayed = f64::from(decision.undelayed.0);
        if wants > up && undelayed <= up {
            clamps.push(format!("{wants} lowered to {up} by max-scale-up-rate"));
        } else if wants < down && undelayed <= down {
            clamps.push(format!("{wants} raised to {down} by max-scale-down-rate"));
        } else if undelayed > wants {
            clamps.push(format!("{wants} raised to {undelayed} by activation-scale"));
        }
        if decision.desired > decision.undelayed {
            let by = if decision.panicking {
                "panic mode, which never scales down"
            } else {
                "scale-down-delay"
            };
            clamps.push(format!("{} raised to {} by {by}", decision.undelayed, decision.desired));
        }
        clamps
    }

    fn load_reason(&self) -> String {
        match (self.decision(), self.initialized) {
            (Some(decision), true) if decision.panicking => {
                format!("the panic window asks for {}", decision.panic_wants)
            }
            (Some(decision), true) => format!("the stable window asks for {}", decision.stable_wants),
            _ => "min-scale and initial-scale".into(),
        }
    }
}

/// What `scale` did: `want` as Knative counts it (`None` is -1), and the rule that allows zero.
struct Scaled {
    want: Option<Replicas>,
    zero: Option<Why>,
    reason: String,
}

/// A rung is taken at the gateways before the limit is lowered, so that a request in between still calls.
pub(super) const DOWNGRADE_AFTER: Duration = Duration::from_millis(1500);
