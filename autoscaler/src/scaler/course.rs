//! The planner's schedule in force: made when nothing is in flight any more, followed by age, dropped by the next request,
//! which the planner hears of once it is answered.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{RevisionLoad, Rung, Work};
use manifests::revision::{ColdStartSla, IdlePolicy, Revision};
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::Scaler;
use super::idle::Wish;
use super::menu::Choice;
use super::types::{Context, State};
use crate::gate::Phase;
use crate::planner::busy::Busy;
use crate::planner::{Arrival, Gaps, IdlePlanner, Pilot, Schedule, View};
use crate::slowdown::Usual;
use crate::specs::Spec;
use crate::start_latency::Latencies;
use crate::zero_to_n::Demand;

/// What only a revision has that plans its idle times.
#[derive(Serialize, Deserialize)]
pub(super) struct Mind {
    #[serde(with = "saved")]
    planner: Box<dyn IdlePlanner>,
    course: Option<Course>,
    met: Option<Box<Met>>,
    /// Requests may be served on cheaper instances, as the last schedule says.
    pub(super) stay_low: bool,
    /// On which, once there was load for several.
    busy: Option<Box<Busy>>,
}

/// A schedule with the places that its steps name.
#[derive(Serialize, Deserialize)]
struct Course {
    /// Nothing has been in flight since.
    since: Timestamp,
    steps: Box<[(Duration, Place)]>,
    /// What it is expected to come to until the next request: money, and the probability that it is late.
    cost: f64,
    late: f64,
}

/// A rung, and the cheaper spec on it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) rung: Rung,
    pub(super) spec: Option<Arc<Spec>>,
}

/// A request that ended an idle time, until all that came with it is answered.
#[derive(Serialize, Deserialize)]
struct Met {
    /// `None` for the first request ever.
    gap: Option<Duration>,
    place: Place,
    at: Timestamp,
    /// Until something could serve it.
    waited: Option<Duration>,
    /// Others waited with it.
    crowd: bool,
    work: Work,
}

/// How long starts and requests take on a cheaper spec.
#[derive(Serialize, Deserialize)]
pub(super) struct Elsewhere {
    spec: Arc<str>,
    pub(super) starts: Latencies,
    pub(super) usual: Usual,
}

impl Elsewhere {
    /// To be kept over a restart.
    pub(super) fn learned(&self) -> (Arc<str>, Latencies, Usual) {
        (Arc::clone(&self.spec), self.starts.clone(), self.usual)
    }

    /// From what was kept.
    pub(super) fn from_learned((spec, starts, usual): (Arc<str>, Latencies, Usual)) -> Self {
        Self { spec, starts, usual }
    }
}

impl Mind {
    /// For revisions with `knarr.dev/idle: auto`.
    pub(super) fn of(revision: &Revision, cx: &Context) -> Option<Box<Self>> {
        let plans = revision.idle == IdlePolicy::Auto;
        plans.then(|| {
            let planner = (cx.planners)(revision);
            Box::new(Self {
                stay_low: planner.stays_low(),
                planner,
                course: None,
                met: None,
                busy: None,
            })
        })
    }

    /// What its planner has learned.
    pub(super) fn save(&self) -> Option<serde_json::Value> {
        self.planner.save()
    }

    /// Goes on from what a planner had learned; with nothing where that was written by another version.
    pub(super) fn go_on_from(&mut self, saved: &serde_json::Value) {
        if let Ok(pilot) = Pilot::restore(saved) {
            self.planner = Box::new(pilot);
        }
    }

    /// The idle times that it has seen.
    pub(super) fn gaps(&self) -> Option<&Gaps> {
        self.planner.gaps()
    }

    /// On what load is served.
    pub(super) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// It stands idle.
    pub(super) fn rest(&mut self) {
        if let Some(busy) = &mut self.busy {
            busy.rest();
        }
    }

    /// How likely a request takes longer by more than `limit` where it takes `slow` times as long.
    pub(super) fn late(&self, slow: f64, limit: Duration) -> f64 {
        self.planner.service().late(slow, limit)
    }
}

impl Course {
    /// The step in force at an age; the first one also before its own.
    fn step(&self, age: Duration) -> usize {
        let reached = self.steps.partition_point(|(from, _)| *from <= age);
        reached.saturating_sub(1)
    }
}

impl Scaler {
    /// Where the schedule says to stand now. Makes one when an idle time begins.
    pub(super) fn scheduled(&mut self, cx: &mut Context) -> Option<Wish> {
        let since = self.quiet_since;
        let course = self.mind.as_ref()?.course.as_ref();
        if course.is_none_or(|course| Some(course.since) != since) {
            self.forget_course();
            let since = since.filter(|_| self.may_plan())?;
            self.plan(since, cx);
        }
        let course = self.mind.as_ref()?.course.as_ref()?;
        let age = cx.now.since(course.since);
        let mut place = &course.steps.get(course.step(age))?.1;
        let full = Place {
            rung: Rung::Full,
            spec: None,
        };
        let held = age < self.held_for();
        if held || place.rung < self.least_rung() {
            place = &full;
        }
        let steps = course.steps.iter().map(|(age, place)| place.step(*age)).collect();
        let mut plan = self.choice(cx).plan(place, steps, age, &self.revision.planning.sla);
        (plan.cost, plan.late) = (course.cost, course.late);
        let held = held.then_some("; full until scale-down-delay and retention are over");
        let Place { rung, spec } = place.clone();
        Some(Wish {
            rung,
            spec,
            reason: held.unwrap_or_default().into(),
            plan: Some(plan),
        })
    }

    /// An idle time of which the planner decides: what there is runs or is frozen, and Knative wants no more of it than
    /// min-scale says.
    fn may_plan(&self) -> bool {
        let stands = |state: State| matches!(state, State::Ready { .. } | State::Frozen);
        self.phase != Phase::Activating
            && self.desired.unwrap_or_default().0 <= self.stands_with()
            && self.sandboxes.iter().any(|sandbox| stands(sandbox.state))
    }

    /// Knative's delays hold for every way down.
    fn held_for(&self) -> Duration {
        self.revision
            .scaling
            .scale_down_delay
            .max(self.revision.scaling.retention)
    }

    fn plan(&mut self, since: Timestamp, cx: &mut Context) {
        let choice = self.choice(cx);
        let (at, sla) = (choice.index(&self.stands_at()), self.revision.planning.sla);
        let Some(mut mind) = self.mind.take() else { return };
        if let Some(met) = mind.met.take() {
            let arrival = self.answered(&met, &choice);
            let before = mind.planner.gaps().cloned();
            mind.planner.arrived(&arrival, &view(cx, &choice, (since, at), &sla));
            cx.population.shown(before.as_ref(), mind.planner.gaps());
        }
        let Schedule { ladder, stay_low } = mind.planner.plan(&view(cx, &choice, (since, at), &sla));
        mind.stay_low = stay_low;
        let places = ladder.steps.iter().map(|step| (step.age, choice.place(step.offer)));
        mind.course = Some(Course {
            since,
            steps: places.collect(),
            cost: ladder.cost,
            late: ladder.late,
        });
        self.mind = Some(mind);
    }

    /// A schedule is in force.
    pub(super) fn is_planned(&self) -> bool {
        self.mind.as_ref().is_some_and(|mind| mind.course.is_some())
    }

    /// The next one is made anew.
    pub(super) fn forget_course(&mut self) {
        if let Some(mind) = &mut self.mind {
            mind.course = None;
        }
    }

    /// When the next step is due.
    pub(super) fn step_at(&self) -> Option<Timestamp> {
        let course = self.mind.as_ref()?.course.as_ref()?;
        let later = |age: &Duration| course.since.plus(*age) > self.looked;
        let ages = course.steps.iter().map(|(age, _)| *age).chain([self.held_for()]);
        ages.filter(later).min().map(|age| course.since.plus(age))
    }

    /// An idle time has begun or ended, and nobody has decided on it yet.
    pub(super) fn goes_on_otherwise(&self) -> bool {
        let Some(mind) = &self.mind else { return false };
        match (&mind.course, self.quiet_since) {
            (None, quiet) => quiet.is_some(),
            (Some(course), quiet) => Some(course.since) != quiet,
        }
    }

    /// Where it stands, by what there is rather than by what is wanted.
    fn stands_at(&self) -> Place {
        let ready = self.sandboxes.iter().filter(|sandbox| sandbox.is_ready());
        let best = ready.max_by(|a, b| {
            a.spec
                .rung
                .cmp(&b.spec.rung)
                .then_with(|| b.spec.price.total_cmp(&a.spec.price))
        });
        let place = |rung, spec| Place { rung, spec };
        match best {
            Some(sandbox) if sandbox.spec.rung < Rung::Full => {
                place(sandbox.spec.rung, Some(Arc::clone(&sandbox.spec)))
            }
            Some(_) => place(Rung::Full, None),
            None if self.sandboxes.iter().any(|sandbox| sandbox.state.is_cold()) => place(Rung::Frozen, None),
            None => place(Rung::Zero, None),
        }
    }

    /// A report tells of requests: the first one after an idle time, or what goes on since.
    pub(super) fn met(&mut self, load: &RevisionLoad, now: Timestamp) {
        let place = self.stands_at();
        let before = self.rhythm.asked_before();
        let quiet = self.quiet_since;
        let Some(mind) = &mut self.mind else { return };
        if mind.met.is_none()
            && let Some(since) = quiet
        {
            mind.met = Some(Box::new(Met {
                gap: before.then(|| now.since(since)),
                waited: (place.rung >= Rung::Reserve).then_some(Duration::ZERO),
                place,
                at: now,
                crowd: false,
                work: Work::default(),
            }));
        }
        if let Some(met) = &mut mind.met {
            met.crowd |= load.waiting > 1;
            met.work.arrivals = met.work.arrivals.saturating_add(load.work.arrivals);
            met.work.time = met.work.time.saturating_add(load.work.time);
            met.work.first = met.work.first.or(load.work.first);
        }
    }

    /// Something serves the request that ended an idle time.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let throttled = |sandbox: &super::Sandbox| sandbox.spec.rung == Rung::Throttled;
        let serves = self
            .sandboxes
            .iter()
            .any(|sandbox| sandbox.is_ready() && !throttled(sandbox));
        if let Some(met) = self.mind.as_mut().and_then(|mind| mind.met.as_mut())
            && met.waited.is_none()
            && serves
        {
            met.waited = Some(now.since(met.at));
        }
    }

    /// What became of the request that ended an idle time, and what that says about this spec.
    fn answered(&mut self, met: &Met, choice: &Choice) -> Arrival {
        let at = choice.index(&met.place);
        let waited = met.waited.unwrap_or(Duration::MAX);
        let knows = met.work.arrivals > 0 && (!met.crowd || waited.is_zero());
        let mean = knows.then(|| met.work.time.saturating_sub(waited) / met.work.arrivals);
        // Of the very request, where a gateway has said it: those that came after it may differ.
        let first = met.work.first.filter(|_| met.waited.is_some());
        let each = first.map(|first| first.saturating_sub(waited)).or(mean);
        // All of it ran there.
        let stayed = self.stands_at() == met.place;
        let slow = choice.slow(&met.place);
        if let Some(each) = each {
            match &met.place.spec {
                Some(spec) if stayed && met.place.rung == Rung::Reserve => self.elsewhere(spec).usual.add(each),
                None => self.usual.add(each),
                Some(_) => {}
            }
        }
        let service = each.map(|each| each.div_f64(slow));
        let slower = each.unwrap_or_default().saturating_sub(service.unwrap_or_default());
        Arrival {
            gap: met.gap,
            at,
            service,
            late: waited.saturating_add(slower) > self.revision.planning.sla.limit,
        }
    }

    /// Whether what is asked for now can stay on the cheaper instance that it met.
    pub(super) fn stays_low(&self, demand: Demand, cx: &Context) -> bool {
        let Some(low) = self.low.as_ref().filter(|low| low.rung == Rung::Reserve) else {
            return false;
        };
        let (_, waiting) = self.loads.requests(&cx.gateways, cx.now);
        let mut ready = self.sandboxes.iter().filter(|sandbox| sandbox.is_ready()).peekable();
        // A full one that is there is used.
        let runs_there = ready.peek().is_some() && ready.all(|sandbox| sandbox.spec.name == low.name);
        let most = self.stands_with();
        runs_there
            && self.mind.as_ref().is_none_or(|mind| mind.stay_low)
            && demand.replicas.0 <= most
            && waiting <= self.absorbed
            && self.desired.unwrap_or_default().0 <= most
            && self.wish_at(low.share(self.specs.full())) <= f64::from(most)
    }

    /// What the stable and the panic window ask for, of instances that take a share of a full one's load. One request at a
    /// time any instance takes.
    fn wish_at(&self, share: f64) -> f64 {
        let Some(hot) = &self.hot else { return 0.0 };
        let observed = hot.collector.observed(&self.revision.scaling, self.looked);
        let load = observed.map_or(0.0, |observed| observed.stable.max(observed.panic));
        (load / (self.target().1 * share).max(1.0)).ceil()
    }

    /// Starts on a spec.
    pub(super) fn starts_on(&mut self, spec: &Arc<Spec>) -> &mut Latencies {
        if spec.rung == Rung::Full {
            &mut self.starts
        } else {
            &mut self.elsewhere(spec).starts
        }
    }

    /// What is known of a cheaper spec.
    pub(super) fn elsewhere(&mut self, spec: &Spec) -> &mut Elsewhere {
        let known = self.elsewhere.iter().position(|known| known.spec == spec.name);
        let index = known.unwrap_or_else(|| {
            self.elsewhere.reserve_exact(1);
            self.elsewhere.push(Elsewhere {
                spec: Arc::clone(&spec.name),
                starts: Latencies::default(),
                usual: Usual::default(),
            });
            self.elsewhere.len() - 1
        });
        &mut self.elsewhere[index]
    }

    pub(super) fn known(&self, spec: &Spec) -> Option<&Elsewhere> {
        self.elsewhere.iter().find(|known| known.spec == spec.name)
    }
}

fn view<'a>(cx: &'a Context, choice: &'a Choice, (since, at): (Timestamp, usize), sla: &'a ColdStartSla) -> View<'a> {
    View {
        now: cx.now,
        since,
        at,
        sla,
        menu: &choice.menu,
        population: &cx.population,
    }
}

/// What a planner has learned, in recordings; one from there is a [`Pilot`](crate::planner::Pilot).
mod saved {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::planner::{IdlePlanner, Pilot};

    #[expect(clippy::borrowed_box, reason = "as serde hands it over")]
    pub(super) fn serialize<S: Serializer>(planner: &Box<dyn IdlePlanner>, to: S) -> Result<S::Ok, S::Error> {
        planner.save().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<dyn IdlePlanner>, D::Error> {
        Ok(Box::new(Option::<Pilot>::deserialize(from)?.unwrap_or_default()))
    }
}
