//! PURE  How much slower requests are on a cheaper spec: the usual service time there over the usual one on the full spec.
//!
//! Both are means of logarithms, in which old requests count less. Until both are known the catalogue's word for the spec
//! stands in, worth [`PRIOR_WEIGHT`] requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The usual service time on one spec.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usual {
    weight: f32,
    mean: f32,
}

impl Usual {
    /// Requests took this long, on average.
    pub(crate) fn add(&mut self, took: Duration) {
        self.weight = (self.weight * KEPT).min(MOST_WEIGHT) + 1.0;
        self.mean += (took.max(LEAST).as_secs_f32().ln() - self.mean) / self.weight;
    }

    /// How many times longer requests take here than on the full spec, at least 1; `prior` is what the catalogue says.
    pub(crate) fn slowdown(self, full: Self, prior: f64) -> f64 {
        let seen = f64::from(self.weight.min(full.weight));
        let ratio = f64::from(self.mean - full.mean);
        let ln = (PRIOR_WEIGHT * prior.max(1.0).ln() + seen * ratio) / (PRIOR_WEIGHT + seen);
        ln.exp().max(1.0)
    }
}

/// What the catalogue says counts as much as so many requests.
const PRIOR_WEIGHT: f64 = 4.0;

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
            (&[100; 4], &[100; 4], 2.0, 1.41..1.42),
            (&[100; 100], &[100; 100], 2.0, 1.0..1.05),
            (&[100; 100], &[300; 100], 1.0, 2.7..3.0),
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
