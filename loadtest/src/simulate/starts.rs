//! How long instances take to start: made up where the trace does not say. PURE.
//!
//! Each function has a median of its own, drawn once; each start varies around it. Both are LogNormal. A start draws by how
//! many calls its function had before, so that every policy meets the same luck.

use std::time::Duration;

use manifests::instances::StartPrior;
use rand::RngExt as _;
use statrs::distribution::{ContinuousCDF as _, Normal};

use super::settings::Settings;
use crate::trace::Function;

/// The distribution of start latencies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Starts {
    /// The median function's median.
    pub median: Duration,
    /// Of the logarithms of functions' medians.
    pub spread: f64,
    /// Of the logarithm of one function's starts.
    pub sigma: f64,
}

impl Default for Starts {
    fn default() -> Self {
        Self {
            median: Duration::from_secs(2),
            spread: 0.9,
            sigma: 0.35,
        }
    }
}

impl Starts {
    /// As a catalogue says: functions differ by what is left of its spread beside that of one function.
    pub fn as_said(said: StartPrior) -> Self {
        let sigma = Self::default().sigma.min(said.sigma);
        Self {
            median: said.median,
            spread: (said.sigma.powi(2) - sigma.powi(2)).max(0.0).sqrt(),
            sigma,
        }
    }

    /// The median of one function: what the trace says, else drawn.
    pub fn median_of(&self, function: &Function, seed: u64) -> Duration {
        let drawn = || {
            let share = function.draws(seed, MEDIAN).random();
            self.median.mul_f64((self.spread * deviation(share)).exp())
        };
        function.start.unwrap_or_else(drawn)
    }

    /// One start of a function with this median: the first of those that began after `calls` calls, or the `nth` after it.
    pub(super) fn latency(&self, function: &Function, seed: u64, median: Duration, calls: u64, nth: u64) -> Duration {
        let share = draw(function, seed, START, calls, nth);
        median.mul_f64((self.sigma * deviation(share)).exp())
    }
}

/// One thaw of a function after `calls` calls: LogNormal, drawn as starts are.
pub(super) fn thaw(settings: &Settings, function: &Function, seed: u64, calls: u64) -> Duration {
    let share = draw(function, seed, THAW, calls, 0);
    settings.thaw.mul_f64((settings.thaw_sigma * deviation(share)).exp())
}

fn draw(function: &Function, seed: u64, what: u32, calls: u64, nth: u64) -> f64 {
    let place = calls
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(nth.wrapping_mul(0xd1b5_4a32_d192_ed03));
    function.draws(seed ^ place, what).random()
}

/// Standard deviations at this share of a normal distribution.
fn deviation(share: f64) -> f64 {
    Normal::standard().inverse_cdf(share.clamp(1e-9, 1.0 - 1e-9))
}

/// Minutes that no trace has.
const MEDIAN: u32 = u32::MAX - 1;
const START: u32 = u32::MAX - 2;
const THAW: u32 = u32::MAX - 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Calls, Trigger};

    fn function(name: &str) -> Function {
        Function {
            name: name.into(),
            app: String::new(),
            trigger: Trigger::Http,
            calls: Calls::Times(Vec::new()),
            durations: None,
            memory: None,
            start: None,
        }
    }

    #[test]
    fn medians_and_starts_are_distributed_as_asked() {
        let starts = Starts::default();
        let mut medians: Vec<f64> = (0..4000)
            .map(|n| starts.median_of(&function(&format!("f{n}")), 1).as_secs_f64())
            .collect();
        medians.sort_by(f64::total_cmp);
        // exp(0.9 x 1.2816) = 3.17 at 90 %.
        assert!((1.85..2.15).contains(&medians[2000]), "{}", medians[2000]);
        assert!((5.8..6.9).contains(&medians[3600]), "{}", medians[3600]);

        let known = Function {
            start: Some(Duration::from_millis(700)),
            ..function("f1")
        };
        assert_eq!(starts.median_of(&known, 1), Duration::from_millis(700));

        let (f, median) = (function("f"), Duration::from_secs(2));
        let mut all: Vec<f64> = (0..4000)
            .map(|calls| starts.latency(&f, 1, median, calls, 0).as_secs_f64())
            .collect();
        assert_eq!(all[7], starts.latency(&f, 1, median, 7, 0).as_secs_f64());
        assert_ne!(all[7], starts.latency(&f, 1, median, 7, 1).as_secs_f64());
        assert_ne!(all[7], starts.latency(&f, 2, median, 7, 0).as_secs_f64());
        let settings = Settings {
            thaw_sigma: 1.0,
            ..Settings::default()
        };
        let mut thaws: Vec<Duration> = (0..4000).map(|calls| thaw(&settings, &f, 1, calls)).collect();
        thaws.sort_unstable();
        // exp(1.2816) = 3.60 at 90 %.
        let ms = |at: usize| thaws[at].as_secs_f64() * 1e3;
        assert!(
            (4.7..5.3).contains(&ms(2000)) && (16.5..19.5).contains(&ms(3600)),
            "{} {}",
            ms(2000),
            ms(3600)
        );
        assert_eq!(thaw(&Settings::default(), &f, 1, 7), Duration::from_millis(5));
        all.sort_by(f64::total_cmp);
        assert!((1.95..2.05).contains(&all[2000]), "{}", all[2000]);
        assert!((3.0..3.3).contains(&all[3600]), "{}", all[3600]);
    }
}
