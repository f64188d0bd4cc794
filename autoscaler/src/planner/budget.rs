//! PURE  The SLA as a budget of late requests: spent by each that was late, filled by each that came.
//!
//! `p99` allows one in a hundred. What was overspent stands in a virtual queue, and each unit of it makes being late four
//! times as dear, so that the plan becomes careful until the budget is even again (drift plus penalty, Neely 2010). A revision
//! that is called a few times a day cannot make up for a late request for days: there each is worth more from the start.

use serde::{Deserialize, Serialize};

/// The budget of one revision.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Budget {
    overspent: f64,
}

impl Budget {
    /// A request ended an idle time, late or not.
    pub fn arrived(&mut self, late: bool, quantile: f64) {
        let spent = if late { 1.0 } else { 0.0 };
        self.overspent = (self.overspent + spent - (1.0 - quantile)).clamp(LEAST, MOST);
    }

    /// Money that one late request is worth, when a full instance costs `full_price` a second and idle times end
    /// `per_day` times a day.
    pub fn price_of_late(&self, full_price: f64, per_day: f64) -> f64 {
        let rare = (RARE_PER_DAY / per_day.max(f64::MIN_POSITIVE)).clamp(1.0, RAREST);
        LATE_IS_WORTH * full_price * rare * (2.0 * self.overspent).exp2()
    }

    /// Late requests beyond what the quantile allows; negative when there is something left.
    pub const fn overspent(&self) -> f64 {
        self.overspent
    }
}

impl Default for Budget {
    /// As after one late request: a new revision is served carefully until it has shown what it is like.
    fn default() -> Self {
        Self { overspent: 1.0 }
    }
}

/// Seconds of a full instance that one late request is worth while the budget is even.
pub const LATE_IS_WORTH: f64 = 600.0;

/// Below this many ends of idle times a day a late request is worth more, in inverse proportion, at most 24 times.
pub const RARE_PER_DAY: f64 = 240.0;
const RAREST: f64 = 24.0;

const LEAST: f64 = -1.0;
const MOST: f64 = 6.0;
