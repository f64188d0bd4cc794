//! Intervals: how sure one can be of a share, and of a ratio over functions that might have been others. PURE.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use statrs::distribution::{Beta, ContinuousCDF as _};

/// Clopper and Pearson: the share that `part` of `all` show with this confidence to be exceeded (one-sided).
#[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
pub fn lower_bound(part: u64, all: u64, confidence: f64) -> f64 {
    if part == 0 || part > all {
        return 0.0;
    }
    let (part, all) = (part as f64, all as f64);
    Beta::new(part, all - part + 1.0).map_or(0.0, |beta| beta.inverse_cdf(1.0 - confidence))
}

/// Clopper and Pearson: the shares that `part` of `all` do not exclude with this confidence (two-sided).
pub fn interval(part: u64, all: u64, confidence: f64) -> (f64, f64) {
    let tail = 1.0 - (1.0 - confidence) / 2.0;
    let rest = all.saturating_sub(part);
    (lower_bound(part, all, tail), 1.0 - lower_bound(rest, all, tail))
}

/// The interval that holds `figure` in this share of all sets of as many functions, drawn from `functions` with
/// replacement; the same seed draws the same. `figure` gets how often each function was drawn.
pub(super) fn bootstrap(
    functions: usize,
    resamples: usize,
    confidence: f64,
    seed: u64,
    figure: impl Fn(&[u32]) -> f64,
) -> (f64, f64) {
    let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut figures: Vec<f64> = (0..resamples)
        .map(|_| {
            let mut times = vec![0; functions];
            for _ in 0..functions {
                times[draws.random_range(0..functions)] += 1;
            }
            figure(&times)
        })
        .filter(|figure| figure.is_finite())
        .collect();
    figures.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "thousands"
    )]
    let at = |share: f64| {
        let index = (share * figures.len().saturating_sub(1) as f64).round() as usize;
        figures.get(index).copied().unwrap_or(f64::NAN)
    };
    let tail = (1.0 - confidence) / 2.0;
    (at(tail), at(1.0 - tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: binom.test(x, n, alternative = "greater")$conf.int[1]; 0.05^(1/n) for x = n.
    #[test]
    fn lower_bounds_are_those_of_clopper_and_pearson() {
        for (part, all, bound) in [
            (0, 200, 0.0),
            (5, 200, 0.009_915),
            (6, 200, 0.013_147),
            (1, 20, 0.002_561),
            (200, 200, 0.985_133),
        ] {
            let got = lower_bound(part, all, 0.95);
            assert!((got - bound).abs() < 2e-4, "{part} of {all}: {got}");
        }
    }

    /// R: binom.test(x, n)$conf.int.
    #[test]
    fn intervals_are_those_of_clopper_and_pearson() {
        for (part, all, low, high) in [
            (0, 20, 0.0, 0.168_433),
            (1, 20, 0.001_265, 0.248_733),
            (20, 200, 0.062_211, 0.150_195),
            (20, 20, 0.831_567, 1.0),
            (0, 0, 0.0, 1.0),
        ] {
            let got = interval(part, all, 0.95);
            assert!(
                (got.0 - low).abs() < 2e-4 && (got.1 - high).abs() < 2e-4,
                "{part} of {all}: {got:?}"
            );
        }
    }

    #[test]
    fn a_bootstrap_spreads_as_the_functions_differ() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let mean = |times: &[u32]| {
            let sum: f64 = values
                .iter()
                .zip(times)
                .map(|(value, times)| value * f64::from(*times))
                .sum();
            sum / 100.0
        };
        let (low, high) = bootstrap(100, 2000, 0.95, 1, mean);
        // The mean's standard error is 28.9 / 10.
        assert!(
            (43.0..45.0).contains(&low) && (54.0..56.0).contains(&high),
            "{low} {high}"
        );
        assert_eq!(bootstrap(100, 2000, 0.95, 1, mean), (low, high));
        assert_eq!(bootstrap(10, 100, 0.95, 1, |_| 3.0), (3.0, 3.0));
    }
}
