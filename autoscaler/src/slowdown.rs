//! PURE  How much slower requests are on a cheaper spec: the usual service time there over the usual one on the full spec.
//!
//! Both are means of logarithms, in which old requests count less. The catalogue's word for the spec counts beside them, and
//! each by how sure it is: requests that differ by a factor of a thousand say little of a factor of two.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The usual service time on one spec.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usual {
    weight: f32,
    mean: f32,
    /// Of the differences from the mean, their sum.
    #[serde(default)]
    squares: f32,
}

impl Usual {
    /// Requests took this long, on average.
    pub(crate) fn add(&mut self, took: Duration) {
        let kept = (self.weight * KEPT).min(MOST_WEIGHT);
        if self.weight > 0.0 {
            self.squares *= kept / self.weight;
        }
        self.weight = kept + 1.0;
        let ln = took.max(LEAST).as_secs_f32().ln();
        let off = ln - self.mean;
        self.mean += off / self.weight;
        self.squares += off * (ln - self.mean);
    }

    /// How many times longer requests take here than on the full spec, at least 1; `prior` is what the catalogue says.
    pub(crate) fn slowdown(self, full: Self, prior: f64) -> f64 {
        let [here, there] = [self, full].map(|usual| f64::from(usual.weight));
        let squares = f64::from(self.squares) + f64::from(full.squares);
        let variance = (squares + PRIOR_SAMPLES) / (here + there + PRIOR_SAMPLES);
        // Of the difference of two means; without requests on either side nothing is known of it.
        let certain = (variance * (1.0 / here + 1.0 / there)).recip();
        let ratio = f64::from(self.mean - full.mean);
        let ln = (PRIOR_CERTAIN * prior.max(1.0).ln() + certain * ratio) / (PRIOR_CERTAIN + certain);
        ln.exp().max(1.0)
    }
}

/// What the catalogue says is right within a factor of 1.65 for two specs of three: one over the variance of its logarithm.
const PRIOR_CERTAIN: f64 = 4.0;

/// Before any request, the logarithms of service times are taken to have a variance of 1, worth so many requests.
const PRIOR_SAMPLES: f64 = 2.0;

/// Per request, what is left of the weight of those before: half after about 100.
const KEPT: f32 = 0.993;
const MOST_WEIGHT: f32 = 200.0;

/// Nothing is measured more finely; keeps the logarithm finite.
const LEAST: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(millis: &[u64]) -> Usual {
        let mut usual = Usual::default();
        millis.iter().for_each(|ms| usual.add(Duration::from_millis(*ms)));
        usual
    }

    #[test]
    fn the_catalogue_gives_way_to_what_was_seen() {
        let table = [
            (&[][..], &[][..], 2.0, 2.0..2.001),
            (&[100], &[], 2.0, 2.0..2.001),
            (&[100; 4], &[100; 4], 2.0, 1.21..1.23),
            (&[100; 100], &[100; 100], 2.0, 1.0..1.05),
            (&[100; 100], &[300; 100], 1.0, 2.7..3.0),
            // Those that differ much among themselves say little, be they few on one side or on both.
            (&[1000], &[1, 1, 1, 1, 300, 1, 1, 800, 1, 1], 2.0, 1.5..2.0),
            (&[1, 900, 1, 700], &[1, 1, 1, 800], 2.0, 1.6..2.0),
            // Faster than full is as fast as full.
            (&[100; 100], &[10; 100], 1.0, 1.0..1.001),
            // The slow ones of long ago count less.
            (&[100; 100], &[0; 3], 1.0, 1.0..1.001),
        ];
        for (full, other, prior, want) in table {
            let got = usual(other).slowdown(usual(full), prior);
            assert!(want.contains(&got), "{full:?} {other:?} {prior}: {got}");
        }
        assert!(usual(&[1; 3]).slowdown(Usual::default(), f64::NAN).is_finite());
    }
}
