//! When requests are due, and which of them the client will abort: settled by a seed before anything is sent. Pure.

use std::time::Duration;

use manifests::units::Rps;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How requests come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arrivals {
    /// One every `1 / rate`, the first at once.
    Constant(Rps),
    /// As independent users come: gaps drawn from an exponential distribution with mean `1 / rate`.
    Poisson(Rps),
    /// This many at once, at the start.
    Burst(u64),
}

/// A client that loses patience.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Abort {
    /// The share of requests that may be aborted, 0 to 1, drawn per request.
    pub share: f64,
    /// How long after it was sent a request is aborted, if no whole answer has come.
    pub after: Duration,
}

/// One request to come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Arrival {
    /// Since the start of the run.
    pub(crate) due: Duration,
    pub(crate) abort_after: Option<Duration>,
}

impl Arrivals {
    /// When requests are due, since the start and before `duration` (which a burst has no use for). The same seed gives
    /// the same times, on every machine and in every later version.
    pub fn due_times(self, duration: Duration, seed: u64) -> impl Iterator<Item = Duration> {
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut index = 0_u64;
        let mut clock = 0.0;
        std::iter::from_fn(move || {
            let due = match self {
                #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
                Self::Constant(Rps(rate)) => seconds(index as f64 / rate),
                Self::Poisson(Rps(rate)) => {
                    // `1 - u` lies in (0, 1]: its logarithm is finite.
                    clock -= (1.0 - draws.random::<f64>()).ln() / rate;
                    seconds(clock)
                }
                Self::Burst(count) => return (index < count).then(|| index += 1).map(|()| Duration::ZERO),
            };
            index += 1;
            (due < duration).then_some(due)
        })
    }
}

/// The whole schedule. Aborts are drawn apart from the times, so that switching them on moves no arrival.
pub(crate) fn schedule(
    arrivals: Arrivals,
    duration: Duration,
    abort: Option<Abort>,
    seed: u64,
) -> impl Iterator<Item = Arrival> {
    let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed ^ ABORT_STREAM);
    arrivals.due_times(duration, seed).map(move |due| {
        let abort_after = abort
            .filter(|abort| draws.random::<f64>() < abort.share)
            .map(|abort| abort.after);
        Arrival { due, abort_after }
    })
}

/// Any constant does: it keeps the two streams of one seed apart.
const ABORT_STREAM: u64 = 0x6162_6f72_7421_2121;

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seconds: u64, seed: u64) -> Vec<f64> {
        arrivals
            .due_times(Duration::from_secs(seconds), seed)
            .map(|due| due.as_secs_f64())
            .collect()
    }

    #[test]
    fn constant_keeps_its_distance_without_drift_and_ends_before_the_duration() {
        let due: Vec<_> = Arrivals::Constant(Rps(4.0))
            .due_times(Duration::from_secs(1), 0)
            .collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
        let thirds = times(Arrivals::Constant(Rps(3.0)), 1_000_000, 0);
        assert_eq!(thirds.len(), 3_000_000);
        assert!((thirds[2_999_997] - 999_999.0).abs() < 1e-6);
    }

    #[test]
    fn a_burst_comes_at_once_whatever_the_duration() {
        assert_eq!(times(Arrivals::Burst(3), 0, 0), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_same_seed_gives_the_same_times_and_aborts_move_none() {
        let poisson = Arrivals::Poisson(Rps(50.0));
        let minute = Duration::from_secs(60);
        let plain: Vec<_> = schedule(poisson, minute, None, 7).map(|arrival| arrival.due).collect();
        let abort = Abort {
            share: 0.5,
            after: Duration::from_millis(5),
        };
        let aborted: Vec<_> = schedule(poisson, minute, Some(abort), 7)
            .map(|arrival| arrival.due)
            .collect();
        assert_eq!(plain, aborted);
        assert_eq!(plain, poisson.due_times(minute, 7).collect::<Vec<_>>());
        assert_ne!(plain, poisson.due_times(minute, 8).collect::<Vec<_>>());
        // Written down once: a change of generator would silently change every published run.
        assert_eq!(plain[0], Duration::from_nanos(1_139_037));
    }

    #[test]
    fn the_share_of_aborts_is_the_share_asked_for() {
        let share = |share, seed| {
            let abort = Some(Abort {
                share,
                after: Duration::ZERO,
            });
            let all: Vec<_> = schedule(Arrivals::Burst(10_000), Duration::ZERO, abort, seed).collect();
            all.iter().filter(|arrival| arrival.abort_after.is_some()).count()
        };
        assert_eq!((share(0.0, 1), share(1.0, 1)), (0, 10_000));
        for seed in 0..20 {
            // Binomial: sigma = sqrt(10000 / 3 * 2 / 3) = 47; four of them.
            assert!(share(1.0 / 3.0, seed).abs_diff(3_333) < 189, "seed {seed}");
        }
    }

    /// The three marks of a Poisson process, each refuted by a different mistake: the count (rate), the gaps'
    /// distribution (Kolmogorov-Smirnov against the exponential) and independence (counts per second have their mean as
    /// variance).
    #[test]
    fn poisson_arrivals_are_poisson() {
        const RATE: f64 = 40.0;
        const SECONDS: usize = 500;
        for seed in 0..20 {
            let due: Vec<_> = Arrivals::Poisson(Rps(RATE))
                .due_times(Duration::from_secs(SECONDS as u64), seed)
                .collect();
            let n = due.len() as f64;
            let expected = RATE * SECONDS as f64;
            assert!(
                (n - expected).abs() < 4.0 * expected.sqrt(),
                "seed {seed}: {n} arrivals"
            );

            let mut gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            gaps.sort_by(f64::total_cmp);
            let distance = gaps.iter().enumerate().fold(0.0_f64, |worst, (rank, gap)| {
                let ideal = 1.0 - (-RATE * gap).exp();
                let (below, above) = (rank as f64 / n, (rank + 1) as f64 / n);
                worst.max((ideal - below).abs()).max((above - ideal).abs())
            });
            // 1.95 / sqrt(n) is the critical distance at 0.1 %.
            assert!(distance < 1.95 / n.sqrt(), "seed {seed}: distance {distance}");

            let mut counts = [0.0_f64; SECONDS];
            for at in &due {
                counts[usize::try_from(at.as_secs()).expect("small")] += 1.0;
            }
            let variance = counts.iter().map(|count| (count - RATE).powi(2)).sum::<f64>() / SECONDS as f64;
            // The variance of 500 counts scatters by sqrt(2 / 500) = 6 %; four of them.
            assert!(
                (variance / RATE - 1.0).abs() < 0.26,
                "seed {seed}: dispersion {}",
                variance / RATE
            );
        }
    }
}
