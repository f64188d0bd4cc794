//! PURE  The chance that the next request comes now, given that none has come until now.

use super::gaps::{BINS, Gaps, Population};

/// For each bin of idle time: the probability that the gap ends in it, when it has lasted until its beginning.
#[derive(Clone, PartialEq, Debug)]
pub struct Hazard(Box<[f64; BINS]>);

impl Hazard {
    /// From what one revision has shown, with the population standing in for [`PRIOR_GAPS`] gaps that were not seen.
    pub fn of(gaps: &Gaps, population: &Population) -> Self {
        let (seen, believed) = (gaps.weights(), population.shares());
        Self::from_ends(|bin| seen[bin] + PRIOR_GAPS * believed[bin])
    }

    /// From the weight of gaps that end in each bin. Where nobody is left the chance is that of the last bin in which
    /// somebody was.
    pub fn from_ends(ends: impl Fn(usize) -> f64) -> Self {
        let ends = |bin| {
            let weight = ends(bin);
            if weight > 0.0 { weight.min(MOST_WEIGHT) } else { 0.0 }
        };
        let mut hazard = Box::new([0.0; BINS]);
        let total: f64 = (0..BINS).map(&ends).sum();
        let (mut left, mut last) = (total, 1.0);
        for (bin, chance) in hazard.iter_mut().enumerate() {
            let ended = ends(bin);
            if left > total * 1e-9 {
                last = (ended / left).clamp(0.0, 1.0);
            }
            *chance = last;
            left -= ended;
        }
        Self(hazard)
    }

    /// In this bin.
    pub fn at(&self, bin: usize) -> f64 {
        self.0[bin]
    }
}

/// More than any histogram holds.
const MOST_WEIGHT: f64 = 1e30;

/// Pseudo-gaps of the population in every estimate: with one, the second gap of a timer is expected already.
pub const PRIOR_GAPS: f64 = 1.0;
