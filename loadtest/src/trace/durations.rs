//! How long a function runs: its percentiles, and what lies between them. Pure.

use std::time::Duration;

/// A distribution given by some of its quantiles; straight lines between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Durations {
    /// Share (0 to 1) and duration in milliseconds, both ascending; the first at 0, the last at 1.
    points: Vec<(f64, f64)>,
}

impl Durations {
    /// From shares and milliseconds. `None` unless both ascend, from share 0 to share 1, and nothing is negative.
    pub fn new(points: Vec<(f64, f64)>) -> Option<Self> {
        let ascends = points
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let whole = points.first()?.0 == 0.0 && points.last()?.0 == 1.0;
        let real = points.iter().all(|(_, millis)| millis.is_finite() && *millis >= 0.0);
        (ascends && whole && real).then_some(Self { points })
    }

    /// The duration that this share of all runs do not exceed; `share` is 0 to 1. With a uniform share this draws one run.
    pub fn quantile(&self, share: f64) -> Duration {
        let after = self.points.partition_point(|(at, _)| *at < share);
        let (right, left) = (after.min(self.points.len() - 1), after.saturating_sub(1));
        let ((from, low), (to, high)) = (self.points[left], self.points[right]);
        let part = if to > from { (share - from) / (to - from) } else { 0.0 };
        Duration::from_secs_f64((low + (high - low) * part.clamp(0.0, 1.0)) / 1e3)
    }

    /// The average of what [`Durations::quantile`] draws.
    pub fn mean(&self) -> Duration {
        let parts = self.points.windows(2);
        let millis: f64 = parts
            .map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0)
            .sum();
        Duration::from_secs_f64(millis / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_on_the_lines_between_the_points() {
        let durations = Durations::new(vec![(0.0, 10.0), (0.5, 20.0), (0.99, 20.0), (1.0, 100.0)]).expect("ascends");
        for (share, micros) in [
            (0.0, 10_000),
            (0.25, 15_000),
            (0.5, 20_000),
            (0.7, 20_000),
            (0.995, 60_000),
            (1.0, 100_000),
        ] {
            let got = durations.quantile(share);
            let off = got.abs_diff(Duration::from_micros(micros));
            assert!(off < Duration::from_micros(1), "{share}: {got:?}");
        }
        let many = 100_000;
        let drawn: Duration = (0..many)
            .map(|nth| durations.quantile((f64::from(nth) + 0.5) / f64::from(many)))
            .sum();
        assert!((drawn / many).abs_diff(durations.mean()) < Duration::from_micros(10));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for points in [
            vec![],
            vec![(0.0, 1.0)],
            vec![(0.0, 1.0), (0.9, 2.0)],
            vec![(0.1, 1.0), (1.0, 2.0)],
            vec![(0.0, 2.0), (1.0, 1.0)],
            vec![(0.0, -1.0), (1.0, 1.0)],
            vec![(0.0, 1.0), (0.5, f64::NAN), (1.0, 2.0)],
        ] {
            assert_eq!(Durations::new(points.clone()), None, "{points:?}");
        }
    }
}
