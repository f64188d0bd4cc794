//! Cold starts, one by one: percentiles of few samples with honest intervals. Pure.
//!
//! The intervals are those of order statistics: how many of n independent samples lie below a quantile is binomial, whatever
//! they are distributed like, so two of the samples themselves enclose it with a known confidence. Where even the largest
//! sample may lie below the quantile (a p99 of less than 368 samples at 95 % has that), there is no upper end, and none is made up.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::report::short;
use crate::results::{Ended, Results};
use crate::server_timing::{Phase, Temperature};

/// One request that should have met zero.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Try {
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// What it met, in the server's words.
    pub temperature: Temperature,
    /// From the moment it was sent, connection included, to the first byte; `None` without an answer.
    #[serde(rename = "first_byte_ms", serialize_with = "maybe_millis")]
    pub first_byte: Option<Duration>,
    /// By [`Phase::ALL`]'s order; `None` where the server names none.
    #[serde(skip)]
    pub phases: [Option<Duration>; 5],
}

impl Try {
    /// Of a run of one request; `None` when it was aborted or never sent.
    pub fn of(results: &Results) -> Option<Self> {
        let series = results.series.first()?;
        let phase = |phase: Phase| {
            let known = results.phases.iter().find(|it| it.phase == phase);
            known.map(|it| it.times.max())
        };
        Some(Self {
            ended: series.ended,
            temperature: series.temperature,
            first_byte: (!series.first_byte.is_empty()).then(|| series.first_byte.max()),
            phases: Phase::ALL.map(phase),
        })
    }

    /// Whether it counts: a good answer, and nothing said that it met something else than zero.
    pub fn is_cold(&self) -> bool {
        let met = matches!(self.temperature, Temperature::Cold | Temperature::Unknown);
        self.ended.is_good() && met && self.first_byte.is_some()
    }
}

fn maybe_millis<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::results::millis::serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// What many tries came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ColdStarts {
    /// How zero was known before each, in words.
    pub zero: String,
    /// How sure the intervals are, 0 to 1.
    pub confidence: f64,
    /// How the intervals were made.
    pub interval: &'static str,
    /// Every try, in order.
    pub tries: Vec<Try>,
    /// Those that count.
    pub cold: usize,
    /// Time to the first byte, of those.
    pub first_byte: Option<Spread>,
    /// By phase of `Server-Timing`, of those.
    pub phases: Vec<PhaseSpread>,
}

/// One phase.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PhaseSpread {
    /// Which.
    pub phase: Phase,
    /// How long it took.
    #[serde(flatten)]
    pub spread: Spread,
}

/// A few times.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The smallest.
    #[serde(rename = "min_ms", with = "crate::results::millis")]
    pub min: Duration,
    /// The largest.
    #[serde(rename = "max_ms", with = "crate::results::millis")]
    pub max: Duration,
    /// The median.
    pub p50: Estimate,
    /// The 99th percentile.
    pub p99: Estimate,
}

/// A quantile with its interval.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Estimate {
    /// The smallest sample that at least this share of all do not exceed.
    #[serde(rename = "value_ms", with = "crate::results::millis")]
    pub value: Duration,
    /// The quantile is at least this; `None` when the samples are too few to say.
    #[serde(rename = "low_ms", serialize_with = "maybe_millis")]
    pub low: Option<Duration>,
    /// The quantile is at most this; `None` when the samples are too few to say.
    #[serde(rename = "high_ms", serialize_with = "maybe_millis")]
    pub high: Option<Duration>,
}

const CONFIDENCE: f64 = 0.95;

impl ColdStarts {
    /// Of tries before each of which `zero` held.
    pub fn new(zero: String, tries: Vec<Try>) -> Self {
        let cold: Vec<&Try> = tries.iter().filter(|it| it.is_cold()).collect();
        let of = |time: &dyn Fn(&Try) -> Option<Duration>| Spread::of(cold.iter().filter_map(|it| time(it)).collect());
        let phases = Phase::ALL.into_iter().enumerate().filter_map(|(nth, phase)| {
            let spread = of(&|it| it.phases[nth])?;
            Some(PhaseSpread { phase, spread })
        });
        Self {
            zero,
            confidence: CONFIDENCE,
            interval: "order statistics",
            cold: cold.len(),
            first_byte: of(&|it| it.first_byte),
            phases: phases.collect(),
            tries,
        }
    }
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let (min, max) = (*times.first()?, *times.last()?);
        Some(Self {
            count: times.len(),
            min,
            max,
            p50: Estimate::of(&times, 0.5),
            p99: Estimate::of(&times, 0.99),
        })
    }
}

impl Estimate {
    /// `sorted` must not be empty.
    fn of(sorted: &[Duration], share: f64) -> Self {
        let n = sorted.len();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "few samples"
        )]
        let rank = (share * n as f64).ceil().max(1.0) as usize;
        let (below, above) = ranks(n, share, CONFIDENCE);
        let at = |rank: usize| sorted.get(rank.checked_sub(1)?).copied();
        Self {
            value: sorted[rank.min(n) - 1],
            low: at(below),
            high: at(above),
        }
    }
}

/// The ranks (from 1) of the samples that enclose a quantile; 0 and `n + 1` where no sample does.
#[expect(clippy::cast_precision_loss, reason = "few samples")]
fn ranks(n: usize, share: f64, confidence: f64) -> (usize, usize) {
    let tail = (1.0 - confidence) / 2.0;
    // The number of samples below the quantile is binomial. Logarithms: powers of many samples would be 0.
    let (success, failure) = (share.ln(), (1.0 - share).ln());
    let mut log_choose = 0.0_f64;
    let mut at_most = 0.0;
    let (mut low, mut high) = (0, n + 1);
    for k in 0..=n {
        let before = at_most;
        at_most += (log_choose + k as f64 * success + (n - k) as f64 * failure).exp();
        // The k-th sample lies above the quantile when fewer than k lie below it.
        if before <= tail {
            low = k;
        }
        if high > n && at_most >= 1.0 - tail {
            high = k + 1;
        }
        log_choose += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (low, high)
}

/// A table of plain text.
impl fmt::Display for ColdStarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of {} requests met zero; before each: {}",
            self.cold,
            self.tries.len(),
            self.zero
        )?;
        for (nth, it) in self.tries.iter().enumerate().filter(|(_, it)| !it.is_cold()) {
            let ended = match it.ended {
                Ended::Status(status) => format!("{status}, {}", it.temperature.name()),
                Ended::Error(kind) => kind.to_string(),
            };
            writeln!(f, "warning: the {}. one does not count: {ended}", nth + 1)?;
        }
        let percent = self.confidence * 100.0;
        let interval = format!("{percent}% interval");
        writeln!(
            f,
            "\n{:<20} {:>8} {:>8}  {:<22} {:>8}  {:<22} {:>8}",
            "", "min", "p50", interval, "p99", interval, "max"
        )?;
        let first_byte = self
            .first_byte
            .iter()
            .map(|spread| ("to the first byte".to_owned(), spread));
        let phases = self
            .phases
            .iter()
            .map(|it| (format!("  {}", it.phase.name()), &it.spread));
        for (name, spread) in first_byte.chain(phases) {
            writeln!(
                f,
                "{name:<20} {:>8} {:>8}  {:<22} {:>8}  {:<22} {:>8}",
                short(spread.min),
                short(spread.p50.value),
                spread.p50.interval(),
                short(spread.p99.value),
                spread.p99.interval(),
                short(spread.max)
            )?;
        }
        Ok(())
    }
}

impl Estimate {
    fn interval(self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{} to {}", short(low), short(high)),
            (Some(low), None) => format!("{} or more", short(low)),
            (None, Some(high)) => format!("{} or less", short(high)),
            (None, None) => "too few to say".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The table of every textbook: 95 % for the median.
    #[test]
    fn ranks_of_the_median_are_those_of_the_tables() {
        for (n, low, high) in [
            (5, 0, 6),
            (6, 1, 6),
            (10, 2, 9),
            (20, 6, 15),
            (30, 10, 21),
            (100, 40, 61),
        ] {
            assert_eq!(ranks(n, 0.5, 0.95), (low, high), "{n}");
        }
        assert_eq!(ranks(30, 0.99, 0.95).1, 31, "the p99 of 30 has no upper end");
        assert_eq!(ranks(367, 0.99, 0.95).1, 368);
        assert!(ranks(368, 0.99, 0.95).1 <= 368);
        assert!(ranks(100_000, 0.99, 0.95).0 > 98_900);
    }

    #[test]
    fn intervals_enclose_the_truth_as_often_as_they_say() {
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut enclosed = 0;
        for _ in 0..1_000 {
            let mut times: Vec<Duration> = (0..30)
                .map(|_| Duration::from_secs_f64(-(1.0 - draws.random::<f64>()).ln()))
                .collect();
            times.sort_unstable();
            let estimate = Estimate::of(&times, 0.5);
            let truth = Duration::from_secs_f64(2_f64.ln());
            let (low, high) = (estimate.low.expect("enough"), estimate.high.expect("enough"));
            enclosed += u32::from(low <= truth && truth <= high);
        }
        // 95.7 % exactly; the standard deviation of 1,000 is 0.64 %.
        assert!((930..=980).contains(&enclosed), "{enclosed} of 1000");
    }

    #[test]
    fn only_good_cold_answers_count_and_the_others_are_named() {
        let one = |status, temperature, millis| Try {
            ended: Ended::Status(status),
            temperature,
            first_byte: Some(Duration::from_millis(millis)),
            phases: [None, None, Some(Duration::from_millis(millis / 2)), None, None],
        };
        let mut tries: Vec<Try> = (1..=9).map(|nth| one(200, Temperature::Cold, nth * 10)).collect();
        tries.push(one(200, Temperature::Warm, 1));
        tries.push(one(503, Temperature::Unknown, 2));
        let starts = ColdStarts::new("nothing ran".to_owned(), tries);
        let text = starts.to_string();
        assert_eq!((starts.cold, starts.phases.len()), (9, 1));
        let spread = starts.first_byte.as_ref().expect("nine");
        let ms = Duration::from_millis;
        assert_eq!((spread.min, spread.max, spread.p50.value), (ms(10), ms(90), ms(50)));
        assert_eq!((spread.p50.low, spread.p50.high), (Some(ms(20)), Some(ms(80))));
        assert_eq!((spread.p99.value, spread.p99.high), (ms(90), None));
        for expected in [
            "9 of 11 requests met zero; before each: nothing ran",
            "the 10. one does not count: 200, warm",
            "the 11. one does not count: 503, unknown",
            "20.0ms to 80.0ms",
            "or more",
            "  start",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert_eq!(ColdStarts::new(String::new(), Vec::new()).first_byte, None);
    }
}
