//! What others do while nobody asks, as planners in the place of the shipped one. PURE.
//!
//! | planner | whose |
//! |---|---|
//! | [`Stairs`] | fixed ages: Alibaba ASK's reserved instances, the best static ladder, one rung for ever |
//! | [`HybridHistogram`] | Shahrad et al., *Serverless in the Wild*, USENIX ATC 2020 |
//! | [`Oracle`] | nobody's: it knows the next call |
//! | [`Lame`] | the shipped one without something, to see what that is worth |

mod hybrid;
mod oracle;

use std::time::Duration;

use autoscaler::planner::{Arrival, IdlePlanner, Ladder, Pilot, Schedule, Step, View};
use manifests::exchange::Rung;

pub(super) use hybrid::HybridHistogram;
pub(super) use oracle::{Future, Oracle};

/// Moves at fixed ages.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Stairs {
    /// From which age on which rung; the first at 0.
    pub(super) steps: Vec<(Duration, Rung)>,
    /// A call that meets a cheaper running instance stays there.
    pub(super) stay_low: bool,
}

impl IdlePlanner for Stairs {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        let now = view.menu.offers.get(view.at).map_or(Rung::Full, |offer| offer.rung);
        let mut steps = self.steps.clone();
        if self.stay_low && now == Rung::Reserve {
            // It does not climb to come down again.
            steps
                .iter_mut()
                .filter(|(_, rung)| *rung == Rung::Full)
                .for_each(|(_, rung)| *rung = now);
        }
        schedule(view, &steps, self.stay_low)
    }

    fn arrived(&mut self, _: &Arrival, _: &View<'_>) {}

    fn stays_low(&self) -> bool {
        self.stay_low
    }
}

/// Rungs by age, as offers of the menu from the view's age on; a rung that cannot be had is left out.
fn schedule(view: &View<'_>, wanted: &[(Duration, Rung)], stay_low: bool) -> Schedule {
    let age = view.now.since(view.since);
    let mut steps: Vec<Step> = Vec::new();
    for (from, rung) in wanted {
        let Some(offer) = view.menu.find(*rung) else { continue };
        if *from <= age {
            steps = vec![Step { age, offer }];
        } else if steps.last().is_none_or(|step| step.offer != offer) {
            steps.push(Step { age: *from, offer });
        }
    }
    if steps.first().is_none_or(|step| step.age > age) {
        steps.insert(0, Step { age, offer: view.at });
    }
    let ladder = Ladder {
        steps,
        ..Ladder::default()
    };
    Schedule { ladder, stay_low }
}

/// The shipped planner, lamed.
pub(super) struct Lame {
    pilot: Pilot,
    lacks: Lacks,
}

/// What the shipped planner is to do without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lacks {
    /// It never climbs while nobody asks.
    Prewarm,
    /// A call on a cheaper instance starts a full one.
    StayLow,
}

impl Lame {
    pub(super) fn new(lacks: Lacks) -> Self {
        Self {
            pilot: Pilot::default(),
            lacks,
        }
    }
}

impl IdlePlanner for Lame {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        let mut schedule = self.pilot.plan(view);
        match self.lacks {
            Lacks::StayLow => schedule.stay_low = false,
            Lacks::Prewarm => {
                let mut lowest = usize::MAX;
                schedule.ladder.steps.retain(|step| {
                    let descends = step.offer < lowest;
                    lowest = lowest.min(step.offer);
                    descends
                });
            }
        }
        schedule
    }

    fn arrived(&mut self, arrival: &Arrival, view: &View<'_>) {
        self.pilot.arrived(arrival, view);
    }

    fn stays_low(&self) -> bool {
        self.lacks != Lacks::StayLow
    }
}

#[cfg(test)]
mod tests;
