//! PURE  Time buckets of one metric, and their average at `now`.
//!
//! A ring of one-second buckets over a window. Knative: `pkg/autoscaler/aggregation`, equal in every value, including the
//! order of additions on the running total. Two ways to weigh: linear (every second counts the same) and weighted
//! exponential (recent seconds count more).

use std::time::Duration;

use manifests::revision::Aggregation;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

use crate::go_pow::{integer_power, smoothing_coefficient};

/// The buckets of one metric over one window.
///
/// W1. `buckets.len()` is the window in buckets, rounded up, and at least 1.
/// W2. `last` is `None` until the first record that was not dropped; then `first <= last`, except right after a resize.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    buckets: Vec<f64>,
    granularity: i64,
    window: i64,
    /// Bucket times, nanoseconds since the epoch; a resize may move `first` before it.
    first: i64,
    last: Option<i64>,
    total: f64,
    /// Share of the newest bucket; `None` is linear.
    smoothing: Option<f64>,
}

impl Window {
    /// An empty window. `window` and `granularity` are at least a nanosecond; Knative uses buckets of one second.
    pub fn new(aggregation: Aggregation, window: Duration, granularity: Duration) -> Self {
        let mut new = Self {
            buckets: Vec::new(),
            granularity: nanos(granularity).max(1),
            window: 0,
            first: 0,
            last: None,
            total: 0.0,
            smoothing: matches!(aggregation, Aggregation::WeightedExponential).then_some(0.0),
        };
        new.set_window(nanos(window).max(1));
        new.buckets = vec![0.0; new.bucket_count()];
        new
    }

    /// Adds `value` to the bucket of `at`. Older than the window: dropped. Newer than the last write: the buckets between
    /// become zero.
    pub fn record(&mut self, at: Timestamp, value: f64) {
        let at = self.bucket_time(at);
        let index = self.index(at);
        if self.last != Some(at) {
            if self.last.is_some_and(|last| at + self.window <= last) {
                return;
            }
            if self.last.is_none_or(|_| self.first > at) {
                self.first = at;
            }
            match self.last {
                Some(last) if at < last => {}
                Some(last) if at - last < self.window => {
                    for i in self.index(last) + 1..=index {
                        let slot = i % self.buckets.len();
                        self.total -= self.buckets[slot];
                        self.buckets[slot] = 0.0;
                    }
                    self.last = Some(at);
                }
                _ => {
                    self.first = at;
                    self.last = Some(at);
                    self.buckets.fill(0.0);
                    self.total = 0.0;
                }
            }
        }
        let slot = index % self.buckets.len();
        self.buckets[slot] += value;
        self.total += value;
    }

    /// The average over the window that ends at `now`; 0 when nothing was recorded in it.
    ///
    /// Linear: a window that is not full yet divides by the seconds since its first write, and silent seconds at the end
    /// shrink the divisor; rounded to 6 decimals. Weighted: a sum whose weights add up to about 1.
    pub fn average(&self, now: Timestamp) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let now = self.bucket_time(now);
        match self.smoothing {
            Some(coefficient) => self.weighted(coefficient, last, now),
            None => self.linear(last, now),
        }
    }

    /// Nothing was recorded within the window that ends at `now`.
    pub fn is_empty(&self, now: Timestamp) -> bool {
        let now = self.bucket_time(now);
        self.last.is_none_or(|last| now - last > self.window)
    }

    /// Changes the window and keeps its newest buckets; a window that is stale at `now` starts anew.
    ///
    /// Knative: the first write then counts as if the old window had been full, so that a few seconds of data are divided
    /// by more buckets than they filled.
    pub fn resize(&mut self, window: Duration, now: Timestamp) {
        let window = nanos(window).max(1);
        if window == self.window {
            return;
        }
        let stale = self.is_empty(now);
        let old = std::mem::take(&mut self.buckets);
        self.set_window(window);
        self.buckets = vec![0.0; self.bucket_count()];
        self.total = 0.0;
        let Some(last) = self.last.filter(|_| !stale) else {
            self.last = None;
            self.first = 0;
            return;
        };
        let newest = self.index(last);
        let len = self.buckets.len();
        for back in 0..old.len().min(len) {
            let value = old[(newest - back) % old.len()];
            self.buckets[(newest - back) % len] = value;
            self.total += value;
        }
        let filled = i64::try_from(old.len()).unwrap_or(i64::MAX) - 1;
        self.first = last - filled * self.granularity;
    }

    fn linear(&self, last: i64, now: i64) -> f64 {
        let behind = now - last;
        if behind >= self.window {
            return 0.0;
        }
        let age = (last - self.first) / self.granularity + 1;
        let mut total = self.total;
        let mut valid = self.buckets.len();
        if behind > 0 {
            let (newest, until) = (self.index(last), self.index(now));
            for i in newest + 1..=until {
                total -= self.buckets[i % self.buckets.len()];
            }
            valid -= until - newest;
        }
        round(total / as_f64(age).min(as_f64(i64::try_from(valid).unwrap_or(i64::MAX))))
    }

    fn weighted(&self, coefficient: f64, last: i64, now: i64) -> f64 {
        if now - last > self.window {
            return 0.0;
        }
        let len = self.buckets.len();
        let mut weight = coefficient;
        let mut valid = len;
        if now > last {
            let silent = u64::try_from((now - last) / self.granularity).unwrap_or(0);
            valid = valid.saturating_sub(usize::try_from(silent).unwrap_or(usize::MAX));
            weight *= integer_power(1.0 - coefficient, silent);
        }
        let newest = self.index(last) + len;
        let mut sum = 0.0;
        for back in 0..valid {
            sum += self.buckets[(newest - back) % len] * weight;
            weight *= 1.0 - coefficient;
        }
        sum
    }

    fn set_window(&mut self, window: i64) {
        self.window = window;
        if self.smoothing.is_some() {
            self.smoothing = Some(smoothing_coefficient(self.bucket_count()));
        }
    }

    fn bucket_count(&self) -> usize {
        usize::try_from((self.window + self.granularity - 1) / self.granularity).unwrap_or(usize::MAX)
    }

    fn bucket_time(&self, at: Timestamp) -> i64 {
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        at - at % self.granularity
    }

    /// The running number of a bucket; its place in the ring is this modulo the ring's length.
    fn index(&self, bucket_time: i64) -> usize {
        usize::try_from(bucket_time / self.granularity).unwrap_or(0)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "bucket counts are far below 2^53")]
fn as_f64(value: i64) -> f64 {
    value as f64
}

/// Knative keeps 6 decimals, so that what is left of subtractions on the total does not look like load.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn millis(value: &Value) -> Timestamp {
        Timestamp::from_millis(value.as_u64().unwrap())
    }

    fn duration(value: &Value) -> Duration {
        Duration::from_millis(value.as_u64().unwrap())
    }

    #[test]
    fn equals_every_step_of_knative() {
        let (mut sequences, mut steps) = (0, 0);
        for line in include_str!("../tests/vectors/kpa_windows.jsonl").lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let id = case["id"].as_str().unwrap();
            let aggregation = match case["kind"].as_str().unwrap() {
                "linear" => Aggregation::Linear,
                _ => Aggregation::WeightedExponential,
            };
            let mut window = Window::new(
                aggregation,
                duration(&case["window_ms"]),
                duration(&case["granularity_ms"]),
            );
            assert_eq!(window.smoothing, case["smoothing_coeff"].as_f64(), "{id}");
            for (n, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let at = millis(&step["t_ms"]);
                match step["op"].as_str().unwrap() {
                    "record" => window.record(at, step["v"].as_f64().unwrap()),
                    "avg" => assert_eq!(window.average(at), step["avg"].as_f64().unwrap(), "{id} step {n}"),
                    "empty" => assert_eq!(window.is_empty(at), step["empty"].as_bool().unwrap(), "{id} step {n}"),
                    "resize" => {
                        window.resize(duration(&step["window_ms"]), at);
                        assert_eq!(window.smoothing, step["smoothing_coeff"].as_f64(), "{id} step {n}");
                    }
                    other => panic!("{id} step {n}: unknown op {other}"),
                }
                steps += 1;
            }
            sequences += 1;
        }
        assert_eq!((sequences, steps), (306, 19_450));
    }
}
