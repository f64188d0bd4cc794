//! PURE  The planner of one revision: learns its idle gaps, its service times and how its SLA fares; plans each idle time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::gaps::Gaps;
use super::hazard::Hazard;
use super::ladder::ladder;
use super::menu::Offer;
use super::{Arrival, IdlePlanner, Schedule, View};
use crate::start_latency::Spread;

/// What one revision has shown. About 1 KiB once it has had idle times, less before.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Pilot {
    gaps: Gaps,
    budget: Budget,
    /// Service times of requests that ended idle times.
    service: Spread,
}

impl Pilot {
    /// One that goes on from what [`IdlePlanner::save`] gave.
    ///
    /// # Errors
    /// It was not given by it, or by another version.
    pub fn restore(saved: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(saved)
    }

    /// How its SLA fares.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// How likely a request is late that meets this offer: the start is, or the request itself where it runs slower.
    pub fn late(&self, offer: &Offer, limit: Duration) -> f64 {
        let slow = self.service.late(offer.slow, limit);
        if offer.late.is_nan() {
            1.0
        } else {
            offer.late.max(slow).clamp(0.0, 1.0)
        }
    }
}

impl IdlePlanner for Pilot {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        let hazard = Hazard::of(&self.gaps, view.population);
        let offers = &view.menu.offers;
        let late: Vec<f64> = offers.iter().map(|offer| self.late(offer, view.sla.limit)).collect();
        let worth = self
            .budget
            .price_of_late(view.menu.full_price(), self.gaps.per_day(view.now));
        let age = view.now.since(view.since);
        Schedule {
            ladder: ladder(view.menu, &late, &hazard, worth, view.at, age),
            stay_low: true,
        }
    }

    fn arrived(&mut self, arrival: &Arrival, view: &View<'_>) {
        if let Some(service) = arrival.service {
            self.service.add(service);
        }
        if let Some(gap) = arrival.gap {
            self.gaps.add(gap, view.now);
            self.budget.arrived(arrival.late, view.sla.quantile);
        }
    }

    fn gaps(&self) -> Option<&Gaps> {
        Some(&self.gaps)
    }

    fn service(&self) -> Spread {
        self.service
    }

    fn save(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self).ok()
    }
}

#[cfg(test)]
mod tests;
