//! PURE  What the planner chooses from: the rungs that one revision could stand on now, each with what it costs to stand
//! there, what a request that meets it costs, and how likely that request is late; and what it costs to move between them.
//!
//! Money is in the catalogue's currency and is only ever compared; times are in seconds.

use std::sync::Arc;

use manifests::exchange::Rung;
use serde::{Deserialize, Serialize};

/// A rung as one revision could stand on it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// Which one.
    pub rung: Rung,
    /// The instance spec on it; `None` at zero and where there is no choice.
    pub spec: Option<Arc<str>>,
    /// Money per second of standing there.
    pub price: f64,
    /// Money that a request spends which meets it (the start of a full instance, at zero).
    pub wake: f64,
    /// Upper bound on the probability that getting ready from here takes longer than the SLA allows; 0 where a request is
    /// served at once.
    pub late: f64,
    /// How many times longer a request takes on it than on a full instance; 1 or more.
    pub slow: f64,
    /// How long before it is needed a move to it begins: the 95th percentile of what it takes.
    pub lead: f64,
}

impl Offer {
    /// Where a request is served at once, as fast as on a full instance, and nothing else is paid.
    pub const fn new(rung: Rung, price: f64) -> Self {
        Self {
            rung,
            spec: None,
            price,
            wake: 0.0,
            late: 0.0,
            slow: 1.0,
            lead: 0.0,
        }
    }

    /// A request that meets it spends so much money, and is late with this probability.
    #[must_use]
    pub fn woken(self, wake: f64, late: f64) -> Self {
        Self { wake, late, ..self }
    }
}

/// All of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Menu {
    /// At least one; the last is a full instance, which no request waits for.
    pub offers: Vec<Offer>,
    /// `moves[i][j]`: money that it costs to go from offer `i` to offer `j`; infinite where there is no way, 0 on the diagonal.
    pub moves: Vec<Vec<f64>>,
}

impl Menu {
    /// The offer of a full instance.
    pub fn full(&self) -> usize {
        self.offers.len() - 1
    }

    /// The first offer of a rung.
    pub fn find(&self, rung: Rung) -> Option<usize> {
        self.offers.iter().position(|offer| offer.rung == rung)
    }

    /// The price of a second on a full instance.
    pub fn full_price(&self) -> f64 {
        self.offers.last().map_or(0.0, |full| full.price)
    }
}

/// A menu has at most this many offers; catalogues with more leave out the dearest that are not full.
pub const MOST_OFFERS: usize = 8;
