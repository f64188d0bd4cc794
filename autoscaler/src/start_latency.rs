//! PURE  How long a wake-up may take: an upper bound from this revision's own measurements.
//!
//! Start times are close to log-normal: many alike, few much longer. With mean and spread of the logarithms estimated from
//! n samples, the quantile of the next one is a Student-t quantile, which is wide while n is small and closes in as n grows.
//! The spread starts from a prior (a within-revision sigma of 0.35, worth four samples), so that one sample already says
//! something: 5 ms once means "99 % below 31 ms", 2 s once means "99 % below 13 s".
//!
//! The mean has a prior where the catalogue says how long starts on a spec take ([`Prior::Said`]): its median counts as
//! some pseudo-samples beside those that were measured, and the more its `sigma` says that apps differ, the fewer. What the
//! two disagree by widens the spread (the conjugate prior of a normal distribution). Without a catalogue's word nobody knows
//! an app's own boot before its first start, and that first start is made when it is deployed.
//!
//! A distribution can have a tail that the fit does not see. Starts that really took longer than the limit therefore count
//! by themselves: when the 80 % upper bound on their share (Jeffreys' Beta) is over what the SLA allows, the bound is the
//! longest start seen. Only the newest [`KEPT`] samples count, so that a revision can recover.

use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

use manifests::instances::StartPrior;
use manifests::revision::ColdStartSla;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF, StudentsT};
use statrs::function::erf::erfc;

/// The newest measured wake-ups of one revision from one rung.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// Seconds: a revision has several of these, and there may be a hundred thousand revisions.
    samples: Vec<f32>,
    /// The last estimate, until the next measurement: every look at a revision asks for it.
    #[serde(skip)]
    last: OnceCell<Box<(ColdStartSla, Option<Prior>, Estimate)>>,
}

/// What is believed of wake-ups of which none was measured yet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Prior {
    /// It stands for one measurement, and gives way to the first.
    Guess(Duration),
    /// What a catalogue says of starts on a spec. It counts for less with each measurement.
    Said(StartPrior),
}

/// What the measurements say about the next wake-up.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Estimate {
    /// At most this long, at the SLA's quantile.
    pub bound: Duration,
    /// Upper bound on the probability that it is over the SLA's limit: the tail of the fit, or what the share of those that
    /// were may be, whichever is more.
    pub late: f64,
    /// What it takes on average, in seconds.
    pub mean: f64,
    /// What 95 % take at most, in seconds.
    pub most: f64,
    /// Measurements behind it; 0 when it is a prior.
    pub samples: usize,
    /// Of them, longer than the SLA's limit.
    pub misses: usize,
}

impl Latencies {
    /// Adds a measurement and forgets the oldest beyond [`KEPT`].
    pub fn add(&mut self, took: Duration) {
        if self.samples.len() == KEPT {
            self.samples.remove(0);
        }
        self.samples.push(took.as_secs_f32());
        self.last.take();
    }

    /// Gives back memory that it can do without.
    pub(crate) fn shrink(&mut self) {
        self.last.take();
        self.samples.shrink_to_fit();
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Nothing measured yet.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    fn samples(&self) -> impl Iterator<Item = Duration> + Clone {
        let exact = |seconds: f64| Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).unwrap_or(LONGEST);
        self.samples.iter().map(move |seconds| exact(f64::from(*seconds)))
    }

    /// The one in the middle; `None` when nothing was measured.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.samples().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// What is known at this SLA. With nothing measured and no prior there is no estimate.
    pub fn estimate(&self, sla: &ColdStartSla, prior: Option<Prior>) -> Option<Estimate> {
        let (for_sla, for_prior, last) = match self.last.get() {
            Some(last) => **last,
            None => {
                let made = (*sla, prior, self.estimate_anew(sla, prior)?);
                **self.last.get_or_init(|| Box::new(made))
            }
        };
        if (for_sla, for_prior) == (*sla, prior) {
            Some(last)
        } else {
            self.estimate_anew(sla, prior)
        }
    }

    fn estimate_anew(&self, sla: &ColdStartSla, prior: Option<Prior>) -> Option<Estimate> {
        let measured = self.samples.len();
        let fit = self.fit(prior)?;
        let t = StudentsT::new(0.0, 1.0, fit.freedom).ok();
        let at = |quantile| {
            t.map_or(f64::INFINITY, |t| {
                (fit.mean + t.inverse_cdf(quantile) * fit.spread).exp()
            })
        };
        let mut bound = seconds(at(sla.quantile));
        let mut late = t.map_or(1.0, |t| t.sf((ln_seconds(sla.limit) - fit.mean) / fit.spread));
        let misses = self.samples().filter(|took| *took > sla.limit).count();
        if misses > 0 {
            let share = share_at_most(misses, measured);
            late = late.max(share);
            if share > 1.0 - sla.quantile {
                bound = self.samples().fold(bound, Duration::max);
            }
        }
        Some(Estimate {
            bound,
            late,
            mean: (fit.mean + fit.spread.powi(2) / 2.0).exp().min(LONGEST.as_secs_f64()),
            most: at(0.95).min(LONGEST.as_secs_f64()),
            samples: measured,
            misses,
        })
    }

    fn fit(&self, prior: Option<Prior>) -> Option<Fit> {
        let n = count(self.samples.len());
        // What is believed, how many samples that is worth, how starts of one app vary, and how sure that is.
        let (believed, worth, sigma, freedom) = match prior {
            Some(Prior::Said(said)) => {
                let sigma = said.sigma.max(LEAST_SIGMA);
                let own = PRIOR_SIGMA.min(sigma / (1.0 + 1.0 / MOST_WORTH).sqrt());
                let between = sigma.powi(2) - own.powi(2);
                (ln_seconds(said.median), own.powi(2) / between, own, PRIOR_WEIGHT + n)
            }
            Some(Prior::Guess(guess)) if n < 1.0 => (ln_seconds(guess), 1.0, PRIOR_SIGMA, PRIOR_WEIGHT),
            _ if n < 1.0 => return None,
            _ => (0.0, 0.0, PRIOR_SIGMA, PRIOR_WEIGHT + n - 1.0),
        };
        let logs = self.samples().map(ln_seconds);
        let measured = if n < 1.0 {
            believed
        } else {
            logs.clone().sum::<f64>() / n
        };
        let apart = believed - measured;
        let total = worth + n;
        let squares: f64 = logs.map(|ln| (ln - measured).powi(2)).sum::<f64>() + worth * n / total * apart.powi(2);
        Some(Fit {
            mean: measured + worth / total * apart,
            spread: ((PRIOR_WEIGHT * sigma.powi(2) + squares) / freedom).sqrt() * (1.0 + 1.0 / total).sqrt(),
            freedom,
        })
    }
}

impl PartialEq for Latencies {
    fn eq(&self, other: &Self) -> bool {
        self.samples == other.samples
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Latencies").field(&self.samples).finish()
    }
}

/// The Student-t distribution of the logarithm of the next one.
struct Fit {
    mean: f64,
    spread: f64,
    freedom: f64,
}

/// How long requests take, in three numbers: weight, mean and spread of the logarithms. Old ones count half after 200
/// further ones.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    weight: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let kept = (-1.0_f64 / 200.0).exp2();
        let off = ln_seconds(took) - self.mean;
        self.weight = self.weight * kept + 1.0;
        self.mean += off / self.weight;
        self.squares = self.squares * kept + off * (ln_seconds(took) - self.mean);
    }

    /// Probability that the next one takes longer by more than `limit` where requests take `slow` times as long.
    pub fn late(&self, slow: f64, limit: Duration) -> f64 {
        let slower = slow - 1.0;
        if slower.is_nan() || slower <= 0.0 {
            return 0.0;
        }
        let (mean, variance) = if self.weight > 0.0 {
            let variance = (self.squares + SERVICE_VARIANCE * SERVICE_WORTH) / (self.weight + SERVICE_WORTH);
            (self.mean, variance * (1.0 + 1.0 / self.weight))
        } else {
            (SERVICE_MEAN, SERVICE_VARIANCE * 4.0)
        };
        let longest = limit.as_secs_f64() / slower;
        0.5 * erfc((longest.max(LEAST.as_secs_f64()).ln() - mean) / variance.sqrt() / std::f64::consts::SQRT_2)
    }
}

/// 80 % upper bound on the share behind `misses` of `n`.
fn share_at_most(misses: usize, n: usize) -> f64 {
    Beta::new(count(misses) + 0.5, count(n - misses) + 0.5).map_or(1.0, |beta| beta.inverse_cdf(0.8))
}

fn ln_seconds(took: Duration) -> f64 {
    took.max(LEAST).as_secs_f64().ln()
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(LONGEST).min(LONGEST)
}

#[expect(clippy::cast_precision_loss, reason = "at most KEPT + 1")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Measurements that count; a revision that was slow is forgiven after this many fast ones.
pub const KEPT: usize = 64;

/// How starts of one app vary, before they were measured: of their logarithms; and how many samples that is worth.
const PRIOR_SIGMA: f64 = 0.35;
const PRIOR_WEIGHT: f64 = 4.0;
/// A catalogue's median is worth at most this many samples, however precise it claims to be.
const MOST_WORTH: f64 = 4.0;
/// No catalogue knows more precisely than this.
const LEAST_SIGMA: f64 = 0.05;
/// Of the logarithms of service times before any was seen: a median of 0.2 s, and so wide that a second is not rare; and how
/// many samples that width is worth.
const SERVICE_MEAN: f64 = -1.5;
const SERVICE_VARIANCE: f64 = 1.0;
const SERVICE_WORTH: f64 = 2.0;
/// Nothing is measured more finely; keeps the logarithm finite.
const LEAST: Duration = Duration::from_micros(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const SLA: ColdStartSla = ColdStartSla {
        quantile: 0.99,
        limit: Duration::from_millis(500),
    };

    fn millis(samples: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        samples.iter().for_each(|ms| latencies.add(Duration::from_millis(*ms)));
        latencies
    }

    fn bound(samples: &[u64]) -> u128 {
        millis(samples).estimate(&SLA, None).unwrap().bound.as_millis()
    }

    #[test]
    fn nothing_measured_is_no_estimate() {
        assert_eq!(Latencies::default().estimate(&SLA, None), None);
        let prior = Latencies::default()
            .estimate(&SLA, Some(Prior::Guess(Duration::from_millis(5))))
            .unwrap();
        assert_eq!((prior.bound.as_millis(), prior.samples), (31, 0));
    }

    #[test]
    fn few_samples_are_wide_and_close_in() {
        assert_eq!(bound(&[5]), 31);
        assert_eq!(bound(&[2000]), 12_778);
        assert_eq!(bound(&[100]), 638);
        let table: Vec<u128> = [1, 2, 4, 8, 16, 64].map(|n| bound(&vec![100; n])).to_vec();
        assert_eq!(table, [638, 363, 242, 183, 152, 122], "of 100 ms each");
    }

    #[test]
    fn spread_widens_the_bound() {
        assert!(bound(&[50, 60, 55, 52]) < bound(&[20, 200, 40, 100]));
    }

    #[test]
    fn a_guess_gives_way_to_the_first_measurement() {
        let prior = Some(Prior::Guess(Duration::from_secs(9)));
        assert_eq!(millis(&[5]).estimate(&SLA, prior), millis(&[5]).estimate(&SLA, None));
    }

    fn said(median: f64, sigma: f64) -> Option<Prior> {
        Some(Prior::Said(StartPrior {
            median: Duration::from_secs_f64(median),
            sigma,
        }))
    }

    /// Worked out by hand: a sigma of 0.5 is 0.35 within apps and the rest between them, so that the median is worth
    /// 0.1225 / 0.1275 = 0.961 samples.
    #[test]
    fn what_a_catalogue_says_fades_sample_by_sample() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-3 * b;
        let none = Latencies::default().fit(said(10.0, 0.5)).unwrap();
        assert_eq!((none.mean.exp().round(), none.freedom), (10.0, 4.0));
        assert!(close(none.spread, 0.5), "as wide as it was said: {}", none.spread);
        // ln 2 and ln 10 are 1.609 apart: (0.961 ln 10 + ln 2) / 1.961, and 0.49 x 1.609^2 more of squares.
        let one = millis(&[2000]).fit(said(10.0, 0.5)).unwrap();
        let apart = 5.0_f64.ln();
        assert!(close(one.mean, 2.0_f64.ln() + 0.490 * apart), "{}", one.mean);
        let variance = (4.0 * 0.1225 + 0.490 * apart.powi(2)) / 5.0;
        assert!(
            close(one.spread, (variance * (1.0_f64 + 1.0 / 1.961)).sqrt()),
            "{}",
            one.spread
        );
        let seconds = |n| millis(&vec![2000; n]).fit(said(10.0, 0.5)).unwrap().mean.exp();
        assert!(seconds(1) > seconds(2) && seconds(2) > seconds(8) && seconds(64) < 2.05);
    }

    #[test]
    fn the_wider_a_catalogue_says_starts_are_the_more_may_be_late_and_the_sooner_it_is_forgotten() {
        const SECOND: ColdStartSla = ColdStartSla {
            limit: Duration::from_secs(1),
            ..SLA
        };
        let late = |sigma, seen: &[u64]| millis(seen).estimate(&SECOND, said(0.2, sigma)).unwrap().late;
        assert!(late(0.35, &[]) < late(0.5, &[]) && late(0.5, &[]) < late(1.5, &[]));
        // Fat while nothing is known: a normal distribution would say 0.0006.
        assert!((0.01..0.1).contains(&late(0.5, &[])), "{}", late(0.5, &[]));
        let off = |sigma| (millis(&[5]).fit(said(10.0, sigma)).unwrap().mean.exp() - 0.005).abs();
        assert!(off(1.5) < off(0.5) && off(0.5) < off(0.1));
    }

    #[test]
    fn a_catalogue_may_say_anything() {
        for sigma in [0.0, 1e-9, 0.35, 0.391_311_9, 5.0] {
            for seen in [&[][..], &[5], &[5, 86_400_000]] {
                for median in [0.001, 3600.0] {
                    let (latencies, prior) = (millis(seen), said(median, sigma));
                    let known = latencies.estimate(&SLA, prior).unwrap();
                    let sound = [known.mean, known.most].iter().all(|it| it.is_finite() && *it > 0.0);
                    assert!(
                        sound && (0.0..=1.0).contains(&known.late),
                        "{median} {sigma} {seen:?}: {known:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn misses_count_by_themselves_until_forgotten() {
        let mut samples = vec![20; 60];
        samples.push(800);
        let estimate = millis(&samples).estimate(&SLA, None).unwrap();
        assert_eq!(
            (estimate.misses, estimate.bound.as_millis()),
            (1, 800),
            "one in 61 may be more than 1 %"
        );
        let p90 = ColdStartSla { quantile: 0.9, ..SLA };
        assert!(
            millis(&samples).estimate(&p90, None).unwrap().bound < p90.limit,
            "but is less than 10 %"
        );
        samples.extend([20; KEPT]);
        assert_eq!(millis(&samples).estimate(&SLA, None).unwrap().misses, 0);
    }

    #[test]
    fn the_ends_of_time() {
        assert!(bound(&[0]) < 1);
        assert_eq!(bound(&[86_400_000; 2]), LONGEST.as_millis());
    }
}
