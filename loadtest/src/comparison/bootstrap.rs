//! The block bootstrap: draws stretches of time with replacement and looks how far the figures move. Pure.

use std::collections::BTreeSet;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Options;
use crate::results::{Results, Sample};

/// At most so many stretches are drawn from; more cost time and give nothing.
const MOST: usize = 256;

/// With fewer stretches than this that have requests, requests are drawn instead.
const FEW: usize = 8;

/// The requests of one run in stretches of time, in order; stretches without any are left out.
pub(super) struct Stretches {
    rows: Vec<Stretch>,
    few: bool,
}

#[derive(Clone, Default)]
struct Stretch {
    /// Bucket (lower edge, nanoseconds) and count, ascending.
    counts: Vec<(u64, u64)>,
    bad: u64,
}

impl Stretches {
    pub(super) fn of(results: &Results, wanted: impl Fn(&Sample) -> bool) -> Self {
        let rows = results.timeline.rows();
        let group = rows.len().div_ceil(MOST).max(1);
        let rows: Vec<_> = rows
            .chunks(group)
            .map(|rows| Stretch::of(rows.iter().flat_map(|row| &row.samples).filter(|sample| wanted(sample))))
            .filter(|stretch| !stretch.counts.is_empty())
            .collect();
        let few = rows.len() < FEW && rows.iter().any(|stretch| stretch.count() > 1);
        Self { rows, few }
    }

    pub(super) fn are_few(&self) -> bool {
        self.few
    }

    /// In stretches: by Politis and White for the circular bootstrap of a mean, here of the logarithm of the mean latency.
    fn block_length(&self) -> usize {
        let series: Vec<f64> = self.rows.iter().map(Stretch::log_mean).collect();
        optimal_block_length(&series)
    }
}

impl Stretch {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut stretch = Self::default();
        let mut all = std::collections::BTreeMap::new();
        for sample in samples {
            stretch.bad += if sample.good { 0 } else { sample.count };
            for (value, count) in sample.latency.iter() {
                *all.entry(value).or_insert(0) += count;
            }
        }
        stretch.counts = all.into_iter().collect();
        stretch
    }

    fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "1 % is all that buckets know")]
    fn log_mean(&self) -> f64 {
        let sum: f64 = self
            .counts
            .iter()
            .map(|(value, count)| *value as f64 * *count as f64)
            .sum();
        (sum / self.count() as f64).max(1.0).ln()
    }
}

/// Politis and White, Automatic block-length selection for the dependent bootstrap (2004, corrected by Patton, Politis and
/// White 2009), circular case.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few hundred values"
)]
fn optimal_block_length(series: &[f64]) -> usize {
    let count = series.len();
    let n = count as f64;
    if count < 4 {
        return 1;
    }
    let mean = series.iter().sum::<f64>() / n;
    let autocovariance = |lag: usize| {
        let pairs = series.iter().zip(&series[lag..]);
        pairs.map(|(now, later)| (now - mean) * (later - mean)).sum::<f64>() / n
    };
    let variance = autocovariance(0);
    if variance <= f64::EPSILON {
        return 1;
    }
    // The smallest lag after which correlations are insignificant for a while.
    let insignificant = 2.0 * (n.log10() / n).sqrt();
    let while_ = (n.log10().sqrt().ceil() as usize).max(5);
    let most_lags = ((n.sqrt().ceil() as usize) + while_).min(count - 1);
    let correlations: Vec<f64> = (1..=most_lags)
        .map(|lag| (autocovariance(lag) / variance).abs())
        .collect();
    let quiet = correlations
        .windows(while_)
        .position(|some| some.iter().all(|it| *it < insignificant));
    let last_significant = correlations
        .iter()
        .rposition(|it| *it >= insignificant)
        .map_or(0, |index| index + 1);
    let bandwidth = 2 * quiet.unwrap_or(last_significant).max(1);
    let bandwidth = bandwidth.min(most_lags);
    let flat_top = |share: f64| (2.0 * (1.0 - share)).clamp(0.0, 1.0);
    let (mut g, mut spectrum) = (0.0, variance);
    for lag in 1..=bandwidth {
        let weight = 2.0 * flat_top(lag as f64 / bandwidth as f64) * autocovariance(lag);
        g += weight * lag as f64;
        spectrum += weight;
    }
    let d = 4.0 / 3.0 * spectrum * spectrum;
    if d <= f64::EPSILON {
        return 1;
    }
    let length = (2.0 * g * g / d).cbrt() * n.cbrt();
    let longest = (3.0 * n.sqrt()).min(n / 3.0).ceil();
    length.clamp(1.0, longest).round() as usize
}

/// The figures of many redrawn pairs of runs, as differences to the pair that was seen.
pub(super) struct Resampled {
    buckets: Vec<u64>,
    seen: [Counts; 2],
    drawn: Vec<[Counts; 2]>,
    confidence: f64,
}

/// Requests by bucket, cumulated, and bad ones.
struct Counts {
    cumulated: Vec<u64>,
    bad: u64,
}

impl Resampled {
    pub(super) fn new(a: &Stretches, b: &Stretches, options: Options) -> Self {
        let values = a.rows.iter().chain(&b.rows).flat_map(|row| &row.counts);
        let buckets: BTreeSet<u64> = values.map(|(value, _)| *value).collect();
        let buckets: Vec<u64> = buckets.into_iter().collect();
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(options.seed);
        let runs = [a, b].map(|run| Run::new(run, &buckets));
        let seen = runs.each_ref().map(|run| run.counts(0..run.rows.len()));
        let drawn = (0..options.resamples).map(|_| runs.each_ref().map(|run| run.draw(&mut draws)));
        Self {
            seen,
            drawn: drawn.collect(),
            buckets,
            confidence: options.confidence,
        }
    }

    /// How far the difference of this quantile may lie from the one that was seen, in milliseconds: down and up.
    pub(super) fn of_quantile(&self, share: f64) -> (f64, f64) {
        self.spread(|counts| counts.quantile(share, &self.buckets))
    }

    /// The same for the share of bad requests.
    pub(super) fn of_errors(&self) -> (f64, f64) {
        self.spread(Counts::bad_share)
    }

    fn spread(&self, figure: impl Fn(&Counts) -> f64) -> (f64, f64) {
        let difference = |[a, b]: &[Counts; 2]| figure(b) - figure(a);
        let seen = difference(&self.seen);
        let mut all: Vec<f64> = self.drawn.iter().map(|pair| difference(pair) - seen).collect();
        all.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most a million"
        )]
        let at = |share: f64| all.get((share * (all.len() - 1) as f64).round() as usize).copied();
        (at(tail).unwrap_or_default(), at(1.0 - tail).unwrap_or_default())
    }
}

/// A run with its buckets as indexes.
struct Run {
    rows: Vec<(Vec<(usize, u64)>, u64)>,
    buckets: usize,
    block: usize,
    by_request: bool,
}

impl Run {
    fn new(stretches: &Stretches, buckets: &[u64]) -> Self {
        let rows = stretches.rows.iter().map(|row| {
            let index = |value| buckets.partition_point(|bucket| *bucket < value);
            let counts = row.counts.iter().map(|(value, count)| (index(*value), *count));
            (counts.collect(), row.bad)
        });
        Self {
            rows: rows.collect(),
            buckets: buckets.len(),
            block: stretches.block_length(),
            by_request: stretches.few,
        }
    }

    fn counts(&self, rows: impl Iterator<Item = usize>) -> Counts {
        let mut cumulated = vec![0; self.buckets];
        let mut bad = 0;
        for row in rows {
            let (counts, row_bad) = &self.rows[row];
            counts.iter().for_each(|(bucket, count)| cumulated[*bucket] += count);
            bad += row_bad;
        }
        cumulate(&mut cumulated);
        Counts { cumulated, bad }
    }

    fn draw(&self, draws: &mut Xoshiro256PlusPlus) -> Counts {
        let count = self.rows.len();
        if count == 0 {
            return self.counts(0..0);
        }
        if self.by_request {
            return self.draw_requests(draws);
        }
        let blocks = count.div_ceil(self.block);
        let starts: Vec<usize> = (0..blocks).map(|_| draws.random_range(0..count)).collect();
        let rows = starts
            .into_iter()
            .flat_map(|start| (start..start + self.block).map(|row| row % count));
        self.counts(rows.take(count))
    }

    fn draw_requests(&self, draws: &mut Xoshiro256PlusPlus) -> Counts {
        let all = self.counts(0..self.rows.len());
        let total = all.cumulated.last().copied().unwrap_or_default();
        let mut cumulated = vec![0; self.buckets];
        let mut bad = 0;
        for _ in 0..total {
            let nth = draws.random_range(0..total);
            cumulated[all.cumulated.partition_point(|sum| *sum <= nth)] += 1;
            bad += u64::from(draws.random_range(0..total) < all.bad);
        }
        cumulate(&mut cumulated);
        Counts { cumulated, bad }
    }
}

fn cumulate(counts: &mut [u64]) {
    let mut sum = 0;
    for count in counts {
        sum += *count;
        *count = sum;
    }
}

impl Counts {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 % is all that buckets know"
    )]
    fn quantile(&self, share: f64, buckets: &[u64]) -> f64 {
        let total = self.cumulated.last().copied().unwrap_or_default();
        let rank = ((share * total as f64).ceil() as u64).max(1);
        let bucket = self.cumulated.partition_point(|sum| *sum < rank);
        buckets.get(bucket).map_or(0.0, |nanos| *nanos as f64 / 1e6)
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    fn bad_share(&self) -> f64 {
        let total = self.cumulated.last().copied().unwrap_or_default();
        self.bad as f64 / total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    #[test]
    fn blocks_are_as_long_as_values_stay_alike() {
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut series = |memory: f64| -> Vec<f64> {
            let mut value = 0.0;
            (0..256)
                .map(|_| {
                    value = memory * value + draws.random::<f64>() - 0.5;
                    value
                })
                .collect()
        };
        let mean = |lengths: [usize; 20]| lengths.iter().sum::<usize>() / 20;
        let none = mean([(); 20].map(|()| optimal_block_length(&series(0.0))));
        let some = mean([(); 20].map(|()| optimal_block_length(&series(0.5))));
        let much = mean([(); 20].map(|()| optimal_block_length(&series(0.9))));
        assert!(
            none <= 4 && none < some && some < much && much >= 12,
            "{none} {some} {much}"
        );
        assert_eq!(optimal_block_length(&[1.0; 50]), 1, "constant");
        assert_eq!(optimal_block_length(&[]), 1);
    }
}
