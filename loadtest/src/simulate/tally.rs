//! What happened to the requests of one function. PURE.

use std::time::Duration;

use serde::Serialize;

use super::bill::Costs;

/// Counts of one function in one run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Tally {
    /// Requests that came.
    pub arrivals: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were refused because nothing could run (503).
    pub refused: u64,
    /// Those that waited for as long as a request may.
    pub expired: u64,
    /// Those that were still in flight at the end.
    pub open: u64,
    /// Idle arrivals: no request of the function was in flight when they came.
    pub idle: u64,
    /// Idle arrivals whose added latency exceeded the limit, and those that were never answered.
    pub violations: u64,
    /// Idle arrivals that found nothing running.
    pub cold: u64,
    /// Requests, idle or not, whose added latency exceeded the limit.
    pub late: u64,
    /// Instances that were ordered.
    pub starts: u64,
    /// What they cost.
    pub costs: Costs,
    /// Added latency of idle arrivals.
    pub added: Added,
}

/// Added latencies, in steps of a quarter of a power of two.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Added {
    /// From 1 ms up; the first step also has what was less.
    counts: Vec<u64>,
}

impl Added {
    pub(super) fn add(&mut self, added: Duration) {
        let step = (added.as_secs_f64() * 1e3).max(1.0).log2() * STEPS;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0, of seconds to days"
        )]
        let step = step.floor() as usize;
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
    }

    /// The upper end of the step that this share of all does not exceed; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let rank = ((share * total as f64).ceil() as u64).max(1);
        let mut below = 0;
        let step = self.counts.iter().position(|count| {
            below += *count;
            below >= rank
        })?;
        if step == 0 {
            return Some(Duration::ZERO);
        }
        let edge = u32::try_from(step + 1).unwrap_or(u32::MAX);
        Some(Duration::from_secs_f64((f64::from(edge) / STEPS).exp2() / 1e3))
    }

    fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(sum, count)| *sum += count);
    }
}

impl Tally {
    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        self.arrivals += other.arrivals;
        self.answered += other.answered;
        self.refused += other.refused;
        self.expired += other.expired;
        self.open += other.open;
        self.idle += other.idle;
        self.violations += other.violations;
        self.cold += other.cold;
        self.late += other.late;
        self.starts += other.starts;
        self.costs.add(&other.costs);
        self.added.merge(&other.added);
    }

    /// All of them together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|tally| sum.merge(tally));
        sum
    }

    /// The share of idle arrivals that violated; 0 without any.
    pub fn share(&self) -> f64 {
        ratio(self.violations, self.idle)
    }
}

/// Of counts; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
pub(super) fn ratio(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// Steps from one power of two to the next.
const STEPS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_fifth_too_high() {
        let mut added = Added::default();
        assert_eq!(added.quantile(0.5), None);
        (0..90).for_each(|_| added.add(Duration::ZERO));
        (0..9).for_each(|_| added.add(Duration::from_secs(2)));
        added.add(Duration::from_secs(30));
        let at = |share| added.quantile(share).map(|it| it.as_secs_f64()).unwrap_or(-1.0);
        assert_eq!((at(0.0), at(0.9)), (0.0, 0.0));
        assert!(
            (2.0..2.4).contains(&at(0.91)) && (2.0..2.4).contains(&at(0.99)),
            "{}",
            at(0.99)
        );
        assert!((30.0..36.0).contains(&at(0.999)), "{}", at(0.999));
    }
}
