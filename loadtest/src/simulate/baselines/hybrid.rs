//! The hybrid histogram policy (Shahrad et al., *Serverless in the Wild*, USENIX ATC 2020, section 4). PURE.
//!
//! Per application (here a revision: what is loaded as one) it counts idle times, from the end of one execution to the next
//! call, in bins of a minute up to four hours, and those beyond. After each execution:
//!
//! 1. Most were beyond (50 % or more): the paper forecasts with ARIMA. That is left out; 10 minutes of keep-alive stand in
//!    for it, the rule that the paper compares with.
//! 2. The counts of the bins vary too little to tell anything (coefficient of variation below 2), or there are none: an
//!    instance stays for the whole range, four hours.
//! 3. Else it unloads at once, loads at 0.9 times the 5th percentile (rounded down to a minute), and unloads again at 1.1
//!    times the 99th (rounded up). When the 5th percentile is in the first minute, it does not unload before that.

use std::time::Duration;

use autoscaler::planner::{Arrival, IdlePlanner, Schedule, View};
use manifests::exchange::Rung;

/// The histogram of one revision.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::simulate) struct HybridHistogram {
    counts: Box<[u32]>,
    beyond: u32,
}

impl Default for HybridHistogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BINS].into_boxed_slice(),
            beyond: 0,
        }
    }
}

impl HybridHistogram {
    /// Standard deviation over mean of the counts of all bins.
    fn variation(&self) -> f64 {
        let bins = f64::from(u32::try_from(BINS).unwrap_or(u32::MAX));
        let mean = self.counts.iter().map(|count| f64::from(*count)).sum::<f64>() / bins;
        let squares = self.counts.iter().map(|count| (f64::from(*count) - mean).powi(2));
        if mean > 0.0 {
            (squares.sum::<f64>() / bins).sqrt() / mean
        } else {
            0.0
        }
    }

    /// The bin that this share of the counts reaches.
    fn percentile(&self, share: f64) -> u32 {
        let total: u32 = self.counts.iter().sum();
        let mut below = 0;
        let reached = |count: &u32| {
            below += *count;
            f64::from(below) >= share * f64::from(total)
        };
        let bin = self.counts.iter().position(reached).unwrap_or(BINS - 1);
        u32::try_from(bin).unwrap_or(u32::MAX)
    }

    fn stairs(&self) -> Vec<(Duration, Rung)> {
        let total: u32 = self.counts.iter().sum::<u32>() + self.beyond;
        if total > 0 && f64::from(self.beyond) >= BEYOND * f64::from(total) {
            return vec![(Duration::ZERO, Rung::Full), (STAND_IN, Rung::Zero)];
        }
        if total == 0 || self.variation() < VARIATION {
            return vec![(Duration::ZERO, Rung::Full), (RANGE, Rung::Zero)];
        }
        let (head, tail) = (self.percentile(HEAD), self.percentile(TAIL) + 1);
        let unload = (MINUTE * tail).mul_f64(1.0 + MARGIN);
        if head == 0 {
            return vec![(Duration::ZERO, Rung::Full), (unload, Rung::Zero)];
        }
        let load = (MINUTE * head).mul_f64(1.0 - MARGIN);
        vec![(Duration::ZERO, Rung::Zero), (load, Rung::Full), (unload, Rung::Zero)]
    }
}

impl IdlePlanner for HybridHistogram {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        super::schedule(view, &self.stairs(), false)
    }

    fn arrived(&mut self, arrival: &Arrival, _: &View<'_>) {
        let Some(gap) = arrival.gap else { return };
        let bin = usize::try_from(gap.as_secs() / 60).unwrap_or(usize::MAX);
        match self.counts.get_mut(bin) {
            Some(count) => *count += 1,
            None => self.beyond += 1,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const BINS: usize = 240;
const RANGE: Duration = Duration::from_secs(240 * 60);
const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
const MARGIN: f64 = 0.1;
const VARIATION: f64 = 2.0;
const BEYOND: f64 = 0.5;
const STAND_IN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: &[(u64, u32)]) -> Vec<(u64, Rung)> {
        let mut histogram = HybridHistogram::default();
        for (minutes, times) in gaps {
            match histogram.counts.get_mut(usize::try_from(*minutes).unwrap()) {
                Some(count) => *count += times,
                None => histogram.beyond += times,
            }
        }
        let stairs = histogram.stairs();
        stairs.iter().map(|(age, rung)| (age.as_secs(), *rung)).collect()
    }

    #[test]
    fn it_decides_as_the_paper_says() {
        let (full, zero) = (Rung::Full, Rung::Zero);
        let all_range = vec![(0, full), (14_400, zero)];
        assert_eq!(after(&[]), all_range, "nothing known");
        // A single count has a variation of sqrt(239) = 15.5: it is taken for representative.
        assert_eq!(after(&[(30, 1)]), [(0, zero), (1620, full), (2046, zero)]);
        // Spread over half of all bins: the variation is 1.
        let even: Vec<_> = (0..120).map(|bin| (bin * 2, 1)).collect();
        assert_eq!(after(&even), all_range);
        // A timer each 30 minutes, and some calls between: 5th percentile in bin 30.
        assert_eq!(after(&[(30, 96), (3, 4)]), [(0, zero), (1620, full), (2046, zero)]);
        // More of those: it stays from the beginning, up to 1.1 x 31 minutes.
        assert_eq!(after(&[(30, 90), (0, 10)]), [(0, full), (2046, zero)]);
        // Half and more lie beyond four hours.
        assert_eq!(after(&[(30, 5), (500, 5)]), [(0, full), (600, zero)]);
        assert_eq!(after(&[(30, 6), (500, 5)]), [(0, zero), (1620, full), (2046, zero)]);
    }
}
