//! What the planner of a revision may choose from now, with prices and probabilities from what was measured; and the same in
//! words for people.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::revision::ColdStartSla;
use manifests::units::Millicores;

use super::Scaler;
use super::course::Place;
use super::types::Context;
use crate::evict::ASSUMED_START;
use crate::planner::menu::MOST_OFFERS;
use crate::planner::{ASSUMED_THAW, ASSUMED_UPGRADE, Candidate, Menu, Offer, Plan, PlannedStep, Verdict, sla_text};
use crate::specs::{Spec, Specs, per_hour};
use crate::start_latency::{Estimate, Latencies, Prior};

/// A menu, and every rung that was looked at for it.
pub(super) struct Choice {
    pub(super) menu: Menu,
    /// The places of its offers.
    places: Vec<Place>,
    /// Cheapest first; with those that cannot be had.
    looks: Vec<Look>,
}

/// One rung as it was looked at.
struct Look {
    offer: Offer,
    place: Place,
    cpu: Option<Millicores>,
    /// What a wake-up from here adds; `None` when nobody can say.
    wakes: Option<Estimate>,
    /// Why it cannot be had.
    rejected: Option<Verdict>,
}

impl Scaler {
    /// The one place where measurements become prices and probabilities.
    pub(super) fn choice(&self, cx: &Context) -> Choice {
        let sla = &self.revision.planning.sla;
        let full = self.specs.full();
        let starts = self.starts.estimate(sla, full.prior());
        let start_on = |spec: &Spec| {
            self.known(spec)
                .and_then(|known| known.starts.estimate(sla, spec.prior()))
        };
        let assumed = Estimate {
            mean: ASSUMED_START.as_secs_f64(),
            most: ASSUMED_START.as_secs_f64(),
            ..Estimate::default()
        };
        let start_money = full.start_money(starts.unwrap_or(assumed).mean);
        let offer = |rung, spec: Option<&Arc<Spec>>, price| Offer {
            spec: spec.map(|spec| Arc::clone(&spec.name)),
            ..Offer::new(rung, price)
        };
        let woken = |offer: Offer, latencies: &Latencies, prior, rejected| {
            let rung = offer.rung;
            let spec = match rung {
                Rung::Throttled => Some(Arc::clone(self.specs.on(rung))),
                _ => None,
            };
            let wakes = latencies.estimate(sla, prior);
            Look {
                cpu: spec.as_ref().map_or(Some(Millicores(0)), |spec| spec.limits.cpu),
                offer: Offer {
                    late: wakes.map_or(1.0, |wakes| wakes.late),
                    ..offer
                },
                place: Place { rung, spec },
                wakes,
                rejected,
            }
        };
        let mut looks = Vec::with_capacity(MOST_OFFERS);
        let zero = Offer {
            wake: start_money,
            ..offer(Rung::Zero, None, 0.0)
        };
        let rejected = match starts {
            _ if self.start_fails => Some(Verdict::StartFails),
            None => Some(Verdict::Unmeasured),
            Some(_) => None,
        };
        looks.push(woken(zero, &self.starts, full.prior(), rejected));
        let frozen = offer(Rung::Frozen, None, self.specs.frozen_price(self.holds()));
        let rejected = (!self.can_freeze(cx) || !self.specs.freezes()).then_some(Verdict::CannotFreeze);
        looks.push(woken(frozen, &self.thaws, Some(Prior::Guess(ASSUMED_THAW)), rejected));
        let throttled = self.specs.on(Rung::Throttled);
        if throttled.rung == Rung::Throttled {
            let offer = offer(Rung::Throttled, Some(throttled), throttled.price);
            let fails = self.setbacks.holds(Rung::Throttled, self.looked);
            let rejected = fails.then_some(Verdict::Unavailable);
            looks.push(woken(
                offer,
                &self.upgrades,
                Some(Prior::Guess(ASSUMED_UPGRADE)),
                rejected,
            ));
        }
        let reserves = self.specs.cheaper().iter().filter(|spec| spec.rung == Rung::Reserve);
        for spec in reserves.take(MOST_OFFERS - looks.len() - 1) {
            let usual = self.known(spec).map(|known| known.usual).unwrap_or_default();
            looks.push(Look {
                offer: Offer {
                    slow: usual.slowdown(self.usual, spec.slow),
                    lead: start_on(spec).or(starts).unwrap_or(assumed).most,
                    ..offer(Rung::Reserve, Some(spec), spec.price)
                },
                place: Place {
                    rung: Rung::Reserve,
                    spec: Some(Arc::clone(spec)),
                },
                cpu: spec.limits.cpu,
                wakes: Some(Estimate::default()),
                rejected: (!self.can_reserve(spec)).then_some(Verdict::Unavailable),
            });
        }
        looks.push(Look {
            offer: Offer {
                lead: starts.unwrap_or(assumed).most,
                ..offer(Rung::Full, Some(full), full.price)
            },
            place: Place {
                rung: Rung::Full,
                spec: None,
            },
            cpu: full.limits.cpu,
            wakes: Some(Estimate::default()),
            rejected: None,
        });
        let least = self.least_rung();
        for look in &mut looks {
            if look.place.rung < least {
                look.rejected.get_or_insert(Verdict::TooLow);
            }
        }
        // The full one stays last whatever it costs.
        let cheaper = looks.len() - 1;
        looks[..cheaper].sort_by(|a, b| {
            let (a, b) = (&a.offer, &b.offer);
            a.price.total_cmp(&b.price).then(a.rung.cmp(&b.rung))
        });
        let start_of = |place: &Place| match &place.spec {
            Some(spec) if !spec.in_place => spec.start_money(start_on(spec).or(starts).unwrap_or(assumed).mean),
            _ => start_money,
        };
        Choice::of(looks, &self.specs, start_of)
    }
}

impl Choice {
    fn of(looks: Vec<Look>, specs: &Specs, start_of: impl Fn(&Place) -> f64) -> Self {
        let can = || looks.iter().filter(|look| look.rejected.is_none());
        let places: Vec<Place> = can().map(|look| look.place.clone()).collect();
        let offers: Vec<Offer> = can().map(|look| look.offer.clone()).collect();
        let way = |from: &Place, to: &Place| way(from, to, specs, &start_of);
        let moves = places
            .iter()
            .map(|from| places.iter().map(|to| way(from, to)).collect());
        Self {
            menu: Menu {
                moves: moves.collect(),
                offers,
            },
            places,
            looks,
        }
    }

    /// The offer of a place; the full one where it is not on the menu any more.
    pub(super) fn index(&self, place: &Place) -> usize {
        let found = self.places.iter().position(|it| it == place);
        found.unwrap_or_else(|| self.menu.full())
    }

    pub(super) fn place(&self, offer: usize) -> Place {
        self.places[offer.min(self.menu.full())].clone()
    }

    /// How many times longer requests take there.
    pub(super) fn slow(&self, place: &Place) -> f64 {
        let looked = self.looks.iter().find(|look| look.place == *place);
        looked.map_or(1.0, |look| look.offer.slow)
    }

    /// In words: standing at `now`, and at the others at other ages.
    pub(super) fn plan(&self, now: &Place, steps: Vec<PlannedStep>, age: Duration, sla: &ColdStartSla) -> Plan {
        let later = |place: &Place| {
            let mut coming = steps.iter().filter(|step| step.age > age);
            coming.find(|step| place.is_of(step)).map(|step| step.age)
        };
        let candidate = |look: &Look| {
            let Offer { rung, spec, price, .. } = look.offer.clone();
            let estimate = look.wakes;
            let verdict = match (look.rejected, later(&look.place)) {
                _ if look.place == *now => Verdict::Chosen,
                (Some(rejected), _) => rejected,
                (None, Some(age)) => Verdict::Later(age),
                (None, None) if look.offer.late > 1.0 - sla.quantile => match estimate {
                    Some(seen) if (1..seen.samples.div_ceil(2)).contains(&seen.misses) => Verdict::Missed,
                    _ => Verdict::TooSlow,
                },
                (None, None) => Verdict::Dearer,
            };
            let known = !matches!(look.rejected, Some(Verdict::StartFails | Verdict::CannotFreeze));
            Candidate {
                late: look.offer.late,
                rung,
                spec,
                cpu: look.cpu,
                price: per_hour(price),
                bound: estimate.filter(|_| known).map(|estimate| estimate.bound),
                samples: estimate.map_or(0, |estimate| estimate.samples),
                slow: look.offer.slow,
                verdict,
            }
        };
        let candidates: Vec<Candidate> = self.looks.iter().map(candidate).collect();
        let here = self.looks.iter().find(|look| look.place == *now);
        Plan {
            rung: now.rung,
            spec: here.and_then(|look| look.offer.spec.clone()),
            price: per_hour(here.map_or(0.0, |look| look.offer.price)),
            sla: sla_text(sla),
            candidates,
            steps,
            cost: 0.0,
            late: 0.0,
        }
    }
}

impl Place {
    pub(super) fn step(&self, age: Duration) -> PlannedStep {
        PlannedStep {
            age,
            rung: self.rung,
            spec: self.spec.as_ref().map(|spec| Arc::clone(&spec.name)),
        }
    }

    fn is_of(&self, step: &PlannedStep) -> bool {
        self.rung == step.rung && self.spec.as_ref().map(|spec| &spec.name) == step.spec.as_ref()
    }
}

/// Money of a move: a start where one is needed; infinite where there is no way.
fn way(from: &Place, to: &Place, specs: &Specs, start_of: &impl Fn(&Place) -> f64) -> f64 {
    const NO_WAY: f64 = f64::INFINITY;
    let full = specs.full();
    let on = |place: &Place| Arc::clone(place.spec.as_ref().unwrap_or(full));
    let same_sandbox = || specs.changes(&on(from), &on(to));
    let runs = from.rung >= Rung::Throttled;
    match to.rung {
        _ if from == to => 0.0,
        Rung::Zero => 0.0,
        // The full sandbox is frozen, with whatever limits it has.
        Rung::Frozen if runs && specs.changes(&on(from), full) => 0.0,
        Rung::Throttled if runs && same_sandbox() => 0.0,
        Rung::Frozen | Rung::Throttled => NO_WAY,
        Rung::Reserve | Rung::Full if runs && same_sandbox() => 0.0,
        Rung::Full if from.rung == Rung::Frozen => 0.0,
        Rung::Reserve if from.rung == Rung::Frozen => NO_WAY,
        Rung::Reserve | Rung::Full => start_of(to),
    }
}
