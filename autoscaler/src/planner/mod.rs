//! PURE  The planner: where an idle revision stands, and on what a busy one serves, so that it costs least while requests
//! come in time.
//!
//! ```text
//! gaps of this revision ─┐
//! gaps of all (Population) ┴▶ hazard ─┐
//! prices, starts measured ─▶ menu ────┼▶ ladder: by age of the idle time, on which rung
//! late requests ─▶ budget ─▶ price of a late one ┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `gaps`, `hazard` | how long idle times are; the chance that one ends now |
//! | `menu` | the rungs that can be had, what they and the moves between them cost |
//! | `ladder` | the best ages to move at, by dynamic programming |
//! | `budget` | the SLA as a queue of late requests, which sets what a late one is worth |
//! | `pilot` | all that for one revision: learns from each arrival, plans each idle time |
//! | `words` | a plan for people |
//! | `busy` | how many instances of which spec serve load |

pub mod budget;
pub mod busy;
pub mod gaps;
pub mod hazard;
pub mod ladder;
pub mod menu;
pub mod pilot;
mod words;

use std::time::Duration;

use manifests::revision::ColdStartSla;
use manifests::units::Timestamp;

use crate::start_latency::Spread;

pub use gaps::{Gaps, Population};
pub use ladder::{Ladder, Step};
pub use menu::{Menu, Offer};
pub use pilot::Pilot;
pub use words::{ASSUMED_MEMORY, Candidate, Plan, PlannedStep, Verdict};
pub(crate) use words::{ASSUMED_THAW, ASSUMED_UPGRADE, short, sla_text};

/// Plans the idle times of one revision. The shipped one is [`Pilot`]; what it is compared with in simulations are others.
/// Total and deterministic: the same calls give the same schedules.
pub trait IdlePlanner: Send {
    /// Nothing has been in flight since `view.since`: where to stand from `view.now` on. Asked when that begins, and again
    /// when the menu has changed.
    fn plan(&mut self, view: &View<'_>) -> Schedule;

    /// The request that ended an idle time has been answered.
    fn arrived(&mut self, arrival: &Arrival, view: &View<'_>);

    /// Whether requests may be served on cheaper specs before the first idle time was planned; from then on the schedule says.
    fn stays_low(&self) -> bool {
        true
    }

    /// The idle times that it has seen, where it keeps them.
    fn gaps(&self) -> Option<&Gaps> {
        None
    }

    /// How long requests take on a full instance.
    fn service(&self) -> Spread {
        Spread::default()
    }

    /// What it has learned, to be kept over a restart; `None` when it learns nothing.
    fn save(&self) -> Option<serde_json::Value> {
        None
    }
}

/// What a planner may look at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The time.
    pub now: Timestamp,
    /// Since when nothing is in flight.
    pub since: Timestamp,
    /// Where the revision stands: index into the menu.
    pub at: usize,
    /// What must hold.
    pub sla: &'a ColdStartSla,
    /// What can be had.
    pub menu: &'a Menu,
    /// What is believed of revisions that are not known yet.
    pub population: &'a Population,
}

/// Where to stand, by the time since the last request ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Schedule {
    /// Ages and offers, and what they are expected to come to.
    pub ladder: Ladder,
    /// A request that meets a cheaper running instance is served there as long as that is enough for the load, without a
    /// start of a full one.
    pub stay_low: bool,
}

/// The request that ended an idle time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Arrival {
    /// How long nothing had been in flight; `None` for the first request ever.
    pub gap: Option<Duration>,
    /// The offer that it met.
    pub at: usize,
    /// How long it ran on a full instance, or would have; `None` when nobody knows.
    pub service: Option<Duration>,
    /// It was later than the SLA allows: the wait at the gateway, and what the slower spec added.
    pub late: bool,
}

/// The offer of a schedule at an age.
pub fn offer_at(ladder: &Ladder, age: Duration) -> Option<usize> {
    let reached = ladder.steps.partition_point(|step| step.age <= age);
    ladder.steps.get(reached.saturating_sub(1)).map(|step| step.offer)
}
